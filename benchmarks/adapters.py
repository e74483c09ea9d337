"""What each door to an assistant adds to the bare core: processor time for each stream, and delay of each answer.

    python benchmarks/adapters.py [--streams 10] [--seconds 9] [--rounds 2] [DOOR …]

Every stream is the example recording in real time, in pieces of 20 ms; the clients of the services are a process of
their own. From the processor time of a door that of the bare core is taken off, and that of its framework where nobody
hears (a pipeline that only passes frames on, a server that only reads). An answer is late by the time from the piece
that brings it to where it is read, without the work of the core, where one stream is alone. Doors whose framework is
not installed are left out: `make test-assistants` makes an environment that has them all. On a machine that is busy
with other things, run it under `chrt -r 5`. The exit code is 1 if a door adds more than 1 % of a core for each stream,
or the median answer is more than 2 ms late. Results: benchmarks/results/adapters.json and .txt.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np

from benchmarks.adapter_doors import WARM_UP_S
from edge_ser.environment import environment

RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = {"websocket": "websockets", "wyoming": "wyoming", "pipecat": "pipecat-ai", "livekit": "livekit-agents"}
ALONE_S = 25.0
MAX_SHARE = 0.01
MAX_MS = 2.0
HEAD = f"{'':9}  {'of a core, each stream':>22}  {'of it the framework':>19}  {'the door adds':>13}  answer late by, ms"


def run_door(door: str, streams: int, seconds: float) -> dict[str, object]:
    """Return what a door took, measured in a process of its own."""
    words = [sys.executable, str(ROOT / "benchmarks" / "adapter_doors.py"), door, str(streams), str(seconds)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{door}: exit {done.returncode}\n{done.stderr}")
    measured: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return measured


def measure(doors: list[str], streams: int, seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    """Return the figures of each door, the core's first: medians, so that one disturbance does not count."""
    names = ["library", *doors]
    shares: dict[str, list[float]] = {f"{name}{ear}": [] for name in names for ear in ("", "-deaf")}
    late: dict[str, list[float]] = {door: [] for door in doors}
    for _ in range(rounds):
        for name in shares:
            measured = run_door(name, streams, seconds)
            shares[name].append(float(str(measured["cpu_s"])) / (seconds - WARM_UP_S) / streams)
            print(f"{name}: {shares[name][-1]:.2%}", file=sys.stderr, flush=True)
        for door in doors:
            # With nobody else there, whose utterance might be judged just then.
            answers = run_door(door, 1, ALONE_S)["added_ms"]
            assert isinstance(answers, list)
            late[door] += answers
            print(f"{door}: {answers} ms late", file=sys.stderr, flush=True)
    heard = {name: np.subtract(shares[name], shares[f"{name}-deaf"]) for name in names}
    rows = {"core": {"share": float(np.median(heard["library"]))}}
    for door in doors:
        rows[door] = {
            "share": float(np.median(shares[door])),
            "framework": float(np.median(shares[f"{door}-deaf"])),
            "adds": float(np.median(heard[door] - heard["library"])),
            "late_p50_ms": float(np.median(late[door])),
            "late_p95_ms": float(np.quantile(late[door], 0.95)),
            "answers": len(late[door]),
        }
    return rows


def is_installed(package: str) -> bool:
    """Return whether a package is there."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def line(door: str, row: dict[str, float]) -> str:
    """Return one row of the table."""
    cells = f"{door:9}  {row['share']:>22.2%}"
    if "adds" not in row:
        return cells
    late = f"p50 {row['late_p50_ms']:.1f}, p95 {row['late_p95_ms']:.1f} of {row['answers']:.0f}"
    return f"{cells}  {row['framework']:>19.2%}  {row['adds']:>13.2%}  {late}"


def main() -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("doors", nargs="*", metavar="DOOR", help=f"default: all of {', '.join(PACKAGES)}")
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=9.0)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    wanted = arguments.doors or list(PACKAGES)
    doors = [door for door in wanted if is_installed(PACKAGES[door])]
    rows = measure(doors, arguments.streams, arguments.seconds, arguments.rounds)
    title = f"{arguments.streams} streams, {arguments.seconds:g} s of real time, median of {arguments.rounds} rounds"
    text = [title, HEAD, *(line(door, row) for door, row in rows.items())]
    print("\n".join(text))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "adapters.txt").write_text("\n".join(text) + "\n", encoding="utf-8")
    report = {
        "streams": arguments.streams,
        "seconds": arguments.seconds,
        "rounds": arguments.rounds,
        "realtime_priority": os.sched_getscheduler(0) != os.SCHED_OTHER,
        "doors": rows,
        "environment": environment("onnxruntime", *(PACKAGES[door] for door in doors)),
    }
    (RESULTS / "adapters.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    adapters = [row for row in rows.values() if "adds" in row]
    return int(any(row["adds"] > MAX_SHARE or row["late_p50_ms"] > MAX_MS for row in adapters))


if __name__ == "__main__":
    raise SystemExit(main())
