"""What the teacher makes of an utterance as a whole, and what of it tells emotions apart.

Mean and deviation over time of the teacher's frames of speech, standardised over the training clips; and linear
discriminants of them, fitted on the training speakers, on the vectors themselves and on what they differ by from their
speaker's mean. Being linear in the teacher's vector, such a target cannot be learnt by heart clip by clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor, nn

from train.students.bank import Bank, Item

Array = NDArray[np.float32]
SOFTNESS = 6.0
"""By what the sum of the two discriminants' logits is divided: most likely on validation speakers (2 to 12 tried)."""
FEWEST_FRAMES = 3
"""Of speech; where there is less, nobody speaks."""
SHRINKAGE = 0.5
"""Of the covariance towards its diagonal: 0.03 and 0.1 did worse on unheard speakers and on an unheard corpus."""


@dataclass(frozen=True)
class PooledTargets:
    """One batch's targets."""

    vector: Tensor
    """(B, 2 D): standardised mean and deviation of the teacher's frames."""
    emotion: Tensor
    """(B, 2 C): the discriminants of the vector, then of what it differs by from the speaker's mean."""


class PooledTeacher(nn.Module):
    """Turns the teacher's frames into targets; learns nothing after it was made."""

    mean: Tensor
    deviation: Tensor
    discriminants: Tensor
    offsets: Tensor
    within: Tensor

    def __init__(self, size: int, classes: int) -> None:
        """Make one that `learn` or `load_state_dict` fills.

        Args:
            size: D, width of a teacher's frame.
            classes: C.
        """
        super().__init__()
        self.register_buffer("mean", torch.zeros(2 * size))
        self.register_buffer("deviation", torch.ones(2 * size))
        self.register_buffer("discriminants", torch.zeros(2 * size, 2 * classes))
        self.register_buffer("offsets", torch.zeros(2 * classes))
        self.register_buffer("within", torch.ones(2 * size + 2 * classes))
        """Deviation of each target around its speaker's mean."""

    @torch.no_grad()
    def learn(self, bank: Bank) -> NDArray[np.float32]:
        """Fit everything on the bank's labelled items and return what it makes of each: probabilities (items, C)."""
        items = [item for item in bank.items if item.label >= 0]
        table = np.stack([pooled_item(bank, item) for item in items])
        labels = np.array([item.label for item in items])
        mean, deviation = table.mean(0), table.std(0) + np.float32(1e-4)
        table = (table - mean) / deviation
        relative = less_the_speaker(table, [bank.recordings[item.recording].speaker for item in items])
        often = np.array([bank.recordings[item.recording].repeat for item in items])
        fitted = [discriminant(rows, labels, often) for rows in (table, relative)]
        columns = np.concatenate([weights for weights, _ in fitted], axis=1)
        targets = np.concatenate([relative, relative @ columns], axis=1)
        for name, value in (
            ("mean", mean),
            ("deviation", deviation),
            ("discriminants", columns),
            ("offsets", np.concatenate([offset for _, offset in fitted])),
            ("within", targets.std(0)),
        ):
            getattr(self, name).copy_(torch.from_numpy(np.asarray(value, np.float32)))
        logits = sum(rows @ weights + offset for rows, (weights, offset) in zip((table, relative), fitted, strict=True))
        return torch.softmax(torch.from_numpy(logits) / SOFTNESS, dim=-1).numpy()

    def forward(self, pooled: Tensor) -> PooledTargets:
        """Return the targets for what `pooled_frames` makes of utterances, (B, 2 D)."""
        vector = (pooled - self.mean) / self.deviation
        return PooledTargets(vector, vector @ self.discriminants)


def less_the_speaker(table: Array, speakers: Sequence[str]) -> Array:
    """Return rows (n, D) less the mean of their speaker's."""
    names, own = np.unique(speakers, return_inverse=True)
    means = np.stack([table[own == place].mean(0) for place in range(len(names))])
    relative: Array = table - means[own]
    return relative


def pooled_item(bank: Bank, item: Item) -> Array:
    """Return mean and deviation (2 D,) of the teacher's frames of an item, each as much as somebody speaks in it."""
    return pooled_frames(bank.frames(item, 0, item.frames), bank.spoken(item, 0, item.frames))


def pooled_frames(frames: Array, spoken: Array) -> Array:
    """Return mean and deviation (2 D,) of frames (T, D) weighed by speech (T,), or of all where there is hardly any."""
    weights = spoken if spoken.sum() >= FEWEST_FRAMES else np.ones_like(spoken)
    weights = weights / weights.sum()
    mean = weights @ frames
    return np.concatenate([mean, np.sqrt(weights @ np.square(frames - mean) + np.float32(1e-6))])


def discriminant(rows: Array, labels: NDArray[np.int64], often: NDArray[np.int64]) -> tuple[Array, Array]:
    """Return weights (D, C) and biases (C,) fitted on rows (n, D), each counted `often` times (n,).

    So a small corpus is not drowned; no class comes first.
    """
    even = np.full(labels.max() + 1, 1.0 / (labels.max() + 1))
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE, priors=even)
    model.fit(np.repeat(rows, often, axis=0), np.repeat(labels, often))
    return model.coef_.T.astype(np.float32), model.intercept_.astype(np.float32)
