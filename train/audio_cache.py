"""Decoded clips in one memory-mapped file, so that an epoch never decodes."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge_ser.corpus import Clip
from edge_ser.sources import read_blocks

_SCALE = 32767.0


@dataclass(frozen=True)
class AudioCache:
    """Clips by path, decoded once."""

    samples: NDArray[np.int16]
    """All clips, one after the other."""
    bounds: dict[Path, tuple[int, int]]
    """Start and end of each clip in `samples`."""

    def __getitem__(self, path: Path) -> NDArray[np.float32]:
        """Return a clip as mono float32 in [-1, 1], shape (n,), at 16 kHz."""
        start, end = self.bounds[path]
        return self.samples[start:end].astype(np.float32) / np.float32(_SCALE)


def open_cache(paths: Sequence[Path], folder: Path) -> AudioCache:
    """Return the cache of these files in `folder`, decoding them on first use.

    The file's name holds a hash of paths, sizes and modification times, so a changed corpus is decoded anew.
    """
    ordered = sorted(set(paths))
    key = hashlib.sha256()
    for path in ordered:
        stat = path.stat()
        key.update(f"{path}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
    target = folder / f"audio-{key.hexdigest()[:16]}.npy"
    ends = target.with_suffix(".ends.npy")
    if not (target.is_file() and ends.is_file()):
        _decode(ordered, target, ends)
    places = np.load(ends)
    starts = np.concatenate([[0], places[:-1]])
    bounds = {path: (int(start), int(end)) for path, start, end in zip(ordered, starts, places, strict=True)}
    return AudioCache(np.load(target, mmap_mode="r"), bounds)


def clip_cache(clips: Sequence[Clip], folder: Path) -> AudioCache:
    """Return the cache of the clips' audio."""
    return open_cache([clip.path for clip in clips], folder)


def _decode(paths: Sequence[Path], target: Path, ends: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    parts, places, total = [], [], 0
    for path in tqdm(paths, desc="decode", unit="clip", disable=not sys.stderr.isatty()):
        wave = np.concatenate(list(read_blocks(path)))
        parts.append(np.round(np.clip(wave, -1.0, 1.0) * _SCALE).astype(np.int16))
        total += len(wave)
        places.append(total)
    for file, array in ((target, np.concatenate(parts)), (ends, np.array(places))):
        partial = file.with_name(f".{os.getpid()}-{file.name}")
        np.save(partial, array)
        partial.replace(file)
