"""An adapted head: the base model's answer, and how far the user's own clips pull it.

Close to the clips it was fitted to it says what they say; far from them it says what the base model says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_LOG_PROBABILITY = -14.0
"""What the base model calls impossible is one in a million, so that clips can teach it better."""
NEW_LABEL_SHARE = 0.5
"""Belief in a new label before any clip speaks for it, as a share of what an even guess would give it."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class VoicePrior:
    """The voice that the clips lead to expect; a voice that is heard takes its place."""

    mean: Floats
    """Mean embedding, shape (D,)."""
    deviation: Floats
    """Deviation of the embedding, shape (D,)."""
    heard: float
    """Utterances that the model is told it has heard."""
    patience: float
    """Utterances of a voice that weigh as much as the prior."""
    first_trust: float
    """How far the clips count for a voice of which nothing is known yet, in [0, 1]."""

    def trust(self, voice: NDArray[np.floating]) -> float:
        """Return how far the clips count: `first_trust`, and ever more as the voice is heard.

        Args:
            voice: Utterances heard, mean and deviation, shape (1, 2 D + 1); zeros for nobody.
        """
        return self.first_trust + (1 - self.first_trust) * self._own(voice)

    def merged(self, voice: NDArray[np.floating]) -> Floats:
        """Return what the model is told of a voice: the prior as far as it is trusted, and what was heard.

        Args:
            voice: Utterances heard, mean and deviation, shape (1, 2 D + 1); zeros for nobody.
        """
        own, size = self._own(voice), self.mean.size
        count = self.trust(voice) * self.heard + float(voice[0, 0])
        mean = (1 - own) * self.mean + own * voice[0, 1 : size + 1]
        deviation = (1 - own) * self.deviation + own * voice[0, size + 1 :]
        told = np.concatenate([[count], mean, deviation])[np.newaxis]
        return told if count > 0 else np.zeros_like(told)

    def _own(self, voice: NDArray[np.floating]) -> float:
        return float(voice[0, 0]) / (self.patience + float(voice[0, 0]))


@dataclass(frozen=True, eq=False)
class Whitening:
    """Shrinks the directions in which clips of one emotion differ among themselves."""

    axes: Floats
    """Orthonormal directions, shape (D, r)."""
    gains: Floats
    """What is left of each direction, shape (r,), in [0, 1]."""
    scale: float
    """What all is divided by, above 0."""

    def __call__(self, offsets: Floats) -> Floats:
        """Return offsets from the voice, shape (n, D), whitened."""
        white: Floats = (offsets - (offsets @ self.axes * (1 - self.gains)) @ self.axes.T) / self.scale
        return white


@dataclass(frozen=True, eq=False)
class Kernel:
    """How alike two whitened embeddings are: a constant and a sum of Gaussians."""

    constant: float
    """Likeness of any two."""
    amplitudes: Floats
    """Shape (k,)."""
    reaches: Floats
    """Distance over which each Gaussian fades, shape (k,), above 0."""

    def __call__(self, left: Floats, right: Floats) -> Floats:
        """Return likeness, shape (n, m), of rows (n, D) and (m, D)."""
        squares = (left**2).sum(1)[:, np.newaxis] + (right**2).sum(1) - 2 * left @ right.T
        likeness = np.full(squares.shape, self.constant)
        for amplitude, reach in zip(self.amplitudes, self.reaches, strict=True):
            likeness += amplitude * np.exp(-np.maximum(squares, 0.0) / (2 * reach**2))
        return likeness


@dataclass(frozen=True, eq=False)
class Head:
    """What turns a base model's logits and embedding into an adapted model's logits."""

    voice: VoicePrior
    """The voice to expect."""
    whitening: Whitening
    """How embeddings are compared."""
    kernel: Kernel
    """How far a clip reaches."""
    temperature: float
    """Of the base model, above 0."""
    sharpness: float
    """How much the base model's answer counts, above 0."""
    clips: Floats
    """Whitened embeddings of the clips, shape (n, D)."""
    pull: Floats
    """How each clip pulls each label, shape (n, labels): those of the base model, then the new ones."""

    def logits(
        self,
        base_logits: NDArray[np.floating],
        embedding: NDArray[np.floating],
        centre: Floats,
        trust: float = 1.0,
    ) -> Floats:
        """Return adapted logits, shape (n, labels).

        Args:
            base_logits: Shape (n, base labels).
            embedding: Shape (n, D).
            centre: Mean embedding of the voice, shape (D,) or (n, D).
            trust: How far the clips count, in [0, 1].
        """
        known = self.sharpness * with_new_labels(base_logits / self.temperature, self.pull.shape[1])
        if not len(self.clips) or trust == 0:
            return known
        likeness = self.kernel(self.whitening(np.asarray(embedding, dtype=np.float64) - centre), self.clips)
        pulled: Floats = known + trust * (likeness @ self.pull)
        return pulled


def with_new_labels(logits: NDArray[np.floating], labels: int) -> Floats:
    """Return log probabilities, shape (n, labels): the base model's, and a small belief in every new label.

    Args:
        logits: The base model's, divided by its temperature, shape (n, base labels).
        labels: All labels.
    """
    values = np.asarray(logits, dtype=np.float64)
    values = values - values.max(axis=1, keepdims=True)
    values = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    values = np.maximum(values, LEAST_LOG_PROBABILITY)
    new = labels - values.shape[1]
    share = NEW_LABEL_SHARE / labels
    rest = np.full((len(values), new), np.log(share))
    return np.concatenate([values + np.log1p(-share * new), rest], axis=1)
