"""The pooled single-encoder baseline of CAMuLeNet: a frozen encoder's mean over time, read by a small CNN.

The source tunes these "with CTC loss"; there are neither transcripts nor sequences of labels to align, so that is read
as the encoders' own pre-training, and the loss is cross-entropy.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edge_ser.errors import ConfigError
from train.layers import mask_of, masked_mean
from train.systems import Inputs, Output, System, count_parameters


@dataclass(frozen=True)
class PooledEncoderConfig:
    """Sizes; the source states neither channels nor kernel, so those are ours."""

    classes: int = 4
    speech_width: int = 1024
    """Width of the encoder's frames."""
    channels: int = 64
    kernel: int = 5
    """Odd, so that the convolution keeps the length."""
    hidden: int = 128
    dropout: float = 0.3

    def __post_init__(self) -> None:
        """Refuse a kernel without a middle.

        Raises:
            ConfigError: The kernel is even.
        """
        if self.kernel % 2 == 0:
            raise ConfigError(f"kernel is {self.kernel}; need an odd number, so that the length stays; use 5")


PRESETS = {
    "paper": PooledEncoderConfig(),
    "whisper-medium": PooledEncoderConfig(),
    "whisper-base": PooledEncoderConfig(speech_width=512),
    "wav2vec2-base": PooledEncoderConfig(speech_width=768),
    "hubert-base": PooledEncoderConfig(speech_width=768),
    "wavlm-base": PooledEncoderConfig(speech_width=768),
    "desk": PooledEncoderConfig(speech_width=384),
    "tiny": PooledEncoderConfig(speech_width=16, channels=4, hidden=8),
}
"""Sizes by encoder; `paper` is the strongest of the published baselines, `desk` reads Whisper tiny."""


class PooledEncoder(System):
    """Mean over valid frames, taken as a signal of one channel: Conv1d, BatchNorm, ReLU, Dropout, MaxPool, two layers.

    The activation between the last two layers is ours: without one they would be a single layer.
    """

    reads = ("speech",)

    def __init__(self, config: PooledEncoderConfig) -> None:
        """Build with random weights."""
        super().__init__()
        self.config = config
        self.cnn = nn.Sequential(
            nn.Conv1d(1, config.channels, config.kernel, padding=config.kernel // 2),
            nn.BatchNorm1d(config.channels),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.MaxPool1d(2),
        )
        self.hidden = nn.Sequential(nn.Linear(config.channels * (config.speech_width // 2), config.hidden), nn.ReLU())
        self.emotion = nn.Linear(config.hidden, config.classes)

    def forward(self, inputs: Inputs) -> Output:
        """Return logits (B, C) and the hidden layer (B, hidden) of `speech` (B, T, W).

        Raises:
            ConfigError: No speech, or frames of another width.
        """
        if "speech" not in inputs:
            raise ConfigError(
                "got no speech; a pooled encoder reads nothing else; extract the frames of a speech encoder"
            )
        speech: Tensor = inputs["speech"]
        if speech.dim() != 3 or speech.shape[-1] != self.config.speech_width:
            raise ConfigError(
                f"speech has shape {tuple(speech.shape)}; need (B, T, {self.config.speech_width}), one layer's frames; "
                "set speech_width to the encoder's"
            )
        pooled = masked_mean(speech, mask_of(inputs, "speech"))
        embedding = self.hidden(self.cnn(pooled.unsqueeze(1)).flatten(1))
        return Output(self.emotion(embedding), embedding)

    def parts(self) -> dict[str, int]:
        """Return parameters of the convolution with its norm, and of both layers after it."""
        return {
            "cnn": count_parameters(self.cnn),
            "heads": count_parameters(self.hidden) + count_parameters(self.emotion),
        }
