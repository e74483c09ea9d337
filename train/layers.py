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
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return x (B, T, D) mixed over valid keys; mask (B, T)."""
        batch, frames, width = x.shape
        split = (batch, frames, self.heads, width // self.heads)
        query = self.query(x).view(split).transpose(1, 2)  # (B, H, T, D/H)
        key = self.key(x).view(split).permute(0, 2, 3, 1)  # (B, H, D/H, T)
        value = self.value(x).view(split).transpose(1, 2)
        scores = torch.matmul(query * (width // self.heads) ** -0.5, key)
        weights = self.dropout(masked_softmax(scores, mask[:, None, None, :]))
        mixed = torch.matmul(weights, value).transpose(1, 2).reshape(batch, frames, width)
        return self.out(mixed)


class TransformerLayer(nn.Module):
    """One post-norm encoder layer: Y = LN(x + attention), Y' = LN(Y + feed-forward)."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, dropout)
        self.norm_attention = nn.LayerNorm(width)
        self.up = nn.Linear(width, feed_forward)
        self.down = nn.Linear(feed_forward, width)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return x (B, T, D) after attention over valid keys and the feed-forward part."""
        x = self.norm_attention(x + self.dropout(self.attention(x, mask)))
        hidden = self.dropout(torch.relu(self.up(x)))
        return self.norm_feed_forward(x + self.dropout(self.down(hidden)))
