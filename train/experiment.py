"""An experiment at work: from the settings file to utterances, features and systems."""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from edge_ser.clips import SAMPLE_RATE_HZ, SHORTEST_REMAINDER
from edge_ser.errors import ConfigError
from edge_ser.sources import read_samples
from train.corpora.class_maps import class_index, class_names
from train.corpora.utterance import Utterance, read_utterances
from train.encoders import Encoder, EncoderSpec, build_encoder, load_encoder, load_tokenizer
from train.examples import Example
from train.feature_cache import encoder_layers, extract, text_tokens
from train.feature_kinds import EncoderAtLength, chosen_layers, hand_crafted
from train.sentences import SentenceDrawer, sentence_of
from train.settings import Experiment, FeatureSettings, read_experiment
from train.splits import split_by_speaker
from train.systems import System, configure
from train.systems.standardised import Standardised

__all__ = ["SYSTEMS", "Experiment", "Sides", "Workbench", "read_experiment"]

SYSTEMS = {
    "mdat": ("mdat", "Mdat", "MdatConfig"),
    "bilstm": ("baselines", "BiLstm", "BiLstmConfig"),
    "hump-cat": ("hump_cat", "HumpCat", "HumpCatConfig"),
    "mean-pool": ("hump_cat", "MeanPool", "HumpCatConfig"),
    "camulenet": ("camulenet", "Camulenet", "CamulenetConfig"),
    "pooled-encoder": ("pooled_encoder", "PooledEncoder", "PooledEncoderConfig"),
    "mha": ("mha_fusion", "MhaFusion", "MhaFusionConfig"),
    "mdre": ("mdre", "Mdre", "MdreConfig"),
    "lora": ("lora_multilingual", "LoraSer", "LoraSerConfig"),
}
"""Module below `train.systems`, class and configuration of each system."""

_GENDERS = {"f": 0, "m": 1}

_FRAME_WIDTHS = {"mfcc39": 39, "mfcc40": 40}
"""Columns of hand-crafted sequences that can be standardised."""


@dataclass(frozen=True)
class Sides:
    """Utterances that share no speaker."""

    train: list[Utterance]
    """What a system learns from."""
    validation: list[Utterance]
    """What chooses the best epoch."""
    test: list[Utterance]
    """What nobody looks at before training has ended."""


class Workbench:
    """Utterances, features and systems of one experiment; what was computed once is kept."""

    def __init__(
        self, experiment: Experiment, data: Path | None, cache: Path, sources: Mapping[str, str] | None = None
    ) -> None:
        """Prepare, without reading audio.

        Args:
            experiment: What is trained on what.
            data: The corpora's folder, with speech/manifest.csv and, for constructed text, text/goemotions.csv.gz.
            cache: Folder in which features are kept.
            sources: Encoders by feature name, which win over the experiment's; `encoder` names the one that a system
                trains.

        Raises:
            ConfigError: No such system or preset, a feature that the system does not read, or a source for none.
        """
        self.experiment = _with_sources(experiment, sources or {})
        self.data = data
        self.cache = cache
        self.kind, self.config, self.presets = _system(experiment.system)
        self._encoders: dict[tuple[str, float], Encoder] = {}
        self._memory: dict[str, dict[Any, NDArray[Any]]] = {}
        self._names: dict[Utterance, Path] = {}
        unread = sorted(set(self.experiment.features) - set(self.kind.reads))
        if unread:
            raise ConfigError(
                f"{experiment.system} does not read {', '.join(unread)}; need some of {', '.join(self.kind.reads)}"
            )
        # Now and not after hours of extraction.
        made = configure(self.config, self.presets, experiment.preset, experiment.model)
        _check_crop(made, self.experiment)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in index order; none for attributes."""
        return () if self.experiment.task == "attributes" else class_names(self.experiment.class_map)

    @property
    def manifest(self) -> Path:
        """The table of the utterances.

        Raises:
            ConfigError: The experiment names none and there is no data folder.
        """
        if self.experiment.manifest:
            return Path(self.experiment.manifest)
        if self.data is None:
            raise ConfigError("no data folder; need one with speech/manifest.csv; pass --data FOLDER")
        return self.data / "speech" / "manifest.csv"

    def clips(self, corpora: Sequence[str] | None = None) -> list[Utterance]:
        """Return the utterances of the corpora that have a label, in the manifest's order, cut where that is asked for.

        Args:
            corpora: Their names; None is the experiment's.

        Raises:
            ConfigError: A corpus that the manifest does not have, or nothing with a label.
        """
        wanted = self.experiment.corpora if corpora is None else tuple(corpora)
        listed = read_utterances(self.manifest)
        there = sorted({clip.corpus for clip in listed})
        absent = sorted(set(wanted) - set(there))
        if absent:
            raise ConfigError(f"{self.manifest} has no corpus {', '.join(absent)}; it has {', '.join(there)}")
        chosen = [clip for clip in listed if (not wanted or clip.corpus in wanted) and self._labelled(clip)]
        if not chosen:
            raise ConfigError(
                f"{self.manifest} has no utterance with a label for {self._task()}; look at class_map and corpora"
            )
        return [piece for clip in chosen for piece in self._pieces(clip)]

    def split(self, clips: Sequence[Utterance] | None = None) -> Sides:
        """Return the experiment's clips, or those given, split by speaker as it says."""
        split = split_by_speaker(
            self.clips() if clips is None else clips,  # type: ignore[arg-type]
            validation_fraction=self.experiment.validation_fraction,
            test_fraction=self.experiment.test_fraction,
            seed=self.experiment.seed,
        )
        train, validation, test = (
            cast("list[Utterance]", side) for side in (split.train, split.validation, split.test)
        )
        return Sides(train, validation, test)

    def examples(self, clips: Sequence[Utterance], side: str | None = None) -> list[Example]:
        """Return the clips with their features, in order; features come from the cache or go into it.

        Args:
            clips: What `clips` returned, or some of it.
            side: `train`, `validation` or `test`: whose written sentences may be read; needed where text is drawn.

        Raises:
            ConfigError: Text is to be drawn and no side is given, or an encoder does not fit.
            AudioFormatError: A clip does not decode.
        """
        columns = {
            name: self._text(feature, clips, side) if feature.kind == "text" else self._sound(feature, clips)
            for name, feature in self.experiment.features.items()
        }
        return [
            Example(
                path=self._names.get(clip, _name(clip)),
                speaker=clip.speaker,
                corpus=clip.corpus,
                features={name: column[place] for name, column in columns.items() if column is not None},
                emotion=-1 if self.experiment.task == "attributes" else class_index(clip, self.experiment.class_map),
                gender=_GENDERS.get(clip.gender, -1),
                attributes=clip.attributes,
            )
            for place, clip in enumerate(clips)
        ]

    def system(self, seed: int | None = None, **overrides: Any) -> System:
        """Return a new system whose widths fit the encoders and whose classes fit the class map.

        Args:
            seed: Of its weights; None is the experiment's.
            overrides: Settings that win over the file's [model].

        Raises:
            ConfigError: A setting that the system does not have or that does not fit.
        """
        wanted = {**self._fitting(), **self.experiment.model, **overrides}
        config = configure(self.config, self.presets, self.experiment.preset, wanted)
        seed = self.experiment.seed if seed is None else seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if self.experiment.encoder is None:
                made = self.kind(config)
            else:
                encoder = build_encoder(EncoderSpec(self.experiment.encoder.source, seed=seed))
                made = self.kind(config, encoder)
        shapes = self._standardised()
        return Standardised(made, shapes) if shapes else made

    def begin_stage(self, system: System) -> None:
        """Let a system of several languages learn the one that the experiment names; others have no stages.

        Raises:
            ConfigError: A stage is named and the system has none.
        """
        if not self.experiment.stage:
            return
        begin = getattr(system, "begin", None)
        if begin is None:
            raise ConfigError(f"stage is {self.experiment.stage!r}; need none, {self.experiment.system} has no stages")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.experiment.seed)
            begin(self.experiment.stage)

    def encoder(self, feature: FeatureSettings) -> Encoder:
        """Return the encoder of a feature, loaded once."""
        key = (feature.source, feature.whisper_pad_s)
        if key not in self._encoders:
            self._encoders[key] = load_encoder(feature.source, whisper_pad_s=feature.whisper_pad_s)
        return self._encoders[key]

    def _labelled(self, clip: Utterance) -> bool:
        if self.experiment.task == "attributes":
            return clip.attributes is not None
        return class_index(clip, self.experiment.class_map) >= 0

    def _task(self) -> str:
        return "attributes" if self.experiment.task == "attributes" else f"class_map {self.experiment.class_map!r}"

    def _fitting(self) -> dict[str, object]:
        fitting: dict[str, object] = {"classes": len(self.classes)} if self.classes else {}
        if any(f.name == "task" for f in fields(self.config)):
            fitting["task"] = self.experiment.task
        for name, feature in self.experiment.features.items():
            if feature.kind in ("encoder", "text") and feature.source:
                encoder = self.encoder(feature)
                fitting[f"{name}_width"] = encoder.width
                fitting[f"{name}_layers"] = len(chosen_layers(encoder, feature))
        known = {f.name for f in fields(self.config)}
        return {name: value for name, value in fitting.items() if name in known}

    def _standardised(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of one frame of each feature that is to be standardised."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name, feature in self.experiment.features.items():
            if not feature.standardise or feature.sentences == "none":
                continue
            if feature.kind in _FRAME_WIDTHS:
                shapes[name] = (_FRAME_WIDTHS[feature.kind],)
            elif feature.kind in ("encoder", "text"):
                encoder = self.encoder(feature)
                layers = len(chosen_layers(encoder, feature))
                shapes[name] = (encoder.width,) if layers == 1 else (layers, encoder.width)
            else:
                raise ConfigError(
                    f"standardise is set for {name} of kind {feature.kind!r}; need frames of an encoder or MFCCs; "
                    "systems that read prosody standardise it themselves"
                )
        return shapes

    def _sound(self, feature: FeatureSettings, clips: Sequence[Utterance]) -> list[NDArray[Any]]:
        paths = [self._audio(clip) for clip in clips]
        memory = self._memory.setdefault(repr(feature), {})
        missing = [path for path in dict.fromkeys(paths) if path not in memory]
        if missing and feature.kind != "encoder":
            memory |= extract(hand_crafted(feature), missing, self.cache)
        elif missing and feature.length == "as_is":
            encoder = self.encoder(feature)
            memory |= encoder_layers(encoder, chosen_layers(encoder, feature), feature.pool, missing, self.cache)
        elif missing:
            encoder = self.encoder(feature)
            layers = ".".join(map(str, chosen_layers(encoder, feature)))
            name = f"{encoder.family}-{encoder.fingerprint()[:16]}-{feature.length}-{feature.seconds:g}s-{layers}"
            name += f"-pool{feature.pool}-pad{feature.whisper_pad_s:g}"
            memory |= extract(EncoderAtLength(name, encoder, feature), missing, self.cache, np.float16)
        return [memory[path] for path in paths]

    def _text(
        self, feature: FeatureSettings, clips: Sequence[Utterance], side: str | None
    ) -> list[NDArray[Any]] | None:
        if feature.sentences == "none":
            return None
        drawer = None if feature.sentences == "transcript" else self._drawer
        sentences = [sentence_of(clip, feature.sentences, self._class_of(clip), drawer, side) for clip in clips]
        memory = self._memory.setdefault(repr(feature), {})
        missing = [sentence for sentence in dict.fromkeys(sentences) if sentence not in memory]
        if missing:
            encoder = self.encoder(feature)
            tokenizer = load_tokenizer(feature.source, feature.options.get("tokens", 128))
            memory |= text_tokens(encoder, tokenizer, missing, self.cache, chosen_layers(encoder, feature))
        return [memory[sentence] for sentence in sentences]

    @cached_property
    def _drawer(self) -> SentenceDrawer:
        if self.data is None:
            raise ConfigError("no data folder; need one with text/goemotions.csv.gz; pass --data FOLDER")
        return SentenceDrawer(self.data / "text" / "goemotions.csv.gz", self.experiment.seed)

    def _class_of(self, clip: Utterance) -> str:
        place = class_index(clip, self.experiment.class_map)
        return self.classes[place] if self.classes and place >= 0 else clip.emotion4

    def _pieces(self, clip: Utterance) -> list[Utterance]:
        length = self.experiment.segment_s
        if length <= 0 or 0 < clip.duration_s <= length:
            return [clip]
        first = clip.start_s or 0.0
        whole_s = clip.duration_s or (
            clip.end_s - first if clip.end_s else len(read_samples(clip.path)) / SAMPLE_RATE_HZ
        )
        starts = [place * length for place in range(max(1, int(np.ceil(whole_s / length))))]
        if len(starts) > 1 and whole_s - starts[-1] < SHORTEST_REMAINDER / SAMPLE_RATE_HZ:
            starts.pop()
        if len(starts) == 1 and whole_s <= length:
            return [clip]
        ends = [min(start + length, whole_s) for start in starts]
        pieces = [
            replace(clip, start_s=first + start, end_s=first + end, duration_s=end - start)
            for start, end in zip(starts, ends, strict=True)
        ]
        # All pieces bear the utterance's name: they are learnt from one by one and answer together.
        self._names |= dict.fromkeys(pieces, _name(clip))
        return pieces

    def _audio(self, clip: Utterance) -> Path:
        """Return the file of a clip alone, cut out once where it is a part of a longer one."""
        if clip.start_s is None and clip.end_s is None:
            return clip.path
        stat = clip.path.stat()
        key = f"{clip.path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{clip.start_s}|{clip.end_s}".encode()
        target = self.cache / "pieces" / f"{hashlib.sha256(key).hexdigest()[:24]}.flac"
        if not target.is_file():
            samples = read_samples(clip.path)
            start = round((clip.start_s or 0.0) * SAMPLE_RATE_HZ)
            end = len(samples) if clip.end_s is None else round(clip.end_s * SAMPLE_RATE_HZ)
            if start >= min(end, len(samples)):
                raise ConfigError(f"{clip.path} ends before {clip.start_s} s; need start_s within the file")
            target.parent.mkdir(parents=True, exist_ok=True)
            # Several processes may cut the same piece at once.
            partial = target.with_name(f".{os.getpid()}-{target.name}")
            soundfile.write(partial, np.clip(samples[start:end], -1.0, 1.0), SAMPLE_RATE_HZ, format="FLAC")
            partial.replace(target)
        return target


def _check_crop(config: object, experiment: Experiment) -> None:
    # A crop at random of what was already cut, once and for all epochs, would be no crop at all.
    speech = experiment.features.get("speech")
    if getattr(config, "crop", "") == "random" and speech is not None and speech.length != "as_is":
        raise ConfigError(
            f"crop is 'random' and the speech of every clip has length {speech.length!r}, cut once for all epochs; "
            "need length = 'as_is' under [features.speech], so that there is something to crop"
        )


def _name(clip: Utterance) -> Path:
    """Return what names an utterance: its file, with the seconds where the file holds several."""
    if clip.start_s is None and clip.end_s is None:
        return clip.path
    end = "" if clip.end_s is None else f"{clip.end_s:g}"
    return clip.path.with_name(f"{clip.path.name}#t={clip.start_s or 0.0:g},{end}")


def _system(name: str) -> tuple[type[System], type[Any], Mapping[str, Any]]:
    if name not in SYSTEMS:
        raise ConfigError(f"system is {name!r}; need one of {', '.join(SYSTEMS)}")
    module_name, kind, config = SYSTEMS[name]
    module = importlib.import_module(f"train.systems.{module_name}")
    return getattr(module, kind), getattr(module, config), module.PRESETS


def _with_sources(experiment: Experiment, sources: Mapping[str, str]) -> Experiment:
    features = dict(experiment.features)
    encoder = experiment.encoder
    for name, source in sources.items():
        if name == "encoder" and encoder is not None:
            encoder = replace(encoder, source=source)
        elif name in features and features[name].kind in ("encoder", "text"):
            features[name] = replace(features[name], source=source)
        else:
            known = [n for n, feature in features.items() if feature.kind in ("encoder", "text")]
            known += ["encoder"] if encoder is not None else []
            raise ConfigError(f"--encoder {name}={source}: no encoder {name!r} here; need one of {', '.join(known)}")
    return replace(experiment, features=features, encoder=encoder)
