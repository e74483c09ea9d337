"""Finding a corpus's files below a folder, whatever else lies there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from edge_ser.errors import ConfigError
from train.corpora.tables import Corpus

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".opus", ".ogg")
"""Audio files that are looked for, in any case of letters; the first is taken where one folder holds a clip twice."""


def audio_named(root: Path, pattern: str, corpus: Corpus) -> Iterator[tuple[Path, re.Match[str]]]:
    """Yield the audio files below a folder whose name without suffix is of a pattern, in order of their paths.

    Raises:
        ConfigError: The folder does not exist or holds no such file.
    """
    found = False
    for path in audio_below(root, corpus):
        match = re.fullmatch(pattern, path.stem)
        if match:
            found = True
            yield path, match
    if not found:
        raise wrong_folder(root, corpus)


def audio_below(root: Path, corpus: Corpus) -> Iterator[Path]:
    """Yield all audio files below a folder, in order of their paths; hidden files and folders are left out.

    Raises:
        ConfigError: The folder does not exist.
    """
    if not root.is_dir():
        raise ConfigError(f"no folder {root}; need the one that holds {corpus.title}")
    for parent, folders, names in os.walk(root):
        # A leading dot: what macOS leaves in archives beside every file.
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        chosen: dict[str, Path] = {}
        for suffix in AUDIO_SUFFIXES:
            for name in names:
                if name.lower().endswith(suffix) and not name.startswith("."):
                    chosen.setdefault(Path(name).stem, Path(parent, name))
        yield from (chosen[stem] for stem in sorted(chosen))


def first_of(root: Path, names: tuple[str, ...], corpus: Corpus) -> Path:
    """Return the first of these paths that exists in a folder or in a folder right below it.

    Raises:
        ConfigError: None does.
    """
    if root.is_dir():
        below = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        for folder in (root, *below):
            for name in names:
                if (folder / name).exists():
                    return folder / name
    raise wrong_folder(root, corpus)


def as_it_is(path: Path) -> Path:
    """Return the path, with another suffix where that is how somebody keeps the file (re-coded to FLAC, say)."""
    if path.is_file():
        return path
    return next((other for other in map(path.with_suffix, AUDIO_SUFFIXES) if other.is_file()), path)


def wrong_folder(root: Path, corpus: Corpus) -> ConfigError:
    """Return the error of a folder that does not hold a corpus, with what was looked for."""
    if not root.is_dir():
        return ConfigError(f"no folder {root}; need the one that holds {corpus.title}")
    return ConfigError(f"{root} does not hold {corpus.title}; need {', '.join(corpus.layout)} below it")
