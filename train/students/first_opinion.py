"""What of an embedding tells emotions apart: discriminants fitted on what the small encoder itself hears.

The first stage guesses what the teacher's discriminants would say. Fitted anew on the embeddings, with the labels that
the teacher's had, they are 2 points better on validation speakers, alone and against the speaker's mean; with changed
voices among the clips, of which the teacher knows nothing, 8 and 4 points better on changed voices of those speakers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.students.bank import Recording
from train.students.pooled_teacher import discriminant, less_the_speaker

SOFTNESS = 4.0
"""By what either discriminant's logits are divided: most likely on validation speakers (1 to 5 tried)."""
_HOME_ALONE, _HOME_AGAINST = 8.0, 1.4
"""Embeddings of clips as recorded for one of a changed voice, alone and against the speaker. At 3 and 1 changed voices
of validation speakers gain 3 points and 1, but these speakers themselves lose half a point (train/LOG.md, 63). The
teacher's own discriminants, alone, lose 4 points on a corpus never heard at 6.4 and 7 at 1.6 (entry 47)."""
_LARGEST_DIVISOR = 4
"""Of the whole numbers of times that home and elsewhere count, the smaller is at most this."""


def first_opinion(recordings: Sequence[Recording], found: Mapping[int, NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """Return weights (2 C, D) and biases (2 C,) of the emotions' logits, alone and against the speaker's mean.

    Args:
        recordings: Clips with a label, and changed voices whose actor's emotion is known.
        found: Embeddings (variants, D) of these, by index.
    """
    rows = np.concatenate(list(found.values()))
    own = [recordings[n] for n, variants in found.items() for _ in variants]
    labels = np.array([max(recording.label, recording.acted) for recording in own])
    home = np.array([recording.label >= 0 for recording in own])
    often = np.array([recording.repeat for recording in own])
    mean, deviation = rows.mean(0), rows.std(0) + np.float32(1e-4)
    rows = (rows - mean) / deviation
    relative = less_the_speaker(rows, [recording.speaker for recording in own])
    alone = discriminant(rows, labels, _balanced(often, home, _HOME_ALONE))
    against = discriminant(relative, labels, _balanced(often, home, _HOME_AGAINST))
    weights = np.concatenate([alone[0], against[0]], axis=1).T / deviation
    # A difference of two embeddings leaves nothing of the mean.
    bias = np.concatenate([alone[1] - weights[: len(alone[1])] @ mean, against[1]])
    return torch.from_numpy(weights / SOFTNESS).float(), torch.from_numpy(bias / SOFTNESS).float()


def _balanced(often: NDArray[np.int64], home: NDArray[np.bool_], wanted: float) -> NDArray[np.int64]:
    """Return how often each embedding (n,) counts, so that home counts `wanted` times as much as elsewhere in all.

    In whole times for both, so within an eighth of `wanted`.
    """
    if home.all():
        return often
    more = float(wanted * often[~home].sum() / often[home].sum())
    side = Fraction(max(more, 1.0 / more)).limit_denominator(_LARGEST_DIVISOR)
    at_home, elsewhere = (side.numerator, side.denominator) if more >= 1.0 else (side.denominator, side.numerator)
    return np.where(home, often * at_home, often * elsewhere)
