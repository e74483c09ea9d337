"""What runs a bundle's graph, and the choice of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_ser.bundle import Bundle
from edge_ser.errors import BackendUnavailableError, ConfigError

_DEFAULT_THREADS = 2
_LATER_PROVIDERS = ("cuda", "tensorrt")


class Backend(Protocol):
    """Runs one graph; `run` may be called from several threads at once."""

    @property
    def name(self) -> str:
        """What runs the graph, such as `onnxruntime 1.23.2`."""
        ...

    @property
    def provider(self) -> str:
        """Where and how it runs, such as `CPU, 2 threads`."""
        ...

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return the graph's outputs by name."""
        ...

    def fuse(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return the same outputs, but for `frames`, from the `frames` of an earlier run in the place of its audio.

        Called only where the manifest lists the output `frames`.
        """
        ...


def open_backend(bundle: Bundle, provider: str = "auto", threads: int | None = None) -> Backend:
    """Return what runs the bundle's graph here.

    Args:
        bundle: The bundle.
        provider: `auto` or `cpu`.
        threads: Threads for one utterance; None takes two, or one where the machine has one core.

    Raises:
        BackendUnavailableError: The provider cannot run here.
        BundleError: The graph does not open or does not fit the manifest.
        ConfigError: No such provider, or fewer than one thread.
    """
    if provider in _LATER_PROVIDERS:
        raise BackendUnavailableError(
            f"the provider '{provider}' needs a newer edge-ser; this one has cpu; use --provider cpu"
        )
    if provider not in ("auto", "cpu"):
        raise ConfigError(f"got the provider '{provider}'; need auto or cpu; use --provider auto")
    if threads is not None and threads < 1:
        raise ConfigError(f"got {threads} threads; need 1 or more; use --threads 1")
    # Late, so that importing edge_ser does not load ONNX Runtime.
    from edge_ser.backends.onnx_graph import OnnxGraph

    count = threads or min(_DEFAULT_THREADS, os.cpu_count() or 1)
    return OnnxGraph(bundle, count) if bundle.base is None else _adapted(bundle, OnnxGraph(bundle.base, count))


def _adapted(bundle: Bundle, backend: Backend) -> Backend:
    from edge_ser.backends.adapted import open_adapted

    return open_adapted(bundle, backend)
