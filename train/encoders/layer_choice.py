"""Which encoder, and which of its layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_ser.errors import ConfigError
from train.encoders.base import Encoder, Mode
from train.encoders.loading import load_encoder

Layers = tuple[int, ...] | Literal["last", "weighted_sum"]


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder and what is taken from it."""

    source: str
    """Hub id, folder, `tiny:NAME` or `random:HUB_ID`."""
    layers: Layers = "last"
    """Layer numbers, 0 being the input of the first layer, of which the mean is taken; `last`; or `weighted_sum`, a
    learned softmax-weighted sum of all."""
    mode: Mode = "frozen"
    """What of it learns."""
    freeze_cnn: bool = True
    """Keep the front end's convolutions when fine-tuning."""
    whisper_pad_s: float = 0.0
    """Seconds to which Whisper's clips are padded; 0 for none, 30 as published."""
    seed: int = 0
    """Seed of random weights."""


def build_encoder(spec: EncoderSpec) -> Encoder:
    """Return the encoder that a specification names, in its mode."""
    encoder = load_encoder(spec.source, seed=spec.seed, whisper_pad_s=spec.whisper_pad_s)
    return encoder.set_mode(spec.mode, freeze_cnn=spec.freeze_cnn)


def layer_numbers(encoder: Encoder, layers: Layers | list[int]) -> tuple[int, ...]:
    """Return the numbers of the chosen layers: `last` is the last one, `weighted_sum` all, the input included.

    Raises:
        ConfigError: No such layer.
    """
    if layers == "last":
        return (encoder.layer_count,)
    if layers == "weighted_sum":
        return tuple(range(encoder.layer_count + 1))
    chosen = tuple(layers)
    if not chosen or not all(isinstance(number, int) and 0 <= number <= encoder.layer_count for number in chosen):
        raise ConfigError(
            f"layers are {layers!r}; need 'last', 'weighted_sum' or numbers from 0 to {encoder.layer_count}"
        )
    return chosen
