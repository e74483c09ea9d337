"""What makes the features that a settings file names: encoders over clips of one length, hand-crafted extractors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from edge_ser import clips
from edge_ser.mfcc import mfcc39
from edge_ser.mfcc40 import mfcc40
from edge_ser.prosody import prosody
from edge_ser.spectrogram import SpectrogramSettings, spectrogram_image
from train.encoders import Encoder, layer_numbers
from train.feature_cache import pool_frames
from train.hump_cat_features import log_power, lpcc
from train.settings import FeatureSettings

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class HandCrafted:
    """An extractor without weights over clips that are brought to a length first."""

    name: str
    """Everything that sets the values."""
    compute: Callable[[Samples], NDArray[np.float32]]
    """From samples of the right length."""
    settings: FeatureSettings
    """Says the length."""

    def __call__(self, samples: Samples) -> NDArray[np.float32]:
        """Return the features of mono float32 samples, shape (n,), at 16 kHz."""
        return self.compute(at_length(samples, self.settings))


@dataclass(frozen=True)
class EncoderAtLength:
    """An encoder over clips that are brought to a length first; frames of added silence are not kept."""

    origin: str
    """Everything that sets the values, weights included."""
    encoder: Encoder
    settings: FeatureSettings

    @property
    def name(self) -> str:
        """Everything that sets the values and how many of them there are."""
        # Version 2 counts the frames of a clip that silence follows by the convolutions, not by its share of the time.
        return f"{self.origin}-v2" if self.settings.length == "zeros" else self.origin

    @torch.no_grad()
    def __call__(self, samples: Samples) -> NDArray[np.float32]:
        """Return (T, D) for one layer or (T, L, D) for several."""
        numbers = chosen_layers(self.encoder, self.settings)
        row = torch.from_numpy(np.ascontiguousarray(at_length(samples, self.settings)))[None]
        device = next(self.encoder.parameters()).device
        states, frames = self.encoder.encode(row.to(device), torch.ones_like(row, device=device), max(numbers))
        valid = int(frames[0].sum())
        if self.settings.length == "zeros":
            valid = min(valid, self.encoder.frames_of(len(samples)))
        layers = [pool_frames(states[number][0, :valid].cpu().numpy(), self.settings.pool) for number in numbers]
        return layers[0] if len(layers) == 1 else np.stack(layers, axis=1)


def chosen_layers(encoder: Encoder, settings: FeatureSettings) -> tuple[int, ...]:
    """Return the numbers of the layers that are asked for: the last one where none are.

    Raises:
        ConfigError: The encoder has no such layer.
    """
    if isinstance(settings.layers, tuple):
        return layer_numbers(encoder, settings.layers)
    return layer_numbers(encoder, "weighted_sum" if settings.layers == "weighted_sum" else "last")


def at_length(samples: Samples, settings: FeatureSettings) -> Samples:
    """Return samples cut, repeated or followed by silence as the settings want it."""
    return clips.at_length(samples, settings.length, settings.seconds)


def hand_crafted(settings: FeatureSettings) -> HandCrafted:
    """Return the extractor of a kind that needs no encoder: MFCCs, prosody, a spectrogram or the samples themselves."""
    if settings.kind == "spectrogram":
        picture = SpectrogramSettings(clip_s=settings.seconds or SpectrogramSettings.clip_s, **settings.options)
        name, compute = picture.name, partial(spectrogram_image, settings=picture)
    else:
        options = "".join(f"-{key}={value}" for key, value in sorted(settings.options.items()))
        name, compute = settings.kind + options, partial(_KINDS[settings.kind], **settings.options)
    if settings.length != "as_is":
        name = f"{name}-{settings.length}-{settings.seconds:g}s"
    return HandCrafted(f"{name}-v1", compute, settings)


def _samples(samples: Samples) -> Samples:
    return samples


_KINDS: dict[str, Callable[..., NDArray[np.float32]]] = {
    "mfcc39": mfcc39,
    "mfcc40": mfcc40,
    "prosody": prosody,
    "lpcc": lpcc,
    "log_power": log_power,
    "audio": _samples,
}
