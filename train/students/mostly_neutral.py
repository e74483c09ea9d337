"""How much of what a voice has said so far was neutral, as far as the voice itself tells.

In daily life most of what a person says is neutral, and then the mean of their utterances is no middle of their
emotions: set against it, neutral speech seems to be nothing much and everything else too much. A voice that heard
mostly neutral speech lies where neutral speech does and varies less, which a ridge regression on the training speakers
learns to see. On validation speakers after nine neutral utterances of twelve the first opinion gains 1 to 4 points by
it; after a mixture of emotions nothing changes (train/LOG.md, 58).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold
from torch import Tensor

from train.students.bank import Recording
from train.students.histories import voice_of

Array = NDArray[np.float32]
_HISTORIES = 6000
_UTTERANCES = (1, 60)
"""Of a history, uniform on a logarithmic scale."""
_SHRINKAGE = tuple(10.0**power for power in range(2, 7))
"""Tried, actors left out in five parts, in all their voices."""
_FEWEST = 6
"""Embeddings of a voice that histories are drawn from."""


class VoicesOfTraining:
    """Embeddings of the training speakers' utterances, as recorded and in other voices, by voice."""

    def __init__(self, recordings: Sequence[Recording], found: Mapping[int, Array], neutral: int) -> None:
        """Take what was heard of each recording whose emotion is known.

        Args:
            recordings: All of the bank's.
            found: Embeddings (variants, D) by place in them.
            neutral: The label of neutral speech.
        """
        own = [recordings[n] for n, variants in found.items() for _ in variants]
        self.rows = np.concatenate(list(found.values()))
        self.labels = np.array([max(recording.label, recording.acted) for recording in own])
        self.neutral = neutral
        speakers = np.array([recording.speaker for recording in own])
        places = {str(name): np.flatnonzero(speakers == name) for name in np.unique(speakers)}
        usable = {name: own for name, own in places.items() if len(own) >= _FEWEST and self._is_mixed(own)}
        self.by_voice = list(usable.values())
        # A changed voice is called after its actor: cremad_1001-changed-0.
        self.actors = [name.partition("-")[0] for name in usable]

    def _is_mixed(self, places: NDArray[np.intp]) -> bool:
        said = self.labels[places] == self.neutral
        return bool(said.any() and not said.all())

    def off_centre(self) -> Array:
        """Return by how much (D,) neutral speech lies off the middle of a voice's emotions, the mean over voices."""
        apart = [np.zeros(self.rows.shape[1], np.float32)] if not self.by_voice else []
        for places in self.by_voice:
            labels, rows = self.labels[places], self.rows[places]
            means = {int(label): rows[labels == label].mean(0) for label in np.unique(labels)}
            apart.append(means[self.neutral] - np.mean(list(means.values()), axis=0))
        return np.mean(apart, axis=0).astype(np.float32)

    def history(self, number: int, rng: np.random.Generator) -> tuple[Array, float]:
        """Return a voice (2 D + 1,) that heard part of one of these, half of the time mostly neutral, and its share."""
        places = self.by_voice[number]
        said = self.labels[places] == self.neutral
        weights = np.ones(len(places))
        if rng.random() < 0.5:
            share = rng.uniform(0.5, 1.0)
            weights = np.where(said, share / said.sum(), (1.0 - share) / (~said).sum())
        count = int(np.exp(rng.uniform(*np.log(_UTTERANCES))))
        chosen = rng.choice(len(places), count, p=weights / weights.sum())
        return voice_of(self.rows[places[chosen]]), float(said[chosen].mean())


def fit_neutral_share(voices: VoicesOfTraining, everybody: Array, spread: Array, seed: int) -> tuple[Tensor, Tensor]:
    """Return weights (2 D,) and bias (1,) of the share of neutral utterances in a voice's portrait.

    A portrait is mean and deviation of the voice relative to everybody's mean (D,) and deviation (D,). Where there is
    no second actor to try it on, all are zero.
    """
    actors = sorted(set(voices.actors))
    if len(actors) < 2:
        return torch.zeros(2 * len(everybody)), torch.zeros(1)
    rng = np.random.default_rng(seed)
    numbers = rng.integers(len(voices.by_voice), size=_HISTORIES)
    drawn = [voices.history(int(number), rng) for number in numbers]
    groups = [actors.index(voices.actors[int(number)]) for number in numbers]
    told = np.stack([voice for voice, _ in drawn])
    size = len(everybody)
    portraits = np.concatenate([(told[:, 1 : size + 1] - everybody) / spread, told[:, size + 1 :] / spread], axis=1)
    parts = min(5, len(actors))
    splits = list(GroupKFold(parts).split(portraits, groups=groups))
    model = RidgeCV(_SHRINKAGE, cv=splits).fit(portraits.astype(np.float64), [share for _, share in drawn])
    return torch.from_numpy(model.coef_).float(), torch.tensor([float(model.intercept_)])
