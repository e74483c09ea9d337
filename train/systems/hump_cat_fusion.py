"""The cross-attention transformer of HuMP-CAT, over tokens of which some rows may be missing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from train.layers import Attention


@dataclass(frozen=True)
class Tokens:
    """Tokens of one branch or of several."""

    x: Tensor
    """(B, T, d)."""
    mask: Tensor | None = None
    """(B, T), 1 where a token is there; None: all are."""

    def there(self) -> Tensor:
        """Return the mask (B, T) in the tokens' dtype, ones where there is none."""
        return torch.ones_like(self.x[..., 0]) if self.mask is None else self.mask.to(self.x.dtype)


class CrossBlock(nn.Module):
    """U = LN(A + attention(A over B)), out = LN(U + feed-forward(U)): as long as A."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.norm_attention = nn.LayerNorm(width)
        self.up = nn.Linear(width, feed_forward)
        self.down = nn.Linear(feed_forward, width)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return a (B, T_a, d) after reading b (B, T_b, d), of which `mask` (B, T_b) are there."""
        u = self.norm_attention(a + self.dropout(self.attention(a, b, mask)))
        return self.norm_feed_forward(u + self.dropout(self.down(self.dropout(torch.relu(self.up(u))))))


class CrossTransformer(nn.Module):
    """A reads B, B reads A, with weights of their own; both outcomes follow each other in time."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.first = CrossBlock(width, heads, feed_forward, dropout)
        self.second = CrossBlock(width, heads, feed_forward, dropout)

    def forward(self, a: Tokens, b: Tokens) -> Tokens:
        """Return T_a + T_b tokens; in a row where one side is missing, the other stays as it was."""
        first, second = self.first(a.x, b.x, b.mask), self.second(b.x, a.x, a.mask)
        if a.mask is None and b.mask is None:
            return Tokens(torch.cat([first, second], dim=1))
        a_mask, b_mask = a.there(), b.there()
        first = torch.where(b_mask.amax(1)[:, None, None] > 0, first, a.x)
        second = torch.where(a_mask.amax(1)[:, None, None] > 0, second, b.x)
        return Tokens(torch.cat([first, second], dim=1), torch.cat([a_mask, b_mask], dim=1))


class SelfAttentionLayer(nn.Module):
    """LN(x + attention(x)), without a feed-forward part."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return x (B, T, d) after reading itself where `mask` (B, T) is 1."""
        return self.norm(x + self.dropout(self.attention(x, x, mask)))
