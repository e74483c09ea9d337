"""Attentive statistics over frames, a small head on them, and the concordance loss of continuous attributes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_ser.errors import ConfigError
from train.layers import masked_softmax

_VARIANCE_FLOOR = 1e-6
_CCC_FLOOR = 1e-8


class AttentivePooling(nn.Module):
    """Attentive statistics pooling (Okabe et al. 2018): weighted mean and deviation over valid frames."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, bottleneck)
        self.score = nn.Linear(bottleneck, 1, bias=False)

    def weights(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return each frame's weight (B, T) for x (B, T, D): softmax of v tanh(W h + b) over valid frames."""
        return masked_softmax(self.score(torch.tanh(self.project(x))).squeeze(-1), mask)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return mean and deviation (B, 2 D) of x (B, T, D); the deviation in its two-pass form, at least 1e-3."""
        weight = self.weights(x, mask).unsqueeze(-1)
        mean = (weight * x).sum(1)
        variance = (weight * (x - mean.unsqueeze(1)) ** 2).sum(1)
        return torch.cat([mean, torch.sqrt(variance + _VARIANCE_FLOOR)], dim=-1)


class PooledHead(nn.Module):
    """Attentive statistics, a hidden layer and the outputs."""

    def __init__(self, width: int, bottleneck: int, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.pooling = AttentivePooling(width, bottleneck)
        self.hidden = nn.Linear(2 * width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs (B, C) and what they are read from (B, H), for frames x (B, T, D) and their mask (B, T)."""
        embedding = torch.relu(self.hidden(self.pooling(x, mask)))
        return self.out(self.dropout(embedding)), embedding


def batch_ccc(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return Lin's concordance of two series (n,), with population moments, in float32; 0 where one is constant."""
    x, y = predicted.float(), truth.float()
    x_mean, y_mean = x.mean(), y.mean()
    covariance = ((x - x_mean) * (y - y_mean)).mean()
    spread = ((x - x_mean) ** 2).mean() + ((y - y_mean) ** 2).mean() + (x_mean - y_mean) ** 2
    return 2.0 * covariance / (spread + _CCC_FLOOR)


def ccc_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return 1 - mean CCC over the attributes, in [0, 2], for (B, A) and (B, A); NaN in `truth` is unknown.

    The moments are the batch's, so the loss of two half batches is not that of the whole.

    Raises:
        ConfigError: No attribute is known for two or more utterances, which leaves CCC undefined.
    """
    known = ~torch.isnan(truth)
    concordances = [
        batch_ccc(predicted[known[:, place], place], truth[known[:, place], place])
        for place in range(truth.shape[1])
        if int(known[:, place].sum()) >= 2
    ]
    if not concordances:
        raise ConfigError(
            f"got a batch of {len(truth)} without two known values of any attribute; CCC needs at least 2: "
            "raise the batch size or drop the last batch"
        )
    return 1.0 - torch.stack(concordances).mean()
