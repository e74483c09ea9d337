"""The settings of an experiment: a TOML file that names a system, its features, its corpora and how it is trained."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from edge_ser.errors import ConfigError
from train.fit import FitSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXAMPLE = "train/configs/smoke/mdat.toml"
"""Settings to begin from."""

KINDS = ("encoder", "text", "mfcc39", "mfcc40", "prosody", "lpcc", "log_power", "spectrogram", "audio")
"""What a feature can be computed by."""

LENGTHS = ("as_is", "crop", "centre", "repeat", "zeros")
"""What is done to clips that do not last `seconds`: nothing; the beginning or the middle of longer ones is kept; the
beginning is kept and shorter ones repeat themselves, or are followed by silence."""

OPTIONS = {
    "text": ("tokens",),
    "mfcc39": ("window_ms", "hop_ms"),
    "prosody": ("compat_drop_last",),
    "lpcc": ("window_ms",),
    "log_power": ("window_ms",),
    "spectrogram": ("spec", "unit", "size"),
}
"""What can be set of a hand-crafted extractor, and of a tokenizer."""

SENTENCES = ("transcript", "constructed", "uninformative", "none")
"""Where the words of a clip come from."""

TASKS = ("emotion", "attributes")
"""What a system predicts."""

PROTOCOL_TABLES = (
    "within_corpus",
    "cross_language",
    "k_shot",
    "leave_speakers_out",
    "fractions",
    "low_resource",
    "ablation",
    "fusion",
)
"""Tables of a settings file that belong to protocols; `[[variants]]` does too."""

_Section = TypeVar("_Section")


@dataclass(frozen=True)
class FeatureSettings:
    """How one feature that a system reads is computed."""

    kind: str
    """One of `KINDS`."""
    source: str = ""
    """Encoder: hub id, local folder, or `tiny:FAMILY` for a small random one."""
    layers: tuple[int, ...] | str = "last"
    """Encoder layers, 0 the input of the first; several stand beside each other; `last`, or `weighted_sum` for all."""
    pool: int = 1
    """Neighbouring frames that are averaged into one."""
    standardise: bool = False
    """Whether each channel of an encoder's frames is brought to mean 0 and deviation 1 of the training utterances."""
    sentences: str = "transcript"
    """Text: `transcript`, `constructed` (a written sentence of the same emotion), `uninformative`, or `none`."""
    seconds: float = 0.0
    """Length that `length` speaks of; a spectrogram always shows so many, 5 unless said."""
    length: str = "as_is"
    """One of `LENGTHS`. An encoder's frames of added silence are not kept."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of a hand-crafted extractor: `window_ms`, `hop_ms`, `compat_drop_last`; `spec`, `unit`, `size`.
    Text: `tokens`, the most that a sentence gives, 128 unless said."""
    whisper_pad_s: float = 0.0
    """Seconds to which Whisper's own front end pads a clip: 30 as published; 0 runs it as it is."""

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        _one_of("kind", self.kind, KINDS)
        unknown = sorted(set(self.options) - set(OPTIONS.get(self.kind, ())))
        if unknown:
            allowed = ", ".join(OPTIONS.get(self.kind, ())) or "none"
            raise ConfigError(f"options of {self.kind} are {allowed}; got {', '.join(unknown)}")
        tokens = self.options.get("tokens", 128)
        if type(tokens) is not int or tokens < 3:
            raise ConfigError(f"tokens is {tokens!r}; need a whole number of 3 or more: two of them mark the ends")
        _one_of("sentences", self.sentences, SENTENCES)
        _one_of("length", self.length, LENGTHS)
        if isinstance(self.layers, str):
            _one_of("layers", self.layers, ("last", "weighted_sum"))
        elif not all(type(layer) is int for layer in self.layers):
            raise ConfigError(f"layers is {list(self.layers)}; need whole numbers, 'last' or 'weighted_sum'")
        if not 0 <= self.seconds < math.inf or not 0 <= self.whisper_pad_s < math.inf:
            raise ConfigError(f"seconds is {self.seconds}, whisper_pad_s {self.whisper_pad_s}; need numbers from 0")
        if self.length != "as_is" and self.seconds <= 0:
            raise ConfigError(f"length is {self.length!r} and seconds {self.seconds}; need seconds above 0 with it")
        if self.pool < 1:
            raise ConfigError(f"pool is {self.pool}; need 1 or more")
        if self.kind in ("encoder", "text") and not self.source and self.sentences != "none":
            raise ConfigError(f"a feature of kind {self.kind!r} has no source; need a hub id, a folder or tiny:FAMILY")


@dataclass(frozen=True)
class EncoderSettings:
    """The encoder within a system that reads audio and trains it."""

    source: str
    """Hub id, local folder, or `tiny:FAMILY` for a small random one."""


@dataclass(frozen=True)
class Experiment:
    """What is trained on what."""

    system: str
    """Name of the system, one of those of `train.experiment.SYSTEMS`."""
    name: str
    """Names the run."""
    corpora: tuple[str, ...] = ()
    """Corpora of the manifest; none named is all of them."""
    preset: str = "paper"
    """Preset of the system's sizes."""
    task: str = "emotion"
    """`emotion`, or `attributes`: arousal, valence and dominance."""
    class_map: str = "four"
    """Which of a corpus's labels belong to which class."""
    seed: int = 1
    """Of the split, the weights, the drawn sentences and, unless [fit] has its own, the training."""
    validation_fraction: float = 0.1
    """Share of each corpus's speakers that choose the best epoch."""
    test_fraction: float = 0.2
    """Share of each corpus's speakers that are heard at the end alone."""
    segment_s: float = 0.0
    """Longer utterances are cut into pieces of so many seconds, each learnt alone, answered together; 0 is never."""
    stage: str = ""
    """Language whose stage a system of several languages trains now; empty is its first."""
    manifest: str = ""
    """Table of the utterances, relative to the TOML file; empty is speech/manifest.csv of the data folder."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the preset."""
    features: Mapping[str, FeatureSettings] = field(default_factory=dict)
    """By the name under which the system reads them."""
    encoder: EncoderSettings | None = None
    """Of a system that trains its encoder."""
    fit: FitSettings = field(default_factory=FitSettings)
    """How it is trained."""

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        _one_of("task", self.task, TASKS)
        for name in ("validation_fraction", "test_fraction"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; need a share from 0 to below 1")
        for name in ("seed", "segment_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}; need a number from 0")


def read_experiment(path: Path) -> Experiment:
    """Return the experiment that a TOML file describes; what belongs to protocols alone is passed over.

    Raises:
        ConfigError: No such file, not TOML, a key that nobody knows, a missing one, or a value that does not fit.
    """
    if not path.is_file():
        raise ConfigError(f"no settings at {path}; need a TOML file such as {EXAMPLE}")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}; compare it with {EXAMPLE}") from None
    try:
        own = {name: value for name, value in raw.items() if name not in (*PROTOCOL_TABLES, "variants")}
        return experiment_of(own, path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def experiment_of(raw: Mapping[str, Any], folder: Path) -> Experiment:
    """Return the experiment that the tables of a TOML file describe; `folder` is where its manifest is relative to.

    Raises:
        ConfigError: A key that nobody knows, a missing one, or a value that does not fit.
    """
    features = {
        name: section(FeatureSettings, _table(table, f"features.{name}"), f"[features.{name}]")
        for name, table in _table(raw.get("features", {}), "features").items()
    }
    encoder = raw.get("encoder")
    # One seed is enough for a reader; [fit] may still set its own.
    options = {"seed": raw.get("seed", 1), **_table(raw.get("fit", {}), "fit")}
    values = {
        **raw,
        "model": _table(raw.get("model", {}), "model"),
        "features": features,
        "encoder": None if encoder is None else section(EncoderSettings, _table(encoder, "encoder"), "[encoder]"),
        "fit": section(FitSettings, options, "[fit]"),
    }
    if values.get("manifest"):
        values["manifest"] = str((folder / str(values["manifest"])).resolve())
    return section(Experiment, values, "the file")


def section(kind: type[_Section], values: Mapping[str, Any], where: str) -> _Section:
    """Return a dataclass of the values of a table of a settings file.

    Args:
        kind: The dataclass; the types of its fields are checked.
        values: The table.
        where: What an error calls it.

    Raises:
        ConfigError: A key that nobody knows, a missing one, or a value that does not fit.
    """
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f"{where} has no setting {', '.join(unknown)}; need some of {', '.join(known)}")
    for name, value in values.items():
        _check_type(f"{where} {name}", value, str(known[name].type))
    lists = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    try:
        return kind(**lists)
    except TypeError:
        missing = [name for name in _required(kind) if name not in values]
        raise ConfigError(f"{where} lacks {', '.join(missing)}; compare it with {EXAMPLE}") from None


def _required(kind: type[Any]) -> list[str]:
    return [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]


def _check_type(name: str, value: object, wanted: str) -> None:
    allowed: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "float": (int, float),
        "str": (str,),
        "bool": (bool,),
        "tuple[str, ...]": (list,),
        "tuple[int, ...]": (list,),
        "tuple[float, ...]": (list,),
    }
    if wanted.startswith(("Mapping", "dict")):
        _table(value, name)
        return
    if wanted not in allowed:
        return
    right = isinstance(value, allowed[wanted]) and (wanted == "bool" or not isinstance(value, bool))
    if isinstance(value, list) and right:
        kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}
        inner = kinds[wanted[6:].partition(",")[0]]
        right = all(isinstance(item, inner) and not isinstance(item, bool) for item in value)
    if not right:
        lists = {"str": "words", "int": "whole numbers", "float": "numbers"}
        need = f"a list of {lists[wanted[6:].partition(',')[0]]}" if wanted.startswith("tuple") else wanted
        raise ConfigError(f"{name} is {value!r}; need {need}")


def _table(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{name} is {value!r}; need a table")
    return value


def encoder_sources(pairs: Sequence[str]) -> dict[str, str]:
    """Return the encoders that a command line names, by feature.

    Raises:
        ConfigError: One of them is no NAME=SOURCE.
    """
    sources = {}
    for pair in pairs:
        name, equals, source = pair.partition("=")
        if not (name and equals and source):
            raise ConfigError(f"--encoder is {pair!r}; need FEATURE=FOLDER such as speech=models/wav2vec2-xls-r-300m")
        sources[name] = source
    return sources


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; need one of {', '.join(allowed)}")
