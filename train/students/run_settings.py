"""What the two stages of a student's training are told, read from TOML files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_ser.corpus import read_manifest
from edge_ser.errors import ConfigError
from train.data import usable
from train.splits import Split, split_by_speaker
from train.students.config import SYSTEMS
from train.students.histories import HistoryShares
from train.students.rows import RowShape

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


PART_WEIGHTS = {"frame": 0.5, "vector": 0.5, "within": 0.5, "emotion": 1.0, "emotion_within": 0.5, "presence": 0.2}


@dataclass(frozen=True)
class EncoderSettings:
    """The first stage: a small speech encoder learns to hear what a pretrained one hears."""

    name: str
    tier: str
    """`clean` or `research`: which corpora's licences the weights carry."""
    corpora: tuple[str, ...]
    licence: str = "unknown"
    """Of the weights."""
    teacher_name: str = "teacher"
    teacher_licence: str = "unknown"
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    seed: int = 1
    repeat: Mapping[str, int] = field(default_factory=dict)
    """How often a corpus's clips come in an epoch, by name; 1 if absent."""
    variants: int = 6
    """Speeds at which every recording is kept."""
    width: int = 224
    mels: int = 64
    blocks: int = 4
    layers: int = 3
    passes: int = 1
    """How often the frames go through the layers."""
    dropout: float = 0.05
    steps: int = 7500
    speakers: int = 6
    """Speakers in a batch, four utterances each."""
    others: int = 8
    """Rows of unlabelled speech and of sound in a batch."""
    peak_learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warmup_steps: int = 400
    average_decay: float = 0.999
    precision: str = "bfloat16"
    """`float32` or `bfloat16` for the matrix products; only float32 is the same to the bit in every run."""
    weights: Mapping[str, float] = field(default_factory=lambda: dict(PART_WEIGHTS))
    """Of the parts of the loss."""
    save_every: int = 500

    def __post_init__(self) -> None:
        """Refuse to go through the layers less than once.

        Raises:
            ConfigError: It would.
        """
        if self.passes < 1:
            raise ConfigError(f"passes is {self.passes}; need 1 or more")


@dataclass(frozen=True)
class StudentSettings:
    """The second stage: the fusions learn side by side over the frozen encoder."""

    systems: tuple[str, ...] = SYSTEMS
    suffix: str = ""
    """Stands behind the system in the bundle's name, such as `-research`."""
    steps: int = 2500
    seed: int = 1
    peak_learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    average_decay: float = 0.998
    precision: str = "bfloat16"
    """As in the first stage."""
    reading_steps: int = 5000
    """Batches of sentences that the text encoders learn from before."""
    label_smoothing: float = 0.05
    taught: float = 0.5
    """Share of the teacher's answers in what is learnt; the rest is the corpus's label."""
    non_speech_weight: float = 0.8
    moderation: float = 0.3
    """Price of the squared logits that a fusion adds to the first opinion where there are no words."""
    gender_weight: float = 0.25
    validate_every: int = 500
    shape: RowShape = field(default_factory=RowShape)
    histories: HistoryShares = field(default_factory=HistoryShares)
    model: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `StudentConfig` that differ from its defaults."""


def read_run(path: Path) -> EncoderSettings | StudentSettings:
    """Return the settings in a TOML file; its key `stage` is `encoder` or `students`.

    Raises:
        ConfigError: No such file, not TOML, a wrong key or a missing one.
    """
    if not path.is_file():
        raise ConfigError(f"no settings at {path}; need a TOML file such as train/configs/students/encoder.toml")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        stage = raw.pop("stage")
        if stage == "encoder":
            return EncoderSettings(**{**raw, "corpora": tuple(raw["corpora"])})
        if stage == "students":
            raw["systems"] = tuple(raw.get("systems", SYSTEMS))
            raw["shape"] = RowShape(**raw.get("shape", {}))
            raw["histories"] = HistoryShares(**raw.get("histories", {}))
            return StudentSettings(**raw)
    except (tomllib.TOMLDecodeError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: {error}; compare it with the files in train/configs/students") from None
    raise ConfigError(f"{path}: stage is {stage!r}; need 'encoder' or 'students'")


def read_split(settings: EncoderSettings, data: Path) -> Split:
    """Return the run's clips with one of the four emotions, split by speaker; training clips by path."""
    clips = [clip for clip in read_manifest(data / "speech" / "manifest.csv") if usable(clip, settings.corpora)]
    split = split_by_speaker(
        clips,
        validation_fraction=settings.validation_fraction,
        test_fraction=settings.test_fraction,
        seed=settings.seed,
    )
    return Split(sorted(split.train, key=lambda clip: str(clip.path)), split.validation, split.test)
