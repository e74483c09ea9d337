"""Parts that the fusion systems share. Axes: B batch, T frames or tokens, D width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NEG = -1e4
"""Score of a masked key: finite, so that half precision and fully masked rows stay finite."""


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Return softmax over the last axis where `mask` is 1, exact zeros elsewhere, zeros in fully masked rows."""
    weights = torch.softmax(scores + (1.0 - mask) * NEG, dim=-1)
    return weights * mask


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over valid frames: x (B, T, D), mask (B, T) -> (B, D)."""
    weight = mask.unsqueeze(-1)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1.0)


def masked_deviation(x: Tensor, mean: Tensor, mask: Tensor) -> Tensor:
    """Return the population deviation over valid frames, never computed as a difference of squares."""
    weight = mask.unsqueeze(-1)
    variance = ((x - mean.unsqueeze(1)) ** 2 * weight).sum(1) / weight.sum(1).clamp(min=1.0)
    return torch.sqrt(variance + 1e-6)


class SelfAttention(nn.Module):
    """Multi-head self-attention with a key mask, in plain products that every exporter understands."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        # One product for query, key and value: an integer kernel wants its input to have one reader.
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return x (B, T, D) mixed over valid keys; mask (B, T)."""
        batch, frames, width = x.shape
        split = (batch, frames, 3, self.heads, width // self.heads)
        query, key, value = self.project(x).view(split).permute(2, 0, 3, 1, 4).unbind(0)  # each (B, H, T, D/H)
        scores = torch.matmul(query * (width // self.heads) ** -0.5, key.transpose(-2, -1))
        weights = self.dropout(masked_softmax(scores, mask[:, None, None, :]))
        mixed = torch.matmul(weights, value).transpose(1, 2).reshape(batch, frames, width)
        return self.out(mixed)


class TransformerLayer(nn.Module):
    """One encoder layer: self-attention and a feed-forward part, each with a residual.

    Post-norm (`pre_norm=False`) is Y = LN(x + attention(x)); pre-norm is Y = x + attention(LN(x)), which trains from
    random weights without a careful warm-up.
    """

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float, *, pre_norm: bool = False) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = SelfAttention(width, heads, dropout)
        self.norm_attention = nn.LayerNorm(width)
        self.up = nn.Linear(width, feed_forward)
        self.down = nn.Linear(feed_forward, width)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return x (B, T, D) after attention over valid keys and the feed-forward part."""
        if self.pre_norm:
            x = x + self.dropout(self.attention(self.norm_attention(x), mask))
            return x + self._feed_forward(self.norm_feed_forward(x))
        x = self.norm_attention(x + self.dropout(self.attention(x, mask)))
        return self.norm_feed_forward(x + self._feed_forward(x))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(self.dropout(torch.relu(self.up(x)))))
