"""Log-mel features as a conv1d DFT: the one front end, trained with and exported inside the graph."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SAMPLE_RATE_HZ = 16_000
WINDOW_SAMPLES = 400
"""25 ms."""
HOP_SAMPLES = 160
"""10 ms."""
LOW_HZ, HIGH_HZ = 60.0, 7600.0
LEVEL = 0.05
"""Root mean square to which every utterance is brought, so that the microphone's gain does not matter."""
SILENCE_LEVEL = 1e-5
"""Below this root mean square (-100 dBFS) nothing is amplified further."""
FLOOR = 1e-5
"""Added to mel power before the logarithm."""


def _hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2595.0 * np.log10(1.0 + hz / 700.0)


def mel_filters(mels: int) -> NDArray[np.float32]:
    """Return triangular filters of equal height on the HTK mel scale, shape (mels, bins)."""
    bins_hz = np.arange(WINDOW_SAMPLES // 2 + 1) * SAMPLE_RATE_HZ / WINDOW_SAMPLES
    low, high = _hz_to_mel(np.array([LOW_HZ, HIGH_HZ]))
    edges_hz = 700.0 * (10.0 ** (np.linspace(low, high, mels + 2) / 2595.0) - 1.0)
    left, centre, right = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising = (bins_hz - left) / (centre - left)
    falling = (right - bins_hz) / (right - centre)
    filters: NDArray[np.float32] = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    return filters


def dft_kernels() -> NDArray[np.float32]:
    """Return Hann-windowed cosine and sine kernels, shape (2 * bins, WINDOW_SAMPLES)."""
    samples = np.arange(WINDOW_SAMPLES)
    window = 0.5 - 0.5 * np.cos(2.0 * math.pi * samples / WINDOW_SAMPLES)
    angle = 2.0 * math.pi * np.outer(np.arange(WINDOW_SAMPLES // 2 + 1), samples) / WINDOW_SAMPLES
    return np.concatenate([np.cos(angle) * window, np.sin(angle) * window]).astype(np.float32)


class LogMel(nn.Module):
    """Waveform (B, samples) -> log-mel (B, mels, frames), 100 frames a second, level-free."""

    kernels: Tensor
    filters: Tensor

    def __init__(self, mels: int) -> None:
        super().__init__()
        self.register_buffer("kernels", torch.from_numpy(dft_kernels()).unsqueeze(1), persistent=False)
        self.register_buffer("filters", torch.from_numpy(mel_filters(mels)).unsqueeze(-1), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """Return features with mean about 0 and deviation about 1 over speech."""
        root_mean_square = torch.sqrt((audio * audio).mean(1, keepdim=True) + SILENCE_LEVEL**2)
        levelled = (audio * (LEVEL / root_mean_square)).unsqueeze(1)
        spectrum = nn.functional.conv1d(levelled, self.kernels, stride=HOP_SAMPLES)
        bins = self.filters.shape[1]
        cosine, sine = spectrum[:, :bins], spectrum[:, bins:]
        power = cosine * cosine + sine * sine  # (B, bins, T)
        mel = nn.functional.conv1d(power, self.filters)
        return (torch.log(mel + FLOOR) + 2.0) * 0.25
