"""Put recorded outputs into README, between the marks `<!-- output: NAME -->` and `<!-- end -->`.

    python benchmarks/readme.py [--check]

With --check nothing is written; the exit code is 1 if README shows anything but what was recorded.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.record import COMMANDS, RESULTS, ROOT

README = ROOT / "README.md"
_BLOCK = re.compile(r"<!-- output: (?P<name>[\w-]+) -->\n.*?<!-- end -->", re.DOTALL)


def render(text: str) -> str:
    """Return README with every marked block as recorded."""
    return _BLOCK.sub(_block, text)


def _block(match: re.Match[str]) -> str:
    name = match["name"]
    output = (RESULTS / f"{name}.txt").read_text(encoding="utf-8")
    more = "…\n" if COMMANDS[name].lines is not None else ""
    return f"<!-- output: {name} -->\n```console\n$ {COMMANDS[name].command}\n{output}{more}```\n<!-- end -->"


def main() -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if README is out of date")
    check = parser.parse_args().check
    before = README.read_text(encoding="utf-8")
    after = render(before)
    if check:
        if before != after:
            print("README.md shows other outputs than benchmarks/results; run: python benchmarks/readme.py")
        return int(before != after)
    README.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
