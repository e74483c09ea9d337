"""Voices as a student may meet them: what was heard before, from nothing to sixty utterances, right and wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class HistoryShares:
    """How often each kind of history comes."""

    fresh: float = 0.4
    """Nothing was heard yet."""
    mostly_neutral: float = 0.25
    """Three in four utterances were neutral, as in daily life."""
    one_emotion: float = 0.05
    """The speaker has had one emotion so far."""
    mixed: float = 0.05
    """Two speakers shared one profile."""
    wrong: float = 0.08
    """Somebody else's profile."""
    longest: int = 60
    """Utterances; lengths are uniform on a logarithmic scale."""


class Histories:
    """Draws voices from the embeddings of training clips."""

    def __init__(
        self,
        embeddings: Sequence[Array],
        speakers: Sequence[str],
        labels: Sequence[int],
        *,
        neutral: int,
        shares: HistoryShares | None = None,
    ) -> None:
        """Take what was heard of every recording.

        Args:
            embeddings: One array (variants, D) a recording.
            speakers: Whose recording it is.
            labels: Its emotion.
            neutral: The label of neutral speech.
            shares: How often each kind of history comes.
        """
        self._embeddings = embeddings
        self._labels = np.asarray(labels)
        self._neutral = neutral
        self._shares = shares or HistoryShares()
        names = sorted(set(speakers))
        self._own = {name: np.flatnonzero(np.asarray(speakers) == name) for name in names}
        self._speakers = list(speakers)
        self._names = names
        self.size = int(embeddings[0].shape[1])
        self._centres = {
            name: np.concatenate([embeddings[int(place)] for place in own]).mean(0) for name, own in self._own.items()
        }

    def draw(self, recording: int, rng: np.random.Generator) -> Array:
        """Return a voice (2 D + 1,) that the speaker of a recording may be met with; the recording is not in it."""
        shares, chance = self._shares, rng.random()
        if chance < shares.fresh:
            return np.zeros(2 * self.size + 1, np.float32)
        count = int(np.exp(rng.uniform(0.0, np.log(shares.longest + 1.0))))
        own = self._own[self._speakers[recording]]
        own = own[own != recording]
        chance -= shares.fresh
        pool, weights = own, np.ones(len(own))
        if chance < shares.wrong:
            pool = self._another(recording, rng)
            weights = np.ones(len(pool))
        elif chance < shares.wrong + shares.mixed:
            other = self._another(recording, rng)
            pool = np.concatenate([own, other])
            weights = np.concatenate([np.full(len(own), 1 / max(len(own), 1)), np.full(len(other), 1 / len(other))])
        elif chance < shares.wrong + shares.mixed + shares.one_emotion:
            weights = (self._labels[own] == self._labels[rng.choice(own)]).astype(float) if len(own) else weights
        elif chance < shares.wrong + shares.mixed + shares.one_emotion + shares.mostly_neutral:
            weights = self._neutral_weights(own)
        if not len(pool):
            return np.zeros(2 * self.size + 1, np.float32)
        chosen = rng.choice(pool, count, replace=bool(count > np.count_nonzero(weights)), p=weights / weights.sum())
        return voice_of(np.stack([self._one(int(place), rng) for place in chosen]))

    def between(self, recording: int, rng: np.random.Generator) -> Array:
        """Return the mean frame (D / 2,) of another speaker minus that of a recording's speaker."""
        other = self._names[int(rng.integers(len(self._names)))]
        apart: Array = self._centres[other] - self._centres[self._speakers[recording]]
        return apart[: self.size // 2]

    def _another(self, recording: int, rng: np.random.Generator) -> NDArray[np.intp]:
        others = [name for name in self._names if name != self._speakers[recording]]
        return self._own[others[int(rng.integers(len(others)))]]

    def _neutral_weights(self, own: NDArray[np.intp]) -> NDArray[np.float64]:
        neutral = self._labels[own] == self._neutral
        count = np.count_nonzero(neutral)
        if not 0 < count < len(own):
            return np.ones(len(own))
        return np.where(neutral, 0.75 / count, 0.25 / (len(own) - count))

    def _one(self, recording: int, rng: np.random.Generator) -> Array:
        variants = self._embeddings[recording]
        chosen: Array = variants[int(rng.integers(len(variants)))]
        return chosen


def voice_of(embeddings: Array) -> Array:
    """Return the voice (2 D + 1,) of utterances heard (n, D): n, running mean, running population deviation."""
    count = np.array([len(embeddings)], np.float32)
    return np.concatenate([count, embeddings.mean(0), embeddings.std(0)]).astype(np.float32)
