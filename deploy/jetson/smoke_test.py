"""Check an installed edge-ser on the machine that shall run it.

    python deploy/jetson/smoke_test.py [--microphone] [--provider auto] [--model mdat-int8]

It tells the device, hears the example recording with the provider and with the CPU, compares, and times an utterance;
with --microphone it listens for two seconds, too. One line a check, the last line is a JSON object; the exit code is 1
where a check failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from event_comparison import Event, compare, read_events

HERE = Path(__file__).resolve().parent
RECORDINGS = (HERE / "examples" / "conversation.flac", HERE.parent.parent / "examples" / "conversation.flac")
LISTENING_S = 2.0


class CheckFailed(Exception):
    """What did not work, in one line."""


@dataclass(frozen=True)
class Check:
    """What one check found."""

    name: str
    """What was checked."""
    passed: bool
    """Whether it works."""
    detail: str
    """What was found, or what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.environ.get("EDGE_SER_MODEL", "mdat-int8"), help="which model")
    parser.add_argument("--provider", default=os.environ.get("EDGE_SER_PROVIDER", "auto"), help="what runs it")
    parser.add_argument("--tolerance", type=float, default=0.05, help="largest difference of a probability to the CPU")
    parser.add_argument("--microphone", action="store_true", help="listen to the microphone, too")
    arguments = parser.parse_args(argv)
    heard: list[Event] = []
    checks: list[tuple[str, Callable[[], str]]] = [
        ("device", device),
        ("packages", packages),
        ("recording", lambda: recording(arguments.model, arguments.provider, heard)),
        ("as the CPU", lambda: as_the_cpu(arguments.model, heard, arguments.tolerance)),
        ("speed", lambda: speed(arguments.model, arguments.provider)),
    ]
    if arguments.microphone:
        checks.append(("microphone", lambda: microphone(arguments.model, arguments.provider)))
    found = []
    for name, look in checks:
        found.append(_checked(name, look))
        print(f"{'ok' if found[-1].passed else 'FAIL':<4}  {name:<10}  {found[-1].detail}", flush=True)
    passed = all(check.passed for check in found)
    print(json.dumps({"passed": passed, "checks": [asdict(check) for check in found]}))
    return 0 if passed else 1


def _checked(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except CheckFailed as failure:
        return Check(name, False, str(failure))


def device() -> str:
    """Return what machine this is, its release of Jetson Linux and its power mode, as far as it says so."""
    model = _content("/proc/device-tree/model").strip("\0\n ") or f"{os.uname().sysname} on {os.uname().machine}"
    release = re.search(r"R(\d+) .*REVISION: ([\d.]+)", _content("/etc/nv_tegra_release"))
    parts = [model, f"Jetson Linux {release[1]}.{release[2]}" if release else "no Jetson Linux"]
    if shutil.which("nvpmodel"):
        asked = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, check=False).stdout
        mode = re.search(r"Power Mode: *(\S+)", asked)
        parts.append(f"power mode {mode[1]}" if mode else "power mode unknown")
    return ", ".join(parts)


def packages() -> str:
    """Return the versions of what runs models here."""
    from importlib.metadata import PackageNotFoundError, version

    found = [f"Python {sys.version.split()[0]}"]
    for name in ("edge-ser", "onnxruntime", "onnxruntime-gpu", "numpy"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    try:
        import tensorrt
    except ImportError:
        found.append("no TensorRT")
    else:
        found.append(f"TensorRT {tensorrt.__version__}")
    return ", ".join(found)


def recording(model: str, provider: str, heard: list[Event]) -> str:
    """Hear the example recording, put its events into `heard` and return what was heard and by what."""
    events, said = _listen(model, provider)
    heard += events
    answers = [event for event in events if event["type"] == "emotion"]
    summary = events[-1] if events else {}
    if not answers or summary.get("type") != "summary":
        raise CheckFailed(f"got {len(answers)} answers and {summary.get('type', 'nothing')} last; need both")
    ledger = summary["ledger"]
    parts = ("classified_samples", "silence_samples", "rejected_samples", "dropped_samples")
    if ledger["captured_samples"] != sum(ledger[part] for part in parts):
        raise CheckFailed(f"the ledger does not balance: {ledger}")
    for event in answers:
        if abs(sum(event["probabilities"].values()) - 1) > 1e-3:
            raise CheckFailed(f"the probabilities of utterance {event['utterance']} do not add up to 1")
    return f"{len(answers)} utterances; {said}"


def as_the_cpu(model: str, heard: list[Event], tolerance: float) -> str:
    """Hear the recording on the CPU and return how far the provider's answers are from that."""
    if not heard:
        raise CheckFailed("nothing was heard, so there is nothing to compare")
    comparison = compare(_listen(model, "cpu")[0], heard, tolerance)
    # A threshold may lie between two scores that agree; only what was heard and the scores count here.
    differences = [line for line in comparison.differences if not re.search(r": (candidates|uncertain|emotion) ", line)]
    if differences:
        raise CheckFailed("; ".join(differences))
    return f"probabilities within {comparison.largest_difference:.6f}"


def speed(model: str, provider: str) -> str:
    """Return how long an utterance of three seconds takes."""
    import numpy as np

    import edge_ser

    try:
        recognizer = edge_ser.load(model, provider=provider)
        samples = np.random.default_rng(0).standard_normal(3 * 16_000).astype(np.float32) * 0.05
        times_ms = [recognizer.recognize(samples).latency_ms for _ in range(30)][5:]
    except edge_ser.EdgeSerError as error:
        raise CheckFailed(str(error)) from None
    median_ms = statistics.median(times_ms)
    if median_ms > 1000:
        raise CheckFailed(f"{median_ms:.0f} ms for 3 s of audio; need less than 1000")
    return f"{median_ms:.1f} ms for 3 s of audio (median of {len(times_ms)})"


def microphone(model: str, provider: str) -> str:
    """Listen to the microphone for two seconds and return its name."""
    import edge_ser

    try:
        stream = edge_ser.load(model, provider=provider).stream()
        with edge_ser.Microphone() as device:
            for chunk in device:
                if hasattr(chunk, "shape"):
                    stream.push(chunk)
                if stream.ledger.captured_samples >= LISTENING_S * 16_000:
                    break
            return f"{device.name} at {device.rate_hz} Hz delivers"
    except edge_ser.EdgeSerError as error:
        raise CheckFailed(str(error)) from None


def _listen(model: str, provider: str) -> tuple[list[Event], str]:
    found = next((path for path in RECORDINGS if path.is_file()), None)
    if found is None:
        raise CheckFailed(f"got no {RECORDINGS[0]}; need the example recording there")
    words = ["listen", "--input", str(found), "--format", "jsonl", "--model", model, "--provider", provider]
    done = subprocess.run([sys.executable, "-m", "edge_ser", *words], capture_output=True, text=True, check=False)
    last = (done.stderr.strip().splitlines() or [""])[-1].removeprefix("edge-ser: ")
    if done.returncode:
        raise CheckFailed(last or f"exit {done.returncode}")
    return read_events(done.stdout), last or provider


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    raise SystemExit(main())
