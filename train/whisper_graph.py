"""Whisper's encoder with its log-mel as tensor operations, so that a graph takes the waveform itself."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from train.encoders.speech import MIN_SAMPLES, LogMelEncoder, until, valid_samples
from train.layers import fit_length
from train.log_mel import HOP_SAMPLES, WINDOW_SAMPLES, dft_kernels

_FLOOR_POWER = 1e-10
_RANGE = 8.0
_HALF = WINDOW_SAMPLES // 2


class WhisperLogMel(nn.Module):
    """Whisper's log-mel of each row by itself: mirrored at its own ends, its loudest point the reference."""

    kernels: Tensor
    filters: Tensor

    def __init__(self, filters: np.ndarray) -> None:
        """Build with the feature extractor's mel filters, (bins, mels)."""
        super().__init__()
        self.register_buffer("kernels", torch.from_numpy(dft_kernels()).unsqueeze(1), persistent=False)
        self.register_buffer("filters", torch.tensor(filters.T, dtype=torch.float32), persistent=False)

    def forward(self, rows: Tensor, counts: Tensor) -> Tensor:
        """Return log-mel (B, mels, n // 160) of rows (B, n), zero after the frames of each row's first `counts`."""
        spectrum = nn.functional.conv1d(_mirrored(rows, counts)[:, None], self.kernels, stride=HOP_SAMPLES)
        bins = self.filters.shape[1]
        power = spectrum[:, :bins] ** 2 + spectrum[:, bins:] ** 2
        level = torch.log10(torch.matmul(self.filters, power[:, :, :-1]).clamp(min=_FLOOR_POWER))
        valid = until(torch.div(counts, HOP_SAMPLES, rounding_mode="floor"), level.shape[-1])[:, None, :]
        loudest = torch.where(valid > 0, level, torch.full_like(level, -100.0)).amax((1, 2), keepdim=True)
        return (torch.maximum(level, loudest - _RANGE) + 4.0) / 4.0 * valid


class GraphWhisper(LogMelEncoder):
    """The same encoder over the same modules; only where its log-mel is computed differs."""

    def __init__(self, encoder: LogMelEncoder) -> None:
        """Build around an encoder, whose weights are shared."""
        super().__init__(encoder.model, encoder.features, pad_s=encoder.pad_s)
        self.log_mel = WhisperLogMel(np.asarray(encoder.features.mel_filters))
        self.eval()

    def start(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the first layer's input from waveforms (B, n), the clip's frames and the frames attended to."""
        lengths = valid_samples(mask)
        limit = round(self.pad_s * 100) * HOP_SAMPLES
        rows = inputs * mask.to(inputs.dtype)
        # To the window, or at least to one frame.
        rows = fit_length(rows, limit) if limit else nn.functional.pad(rows, (0, MIN_SAMPLES))
        heard = torch.full_like(lengths, limit) if limit else lengths.clamp(min=MIN_SAMPLES)
        counts = torch.div(heard, HOP_SAMPLES, rounding_mode="floor")
        x = self.from_mel(self.log_mel(rows, heard), counts)
        frames = torch.div(torch.div(lengths, HOP_SAMPLES, rounding_mode="floor") + 1, 2, rounding_mode="floor")
        attended = torch.div(counts + 1, 2, rounding_mode="floor")
        return x, until(frames, x.shape[1]), until(attended, x.shape[1])


def _mirrored(rows: Tensor, counts: Tensor) -> Tensor:
    """Return rows (B, n + 400): each mirrored for 200 samples at its first and at its last valid sample."""
    last = counts[:, None] - 1
    place = torch.arange(rows.shape[1] + WINDOW_SAMPLES, device=rows.device)[None, :] - _HALF
    place = place.abs()
    place = torch.where(place > last, 2 * last - place, place).clamp(min=0)
    return rows.gather(1, place)
