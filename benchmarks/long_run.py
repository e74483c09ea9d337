"""One hour of audio through `edge-ser listen --pace fast`: is memory flat, does the ledger balance?

    python benchmarks/long_run.py [--minutes 60]

The example recording is repeated into a FLAC file in a temporary folder. Memory is the resident set of the process,
read while it runs; the exit code is 1 if it grew by more than a tenth after the first minute of audio or a sample is
missing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parent.parent
RATE_HZ = 16_000
GROWTH_ALLOWED = 0.10


def write_recording(path: Path, minutes: float) -> int:
    """Write the repeated example and return its length in samples."""
    example, _ = soundfile.read(ROOT / "examples" / "conversation.flac", dtype="int16")
    left = total = int(minutes * 60 * RATE_HZ)
    with soundfile.SoundFile(path, "w", RATE_HZ, 1, format="FLAC") as file:
        while left > 0:
            file.write(example[:left])
            left -= len(example[:left])
    return total


def resident_mb(pid: int) -> float | None:
    """Return the resident set of a process in MB, or None once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("VmRSS:")]
    return kilobytes[0] * 1024 / 1e6 if kilobytes else None


def listen(path: Path) -> tuple[list[dict[str, object]], list[tuple[float, float]], float]:
    """Return the events, (seconds of audio, resident MB) as they came, and the seconds that it took."""
    command = [sys.executable, "-m", "edge_ser", "listen", "--input", str(path), "--pace", "fast", "--format", "jsonl"]
    began_s = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    events: list[dict[str, object]] = []
    memory: list[tuple[float, float]] = []
    assert process.stdout is not None
    for line in process.stdout:
        events.append(json.loads(line))
        heard_s, mb = events[-1].get("end_s"), resident_mb(process.pid)
        if isinstance(heard_s, float) and mb is not None:
            memory.append((heard_s, mb))
    if process.wait():
        raise SystemExit("listen failed")
    return events, memory, time.monotonic() - began_s


def main() -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hour.flac"
        samples = write_recording(path, minutes)
        events, memory, took_s = listen(path)
    ledger = events[-1]["ledger"]
    assert isinstance(ledger, dict)
    accounts = [ledger[f"{name}_samples"] for name in ("classified", "silence", "rejected", "dropped")]
    missing = samples - ledger["captured_samples"], ledger["captured_samples"] - sum(accounts)
    after_minute = next(mb for heard_s, mb in memory if heard_s >= min(60.0, minutes * 30))
    peak = float(np.max([mb for heard_s, mb in memory]))
    print(f"{minutes:g} minutes of audio, {events[-1]['utterances']} utterances, in {took_s:.0f} s")
    print(f"resident memory: {after_minute:.0f} MB after the first minute, at most {peak:.0f} MB")
    print(f"ledger: {samples} samples in the file, {missing[0]} not captured, {missing[1]} unaccounted for")
    return int(peak > (1.0 + GROWTH_ALLOWED) * after_minute or any(missing))


if __name__ == "__main__":
    raise SystemExit(main())
