"""Cepstral coefficients inside the graph: a cosine transform of the log-mel picture, and their slopes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Cepstrum(nn.Module):
    """Log-mel (B, mels, T) -> coefficients 1 to `count` and, if asked for, two derivatives: (B, T / every, ...)."""

    cosines: Tensor
    slope: Tensor

    def __init__(self, mels: int, count: int, *, derivatives: bool, every: int) -> None:
        super().__init__()
        band = torch.arange(mels) + 0.5
        rows = [torch.cos(math.pi * order * band / mels) * math.sqrt(2.0 / mels) for order in range(1, count + 1)]
        self.register_buffer("cosines", torch.stack(rows).unsqueeze(-1), persistent=False)
        # Sum over n = 1, 2 of n (f[t + n] - f[t - n]) / 10.
        slope = torch.tensor([-0.2, -0.1, 0.0, 0.1, 0.2])
        self.register_buffer("slope", slope.view(1, 1, 5).repeat(count, 1, 1), persistent=False)
        self.derivatives = derivatives
        self.every = every
        self.width = count * (3 if derivatives else 1)

    def forward(self, mel: Tensor) -> Tensor:
        """Return (B, frames, width), neighbouring frames averaged `every` at a time."""
        static = nn.functional.conv1d(mel, self.cosines)
        parts = [static]
        if self.derivatives:
            for _ in range(2):
                parts.append(nn.functional.conv1d(parts[-1], self.slope, padding=2, groups=static.shape[1]))
        return nn.functional.avg_pool1d(torch.cat(parts, dim=1), self.every, ceil_mode=True).transpose(1, 2)
