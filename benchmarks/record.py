"""Run the commands whose output README shows and keep what they print.

    python benchmarks/record.py [NAME …]

Results go to benchmarks/results/NAME.txt; `python benchmarks/readme.py` then puts them into README. Commands that need
the corpora are skipped, and keep their last output, where EDGE_SER_DATA is not set.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Recorded:
    """A command whose output is kept."""

    command: str
    """What a reader types, from the repository's root."""
    lines: int | None = None
    """Keep the first so many lines only; None keeps all."""
    needs_data: bool = False
    """True if it reads the corpora through EDGE_SER_DATA."""
    only_by_name: bool = False
    """True if it takes half an hour and gigabytes, or an environment of its own, so that it runs only when named."""


COMMANDS = {
    "listen": Recorded("edge-ser listen --input examples/conversation.flac --format text"),
    "listen-jsonl": Recorded("edge-ser listen --input examples/conversation.flac --format jsonl", lines=2),
    "models": Recorded("edge-ser models"),
    "classify": Recorded("edge-ser classify examples"),
    "bench": Recorded("edge-ser bench"),
    "footprint": Recorded("python benchmarks/footprint.py"),
    "long-run": Recorded("python benchmarks/long_run.py"),
    "robustness": Recorded("python benchmarks/robustness.py", needs_data=True),
    "early-answers": Recorded("python benchmarks/early_answers.py", needs_data=True),
    "evaluate": Recorded("python -m train.evaluate mdat-int8 --out benchmarks/results/mdat-int8.json", needs_data=True),
    "compare": Recorded("python benchmarks/compare_models.py"),
    "int8": Recorded("python benchmarks/int8.py"),
    "streams": Recorded("python benchmarks/streams.py", needs_data=True),
    "serve": Recorded("python benchmarks/serve.py", needs_data=True),
    "segmentation": Recorded("python benchmarks/segmentation.py", needs_data=True),
    "adapt": Recorded("python benchmarks/adapt.py", needs_data=True),
    "adapters": Recorded("python benchmarks/adapters.py", only_by_name=True),
    "true-size": Recorded("python benchmarks/true_size_export.py", only_by_name=True),
    "workshop-epoch": Recorded("python benchmarks/workshop_epoch.py"),
}


def record(name: str) -> bool:
    """Run one command and keep its output; return whether it went well."""
    recorded = COMMANDS[name]
    if recorded.needs_data and not os.environ.get("EDGE_SER_DATA"):
        print(f"{name}: skipped, EDGE_SER_DATA is not set")
        return True
    words = shlex.split(recorded.command)
    executable = Path(sys.executable)
    words[0] = str(executable if words[0] == "python" else executable.with_name(words[0]))
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name}: exit {done.returncode}\n{done.stderr}", file=sys.stderr)
        return False
    kept = done.stdout.splitlines()[: recorded.lines]
    (RESULTS / f"{name}.txt").write_text("\n".join(kept) + "\n", encoding="utf-8")
    print(f"{name}: {len(kept)} lines")
    return True


def main() -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(COMMANDS)}")
    names = parser.parse_args().names or [name for name, recorded in COMMANDS.items() if not recorded.only_by_name]
    unknown = [name for name in names if name not in COMMANDS]
    if unknown:
        parser.error(f"no command {unknown[0]!r}; there are {', '.join(COMMANDS)}")
    RESULTS.mkdir(exist_ok=True)
    return 0 if all([record(name) for name in names]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
