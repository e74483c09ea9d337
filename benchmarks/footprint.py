"""What edge-ser takes of a device: sizes, import time, memory.

    python benchmarks/footprint.py

Import time is the median of fresh interpreters, next to that of `import numpy` in the same run.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.long_run import listen
from edge_ser.bundle import bundled_names, find_bundle

RUNS = 9


def import_s(module: str) -> float:
    """Return the median seconds that a fresh interpreter takes for `import module`, its own start left out."""
    return run_s(f"import {module}") - run_s("pass")


def run_s(code: str) -> float:
    """Return the median seconds of a fresh interpreter that runs `code`."""
    times = []
    for _ in range(RUNS):
        began_s = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
        times.append(time.perf_counter() - began_s)
    return statistics.median(times)


def main() -> int:
    """Print the figures."""
    for name in bundled_names():
        bundle = find_bundle(name)
        size = sum(bundle.path(file).stat().st_size for file in bundle.manifest.files)
        size += (bundle.folder / "manifest.json").stat().st_size
        print(f"{name}: {size / 1e6:.2f} MB in all files, {bundle.manifest.provenance['parameters']:,} parameters")
    print(f"import edge_ser: {import_s('edge_ser'):.3f} s; import numpy: {import_s('numpy'):.3f} s")
    _, memory, _ = listen(ROOT / "examples" / "conversation.flac")
    print(f"edge-ser listen: at most {max(mb for _, mb in memory):.0f} MB resident")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
