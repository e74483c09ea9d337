"""The optional packages that TensorRT engines need, imported late."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from edge_ser.errors import BackendUnavailableError

OLDEST_TENSORRT = (10, 3)
"""The version of JetPack 6.2."""


def has_tensorrt() -> bool:
    """Return whether the package is there, without the second that importing it takes."""
    return importlib.util.find_spec("tensorrt") is not None


def import_tensorrt() -> ModuleType:
    """Return the module `tensorrt`.

    Raises:
        BackendUnavailableError: It is not importable, or too old.
    """
    try:
        module = importlib.import_module("tensorrt")
    except (ImportError, OSError) as problem:
        raise BackendUnavailableError(
            f"tensorrt is not importable here ({_line(problem)}); need {_oldest()} or newer: on a Jetson it comes with "
            "JetPack (make the environment with python3 -m venv --system-site-packages), elsewhere: pip install "
            "tensorrt; or use --provider cpu"
        ) from None
    version = str(module.__version__)
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_TENSORRT:
        raise BackendUnavailableError(
            f"TensorRT {version} is too old; need {_oldest()} or newer, which JetPack 6.2 has; or use --provider cpu"
        )
    return module


def import_cuda() -> ModuleType:
    """Return the module `cuda.bindings.runtime`.

    Raises:
        BackendUnavailableError: It is not importable.
    """
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except (ImportError, OSError, RuntimeError) as problem:
        raise BackendUnavailableError(
            f"cuda.bindings is not importable here ({_line(problem)}); an engine needs it to reach the GPU's memory; "
            "type: pip install 'cuda-bindings>=12.8,<13'; or use --provider cpu"
        ) from None


def _oldest() -> str:
    return ".".join(map(str, OLDEST_TENSORRT))


def _line(problem: BaseException) -> str:
    return " ".join(str(problem).split())
