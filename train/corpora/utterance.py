"""One labelled utterance of a corpus, and the manifest that lists them: what every reader gives and training takes."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edge_ser.corpus import FOUR_CLASSES
from edge_ser.errors import ConfigError

ATTRIBUTES = ("arousal", "valence", "dominance")
"""The three emotional attributes."""


@dataclass(frozen=True)
class Utterance:
    """One utterance; what a corpus does not tell is empty or None."""

    path: Path
    """The audio file."""
    start_s: float | None = None
    """Seconds into the file, or None for its beginning."""
    end_s: float | None = None
    """Seconds into the file, or None for its end."""
    speaker: str = ""
    """Id of the speaker, unique over all corpora."""
    gender: str = ""
    """`f`, `m` or empty."""
    language: str = ""
    """ISO 639-1 code, perhaps with a region (`en-CA`), or empty."""
    corpus: str = ""
    """Name of the corpus."""
    emotion: str = ""
    """The corpus's own label, as an English word."""
    emotion4: str = ""
    """One of `FOUR_CLASSES`, or empty where the corpus's label has no such class."""
    arousal: float | None = None
    """In [0, 1], linear in the corpus's scale."""
    valence: float | None = None
    """In [0, 1], linear in the corpus's scale."""
    dominance: float | None = None
    """In [0, 1], linear in the corpus's scale."""
    transcript: str = ""
    """What is said, or empty."""
    session: str = ""
    """Id of the recording session or the podcast, unique within the corpus."""
    partition: str = ""
    """The corpus's official `train`, `dev`, `test1`, ..., or empty where it has none."""
    duration_s: float = 0.0
    """Seconds; 0 where nobody has measured."""
    licence: str = ""
    """The corpus's licence."""
    sha256: str = ""
    """Hash of the audio file, or empty."""

    @property
    def attributes(self) -> tuple[float, float, float] | None:
        """Arousal, valence and dominance in [0, 1], or None where one is unknown."""
        if self.arousal is None or self.valence is None or self.dominance is None:
            return None
        return self.arousal, self.valence, self.dominance


COLUMNS = tuple(field.name for field in fields(Utterance))
"""Columns of a manifest, in order."""

_NUMBERS = ("start_s", "end_s", "duration_s", *ATTRIBUTES)
_TEXTS = tuple(name for name in COLUMNS if name not in ("path", *_NUMBERS))


def read_utterances(manifest: Path) -> list[Utterance]:
    """Return the utterances of a manifest, in file order, each with an existing audio file.

    Args:
        manifest: A CSV, or one JSON object a line (`.jsonl`), with the columns of `COLUMNS`. Only path is needed,
            relative to the manifest's folder or absolute; other columns may be absent or empty. Attributes are in
            [0, 1] unless the column `scale` says otherwise: `1-7` is mapped linearly to [0, 1].

    Raises:
        ConfigError: No such file, no utterance, a number that is none, a path that does not exist or is listed twice.
    """
    if not manifest.is_file():
        raise ConfigError(f"no manifest at {manifest}; need a CSV with the column path; write one with train.prepare")
    with manifest.open(encoding="utf-8", newline="") as lines:
        if manifest.suffix == ".jsonl":
            rows = [_texts(_object(line, manifest)) for line in lines if line.strip()]
        else:
            rows = [_texts(row) for row in csv.DictReader(lines)]
    if not rows:
        raise ConfigError(f"{manifest} lists no utterance; need one row each")
    if "path" not in rows[0]:
        raise ConfigError(f"{manifest} lacks the column path; need it, and as many as you have of {', '.join(COLUMNS)}")
    utterances = [_utterance(row, f"{manifest}:{line}", manifest.parent) for line, row in enumerate(rows, start=2)]
    seen: set[tuple[Path, float | None]] = set()
    for utterance in utterances:
        key = (utterance.path, utterance.start_s)
        if key in seen:
            raise ConfigError(f"{manifest}: {utterance.path.name} is listed twice; need each utterance once")
        seen.add(key)
    return utterances


def write_manifest(path: Path, utterances: Sequence[Utterance]) -> None:
    """Write a CSV that `read_utterances` and `edge_ser.corpus.read_manifest` read.

    Audio below the manifest's folder is listed relative to it, other audio absolute; numbers come back exactly.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(os.path.abspath(path.parent))
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for utterance in utterances:
            row = {name: getattr(utterance, name) for name in COLUMNS}
            row["path"] = _listed(utterance.path, folder)
            writer.writerow(row)
    partial.replace(path)


def _listed(audio: Path, folder: Path) -> str:
    # Not resolved: a link inside the folder stays a path inside the folder.
    whole = Path(os.path.abspath(audio))
    return whole.relative_to(folder).as_posix() if whole.is_relative_to(folder) else whole.as_posix()


def _object(line: str, manifest: Path) -> dict[str, object]:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{manifest}: {error}; need one JSON object a line") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{manifest}: a line holds {line.strip()[:40]!r}; need one JSON object a line")
    return found


def _texts(row: dict[str, object]) -> dict[str, str]:
    return {str(name): "" if value is None else str(value) for name, value in row.items()}


def _utterance(row: dict[str, str], where: str, folder: Path) -> Utterance:
    audio = folder / row["path"]
    if not row["path"] or not audio.is_file():
        raise ConfigError(f"{where}: no file {audio}; need every listed utterance")
    emotion4 = row.get("emotion4", "")
    if emotion4 and emotion4 not in FOUR_CLASSES:
        raise ConfigError(f"{where}: emotion4 is {emotion4!r}; need one of {', '.join(FOUR_CLASSES)} or nothing")
    found: dict[str, Any] = {name: _number(row.get(name, ""), name, where) for name in _NUMBERS}
    low, high = _scale(row.get("scale", ""), where)
    for name in ATTRIBUTES:
        if found[name] is not None:
            found[name] = to_unit(found[name], low, high, f"{where}: {name}")
    if not found["duration_s"]:
        found["duration_s"] = 0.0 if found["end_s"] is None else found["end_s"] - (found["start_s"] or 0.0)
    found |= {name: row.get(name, "") for name in _TEXTS}
    return Utterance(path=audio, **found)


def _number(text: str, name: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{where}: {name} is {text!r}; need a number or nothing")
    return value


def _scale(text: str, where: str) -> tuple[float, float]:
    if not text:
        return 0.0, 1.0
    low, _, high = text.partition("-")
    bounds = _number(low, "scale", where), _number(high, "scale", where)
    if bounds[0] is None or bounds[1] is None or bounds[0] >= bounds[1]:
        raise ConfigError(f"{where}: scale is {text!r}; need its ends, such as 1-7")
    return bounds[0], bounds[1]


def to_unit(value: float, low: float, high: float, what: str) -> float:
    """Return a value of the scale [low, high] as one of [0, 1].

    Raises:
        ConfigError: The value is not on the scale.
    """
    if not low <= value <= high:
        raise ConfigError(f"{what} is {value:g}; need {low:g} to {high:g}")
    return (value - low) / (high - low)
