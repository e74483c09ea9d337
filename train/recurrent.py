"""A bidirectional GRU that padding cannot reach, without packed sequences, which not every exporter knows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.layers import fit_length


class MaskedBiGru(nn.Module):
    """Bidirectional GRU whose backward half reads each row reversed within its valid length.

    It has as many parameters as torch's and, for equal weights, its output on packed sequences. Valid frames come
    first: the mask is ones, then zeros.
    """

    def __init__(self, inputs: int, width: int, *, layers: int, dropout: float) -> None:
        """Build with `width` units per direction and dropout between layers."""
        super().__init__()
        widths = [inputs] + [2 * width] * (layers - 1)
        self.onward = nn.ModuleList(nn.GRU(size, width, batch_first=True) for size in widths)
        self.backward_ = nn.ModuleList(nn.GRU(size, width, batch_first=True) for size in widths)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return (B, T, 2 * width), forward half first, zeros where mask (B, T) is 0; x is (B, T, inputs)."""
        if mask is None:
            return self._whole(x)
        order = _reversal(mask)
        for layer, (onward, backward) in enumerate(zip(self.onward, self.backward_, strict=True)):
            x = self.dropout(x) if layer else x
            behind, _ = onward(x)
            ahead, _ = backward(_take(x, order))
            x = torch.cat([behind, _take(ahead, order)], dim=-1)
        return x * mask.unsqueeze(-1)

    def _whole(self, x: Tensor) -> Tensor:
        for layer, (onward, backward) in enumerate(zip(self.onward, self.backward_, strict=True)):
            x = self.dropout(x) if layer else x
            x = torch.cat([onward(x)[0], backward(x.flip(1))[0].flip(1)], dim=-1)
        return x


def last_states(frames: Tensor, mask: Tensor) -> Tensor:
    """Return the final state of either direction (B, 2 * width) from a BiGRU's frames; zeros for an empty row."""
    width = frames.shape[-1] // 2
    final = (mask.sum(1) - 1.0).clamp(min=0.0).long().unsqueeze(1)  # (B, 1)
    behind = _take(frames[..., :width], final).squeeze(1)
    return torch.cat([behind, frames[:, 0, width:]], dim=-1)


def fit_middle(x: Tensor, mask: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Return x (B, T, D) and mask (B, T) at `frames` frames: zeros at the end, or the middle of what is valid."""
    if x.shape[1] == frames:
        return x, mask
    if x.shape[1] < frames:
        return fit_length(x, frames), fit_length(mask, frames)
    start = torch.div((mask.sum(1, keepdim=True) - frames).clamp(min=0.0), 2, rounding_mode="floor").long()
    chosen = start + torch.arange(frames, device=x.device)
    return _take(x, chosen), mask.gather(1, chosen)


def _reversal(mask: Tensor) -> Tensor:
    place = torch.arange(mask.shape[1], device=mask.device).unsqueeze(0)
    mirrored = mask.sum(1, keepdim=True).long() - 1 - place
    return torch.where(mirrored >= 0, mirrored, place)


def _take(x: Tensor, order: Tensor) -> Tensor:
    return x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
