"""What TensorRT has to say, kept for the error that may follow."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from edge_ser.errors import BackendUnavailableError

_KEPT = 8


def open_log(tensorrt: ModuleType) -> Any:
    """Return a logger that prints nothing; its `problems` are the last errors.

    Args:
        tensorrt: The module; its logger's class is there at run time only.
    """

    class Log(tensorrt.ILogger):  # type: ignore[misc, name-defined]
        """Keeps errors."""

        def __init__(self) -> None:
            super().__init__()
            self.problems: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Keep a message if it is an error."""
            if severity in (tensorrt.ILogger.ERROR, tensorrt.ILogger.INTERNAL_ERROR):
                self.problems = [*self.problems, " ".join(message.split())][-_KEPT:]

    return Log()


def last_problem(log: Any) -> str:
    """Return the last error, or that there was none."""
    return log.problems[-1] if log.problems else "it does not say why"


def started(make: Callable[[Any], Any], log: Any) -> Any:
    """Return a `tensorrt.Builder` or `tensorrt.Runtime`.

    Raises:
        BackendUnavailableError: CUDA does not start, of which Python hears no more than a TypeError.
    """
    try:
        return make(log)
    except TypeError:
        raise BackendUnavailableError(
            f"TensorRT does not start ({last_problem(log)}); need a GPU and a driver that is new enough for it; look "
            "at nvidia-smi, or use --provider cpu"
        ) from None
