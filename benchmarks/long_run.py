"""Hours of audio through `edge-ser listen` as fast as it goes: is memory flat, does the ledger balance?

    python benchmarks/long_run.py [--minutes 60]

The example recording is piped in again and again. Memory is the resident set of the process, read while it runs; the
exit code is 1 if it grew by more than a tenth after the first minute of audio or a sample is missing. A day (1440
minutes) is `pytest -m slow tests/edge_ser/test_long_run.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parent.parent
RATE_HZ = 16_000
GROWTH_ALLOWED = 0.10
COMMAND = [sys.executable, "-m", "edge_ser", "listen", "--format", "jsonl", "--input"]


def feed(pipe: BinaryIO, samples: int) -> None:
    """Write the example, repeated, as raw audio of so many samples, and close the pipe."""
    example, _ = soundfile.read(ROOT / "examples" / "conversation.flac", dtype="int16")
    # A command that gives up says why itself.
    with contextlib.suppress(BrokenPipeError), pipe:
        while samples > 0:
            pipe.write(example[:samples].astype("<i2").tobytes())
            samples -= min(samples, len(example))


def resident_mb(pid: int) -> float | None:
    """Return the resident set of a process in MB, or None once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("VmRSS:")]
    return kilobytes[0] * 1024 / 1e6 if kilobytes else None


def listen(source: Path | int) -> tuple[list[dict[str, object]], list[tuple[float, float]], float]:
    """Let the command hear a file, or so many samples of the repeated example through a pipe.

    Returns:
        The events, (seconds of audio, resident MB) as they came, and the seconds that it took.
    """
    began_s = time.monotonic()
    command = [*COMMAND, "-" if isinstance(source, int) else str(source)]
    events: list[dict[str, object]] = []
    memory: list[tuple[float, float]] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdin is not None and process.stdout is not None
        feeder = threading.Thread(target=feed, args=(process.stdin, source if isinstance(source, int) else 0))
        feeder.start()
        for line in process.stdout:
            events.append(json.loads(line))
            heard_s, mb = events[-1].get("end_s"), resident_mb(process.pid)
            if isinstance(heard_s, float) and mb is not None:
                memory.append((heard_s, mb))
        feeder.join()
    if process.returncode:
        raise SystemExit("listen failed")
    return events, memory, time.monotonic() - began_s


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    minutes = parser.parse_args(argv).minutes
    samples = int(minutes * 60 * RATE_HZ)
    events, memory, took_s = listen(samples)
    ledger = events[-1]["ledger"]
    assert isinstance(ledger, dict)
    accounts = [ledger[f"{name}_samples"] for name in ("classified", "silence", "rejected", "dropped")]
    missing = samples - ledger["captured_samples"], ledger["captured_samples"] - sum(accounts)
    after_minute = next(mb for heard_s, mb in memory if heard_s >= min(60.0, minutes * 30))
    peak = float(np.max([mb for heard_s, mb in memory]))
    print(f"{minutes:g} minutes of audio, {events[-1]['utterances']} utterances, in {took_s:.0f} s")
    print(f"resident memory: {after_minute:.0f} MB after the first minute, at most {peak:.0f} MB")
    print(f"ledger: {samples} samples in the pipe, {missing[0]} not captured, {missing[1]} unaccounted for")
    return int(peak > (1.0 + GROWTH_ALLOWED) * after_minute or any(missing))


if __name__ == "__main__":
    raise SystemExit(main())
