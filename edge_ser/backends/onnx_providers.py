"""Where ONNX Runtime runs a graph: the CPU, CUDA, or TensorRT under its roof."""

from __future__ import annotations

import contextlib
import ctypes
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from edge_ser.backends.engine_store import EngineStore
from edge_ser.backends.gpu import Gpu
from edge_ser.backends.shape_ranges import ShapeRange, told
from edge_ser.bundle import Bundle
from edge_ser.errors import BackendUnavailableError

if TYPE_CHECKING:
    import onnxruntime

CUDA_NAME = "CUDAExecutionProvider"
TENSORRT_NAME = "TensorrtExecutionProvider"
_CPU_NAME = "CPUExecutionProvider"
_FATAL_ONLY, _WARNINGS = 4, 2
_LIBRARIES = {CUDA_NAME: "libonnxruntime_providers_cuda.so", TENSORRT_NAME: "libonnxruntime_providers_tensorrt.so"}

GPU_BUILD = (
    "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu[cuda,cudnn]' (on a Jetson the wheel "
    "of your JetPack, see README)"
)
"""How the build for the CPU gives way to the one for the GPU: both are the module `onnxruntime`."""


@dataclass(frozen=True)
class Execution:
    """Where a session runs."""

    provider: str
    """ONNX Runtime's name for it."""
    words: str
    """For people."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What the provider is told."""

    def told(self, threads: int) -> str:
        """Return the words, on the CPU with the number of threads."""
        if self.provider != _CPU_NAME:
            return self.words
        return f"{self.words}, {threads} thread{'s' if threads > 1 else ''}"


CPU = Execution(_CPU_NAME, "CPU")


def runtime_name() -> str:
    """Return `onnxruntime` and the version of the one that is loaded."""
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def import_onnxruntime() -> ModuleType:
    """Return the module `onnxruntime`.

    Raises:
        BackendUnavailableError: It is not installed, or half of it is gone: its builds share one folder, and removing
            one takes files of the other.
    """
    try:
        import onnxruntime
    except ImportError as problem:
        raise BackendUnavailableError(
            f"onnxruntime is not importable here ({problem}); need it for every model; pip install onnxruntime"
        ) from None
    if not hasattr(onnxruntime, "InferenceSession"):
        raise BackendUnavailableError(
            "onnxruntime is damaged here, as it is after one of its two builds was removed; need a whole one; type: "
            "pip install --force-reinstall onnxruntime (with a GPU: onnxruntime-gpu)"
        )
    module: ModuleType = onnxruntime
    return module


def providers() -> tuple[str, ...]:
    """Return what the installed ONNX Runtime was built for; whether it starts is another question.

    Raises:
        BackendUnavailableError: ONNX Runtime is not installed.
    """
    return tuple(import_onnxruntime().get_available_providers())


def cuda_execution(gpu: Gpu) -> Execution:
    """Return how a graph runs on the GPU in float32."""
    options = {
        "device_id": "0",
        # The default tries every algorithm anew for each length of audio.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Answers shall not depend on the provider.
        "use_tf32": "0",
    }
    return Execution(CUDA_NAME, f"CUDA on {gpu.name}", options)


def tensorrt_execution(bundle: Bundle, gpu: Gpu, store: EngineStore, ranges: Mapping[str, ShapeRange]) -> Execution:
    """Return how a graph runs in engines that ONNX Runtime builds for itself at first use, which takes minutes.

    Args:
        bundle: The bundle.
        gpu: The GPU.
        store: Whose folder keeps those engines, too.
        ranges: Of every input whose size varies, the shapes it may have.

    Raises:
        ConfigError: The folder cannot be used.
    """
    folder = str(store.provider_folder())
    shapes = {
        "min": ",".join(f"{name}:{told(item.smallest)}" for name, item in ranges.items()),
        "opt": ",".join(f"{name}:{told(item.usual)}" for name, item in ranges.items()),
        "max": ",".join(f"{name}:{told(item.largest)}" for name, item in ranges.items()),
    }
    options = {
        "device_id": "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
        "trt_int8_enable": "1" if bundle.manifest.precision == "int8" else "0",
        **{f"trt_profile_{kind}_shapes": text for kind, text in shapes.items()},
    }
    return Execution(TENSORRT_NAME, f"TensorRT within ONNX Runtime on {gpu.name}", options)


def start_session(
    graph: bytes, options: onnxruntime.SessionOptions, execution: Execution
) -> onnxruntime.InferenceSession:
    """Return a session that runs where it was asked to; ONNX Runtime alone would fall back to the CPU.

    Raises:
        BackendUnavailableError: It does not start there.
        Exception: The graph does not open; ONNX Runtime's errors share no other base.
    """
    import onnxruntime

    if execution is CPU:
        return onnxruntime.InferenceSession(graph, options, providers=[_CPU_NAME])
    wanted = [(execution.provider, dict(execution.options)), _CPU_NAME]
    try:
        with _quiet(onnxruntime):
            session = onnxruntime.InferenceSession(graph, options, providers=wanted, enable_fallback=0)
    except (RuntimeError, ValueError) as problem:
        raise _does_not_start(execution, " ".join(str(problem).split())) from None
    if session.get_providers()[0] != execution.provider:
        raise _does_not_start(execution, "")
    return session


@contextlib.contextmanager
def _quiet(onnxruntime: object) -> Iterator[None]:
    """Keep ONNX Runtime from printing, on stdout even, what the error will say."""
    said = io.StringIO()
    onnxruntime.set_default_logger_severity(_FATAL_ONLY)  # type: ignore[attr-defined]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            if hasattr(onnxruntime, "preload_dlls"):
                onnxruntime.preload_dlls()  # CUDA and cuDNN where pip has put them
            yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)  # type: ignore[attr-defined]


def _does_not_start(execution: Execution, problem: str) -> BackendUnavailableError:
    why = _missing_library(execution.provider) or problem or "it does not say why"
    return BackendUnavailableError(
        f"ONNX Runtime has the {execution.provider}, but it does not start ({why}); need CUDA, cuDNN and, for "
        f"TensorRT, its libraries; type: {GPU_BUILD}; or use --provider cpu"
    )


def _missing_library(provider: str) -> str:
    """Return what the system says when it loads the provider's library, which ONNX Runtime tells nobody but its log."""
    import onnxruntime

    path = Path(onnxruntime.__file__).parent / "capi" / _LIBRARIES[provider]
    try:
        ctypes.CDLL(str(path))
    except OSError as problem:
        return str(problem)
    return ""
