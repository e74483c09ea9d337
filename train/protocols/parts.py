"""Answers of single fits, kept as small files: what a protocol that was killed goes on from.

A part is one JSON file, written whole or not at all. Several processes, or machines that share the folder, can work on
one protocol: each takes the parts that nobody holds. A process that dies lets go of its part.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from edge_ser.errors import ConfigError
from train.checkpoint import read_checkpoint, save_checkpoint
from train.run_folder import write_json

Facts = Mapping[str, Any]
"""What a part is of: variant, source, target, seed, fold, shots; plain JSON values."""


@dataclass(frozen=True)
class Part:
    """What one fitted system said about clips; rows are clips."""

    key: str
    """Names the part within its protocol."""
    facts: Facts
    """What it is of."""
    files: tuple[str, ...]
    """(n,) audio files, relative to the folder of the data."""
    speakers: tuple[str, ...]
    """(n,) ids."""
    truth: NDArray[Any]
    """(n,) int64 class indices, or (n, 3) attributes in [0, 1]."""
    logits: NDArray[np.float32]
    """(n, C) class logits, or (n, 3) attributes; rounded to 5 digits."""
    marks: Mapping[str, tuple[bool, ...]] = field(default_factory=dict)
    """Further columns (n,), such as `unheard`: the speaker is in no support."""

    def only(self, mark: str) -> Part:
        """Return the part with the marked rows alone."""
        rows = np.flatnonzero(self.marks[mark])
        return Part(
            self.key,
            self.facts,
            tuple(self.files[row] for row in rows),
            tuple(self.speakers[row] for row in rows),
            self.truth[rows],
            self.logits[rows],
            {name: tuple(column[row] for row in rows) for name, column in self.marks.items()},
        )


def _truth(rows: Sequence[Any]) -> NDArray[Any]:
    # An attribute that nobody rated is null in JSON.
    return np.asarray(rows, dtype=np.float64) if rows and isinstance(rows[0], list) else np.asarray(rows)


@dataclass(frozen=True)
class Job:
    """A part that is to be made."""

    key: str
    """Names the part."""
    make: Callable[[], Part]
    """Fits and answers; takes minutes."""


class PartStore:
    """The folder of a protocol's parts and weights."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], content: Mapping[str, str] | None = None) -> None:
        """Open or begin a folder.

        Args:
            folder: Made where there is none.
            settings: What all parts here have in common, such as the protocol; the same in every process.
            content: Hashes of what parts are made from, by name; a name that the folder does not know yet is added.

        Raises:
            ConfigError: The folder holds parts of other settings or other content.
        """
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "settings.json"
        current = json.loads(json.dumps(settings, default=str))
        with self.held("settings"):
            stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else current
            known = stored.pop("content", {})
            names = sorted(name for name in {*stored, *current} if stored.get(name) != current.get(name))
            names += [name for name, found in (content or {}).items() if known.get(name, found) != found]
            if not names:
                write_json(path, {**current, "content": {**known, **(content or {})}})
        if names:
            raise ConfigError(
                f"{folder} holds parts of another {', '.join(names)}; need the same to go on; choose another --out"
            )

    def done(self, key: str) -> bool:
        """Return whether a part is there."""
        return self._path(key, "json").is_file()

    def write(self, part: Part) -> None:
        """Keep a part."""
        write_json(
            self._path(part.key, "json"),
            {
                "key": part.key,
                "facts": dict(part.facts),
                "files": part.files,
                "speakers": part.speakers,
                "truth": part.truth.tolist(),
                "logits": [[round(float(value), 5) for value in row] for row in part.logits],
                "marks": dict(part.marks),
            },
        )

    def read(self, key: str) -> Part:
        """Return a part that is there.

        Raises:
            ConfigError: The file is damaged.
        """
        path = self._path(key, "json")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return Part(
                content["key"],
                content["facts"],
                tuple(content["files"]),
                tuple(content["speakers"]),
                _truth(content["truth"]),
                np.asarray(content["logits"], dtype=np.float32),
                {name: tuple(column) for name, column in content["marks"].items()},
            )
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"{path} is no part ({error}); remove it and it is made again") from None

    def weights(
        self, key: str, make: Callable[[], tuple[Mapping[str, Tensor], Facts]]
    ) -> tuple[dict[str, Tensor], Facts]:
        """Return tensors and facts that were kept under a key; made once, whoever asks first, and kept."""
        path = self._path(key, "safetensors")
        with self.held(key):
            if not path.is_file():
                save_checkpoint(path, *make())
        return read_checkpoint(path)

    def kept(self, key: str) -> tuple[dict[str, Tensor], Facts] | None:
        """Return what `weights` keeps under a key, None where nobody made it."""
        path = self._path(key, "safetensors")
        return read_checkpoint(path) if path.is_file() else None

    def run(self, jobs: Sequence[Job]) -> list[Part]:
        """Return the parts of all jobs, in order; those that are missing are made here or waited for."""
        pending = [job for job in jobs if not self.done(job.key)]
        hidden = not sys.stderr.isatty()
        with tqdm(total=len(jobs), initial=len(jobs) - len(pending), unit="fit", disable=hidden) as bar:
            while pending:
                # What another process holds is left for later; when only such parts are left, this one waits.
                left = [job for job in pending if not self._make(job, wait=False, bar=bar)]
                if len(left) == len(pending):
                    self._make(left.pop(0), wait=True, bar=bar)
                pending = left
        return [self.read(job.key) for job in jobs]

    @contextmanager
    def held(self, key: str, wait: bool = True) -> Iterator[bool]:
        """Hold a key while the block runs; yields False where another process holds it and `wait` is False."""
        path = self._path(key, "lock")
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def _make(self, job: Job, *, wait: bool, bar: tqdm[Any]) -> bool:
        with self.held(job.key, wait=wait) as mine:
            if not mine:
                return False
            if not self.done(job.key):
                bar.set_description(job.key)
                self.write(job.make())
            bar.update()
        return True

    def _path(self, key: str, suffix: str) -> Path:
        # The hash keeps keys apart that differ only in what a file name cannot hold.
        name = re.sub(r"[^A-Za-z0-9._+-]+", "_", key)[:120]
        return self.folder / f"{name}.{hashlib.sha256(key.encode()).hexdigest()[:8]}.{suffix}"
