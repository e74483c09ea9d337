"""`edge-ser bench`: how fast a model answers here."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import edge_ser
from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.cli import crowd
from edge_ser.cli.options import Commands, add_provider, add_vad, load_model, positive_int, utterance_seconds
from edge_ser.cli.tables import add_format, print_json
from edge_ser.environment import environment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WARM_UP = 5


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "bench",
        help="measure the speed here",
        description="Measures the time from an utterance's samples to its event, and the cost of speech detection; "
        "with --streams, what many people who talk at once have to wait.",
    )
    parser.add_argument("--model", metavar="M", help="a bundled model's name or a bundle's folder")
    parser.add_argument(
        "--input",
        metavar="FILE",
        help="audio to measure with (default: a synthetic voice); with --streams a folder, too",
    )
    parser.add_argument("--duration", type=utterance_seconds, default=3.0, metavar="S", help="seconds of an utterance")
    parser.add_argument("--threads", type=positive_int, default=1, metavar="N", help="processor threads")
    parser.add_argument("--repeat", type=positive_int, default=100, metavar="N", help="utterances to measure")
    add_provider(parser)
    crowd.add_options(parser)
    add_vad(parser)
    add_format(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; the last line of the text is one JSON object."""
    if arguments.streams is not None:
        return crowd.run(arguments)

    import numpy as np

    audio = _audio(arguments)
    began_s = time.perf_counter()
    recognizer = load_model(arguments)
    load_s = time.perf_counter() - began_s
    latencies_ms = _repeated_ms(lambda: recognizer.judge(audio), arguments.repeat)
    duration_s = len(audio) / SAMPLE_RATE_HZ
    p50_ms, p95_ms = (float(value) for value in np.percentile(latencies_ms, [50, 95]))
    result = {
        "model": recognizer.model,
        "duration_s": round(duration_s, 3),
        "repeat": arguments.repeat,
        "threads": arguments.threads,
        "runs_on": recognizer.runs_on,
        "latency_p50_ms": round(p50_ms, 3),
        "latency_p95_ms": round(p95_ms, 3),
        "realtime_factor": round(p50_ms / 1000 / duration_s, 5),
        "vad": arguments.vad,
        "vad_ms_per_s": round(_vad_ms_per_s(arguments.vad, audio), 3),
        "load_s": round(load_s, 3),
        "resident_mb": _resident_mb(),
        "environment": {"edge_ser": edge_ser.__version__, **environment("onnxruntime")},
    }
    if arguments.format == "json":
        print_json(result)
    else:
        _print_text(result)
    return 0


def _audio(arguments: argparse.Namespace) -> NDArray[np.float32]:
    from edge_ser.sources import read_samples

    wanted = round(arguments.duration * SAMPLE_RATE_HZ)
    if arguments.input is not None:
        return read_samples(arguments.input)[:wanted]
    return synthetic_voice(wanted)


def synthetic_voice(samples: int) -> NDArray[np.float32]:
    """Return a buzz with a voice's spectrum and syllables, float32 in [-1, 1], shape (samples,), at 16 kHz."""
    import numpy as np

    time_s = np.arange(samples) / SAMPLE_RATE_HZ
    phase = 2 * np.pi * np.cumsum(140 + 25 * np.sin(2 * np.pi * 0.7 * time_s)) / SAMPLE_RATE_HZ
    harmonics = np.arange(1, 25)
    buzz = (np.sin(np.outer(phase, harmonics)) / harmonics**1.2).sum(axis=1)
    syllables = np.clip(np.sin(2 * np.pi * 3.5 * time_s), 0.05, None)
    voice: NDArray[np.float32] = (0.08 * buzz * syllables).astype(np.float32)
    return voice


def _repeated_ms(work: Callable[[], object], repeat: int) -> list[float]:
    for _ in range(_WARM_UP):
        work()
    times_ms = []
    for _ in range(repeat):
        began_s = time.perf_counter()
        work()
        times_ms.append(1000 * (time.perf_counter() - began_s))
    return times_ms


def _vad_ms_per_s(name: str, audio: NDArray[np.float32]) -> float:
    from edge_ser.vad import open_detector

    detector = open_detector(name)
    size = detector.frame_samples
    frames = [audio[start : start + size] for start in range(0, len(audio) - size + 1, size)]
    if not frames:
        return 0.0
    began_s = time.perf_counter()
    for frame in frames:
        detector(frame)
    return 1000 * (time.perf_counter() - began_s) / (len(frames) * size / SAMPLE_RATE_HZ)


def _resident_mb() -> float | None:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")), None)
    return None if kilobytes is None else round(int(kilobytes) * 1024 / 1e6, 1)


def _print_text(result: dict[str, object]) -> None:
    threads = "1 thread" if result["threads"] == 1 else f"{result['threads']} threads"
    print(f"{result['model']}, {threads}, {result['duration_s']} s of audio, {result['repeat']} times")
    print(f"samples to event  p50 {result['latency_p50_ms']} ms, p95 {result['latency_p95_ms']} ms")
    print(f"speech detection  {result['vad_ms_per_s']} ms per second of audio ({result['vad']})")
    print(f"load              {result['load_s']} s")
    if result["resident_mb"] is not None:
        print(f"resident memory   {result['resident_mb']} MB")
    print(json.dumps(result, ensure_ascii=False))
