"""A student's settings, read from a TOML file, and the data that they name."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge_ser.corpus import read_manifest
from edge_ser.errors import ConfigError
from train.data import usable
from train.splits import Split, split_by_speaker
from train.students.batches import BatchShape
from train.students.mdat import MdatConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Optimiser:
    """How weights move."""

    epochs: int = 50
    peak_learning_rate: float = 1.2e-3
    weight_decay: float = 0.05
    warmup_fraction: float = 0.08
    gradient_clip: float = 1.0
    label_smoothing: float = 0.1
    average_decay: float = 0.998
    """Decay of the running average of weights, which is what is kept."""
    precision: str = "bfloat16"
    """`float32` or `bfloat16` for the matrix products."""


@dataclass(frozen=True)
class Settings:
    """One training run."""

    system: str
    name: str
    corpora: tuple[str, ...]
    validation_fraction: float
    test_fraction: float
    seed: int
    repeat: dict[str, int] = field(default_factory=dict)
    batch: BatchShape = field(default_factory=BatchShape)
    teacher_weight: float = 0.0
    """Weight of predicting the teacher's vector from the embedding; above 0 a run needs --teacher."""
    teacher_name: str = "teacher"
    """What the bill of materials calls it."""
    teacher_licence: str = "unknown"
    """Its licence."""
    model: MdatConfig = field(default_factory=MdatConfig)
    optimiser: Optimiser = field(default_factory=Optimiser)


def read_settings(path: Path) -> Settings:
    """Return the settings in a TOML file.

    Raises:
        ConfigError: No such file, not TOML, a wrong key or a missing one.
    """
    if not path.is_file():
        raise ConfigError(f"no settings at {path}; need a TOML file such as train/configs/mdat.toml")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        raw["corpora"] = tuple(raw["corpora"])
        raw["batch"] = BatchShape(**raw.get("batch", {}))
        raw["model"] = MdatConfig(**raw.get("model", {}))
        raw["optimiser"] = Optimiser(**raw.get("optimiser", {}))
        settings = Settings(**raw)
    except (tomllib.TOMLDecodeError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: {error}; compare it with train/configs/mdat.toml") from None
    if settings.system != "mdat":
        raise ConfigError(f"{path}: system is {settings.system!r}; need 'mdat'")
    return settings


def with_epochs(settings: Settings, epochs: int | None) -> Settings:
    """Return the settings with another number of epochs, or as they are."""
    return settings if epochs is None else replace(settings, optimiser=replace(settings.optimiser, epochs=epochs))


def read_split(settings: Settings, data: Path) -> Split:
    """Return the run's clips with one of the four emotions, split by speaker."""
    clips = [clip for clip in read_manifest(data / "speech" / "manifest.csv") if usable(clip, settings.corpora)]
    return split_by_speaker(
        clips,
        validation_fraction=settings.validation_fraction,
        test_fraction=settings.test_fraction,
        seed=settings.seed,
    )
