"""Shots: a user's own labelled clips, listed by a folder tree or a CSV file, and what a model makes of them."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_ser.errors import AudioFormatError, ConfigError
from edge_ser.hearing import Heard
from edge_ser.quality import spoken_part
from edge_ser.recognizer import EmotionRecognizer
from edge_ser.sources import AUDIO_SUFFIXES, read_samples

_LONGEST_LABEL = 40
_REJECTIONS = {
    "too_short": "it is too short to judge",
    "too_quiet": "it is too quiet to judge",
    "clipped": "it is distorted: record it less loud",
}


@dataclass(frozen=True)
class Shot:
    """One labelled clip."""

    path: Path
    """The audio file."""
    label: str
    """How it was said."""
    voice: str = ""
    """Who says it; clips without a name share one voice."""
    transcript: str = ""
    """What is said, or empty."""


@dataclass(frozen=True)
class Skipped:
    """A clip that could not be used."""

    path: Path
    """The audio file."""
    reason: str
    """Why."""


@dataclass(frozen=True, eq=False)
class HeardShot:
    """A clip and what a model made of it."""

    shot: Shot
    """The clip."""
    samples: NDArray[np.float32]
    """Mono float32, shape (n,), at 16 kHz."""
    heard: Heard
    """The answer to a voice never heard before."""


def list_shots(source: Path) -> list[Shot]:
    """Return the clips that a folder tree `LABEL/clip.wav` or a CSV file lists, in a fixed order.

    Args:
        source: A folder, or a CSV file with the columns path (relative to it) and label; speaker and transcript may be
            absent.

    Raises:
        ConfigError: It cannot be read, lacks a column, or lists nothing.
    """
    # Not Path.is_dir, which fails on a name that no file can have.
    is_folder = os.path.isdir(source)
    shots = _in_folder(source) if is_folder else _in_table(source)
    if not shots:
        need = f"files in folders named by emotion: {source / 'happy' / 'clip.wav'}" if is_folder else "one row a clip"
        raise ConfigError(f"{source} lists no clip; need {need}")
    for shot in shots:
        if len(shot.label) > _LONGEST_LABEL or not shot.label.isprintable():
            raise ConfigError(
                f"the label {shot.label[:_LONGEST_LABEL]!r} is no name; need up to {_LONGEST_LABEL} printable letters"
            )
    return shots


def hear_shots(recognizer: EmotionRecognizer, shots: Sequence[Shot]) -> tuple[list[HeardShot], list[Skipped]]:
    """Return what a model makes of clips, and the clips that cannot be used.

    A recording that comes twice counts once; under two labels it does not count at all.
    """
    heard: list[HeardShot] = []
    skipped: list[Skipped] = []
    by_sound: dict[bytes, Shot] = {}
    contradicted: set[bytes] = set()
    for shot in shots:
        try:
            samples = read_samples(shot.path)
        except AudioFormatError as error:
            skipped.append(Skipped(shot.path, str(error)))
            continue
        sound = hashlib.sha256(samples.tobytes()).digest()
        first = by_sound.setdefault(sound, shot)
        if first is not shot:
            same = first.label == shot.label
            skipped.append(Skipped(shot.path, f"it is the same recording as {first.path}{_labelled(first, same)}"))
            contradicted |= set() if same else {sound}
            continue
        samples = spoken_part(samples)[1].copy()
        judgement, answer = recognizer.listen(samples, transcript=shot.transcript)
        reason = _REJECTIONS.get(judgement.rejection or "")
        if reason is None:
            heard.append(HeardShot(shot, samples, answer))
        else:
            skipped.append(Skipped(shot.path, reason))
    at_odds = {by_sound[sound].path for sound in contradicted}
    skipped += [Skipped(path, "it comes again under another label") for path in sorted(at_odds)]
    return [item for item in heard if item.shot.path not in at_odds], skipped


def _labelled(first: Shot, same: bool) -> str:
    return "" if same else f", which is labelled '{first.label}'"


def _in_folder(folder: Path) -> list[Shot]:
    try:
        labels = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        return [Shot(path, label.name.strip()) for label in labels for path in _audio_below(label)]
    except OSError as problem:
        raise ConfigError(
            f"cannot read {problem.filename} ({problem.strerror}); need a folder of clips; check it: ls -ld {folder}"
        ) from None


def _audio_below(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES:
                yield Path(parent, name)


def _refuse(problem: OSError) -> None:
    raise problem


def _in_table(table: Path) -> list[Shot]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = {"path", "label"} - set(reader.fieldnames or ())
            rows = [] if missing else list(reader)
    except (OSError, ValueError, csv.Error) as problem:  # ValueError: no UTF-8, or a name that no file can have.
        reason = problem.strerror if isinstance(problem, OSError) else problem
        raise ConfigError(
            f"cannot read {table} ({reason}); need a folder of clips LABEL/clip.wav, or a CSV with path,label"
        ) from None
    if missing:
        raise ConfigError(
            f"{table} lacks the column(s) {', '.join(sorted(missing))}; let its first line be: "
            "path,label,speaker,transcript (the last two may be absent)"
        )
    return [_row(row, line, table) for line, row in enumerate(rows, start=2)]


def _row(row: Mapping[str, str | None], line: int, table: Path) -> Shot:
    path, label = (row["path"] or "").strip(), (row["label"] or "").strip()
    if not path or not label:
        raise ConfigError(f"{table}:{line}: no {'label' if path else 'path'}; need both in every row")
    return Shot(table.parent / path, label, (row.get("speaker") or "").strip(), (row.get("transcript") or "").strip())
