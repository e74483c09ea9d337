"""Sizes and switches of HuMP-CAT, and the presets worth a name."""

from __future__ import annotations

from dataclasses import dataclass

from edge_ser.errors import ConfigError

INPUT_OF = {"hubert": "speech", "mfcc": "mfcc", "prosody": "prosody", "lpcc": "lpcc", "spectrogram": "log_power"}
"""Under which name of `Inputs` each feature arrives."""

HAND_CRAFTED = ("prosody", "mfcc", "lpcc", "spectrogram")
"""Features that are no neural encoder's, in the order in which they are fused."""

BLOCK, BLOCK_STRIDE = 10, 4
"""Frames of 20 ms that are averaged into one, and how far apart those begin."""

_FRAMES_PER_SECOND = 50


@dataclass(frozen=True)
class HumpCatConfig:
    """Sizes and switches; the defaults are the paper's, or stand in for what it leaves out."""

    classes: int = 4
    features: tuple[str, ...] = ("hubert", "mfcc", "prosody")
    """Which branches exist: `hubert` (any speech encoder) and up to two of `prosody`, `mfcc`, `lpcc`, `spectrogram`."""
    clip_s: float = 7.0
    """Seconds of a clip; 50 frames each, less the last one."""
    speech_width: int = 768
    speech_layers: int = 2
    """Encoder layers that arrive; with one there is nothing to fuse."""
    speech_pool: int = 1
    """How many neighbouring encoder frames were averaged into one beforehand."""
    speech_normalise: bool = False
    """Whether each channel of the encoder is brought to mean 0 and deviation 1 over the training set."""
    layer_fusion: str = "attention"
    """`attention` weighs the layers anew in each frame, `scalar` once for all."""
    fusion_width: int = 128
    conv: str = "conv2d"
    """`conv2d` reads time x channel as a picture, `conv1d_stack` is two convolutions over time."""
    conv_channels: int = 16
    conv_kernel: tuple[int, int] = (10, 18)
    conv_stride: tuple[int, int] = (4, 3)
    mfcc_average: str = "block"
    """`block` averages 10 frames every 4, `global` all (as printed; attention then has one key), `none` nothing."""
    mfcc_encoder: str = "bilstm"
    """`bilstm`, or `conv`: one convolution, which integer kernels have."""
    prosody_hidden: int = 64
    prosody_tokens: int = 1
    width: int = 32
    """Width of a token, d; the embedding is twice that."""
    heads: int = 4
    feed_forward: int = 128
    pos: str = "none"
    """`none` or `sinusoidal` positions on the tokens of encoder and MFCCs."""
    stats: str = "var"
    """What stands beside the mean over time: `var` or `std`."""
    loss: str = "am"
    """`am`: softmax of cosines with a margin in training; `ce`: a linear layer and plain cross-entropy."""
    scale: float = 30.0
    margin: float = 0.2
    dropout: float = 0.1
    branch_dropout: float = 0.0
    """Share of training rows that miss a branch; 0.1 where a device may skip the encoder to save power."""
    adapt: str = "fusion"
    """What learns in a transfer: `fusion` (cross-attention, self-attention, classifier) or `all`."""

    @property
    def frames(self) -> int:
        """MFCC frames of a clip, as many as a HuBERT encoder gives: 349 for 7 s."""
        return round(self.clip_s * _FRAMES_PER_SECOND) - 1

    @property
    def speech_frames(self) -> int:
        """Encoder frames that are read of a clip."""
        return max(1, self.frames // self.speech_pool)


PRESETS: dict[str, HumpCatConfig] = {
    "paper": HumpCatConfig(),
    "prosody-mfcc": HumpCatConfig(features=("mfcc", "prosody")),
    # Two cores: a small encoder at 25 frames per second, shorter clips; one token every 80 ms as in the paper.
    "desk": HumpCatConfig(
        clip_s=4.0,
        speech_width=384,
        speech_pool=2,
        speech_normalise=True,
        fusion_width=32,
        conv_channels=8,
        conv_kernel=(5, 18),
        conv_stride=(2, 6),
    ),
    "tiny": HumpCatConfig(
        clip_s=1.0,
        speech_width=24,
        fusion_width=8,
        conv_channels=2,
        prosody_hidden=8,
        width=8,
        heads=2,
        feed_forward=16,
    ),
}

_CHOICES = {
    "layer_fusion": ("attention", "scalar"),
    "conv": ("conv2d", "conv1d_stack"),
    "mfcc_average": ("block", "global", "none"),
    "mfcc_encoder": ("bilstm", "conv"),
    "pos": ("none", "sinusoidal"),
    "stats": ("var", "std"),
    "loss": ("am", "ce"),
    "adapt": ("fusion", "all"),
}


def check(config: HumpCatConfig) -> None:
    """Raise ConfigError if a switch, a size or the choice of features does not fit."""
    for field, allowed in _CHOICES.items():
        if getattr(config, field) not in allowed:
            raise ConfigError(f"{field} is {getattr(config, field)!r}; need one of {', '.join(allowed)}")
    known = set(INPUT_OF)
    if not config.features or not set(config.features) <= known or len(set(config.features)) < len(config.features):
        raise ConfigError(f"features are {config.features}; need some of {', '.join(INPUT_OF)}, each once")
    if len(set(config.features) & set(HAND_CRAFTED)) > 2:
        raise ConfigError(f"features are {config.features}; need at most two besides hubert")
    if config.width % 2 or config.width % config.heads:
        raise ConfigError(f"width is {config.width}; need an even multiple of heads ({config.heads})")
    if not 0.0 <= config.branch_dropout < 1.0 or not 0.0 <= config.dropout < 1.0:
        raise ConfigError("dropout and branch_dropout are shares; need at least 0 and less than 1")
    if min(config.speech_layers, config.speech_pool, config.prosody_tokens, config.classes) < 1:
        raise ConfigError("speech_layers, speech_pool, prosody_tokens and classes count something; need 1 or more")
    needed, frames = _frames_needed(config), config.frames
    if "hubert" in config.features and config.speech_frames < needed:
        raise ConfigError(f"clip_s gives {config.speech_frames} encoder frames; conv needs {needed}; raise clip_s")
    if "hubert" in config.features and config.conv == "conv2d" and config.speech_width < config.conv_kernel[1]:
        raise ConfigError(f"speech_width is {config.speech_width}; conv2d needs {config.conv_kernel[1]} or more")
    if frames < BLOCK:
        raise ConfigError(f"clip_s is {config.clip_s}; need at least {(BLOCK + 1) / _FRAMES_PER_SECOND} s")


def steps(frames: int, kernel: int, stride: int) -> int:
    """Return how many steps a convolution or an average without padding makes of `frames`."""
    return (frames - kernel) // stride + 1


def _frames_needed(config: HumpCatConfig) -> int:
    first, second = config.conv_kernel
    return first if config.conv == "conv2d" else first + (second - 1) * config.conv_stride[0]
