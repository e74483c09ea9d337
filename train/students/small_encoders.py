"""Small speech and text encoders that start from random weights, for models that run on the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from train.layers import TransformerLayer, masked_deviation, masked_mean
from train.log_mel import LogMel


class SeparableBlock(nn.Module):
    """Residual depthwise-separable convolution over time."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width, bias=False)
        self.norm_depthwise = nn.BatchNorm1d(width)
        self.pointwise = nn.Conv1d(width, width, 1, bias=False)
        self.norm_pointwise = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, D, T) plus what its neighbourhood adds."""
        hidden = torch.relu(self.norm_depthwise(self.depthwise(x)))
        return x + self.dropout(torch.relu(self.norm_pointwise(self.pointwise(hidden))))


def _convolution(inputs: int, outputs: int, stride: tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Position(nn.Module):
    """Adds to frame t the sines and cosines of Vaswani et al. 2017, by a learned weight for each channel.

    Computed from t, not stored: a graph of any length needs no table.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((width,), 0.1))
        frequencies = torch.exp(torch.arange(width // 2) * (-math.log(10_000.0) / (width // 2)))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, T, D) with its places told."""
        frequencies = self.get_buffer("frequencies")
        angle = torch.arange(x.shape[1], device=x.device).to(frequencies.dtype).unsqueeze(1) * frequencies
        return x + self.scale * torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)


class SpeechEncoder(nn.Module):
    """Waveform (B, samples) -> frames (B, T, width) at two depths, 25 a second.

    The frames go through the transformer layers `passes` times: depth that costs time, of which a device has some left,
    and hardly any weights (Dehghani et al. 2019, Universal Transformers).
    """

    def __init__(self, *, width: int, mels: int, blocks: int, layers: int, passes: int, dropout: float) -> None:
        super().__init__()
        self.log_mel = LogMel(mels)
        self.spec_augment = SpecAugment()
        self.stem = nn.Sequential(
            _convolution(1, 24, (2, 2)), _convolution(24, 48, (2, 2)), _convolution(48, 64, (2, 1))
        )
        self.squeeze = nn.Conv1d(64 * (mels // 8), width, 1)
        self.blocks = nn.ModuleList(SeparableBlock(width, 7, dropout) for _ in range(blocks))
        self.position = Position(width)
        self.layers = nn.ModuleList(
            TransformerLayer(width, 4, 4 * width, dropout, pre_norm=True) for _ in range(layers)
        )
        # For each layer and pass after the first, how much of what the layer adds is taken; at first nothing.
        self.again = nn.ParameterList(torch.zeros(width) for _ in range(layers * (passes - 1)))
        self.norm = nn.LayerNorm(width)
        self.presence = nn.Linear(width, 1)

    def pooled(self, frames: Tensor) -> Tensor:
        """Return mean and deviation over time (B, 2 D) of frames (B, T, D), each as much as somebody speaks in it."""
        spoken = torch.sigmoid(self.presence(frames)).squeeze(-1)
        mean = masked_mean(frames, spoken)
        return torch.cat([mean, masked_deviation(frames, mean, spoken)], dim=-1)

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log-mel picture (B, mels, 4 T), frames before the transformer layers and after, (B, T, width)."""
        picture = self.log_mel(audio)
        mel = self.spec_augment(picture)
        maps = self.stem(mel.unsqueeze(1))  # (B, C, mels / 8, T)
        x = self.squeeze(maps.flatten(1, 2))  # (B, D, T)
        for block in self.blocks:
            x = block(x)
        early = x.transpose(1, 2)  # (B, T, D)
        x = self.position(early)
        for layer in self.layers:
            x = layer(x, None)
        for number, share in enumerate(self.again):
            x = x + share * (self.layers[number % len(self.layers)](x, None) - x)
        return picture, early, self.norm(x)


class SpecAugment(nn.Module):
    """Hides two bands and two stretches of a log-mel picture while training (Park et al. 2019).

    Half of the pictures also come through another channel: a smooth curve over frequency of a few decibels.
    """

    def __init__(self, max_mels: int = 10, max_fraction: float = 0.12, colour: float = 0.2) -> None:
        super().__init__()
        self.max_mels = max_mels
        self.max_fraction = max_fraction
        self.colour = colour

    def forward(self, mel: Tensor) -> Tensor:
        """Return mel (B, mels, T) with the hidden parts at zero, about the mean of speech."""
        if not self.training:
            return mel
        keep = torch.ones_like(mel)
        for axis, longest in ((1, self.max_mels), (2, int(mel.shape[2] * self.max_fraction))):
            for _ in range(2):
                keep = keep * self._keep(mel, axis, longest)
        return (mel + self._channel(mel)) * keep

    def _channel(self, mel: Tensor) -> Tensor:
        """Return (B, mels, 1): nothing, or a sum of four slow cosines; a deviation of 0.2 is 3.5 dB of power."""
        batch, mels = mel.shape[:2]
        angle = torch.linspace(0.0, math.pi, mels).unsqueeze(0) * torch.arange(1.0, 5.0).unsqueeze(1)
        weights = torch.randn(batch, 4) * self.colour * (torch.rand(batch, 1) < 0.5)
        return (weights @ torch.cos(angle)).unsqueeze(-1).to(mel.dtype).to(mel.device)

    @staticmethod
    def _keep(mel: Tensor, axis: int, longest: int) -> Tensor:
        batch, size = mel.shape[0], mel.shape[axis]
        width = torch.randint(0, longest + 1, (batch, 1))
        start = (torch.rand(batch, 1) * (size - width)).long()
        place = torch.arange(size).unsqueeze(0)
        keep = ((place < start) | (place >= start + width)).to(mel.dtype).to(mel.device)
        return keep.unsqueeze(2) if axis == 1 else keep.unsqueeze(1)


class TextEncoder(nn.Module):
    """Token ids (B, T) -> frames (B, T, width)."""

    def __init__(self, *, vocabulary: int, width: int, max_tokens: int, dropout: float) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(max_tokens, width) * 0.02)
        self.layer = TransformerLayer(width, 4, 2 * width, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return one vector a token; mask (B, T) in floats, 0 where there is no token."""
        x = self.table(ids) + self.position[: ids.shape[1]]
        return self.layer(self.dropout(x), mask)
