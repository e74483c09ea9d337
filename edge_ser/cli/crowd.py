"""`edge-ser bench --streams`: how many people can talk at once here."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import edge_ser
from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.cli.options import load_model, positive_int
from edge_ser.cli.tables import print_json
from edge_ser.environment import environment
from edge_ser.errors import AudioFormatError, ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_ser.crowd import Load, LoadResult

LONGEST_RECORDING_S = 1800
_LONGEST_RUN_S = 86_400


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `run` reads."""
    parser.add_argument("--streams", type=positive_int, metavar="N", help="let N people talk at once, in real time")
    parser.add_argument("--seconds", type=_run_seconds, default=30.0, metavar="S", help="with --streams: for how long")
    parser.add_argument(
        "--workers", type=positive_int, metavar="N", help="with --streams: threads that serve them (default: the cores)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; the last line of the text is one JSON object."""
    from edge_ser.crowd import Load, available_cores, run_load

    if arguments.input is None:
        raise ConfigError(
            "--streams came without audio; streams need people who talk and pause; add --input FILE_OR_FOLDER"
        )
    recording = read_recording(arguments.input)
    recognizer = load_model(arguments)
    workers = arguments.workers or min(available_cores(), arguments.streams)
    load = Load(arguments.streams, arguments.seconds, workers, arguments.vad)
    report = figures(load, run_load(recognizer, recording, load))
    report = {
        "model": recognizer.model,
        **report,
        "environment": {"edge_ser": edge_ser.__version__, **environment("onnxruntime")},
    }
    if arguments.format == "json":
        print_json(report)
    else:
        _print_text(report)
    return 0


def read_recording(path: str) -> NDArray[np.float32]:
    """Return a file, or all files of a folder after one another, half an hour at most.

    Raises:
        AudioFormatError: A file cannot be read, or the folder holds none.
    """
    import numpy as np

    from edge_ser.cli.classify import find_files
    from edge_ser.sources import read_blocks

    files = find_files([Path(path)])[0] if os.path.isdir(path) else [Path(path)]
    if not files:
        raise AudioFormatError(f"{path} holds no audio; need a file or a folder with some; check it: ls {path}")
    parts: list[NDArray[np.float32]] = []
    left = LONGEST_RECORDING_S * SAMPLE_RATE_HZ
    for file in files:
        for block in read_blocks(file):
            parts.append(block[:left])
            left -= parts[-1].size
            if not left:
                return np.concatenate(parts)
    return np.concatenate(parts)


def figures(load: Load, result: LoadResult) -> dict[str, object]:
    """Return what a load cost, ready for JSON."""
    import numpy as np

    from edge_ser.crowd import available_cores

    latencies_ms = result.latencies_ms
    p50_ms, p95_ms = np.percentile(latencies_ms, [50, 95]) if latencies_ms else (None, None)
    return {
        "streams": load.streams,
        "seconds": load.seconds,
        "workers": load.workers,
        "vad": load.vad,
        "utterances": result.utterances,
        "latency_p50_ms": _rounded(p50_ms),
        "latency_p95_ms": _rounded(p95_ms),
        "latency_max_ms": _rounded(max(latencies_ms, default=None)),
        "overflow_s": round(result.dropped_samples / SAMPLE_RATE_HZ, 3),
        "unaccounted_samples": result.unaccounted_samples,
        "mean_wait_ms": {
            "best_served": _rounded(min(result.mean_waits_ms)),
            "worst_served": _rounded(max(result.mean_waits_ms)),
        },
        "longest_wait_ms": _rounded(result.longest_wait_ms),
        "cores_used": round(result.cores_used, 3),
        "cpu_share": round(result.cores_used / available_cores(), 3),
        "cpu_ms_per_s_of_audio": round(1000 * result.cores_used / load.streams, 2),
        "cores": available_cores(),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 1)


def _run_seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 1 <= float(text) <= _LONGEST_RUN_S:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 1 to {_LONGEST_RUN_S}")


def _print_text(report: dict[str, object]) -> None:
    waits = report["mean_wait_ms"]
    assert isinstance(waits, dict)
    threads = "1 thread" if report["workers"] == 1 else f"{report['workers']} threads"
    print(f"{report['model']}, {report['streams']} streams in real time for {report['seconds']:g} s, {threads}")
    if report["latency_p50_ms"] is None:
        print("no utterance ended in that time; try a longer one: --seconds 60")
    else:
        print(
            f"end of speech to event, beyond the hangover: p50 {report['latency_p50_ms']} ms, "
            f"p95 {report['latency_p95_ms']} ms, of {report['utterances']} utterances"
        )
    print(f"overflow          {report['overflow_s']} s of audio came too late")
    print(f"fairness          audio waits {waits['best_served']} to {waits['worst_served']} ms, by stream")
    print(f"processor         {report['cores_used']} of {report['cores']} cores")
    print(json.dumps(report, ensure_ascii=False))
