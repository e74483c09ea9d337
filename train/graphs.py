"""An experiment's system as graphs of tensors: speech, text and fusion, each a module that an exporter can trace.

The speech graph takes waveforms and their mask, the text graph token ids and theirs; the fusion graph takes what these
make and the features that are computed outside of any graph. `SystemGraphs.reference` says what training's own path
makes of one utterance alone, which is what the graphs are checked against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.bundle import Input
from edge_ser.corpus import FOUR_CLASSES
from edge_ser.errors import ConfigError
from edge_ser.graph_io import MFCC_WIDTHS
from edge_ser.spectrogram import SpectrogramSettings
from train.encoders import Encoder, LogMelEncoder, WaveformEncoder
from train.encoders.speech import MIN_SAMPLES, until, valid_samples
from train.examples import Example, collate
from train.experiment import Workbench
from train.feature_cache import pool_frames
from train.feature_kinds import EncoderAtLength, chosen_layers, hand_crafted
from train.layers import fit_length, mean_neighbours
from train.log_mel import HOP_SAMPLES
from train.lora import lora_layers
from train.run_folder import load_stored_state
from train.settings import FeatureSettings
from train.systems import Inputs, System, count_parameters
from train.systems.camulenet import Camulenet
from train.systems.hump_cat import HumpCat
from train.systems.lora_multilingual import LoraSer
from train.whisper_graph import GraphWhisper

ATTRIBUTES = ("arousal", "valence", "dominance")
ANCHORS = {
    "angry": (0.795, 0.245, 0.625),
    "happy": (0.755, 0.905, 0.730),
    "neutral": (0.500, 0.500, 0.500),
    "sad": (0.365, 0.185, 0.335),
}
"""Arousal, valence and dominance of the emotions in [0, 1], after Russell and Mehrabian (1977)."""

_ANCHOR_WIDTH = 0.25
"""Distance between attributes over which an emotion loses half a nat."""
_LONGEST_S = 30.0
_AXES = {
    "audio": "samples",
    "audio_mask": "samples",
    "text_ids": "tokens",
    "text_mask": "tokens",
    "text": "tokens",
    "speech": "frames",
    "speech_mask": "frames",
    "mfcc": "mfcc_frames",
    "mfcc_mask": "mfcc_frames",
}
"""What the second axis of a value counts."""


@dataclass(frozen=True)
class Part:
    """One graph."""

    module: nn.Module
    """Takes `inputs` in order, returns `outputs` in order."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    free: dict[str, dict[int, str]]
    """Axes of any size, by name of an input or output."""


class SpeechGraph(nn.Module):
    """Waveforms (B, n) and mask (B, n) to the frames that a system reads, (B, T, D) or (B, T, L, D), and their mask."""

    def __init__(self, encoder: Encoder, feature: FeatureSettings, frames: int = 0) -> None:
        """Build around an encoder, whose weights are shared.

        Args:
            encoder: A speech encoder.
            feature: Which layers, how the clip is brought to its length, how many neighbours are averaged.
            frames: Frames to put out, whatever the clip's length; 0 is as many as there are.
        """
        super().__init__()
        self.encoder = GraphWhisper(encoder) if isinstance(encoder, LogMelEncoder) else encoder
        self.layers = chosen_layers(encoder, feature)
        self.length, self.samples = feature.length, round(feature.seconds * SAMPLE_RATE_HZ)
        self.pool, self.frames = feature.pool, frames

    def forward(self, audio: Tensor, audio_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return frames, zero where masked, and their mask (B, T)."""
        waves, mask, own = self.at_length(audio * audio_mask, audio_mask)
        states, valid = self.encoder.encode(waves, mask, max(self.layers))
        if self.length == "zeros":
            # Frames of added silence were heard, and are not kept.
            valid = valid * until(_frames_of(self.encoder, own), valid.shape[1])
        rows = [states[number] for number in self.layers]
        x = rows[0] if len(rows) == 1 else torch.cat(rows, dim=-1)
        x, valid = mean_neighbours(x * valid.unsqueeze(-1), valid, self.pool)
        x = x if len(rows) == 1 else x.unflatten(-1, (len(rows), self.encoder.width))
        if self.frames:
            x, valid = fit_length(x, self.frames), fit_length(valid, self.frames)
        return x, valid

    def at_length(self, audio: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return waveforms and mask as the encoder hears them, and the valid samples of each row (B,)."""
        own = valid_samples(mask)
        if self.length == "as_is":
            return audio, mask, own
        if self.length == "repeat":
            place = torch.arange(self.samples, device=audio.device)[None, :]
            place = torch.remainder(place, mask.sum(1, keepdim=True).clamp(min=1.0).long())
            waves = audio.gather(1, place)
            return waves, torch.ones_like(waves), own
        if self.length == "zeros":
            waves = fit_length(audio, self.samples)
            return waves, torch.ones_like(waves), own.clamp(max=self.samples)
        return audio[:, : self.samples], mask[:, : self.samples], own.clamp(max=self.samples)


class TextGraph(nn.Module):
    """Token ids (B, n) and mask (B, n), int64, to the tokens that a system reads: (B, n, D) or (B, n, L, D)."""

    def __init__(self, encoder: Encoder, feature: FeatureSettings) -> None:
        """Build around an encoder, whose weights are shared."""
        super().__init__()
        self.encoder = encoder
        self.layers = chosen_layers(encoder, feature)

    def forward(self, text_ids: Tensor, text_mask: Tensor) -> Tensor:
        """Return tokens, zero where masked."""
        states, _ = self.encoder.encode(text_ids, text_mask.float(), max(self.layers))
        rows = [states[number] for number in self.layers]
        return rows[0] if len(rows) == 1 else torch.stack(rows, dim=2)


class FusionGraph(nn.Module):
    """Features of all kinds to logits (B, C), embedding (B, E) and, where a system rates them, attributes (B, 3).

    A system that rates attributes knows no emotions: its logits are those of the four whose published attributes lie
    nearest, and say nothing that the attributes do not.
    """

    anchors: Tensor

    def __init__(self, system: System, inputs: tuple[str, ...], rates: bool) -> None:
        """Build around a system.

        Args:
            system: Reads the inputs by name.
            inputs: What the graph takes, in order.
            rates: Whether its outputs are attributes.
        """
        super().__init__()
        self.system, self.inputs, self.rates = system, inputs, rates
        anchors = torch.tensor([ANCHORS[name] for name in FOUR_CLASSES])
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Return what `outputs` of the part names."""
        return self.answer({name: value.float() for name, value in zip(self.inputs, values, strict=True)})

    def answer(self, told: Inputs) -> tuple[Tensor, ...]:
        """Return the same for inputs by name."""
        output = self.system(told)
        if not self.rates:
            return output.logits, output.embedding
        away = ((output.logits.unsqueeze(1) - self.anchors) / _ANCHOR_WIDTH) ** 2
        return -0.5 * away.sum(-1), output.embedding, output.logits


class SystemGraphs:
    """The graphs of one experiment's system, and all that a bundle has to say about them."""

    def __init__(self, workbench: Workbench, weights: Path | None = None) -> None:
        """Build the system.

        Args:
            workbench: The experiment at work; it needs no data.
            weights: A best.safetensors of `train.finetune`; None leaves the weights random.

        Raises:
            ConfigError: The weights are of another system, or the system has no graph of this form.
        """
        self.workbench, self.experiment = workbench, workbench.experiment
        self.system = workbench.system().eval()
        workbench.begin_stage(self.system)
        if weights is not None:
            # Late, so that random weights need no checkpoint.
            from train.checkpoint import read_checkpoint

            load_stored_state(self.system, read_checkpoint(weights)[0], weights)
        self.system.requires_grad_(False)
        inner = getattr(self.system, "system", self.system)
        self._lora = inner if isinstance(inner, LoraSer) and inner.encoder is not None else None
        self._whole = isinstance(inner, HumpCat)
        self._frames = (
            inner.config.positions if isinstance(inner, Camulenet) and inner.config.query == "position" else 0
        )
        self._crop_s = float(getattr(getattr(inner, "config", None), "crop_s", 0.0))
        if self._lora is not None and any(adapter.active for adapter in lora_layers(self._lora)):
            self._lora.merge()
        for encoder in (self.speech_encoder, self.text_encoder):
            if isinstance(encoder, WaveformEncoder):
                encoder.fold_weight_norm()

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return self.experiment.name

    @property
    def system_name(self) -> str:
        """Which of the published systems."""
        return self.experiment.system

    @property
    def parameters(self) -> dict[str, int]:
        """Parameters by part: each encoder, then the system's own parts."""
        parts = {"text_encoder": self.text_encoder} if self.text_encoder is not None else {}
        if self._lora is None and self.speech_encoder is not None:
            parts = {"speech_encoder": self.speech_encoder, **parts}
        return {name: count_parameters(part) for name, part in parts.items()} | self.system.parts()

    @property
    def padding_invariant(self) -> bool:
        """Whether clips of different lengths may stand in one batch: brought to one length, or blind to padding."""
        speech = self.experiment.features.get("speech")
        if speech is not None and (speech.length in ("zeros", "repeat") or speech.whisper_pad_s):
            return True
        return self.speech_encoder is not None and self.speech_encoder.padding_invariant

    @property
    def max_tokens(self) -> int:
        """Tokens that a transcript is cut to."""
        return int(self.text_feature.options.get("tokens", 128)) if self.text_feature is not None else 0

    @property
    def rates(self) -> bool:
        """Whether the system says attributes instead of emotions."""
        return self.experiment.task == "attributes"

    @property
    def labels(self) -> tuple[str, ...]:
        """Emotions in the order of the logits."""
        return FOUR_CLASSES if self.rates else self.workbench.classes

    @property
    def temperature(self) -> float:
        """What the system divides its logits by to be calibrated; 1 where it has found none."""
        return float(getattr(self.system, "temperature", 1.0))

    @property
    def max_duration_s(self) -> float:
        """Seconds; longer utterances are judged in windows."""
        speech = self.experiment.features.get("speech")
        return (speech.seconds if speech is not None else self._crop_s) or _LONGEST_S

    @cached_property
    def speech_encoder(self) -> Encoder | None:
        """The encoder of the speech graph; None where the system reads none."""
        if self._lora is not None:
            return self._lora.encoder
        speech = self.experiment.features.get("speech")
        return None if speech is None else self.workbench.encoder(speech)

    @cached_property
    def text_encoder(self) -> Encoder | None:
        """The encoder of the text graph; None where the system reads no text."""
        feature = self.text_feature
        return None if feature is None else self.workbench.encoder(feature)

    @property
    def text_feature(self) -> FeatureSettings | None:
        """How text is read; None where the system reads none."""
        feature = self.experiment.features.get("text")
        return None if feature is None or feature.sentences == "none" else feature

    @property
    def crafted(self) -> dict[str, FeatureSettings]:
        """Features that are computed outside of any graph, by name."""
        features = self.experiment.features.items()
        return {name: feature for name, feature in features if feature.kind not in ("encoder", "text", "audio")}

    @property
    def masked(self) -> tuple[str, ...]:
        """Sequences whose mask the fusion graph takes; a system of clips of one length takes none."""
        return () if self._whole else ("speech", "mfcc", "text")

    def parts(self) -> dict[str, Part]:
        """Return the graphs by name, in the order in which they run.

        Raises:
            ConfigError: The system hears no speech.
        """
        speech = self.speech_encoder
        if speech is None:
            raise ConfigError(f"{self.experiment.name} has no encoder of speech; need [features.speech] or [encoder]")
        feature = self.experiment.features.get("speech") or FeatureSettings(kind="encoder", source="given")
        heard = SpeechGraph(speech, feature, self._frames)
        parts = {"speech": self._part(heard, ("audio", "audio_mask"), ("speech", "speech_mask"))}
        if self.text_encoder is not None and self.text_feature is not None:
            read = TextGraph(self.text_encoder, self.text_feature)
            parts["text"] = self._part(read, ("text_ids", "text_mask"), ("text",))
        names = [name for name in ("speech", "text", *self.crafted) if name != "text" or "text" in parts]
        inputs = tuple(n for name in names for n in (name, f"{name}_mask") if n == name or name in self.masked)
        outputs = ("logits", "embedding", *(["attributes"] if self.rates else []))
        parts["fusion"] = self._part(FusionGraph(self.system, inputs, self.rates), inputs, outputs)
        return parts

    def _part(self, module: nn.Module, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Part:
        fixed = set(_AXES) if self._whole and "logits" in outputs else set()
        fixed |= {"speech", "speech_mask"} if self._frames or self._whole else set()
        free = {name: {0: "batch"} for name in (*inputs, *outputs)}
        for name in free.keys() & _AXES.keys() - fixed:
            free[name][1] = _AXES[name]
        return Part(module.eval(), inputs, outputs, free)

    def features(self, samples: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return the features of one utterance that are computed outside of any graph."""
        return {name: hand_crafted(feature)(samples) for name, feature in self.crafted.items()}

    def feature_inputs(self) -> list[Input]:
        """Return how the runtime computes the same.

        Raises:
            ConfigError: It has no such feature.
        """
        return [_crafted_input(name, feature) for name, feature in self.crafted.items()]

    @torch.no_grad()
    def reference(self, samples: NDArray[np.float32], ids: Sequence[int]) -> dict[str, NDArray[np.float32]]:
        """Return logits, embedding and attributes of one utterance by the path that training takes.

        Args:
            samples: Mono float32 in [-1, 1], shape (n,), at 16 kHz.
            ids: Token ids; none is a missing transcript.
        """
        features: dict[str, NDArray[np.floating]] = dict(self.features(samples))
        speech = self.experiment.features.get("speech")
        if self._lora is not None:
            features["audio"] = samples
        elif speech is not None and speech.length == "as_is":
            features["speech"] = _whole_clip(self.workbench.encoder(speech), speech, samples)
        elif speech is not None:
            features["speech"] = EncoderAtLength("reference", self.workbench.encoder(speech), speech)(samples)
        if self.text_encoder is not None and self.text_feature is not None and len(ids):
            row = torch.tensor([list(ids)])
            numbers = chosen_layers(self.text_encoder, self.text_feature)
            states, _ = self.text_encoder.encode(row, torch.ones(row.shape), max(numbers))
            layers = [states[number][0].numpy() for number in numbers]
            features["text"] = layers[0] if len(layers) == 1 else np.stack(layers, axis=1)
        inputs, _ = collate([Example(Path("utterance"), "", "", features)])
        fusion = FusionGraph(self.system, (), self.rates)
        names = ("logits", "embedding", "attributes")
        return {name: value[0].numpy() for name, value in zip(names, fusion.answer(inputs), strict=False)}


def _crafted_input(name: str, feature: FeatureSettings) -> Input:
    clip: dict[str, object] = {"length": feature.length, "seconds": feature.seconds}
    if feature.kind in MFCC_WIDTHS:
        parameters = {"recipe": feature.kind, **clip, **feature.options}
        return Input(name, "mfcc", "float32", (1, "mfcc_frames", MFCC_WIDTHS[feature.kind]), parameters)
    if feature.kind == "spectrogram":
        picture = SpectrogramSettings(clip_s=feature.seconds or SpectrogramSettings.clip_s, **feature.options)
        return Input(name, "spectrogram", "float32", (1, 1, picture.size, picture.size), asdict(picture))
    if feature.kind == "prosody" and feature.length == "as_is" and not feature.options:
        return Input(name, "prosody", "float32", (1, 103))
    raise ConfigError(
        f"the runtime computes no {feature.kind} of length {feature.length!r} with {dict(feature.options)}; "
        "need mfcc39, mfcc40, a spectrogram, or prosody as recorded"
    )


def _frames_of(encoder: Encoder, samples: Tensor) -> Tensor:
    """Return `encoder.frames_of` for a tensor of samples (B,); none where there is no sample."""
    counted = samples.clamp(min=MIN_SAMPLES)
    if isinstance(encoder, WaveformEncoder):
        frames = counted
        for kernel, stride in encoder.convolutions:
            frames = (torch.div(frames - kernel, stride, rounding_mode="floor") + 1).clamp(min=0)
    else:
        frames = torch.div(torch.div(counted, HOP_SAMPLES, rounding_mode="floor") + 1, 2, rounding_mode="floor")
    return torch.where(samples > 0, frames, torch.zeros_like(frames))


def _whole_clip(encoder: Encoder, feature: FeatureSettings, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    numbers = chosen_layers(encoder, feature)
    row = torch.from_numpy(samples)[None]
    states, frames = encoder.encode(row, torch.ones_like(row), max(numbers))
    valid = int(frames[0].sum())
    layers = [pool_frames(states[number][0, :valid].numpy(), feature.pool) for number in numbers]
    return layers[0] if len(layers) == 1 else np.stack(layers, axis=1)
