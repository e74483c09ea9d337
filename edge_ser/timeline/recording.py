"""A recording as a picture shows it: how loud it was, when somebody spoke and how."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.events import Emotion, Rejected, Summary
from edge_ser.ledger import AudioLedger

if TYPE_CHECKING:
    from edge_ser.stream import Stream

BIN_S = 0.02
"""Seconds of audio that one pair of the envelope stands for."""
_BIN_SAMPLES = round(BIN_S * SAMPLE_RATE_HZ)


@dataclass(frozen=True, eq=False)
class Timeline:
    """One recording, heard to its end."""

    name: str
    """What it is called."""
    model: str
    """Name of the bundle that answered."""
    labels: tuple[str, ...]
    """The model's emotions."""
    duration_s: float
    """Seconds of audio."""
    results: tuple[Emotion | Rejected, ...]
    """One for each utterance, in order."""
    early: tuple[Emotion, ...]
    """The answers given while somebody still talked, in order; none if nobody asked for them."""
    envelope: NDArray[np.float32]
    """Lowest and highest sample, in [-1, 1], of each `BIN_S`; shape (bins, 2)."""
    ledger: AudioLedger
    """Where every sample went."""


def follow(stream: Stream, blocks: Iterable[NDArray[np.float32]], *, name: str, labels: Sequence[str]) -> Timeline:
    """Return the timeline of a recording; memory grows by 400 bytes a second of it.

    Args:
        stream: A fresh stream; it is finished afterwards.
        blocks: Mono float32 in [-1, 1], shape (n,) each, at 16 kHz.
        name: What the recording is called.
        labels: The model's emotions.

    Raises:
        EdgeSerError: The blocks cannot be read to their end, or the model fails.
    """
    envelope = _Envelope()
    results: list[Emotion | Rejected] = []
    early: list[Emotion] = []
    for event in stream.listen(envelope.tapped(blocks)):
        if isinstance(event, Emotion) and not event.final:
            early.append(event)
        elif isinstance(event, Emotion | Rejected):
            results.append(event)
        elif isinstance(event, Summary):
            summary = event
    return Timeline(
        name=name,
        model=summary.model,
        labels=tuple(labels),
        duration_s=summary.duration_s,
        results=tuple(results),
        early=tuple(early),
        envelope=envelope.pairs(),
        ledger=summary.ledger,
    )


class _Envelope:
    """The lowest and highest sample of each bin of the audio that passes."""

    def __init__(self) -> None:
        self._bins: list[NDArray[np.float32]] = []
        self._rest: NDArray[np.float32] = np.empty(0, np.float32)

    def tapped(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Yield the blocks and take note of them."""
        for block in blocks:
            waiting = np.concatenate([self._rest, block])
            whole = waiting.size - waiting.size % _BIN_SAMPLES
            self._note(waiting[:whole].reshape(-1, _BIN_SAMPLES))
            self._rest = waiting[whole:].copy()
            yield block

    def pairs(self) -> NDArray[np.float32]:
        """Return what was noted, shape (bins, 2)."""
        if self._rest.size:
            self._note(self._rest[None, :])
        return np.concatenate([np.empty((0, 2), np.float32), *self._bins])

    def _note(self, bins: NDArray[np.float32]) -> None:
        if len(bins):
            self._bins.append(np.stack([bins.min(axis=1), bins.max(axis=1)], axis=1))
