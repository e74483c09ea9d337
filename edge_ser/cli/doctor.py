"""`edge-ser doctor`: what works on this machine, and what to type where it does not."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import importlib.metadata
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from edge_ser.cli.options import Commands
from edge_ser.cli.tables import add_format, print_json
from edge_ser.environment import ONNX_RUNTIMES
from edge_ser.errors import EdgeSerError

_PACKAGES = ("numpy", "soundfile", "soxr", "tokenizers")
_OLDEST_PYTHON = (3, 10)


@dataclass(frozen=True)
class Check:
    """What one check found."""

    name: str
    """What was checked."""
    status: str
    """`ok`, `warn` (something optional is missing) or `fail`."""
    detail: str
    """What was found; where it does not work, what to type."""


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor",
        help="check this machine",
        description="Checks what works here. Exits with 1 if something must be mended.",
    )
    add_format(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check everything; return 1 if something essential does not work."""
    failed = False
    checks = []
    for check in _checks():
        checks.append(check)
        failed = failed or check.status == "fail"
        if arguments.format == "text":
            print(f"{check.status:<4}  {check.name:<12}  {check.detail}", flush=True)
    if arguments.format == "json":
        print_json([asdict(check) for check in checks])
    return 1 if failed else 0


def _checks() -> Iterator[Check]:
    yield _python()
    for package in _PACKAGES:
        yield _package(package)
    yield _onnxruntime()
    yield _tried("silero", "fail", functools.partial(_detector, "silero"))
    yield _tried("webrtc", "fail", functools.partial(_detector, "webrtc"))
    yield _tried("portaudio", "warn", _portaudio)
    yield _tried("microphone", "warn", _microphone)
    yield from _gpu()
    yield from _models()


def _python() -> Check:
    version = platform.python_version()
    if sys.version_info[:2] >= _OLDEST_PYTHON:
        return Check("python", "ok", f"{version} on {platform.machine()}")
    return Check(
        "python", "fail", f"{version} is too old. Install Python {'.'.join(map(str, _OLDEST_PYTHON))} or newer"
    )


def _package(package: str) -> Check:
    try:
        importlib.import_module(package)
    except (ImportError, OSError) as error:
        return Check(package, "fail", f"{_line(error)}. Type: pip install --force-reinstall {package}")
    return Check(package, "ok", importlib.metadata.version(package))


def _onnxruntime() -> Check:
    """Look for two builds of ONNX Runtime in one place: the one that was installed last has overwritten the other."""
    builds = {}
    for build in ONNX_RUNTIMES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            builds[build] = importlib.metadata.version(build)
    said = " and ".join(f"{build} {version}" for build, version in builds.items())
    try:
        module = importlib.import_module("onnxruntime")
        runs = f"{module.__version__} with {', '.join(module.get_available_providers())}"
    except (ImportError, OSError, AttributeError) as error:
        wanted = next(reversed(builds), "onnxruntime")
        return Check("onnxruntime", "fail", f"{_line(error)}. Type: pip install --force-reinstall {wanted}")
    if len(builds) > 1:
        return Check(
            "onnxruntime",
            "warn",
            f"{said} share one module, what runs is {runs}. Keep one: type: pip uninstall -y {' '.join(builds)} && "
            f"pip install {list(builds)[-1]}",
        )
    return Check("onnxruntime", "ok", runs)


def _gpu() -> Iterator[Check]:
    """Look for a GPU and, where there is one, for what makes use of it; a machine without is a sound one."""
    from edge_ser.backends.gpu import find_gpu

    try:
        gpu = find_gpu()
    except EdgeSerError as error:
        yield Check("gpu", "ok", f"none, models run on the CPU ({_line(error).partition(';')[0]})")
        return
    yield Check("gpu", "ok", f"{gpu.name}, compute capability {gpu.capability}, {gpu.memory_bytes / 1e9:.1f} GB")
    yield _tried("tensorrt", "warn", functools.partial(_tensorrt, gpu.slug))


def _tensorrt(gpu: str) -> str:
    from edge_ser.backends.engine_store import EngineStore
    from edge_ser.backends.gpu_packages import import_cuda, import_tensorrt
    from edge_ser.bundle import bundled_names, find_bundle

    version = str(import_tensorrt().__version__)
    import_cuda()
    store = EngineStore()
    built = [name for name in bundled_names() if store.find(find_bundle(name), gpu, version) is not None]
    return f"{version}, engines in {store.folder}: {', '.join(built) or 'none, see export/build_trt.py'}"


def _tried(name: str, otherwise: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", look())
    except EdgeSerError as error:
        return Check(name, otherwise, _line(error))


def _detector(name: str) -> str:
    import numpy as np

    from edge_ser.vad import open_detector

    detector = open_detector(name)
    probability = detector(np.zeros(detector.frame_samples, np.float32))
    return f"hears {probability:.0%} speech in silence"


def _portaudio() -> str:
    from edge_ser.devices import import_sounddevice

    sounddevice = import_sounddevice()
    return str(sounddevice.get_portaudio_version()[1])


def _microphone() -> str:
    from edge_ser.microphone import Microphone

    with Microphone() as microphone:
        # Only the first chunk shows that the device delivers.
        next(iter(microphone))
        return f"{microphone.name} at {microphone.rate_hz} Hz"


def _models() -> Iterator[Check]:
    from edge_ser.bundle import bundled_names

    names = bundled_names()
    if not names:
        yield Check("models", "fail", "no model is bundled. Type: pip install --force-reinstall edge-ser")
    for name in names:
        yield _tried(name, "fail", functools.partial(_answer, name))


def _answer(name: str) -> str:
    import numpy as np

    from edge_ser.audio import SAMPLE_RATE_HZ
    from edge_ser.recognizer import load

    recognizer = load(name)
    event = recognizer.recognize(np.zeros(SAMPLE_RATE_HZ, np.float32))
    if not event.uncertain:
        raise EdgeSerError(f"answers {event.emotion} to silence. Type: pip install --force-reinstall edge-ser")
    return f"{len(recognizer.labels)} emotions, {event.latency_ms:.1f} ms for a second of silence"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
