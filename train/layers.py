"""Parts that the fusion systems share. Axes: B batch, T frames or tokens, D width."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edge_ser.errors import ConfigError

NEG = -1e4
"""Added to what is masked: finite, so that half precision and fully masked rows stay finite."""


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return softmax over the last axis where `mask` is 1, exact zeros elsewhere, zeros in fully masked rows.

    Masked scores are replaced, not lowered: valid ones may lie as low as they like and still share all the weight.
    Without a mask every score is valid, and the graph is free of masking.
    """
    if mask is None:
        return torch.softmax(scores, dim=-1)
    lowest = torch.finfo(scores.dtype).min  # finite: a row without any valid score stays finite too
    return torch.softmax(torch.where(mask > 0, scores, lowest), dim=-1) * mask


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over valid frames: x (B, T, D), mask (B, T) -> (B, D)."""
    weight = mask.unsqueeze(-1)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1.0)


def masked_variance(x: Tensor, mean: Tensor, mask: Tensor | None) -> Tensor:
    """Return the population variance over valid frames, never computed as a difference of squares."""
    if mask is None:
        return ((x - mean.unsqueeze(1)) ** 2).mean(1)
    weight = mask.unsqueeze(-1)
    return ((x - mean.unsqueeze(1)) ** 2 * weight).sum(1) / weight.sum(1).clamp(min=1.0)


def masked_deviation(x: Tensor, mean: Tensor, mask: Tensor | None) -> Tensor:
    """Return the population deviation over valid frames, at least 1e-3 so that its gradient stays finite."""
    return torch.sqrt(masked_variance(x, mean, mask) + 1e-6)


class SelfAttention(nn.Module):
    """Multi-head self-attention with a key mask, in plain products that every exporter understands."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        # One product for query, key and value: an integer kernel wants its input to have one reader.
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return x (B, T, D) mixed over valid keys; mask (B, T), None where all are."""
        # Widths from the weights: an exporter would trace those of x as arithmetic on its shape.
        width = self.out.in_features
        split = (*x.shape[:2], 3, self.heads, width // self.heads)
        query, key, value = self.project(x).view(split).permute(2, 0, 3, 1, 4).unbind(0)  # each (B, H, T, D/H)
        scores = torch.matmul(query * (width // self.heads) ** -0.5, key.transpose(-2, -1))
        weights = self.dropout(masked_softmax(scores, None if mask is None else mask[:, None, None, :]))
        mixed = torch.matmul(weights, value).transpose(1, 2).flatten(2)
        return self.out(mixed)


class Attention(nn.Module):
    """Multi-head attention of one sequence over another, in plain products, with a bias on every projection."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def weights(self, queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return attention (B, H, T_q, T_k): rows sum to 1 over the keys where `mask` (B, T_k) is 1, or are zero.

        Without a mask every key is valid, and the graph is free of masking.
        """
        query, key = self._split(self.query(queries)), self._split(self.key(keys))
        scores = torch.matmul(query * (self.out.in_features // self.heads) ** -0.5, key.transpose(-2, -1))
        return masked_softmax(scores, None if mask is None else mask[:, None, None, :])

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (B, T_q, D): what each query reads from the valid keys; the bias of `out` where there are none."""
        weights = self.dropout(self.weights(queries, keys, mask))
        mixed = torch.matmul(weights, self._split(self.value(keys))).transpose(1, 2)
        return self.out(mixed.flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.out.in_features // self.heads).transpose(1, 2)


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

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return x (B, T, D) after attention over valid keys and the feed-forward part."""
        if self.pre_norm:
            x = x + self.dropout(self.attention(self.norm_attention(x), mask))
            return x + self._feed_forward(self.norm_feed_forward(x))
        x = self.norm_attention(x + self.dropout(self.attention(x, mask)))
        return self.norm_feed_forward(x + self._feed_forward(x))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(self.dropout(torch.relu(self.up(x)))))


class LayerMix(nn.Module):
    """Softmax-weighted sum over the layers of an encoder: x (B, T, L, D) -> (B, T, D), at first their mean."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed layers (B, T, D)."""
        return (x * torch.softmax(self.weights, dim=0).unsqueeze(-1)).sum(2)


def sequence(inputs: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return a sequence (B, T, *shape), zero where masked, and its mask (B, T).

    A feature that the batch lacks is one masked frame; one that comes without a mask is valid throughout.

    Raises:
        ConfigError: The frames have another shape than the system was built for.
    """
    if name not in inputs:
        other = next(iter(inputs.values()))
        return other.new_zeros(other.shape[0], 1, *shape), other.new_zeros(other.shape[0], 1)
    x = inputs[name]
    if tuple(x.shape[2:]) != shape:
        raise ConfigError(
            f"{name} has frames of shape {tuple(x.shape[2:])}; the system needs {shape}; "
            f"set {name}_width (and the number of layers) to what the encoder gives"
        )
    mask = mask_of(inputs, name)
    return x * mask.reshape(*mask.shape, *(1 for _ in shape)), mask


def mask_of(inputs: Mapping[str, Tensor], name: str) -> Tensor:
    """Return the mask (B, T) of a sequence that is there, in its dtype: ones where it came without."""
    x = inputs[name]
    mask = inputs.get(f"{name}_mask")
    return torch.ones_like(x.flatten(2)[:, :, 0]) if mask is None else mask.to(x.dtype)


def mean_neighbours(x: Tensor, mask: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the means over the valid ones of each `count` neighbouring frames: x (B, T, D), mask (B, T), T / count."""
    if count == 1:
        return x, mask
    # Both averages divide by the same number, whatever an exporter makes of a last window that is not full.
    total = nn.functional.avg_pool1d((x * mask.unsqueeze(-1)).transpose(1, 2), count, ceil_mode=True).transpose(1, 2)
    share = nn.functional.avg_pool1d(mask.unsqueeze(1), count, ceil_mode=True).squeeze(1)
    valid = (share > 0).to(x.dtype)
    return total / (share + (1.0 - valid)).unsqueeze(-1), valid


def fit_length(x: Tensor, length: int) -> Tensor:
    """Return x (B, T, ...) cropped, or padded with zeros, to a length."""
    return torch.cat([x, x.new_zeros(x.shape[0], length, *x.shape[2:])], dim=1)[:, :length]


def sinusoids(x: Tensor) -> Tensor:
    """Return the positions (T, D) of frames x (B, T, D), D even: sines, then cosines (Vaswani et al. 2017)."""
    half = x.shape[-1] // 2
    rates = torch.exp(torch.arange(half, device=x.device) * (-math.log(10_000.0) / half))
    angles = torch.arange(x.shape[1], device=x.device).unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1).to(x.dtype)
