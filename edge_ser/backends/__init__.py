"""What runs a bundle's graph, and the choice of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_ser.bundle import Bundle
from edge_ser.errors import ConfigError
from edge_ser.manifest import HEAD_NAME

_DEFAULT_THREADS = 2
PROVIDERS = ("auto", "cpu", "cuda", "tensorrt")
"""What may be asked for."""

_LISTED = "auto, cpu, cuda or tensorrt"
_log = logging.getLogger("edge_ser")


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


def open_backend(
    bundle: Bundle,
    provider: str = "auto",
    threads: int | None = None,
    engine_dir: str | os.PathLike[str] | None = None,
) -> Backend:
    """Return what runs the bundle's graph here, and log in one line what it is and why.

    Args:
        bundle: The bundle.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`. `auto` takes an engine built for this GPU, else CUDA for a
            model of floats, else the CPU.
        threads: Threads for one utterance; None takes two, or one where the machine has one core.
        engine_dir: Where TensorRT engines lie; None takes the user's cache.

    Raises:
        BackendUnavailableError: The provider cannot run here.
        BundleError: The graph does not open or does not fit the manifest.
        ConfigError: No such provider, fewer than one thread, or engines that others could have written.
        EngineMismatchError: The engine was built for another GPU, TensorRT or graph.
    """
    if provider not in PROVIDERS:
        raise ConfigError(f"got the provider '{provider}'; need {_LISTED}; use --provider auto")
    if threads is not None and threads < 1:
        raise ConfigError(f"got {threads} threads; need 1 or more; use --threads 1")
    count = threads or min(_DEFAULT_THREADS, os.cpu_count() or 1)
    # Late, so that importing edge_ser does not load what looks for GPUs.
    from edge_ser.backends.choice import open_chosen

    backend, why = open_chosen(bundle.base or bundle, provider, count, engine_dir)
    if bundle.base is not None and HEAD_NAME in bundle.manifest.files:
        backend = _adapted(bundle, backend)
    _log.info("%s from %s on %s, %s (%s)", bundle.manifest.name, bundle.folder, backend.name, backend.provider, why)
    return backend


def _adapted(bundle: Bundle, backend: Backend) -> Backend:
    from edge_ser.backends.adapted import open_adapted

    return open_adapted(bundle, backend)
