"""Reading a corpus manifest: the CSV that lists clips, speakers and labels."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_ser.errors import ConfigError

FOUR_CLASSES = ("angry", "happy", "neutral", "sad")
"""The class map `four`, in index order."""

_REQUIRED = ("path", "corpus", "speaker", "emotion4", "duration_s")


@dataclass(frozen=True)
class Clip:
    """One recorded utterance of a corpus."""

    path: Path
    """The audio file."""
    corpus: str
    """Name of the corpus."""
    speaker: str
    """Id of the speaker, unique over all corpora."""
    gender: str
    """`f`, `m` or empty."""
    language: str
    """ISO 639-1 code, or empty."""
    emotion: str
    """One of `FOUR_CLASSES`, or empty where the corpus's label has no such class."""
    transcript: str
    """What is said, or empty."""
    duration_s: float
    """Seconds."""
    licence: str
    """The corpus's licence."""


def read_manifest(path: Path) -> list[Clip]:
    """Return the clips of a manifest, in file order, each with an existing audio file.

    Args:
        path: A CSV with the columns path (relative to the CSV), corpus, speaker, emotion4 and duration_s; gender,
            language, transcript and licence may be absent.

    Raises:
        ConfigError: The file or a column is missing, a row is wrong, a path is listed twice or does not exist.
    """
    if not path.is_file():
        raise ConfigError(f"no manifest at {path}; need a CSV with {', '.join(_REQUIRED)}; pass --data FOLDER")
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, restval=""))
    except (OSError, ValueError, csv.Error) as problem:  # ValueError: no UTF-8.
        raise ConfigError(f"{path} cannot be read as CSV ({problem}); need UTF-8 text; check the file") from None
    if not rows:
        raise ConfigError(f"{path} lists no clip; need one row a clip")
    missing = [column for column in _REQUIRED if column not in rows[0]]
    if missing:
        raise ConfigError(f"{path} lacks the column(s) {', '.join(missing)}; need {', '.join(_REQUIRED)}")
    clips = [_clip(row, line, path) for line, row in enumerate(rows, start=2)]
    _check_unique(clips, path)
    return clips


def _clip(row: dict[str, str], line: int, manifest: Path) -> Clip:
    audio = manifest.parent / row["path"]
    if not os.path.isfile(audio):  # Not Path.is_file: it raises for a name that is too long.
        raise ConfigError(f"{manifest}:{line}: no file {audio}; need every listed clip")
    if row["emotion4"] and row["emotion4"] not in FOUR_CLASSES:
        raise ConfigError(f"{manifest}:{line}: emotion4 is {row['emotion4']!r}; need one of {FOUR_CLASSES} or nothing")
    if not row["speaker"]:
        raise ConfigError(f"{manifest}:{line}: no speaker; need one, or no split can keep speakers apart")
    try:
        duration_s = float(row["duration_s"])
    except ValueError:
        raise ConfigError(f"{manifest}:{line}: duration_s is {row['duration_s']!r}; need seconds") from None
    return Clip(
        path=audio,
        corpus=row["corpus"],
        speaker=row["speaker"],
        gender=row.get("gender", ""),
        language=row.get("language", ""),
        emotion=row["emotion4"],
        transcript=row.get("transcript", ""),
        duration_s=duration_s,
        licence=row.get("licence", ""),
    )


def _check_unique(clips: Sequence[Clip], manifest: Path) -> None:
    seen: set[Path] = set()
    for clip in clips:
        if clip.path in seen:
            raise ConfigError(f"{manifest}: {clip.path.name} is listed twice; need each clip once")
        seen.add(clip.path)


def list_sounds(table: Path, side: str) -> list[Path]:
    """Return the sounds that a CSV with the column path lists, of one side; no recording stands on two.

    Every fourth sound is held out for tests of robustness, but one with a sibling among the others, another cut of the
    same recording, is on no side. A third of the other recordings set thresholds, and the rest are learnt from.

    Args:
        table: The CSV file; paths in it are relative to its folder.
        side: `training`, `calibration` or `held_out`.
    """
    with table.open(encoding="utf-8", newline="") as lines:
        names = sorted(row["path"] for row in csv.DictReader(lines))
    others = [name for place, name in enumerate(names) if place % 4 != 3]
    known = sorted({_recording(name) for name in others})
    if side == "held_out":
        return [table.parent / name for name in names if name not in others and _recording(name) not in known]
    calibrating = set(known[2::3])
    return [table.parent / name for name in others if (_recording(name) in calibrating) == (side == "calibration")]


def _recording(name: str) -> str:
    """Return what names of cuts of one recording share: `tap` of `tap_2.opus`, `rain_1-17` of `rain_1-17-B.opus`."""
    return re.sub(r"[_-](\d+|[A-Z])$", "", Path(name).stem)
