"""Features brought to mean 0 and deviation 1 by what a training set shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Standardise(nn.Module):
    """Takes a mean away and divides by a deviation; both are stored with the weights, and start as 0 and 1."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Build for statistics of this shape: () for one pair, (D,) for one of each column."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("deviation", torch.ones(shape))

    def fit(self, arrays: Sequence[NDArray[np.floating]]) -> None:
        """Take the statistics over the first axis of all arrays (n, ...), in float64; what never varies keeps 1."""
        count = max(1, sum(len(array) for array in arrays))
        mean = np.asarray(sum(array.sum(axis=0, dtype=np.float64) for array in arrays) / count)
        square = sum(((array - mean) ** 2).sum(axis=0, dtype=np.float64) for array in arrays) / count
        deviation = np.sqrt(np.asarray(square))
        self.mean.copy_(torch.from_numpy(mean))
        self.deviation.copy_(torch.from_numpy(np.where(deviation > 1e-6, deviation, 1.0)))

    def forward(self, x: Tensor) -> Tensor:
        """Return x (..., *shape) standardised."""
        return (x - self.mean) / self.deviation
