"""A base model's graph with an adapted head behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ser.backends import Backend
from edge_ser.bundle import Bundle
from edge_ser.errors import BundleError
from edge_ser.head import Floats, Head
from edge_ser.head_file import head_from_bytes
from edge_ser.manifest import HEAD_NAME


class Adapted:
    """Runs the base model's backend and puts the head's logits in the place of its own."""

    def __init__(self, backend: Backend, head: Head, voice: str | None) -> None:
        """Adapt a backend.

        Args:
            backend: Runs the base model's graph.
            head: The adapted head.
            voice: Name of the graph's input for a voice; None where it has none.
        """
        self._backend = backend
        self._head = head
        self._voice = voice

    @property
    def name(self) -> str:
        """What runs the base model's graph."""
        return self._backend.name

    @property
    def provider(self) -> str:
        """Where and how it runs."""
        return self._backend.provider

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return the graph's outputs by name, with adapted logits."""
        told, centre, trust = self._told(inputs)
        return self._adapted(self._backend.run(told), centre, trust)

    def fuse(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return the same outputs, but for `frames`, from the `frames` of an earlier run."""
        told, centre, trust = self._told(inputs)
        return self._adapted(self._backend.fuse(told), centre, trust)

    def _told(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[dict[str, NDArray[Any]], Floats, float]:
        expected = self._head.voice
        if self._voice is None:
            return dict(inputs), expected.mean, expected.first_trust
        told = expected.merged(inputs[self._voice])
        centre = told[0, 1 : expected.mean.size + 1]
        return {**inputs, self._voice: told.astype(np.float32)}, centre, expected.trust(inputs[self._voice])

    def _adapted(
        self, outputs: dict[str, NDArray[np.float32]], centre: Floats, trust: float
    ) -> dict[str, NDArray[np.float32]]:
        logits = self._head.logits(outputs["logits"], outputs["embedding"], centre, trust)
        return {**outputs, "logits": logits.astype(np.float32)}


def open_adapted(bundle: Bundle, backend: Backend) -> Adapted:
    """Return what runs a delta bundle.

    Args:
        bundle: The delta bundle.
        backend: Runs the graph of its base.

    Raises:
        BundleError: The head is damaged or does not fit the base.
    """
    base = bundle.base
    assert base is not None
    size = embedding_size(base)
    same = bundle.manifest.inputs == base.manifest.inputs and size > 0
    same = same and bundle.manifest.attributes == base.manifest.attributes
    same = same and {item.name for item in bundle.manifest.outputs} == {item.name for item in base.manifest.outputs}
    if not same or bundle.manifest.labels[: len(base.manifest.labels)] != base.manifest.labels:
        raise BundleError(
            f"{bundle.folder} does not fit its base {base.folder}; need its inputs, outputs and labels; "
            "adapt again: edge-ser adapt --help"
        )
    head = head_from_bytes(bundle.read(HEAD_NAME), str(bundle.path(HEAD_NAME)), size, len(bundle.manifest.labels))
    voice = base.manifest.input_of("voice")
    return Adapted(backend, head, None if voice is None else voice.name)


def embedding_size(bundle: Bundle) -> int:
    """Return how many numbers a model's embedding has; 0 where it has none."""
    shapes = [output.shape for output in bundle.manifest.outputs if output.name == "embedding"]
    return int(shapes[0][1]) if shapes and len(shapes[0]) == 2 and isinstance(shapes[0][1], int) else 0
