"""The branches of HuMP-CAT: from a feature to tokens (B, T, d).

Sequences of another length than a clip's are cut, or repeat themselves from their first frame.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_ser.errors import ConfigError
from train.layers import LayerMix, sinusoids
from train.standardise import Standardise
from train.systems.hump_cat_config import BLOCK, BLOCK_STRIDE, HumpCatConfig, steps

FRAME_WIDTHS = {"mfcc": 39, "lpcc": 36, "spectrogram": 513}
"""Numbers per frame."""

_PROSODY_WIDTH = 103
_PROSODY_CLIP = 5.0


class Branch(nn.Module):
    """A feature's way to tokens."""

    standard: Standardise | None

    def parts(self) -> dict[str, int]:
        """Return parameters by part."""
        raise NotImplementedError


class SpeechBranch(Branch):
    """Layers of a speech encoder: fused frame by frame, then a convolution, a linear map."""

    def __init__(self, config: HumpCatConfig) -> None:
        super().__init__()
        self.config = config
        several = config.speech_layers > 1
        shape = (config.speech_layers, config.speech_width) if several else (config.speech_width,)
        self.standard = Standardise(shape) if config.speech_normalise else None
        self.layer_fusion = _layer_fusion(config) if several else None
        (time, channel), (time_stride, channel_stride) = config.conv_kernel, config.conv_stride
        self.conv: nn.Module
        self.projection: nn.Linear | None = None
        if config.conv == "conv2d":
            self.conv = nn.Conv2d(1, config.conv_channels, config.conv_kernel, config.conv_stride)
            channels = steps(config.speech_width, channel, channel_stride)
            self.projection = nn.Linear(config.conv_channels * channels, config.width)
        else:
            self.conv = nn.Sequential(
                nn.Conv1d(config.speech_width, config.width, time, time_stride),
                nn.ReLU(),
                nn.Conv1d(config.width, config.width, channel, channel_stride),
                nn.ReLU(),
            )

    def forward(self, speech: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return tokens of speech (B, T, L, D), or (B, T, D) for one layer; mask (B, T)."""
        h = self.fuse(self._checked(speech), mask)
        if self.projection is None:
            return _placed(self.conv(h.transpose(1, 2)).transpose(1, 2), self.config.pos)
        image = torch.relu(self.conv(h.unsqueeze(1)))  # (B, channels, T', D')
        rows = image.transpose(1, 2).flatten(2)  # (B, T', channels D')
        return _placed(self.projection(rows), self.config.pos)

    def fuse(self, speech: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return one layer (B, T, D) of exactly a clip's frames."""
        x = repeat_frames(speech, mask, self.config.speech_frames)
        if self.standard is not None:
            x = self.standard(x)
        return x if self.layer_fusion is None else self.layer_fusion(x)

    def parts(self) -> dict[str, int]:
        """Return parameters of layer fusion, convolution and projection."""
        named = {"layer_fusion": self.layer_fusion, "conv": self.conv, "projection": self.projection}
        return {name: _count(part) for name, part in named.items()}

    def _checked(self, speech: Tensor) -> Tensor:
        layers, width = self.config.speech_layers, self.config.speech_width
        if layers == 1 and speech.dim() == 4:
            speech = speech.squeeze(2)
        wanted = (width,) if layers == 1 else (layers, width)
        if tuple(speech.shape[2:]) != wanted:
            raise ConfigError(
                f"speech has shape {tuple(speech.shape)}; need (B, T, {', '.join(map(str, wanted))}); "
                "set speech_layers and speech_width to what the encoder gives"
            )
        return speech


class LayerAttention(nn.Module):
    """Weights of the layers in each frame: softmax over l of v . tanh(W h_l[t] + b)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)

    def weights(self, x: Tensor) -> Tensor:
        """Return (B, T, L, 1), summing to 1 over L."""
        return torch.softmax(self.score(torch.tanh(self.hidden(x))), dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted sum of x (B, T, L, D): (B, T, D)."""
        return (self.weights(x) * x).sum(2)


class FrameBranch(Branch):
    """Hand-crafted frames: MFCCs and LPCCs averaged over time and read by a BiLSTM, a spectrogram by a linear map."""

    def __init__(self, name: str, config: HumpCatConfig) -> None:
        super().__init__()
        self.name, self.config = name, config
        inputs = FRAME_WIDTHS[name]
        self.standard = Standardise((inputs,))
        self.frames = steps(config.frames, BLOCK, BLOCK_STRIDE) if name == "spectrogram" else config.frames
        self.encoder: nn.Module
        if name == "spectrogram":
            self.encoder = nn.Linear(inputs, config.width)
        elif config.mfcc_encoder == "bilstm":
            self.encoder = nn.LSTM(inputs, config.width // 2, batch_first=True, bidirectional=True)
        else:
            self.encoder = nn.Conv1d(inputs, config.width, 5, padding=2)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return tokens of frames (B, T, F), mask (B, T)."""
        return self.encode(self.average(frames, mask))

    def average(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return normalised frames, averaged over time as `config.mfcc_average` says; a spectrogram comes averaged."""
        if frames.shape[-1] != FRAME_WIDTHS[self.name]:
            raise ConfigError(f"{self.name} has {frames.shape[-1]} numbers per frame; need {FRAME_WIDTHS[self.name]}")
        assert self.standard is not None
        x = self.standard(repeat_frames(frames, mask, self.frames))
        if self.name == "spectrogram" or self.config.mfcc_average == "none":
            return x
        if self.config.mfcc_average == "global":
            return x.mean(1, keepdim=True)
        return nn.functional.avg_pool1d(x.transpose(1, 2), BLOCK, BLOCK_STRIDE).transpose(1, 2)

    def encode(self, x: Tensor) -> Tensor:
        """Return tokens of averaged frames (B, T', F): (B, T', d)."""
        if isinstance(self.encoder, nn.LSTM):
            tokens = self.encoder(x)[0]
        elif isinstance(self.encoder, nn.Conv1d):
            tokens = torch.relu(self.encoder(x.transpose(1, 2))).transpose(1, 2)
        else:
            tokens = self.encoder(x)
        return _placed(tokens, self.config.pos)

    def parts(self) -> dict[str, int]:
        """Return parameters under the feature's name."""
        return {self.name: _count(self)}


class ProsodyBranch(Branch):
    """103 numbers, two linear layers, one token or several."""

    def __init__(self, config: HumpCatConfig) -> None:
        super().__init__()
        self.tokens, self.width = config.prosody_tokens, config.width
        self.standard = Standardise((_PROSODY_WIDTH,))
        self.hidden = nn.Linear(_PROSODY_WIDTH, config.prosody_hidden)
        self.out = nn.Linear(config.prosody_hidden, config.prosody_tokens * config.width)

    def forward(self, prosody: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return tokens of prosody (B, 103): (B, n, d); there is no mask to heed."""
        if prosody.shape[-1] != _PROSODY_WIDTH:
            raise ConfigError(f"prosody has {prosody.shape[-1]} numbers; need {_PROSODY_WIDTH}")
        assert self.standard is not None
        x = self.standard(prosody).clamp(-_PROSODY_CLIP, _PROSODY_CLIP)
        hidden = torch.relu(self.hidden(x))
        return torch.relu(self.out(hidden)).view(-1, self.tokens, self.width)

    def parts(self) -> dict[str, int]:
        """Return parameters under the feature's name."""
        return {"prosody": _count(self)}


def repeat_frames(x: Tensor, mask: Tensor | None, frames: int) -> Tensor:
    """Return `frames` frames of x (B, T, ...): each row's own (by its mask), and from the first again at its end."""
    have = x.shape[1]
    if mask is None or (have >= frames and bool(mask[:, :frames].all())):
        return x[:, :frames] if have >= frames else x[:, torch.arange(frames, device=x.device) % have]
    lengths = mask.sum(1, keepdim=True).clamp(min=1.0).long()
    index = torch.arange(frames, device=x.device) % lengths  # (B, frames)
    return x[torch.arange(len(x), device=x.device)[:, None], index]


def _layer_fusion(config: HumpCatConfig) -> nn.Module:
    if config.layer_fusion == "scalar":
        return LayerMix(config.speech_layers)
    return LayerAttention(config.speech_width, config.fusion_width)


def _placed(tokens: Tensor, pos: str) -> Tensor:
    return tokens if pos == "none" else tokens + sinusoids(tokens)


def _count(part: nn.Module | None) -> int:
    return 0 if part is None else sum(parameter.numel() for parameter in part.parameters())
