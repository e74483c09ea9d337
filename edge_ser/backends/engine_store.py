"""Where engines are kept: a private folder of the user, never a bundle.

TensorRT runs what an engine file holds, so one that somebody else could have written is as good as a program of theirs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_ser.backends.engine_record import EngineRecord
from edge_ser.bundle import Bundle
from edge_ser.errors import ConfigError, EngineMismatchError
from edge_ser.manifest import MANIFEST_NAME
from edge_ser.private_file import read_regular_file, replace_file
from edge_ser.user_folder import user_folder

PRECISIONS = ("int8", "fp16", "fp32")
"""In the order in which engines are preferred."""

_RECORD_SUFFIX = ".json"
_LARGEST_RECORD_BYTES = 1_000_000


@dataclass(frozen=True)
class StoredEngine:
    """An engine that was read, checked and may be run."""

    record: EngineRecord
    """What it is for."""
    data: bytes
    """What TensorRT deserialises."""


def default_folder() -> Path:
    """Return where engines are kept: `$EDGE_SER_ENGINES`, else `edge-ser/engines` in the user's cache.

    Raises:
        ConfigError: The user has no home folder.
    """
    return user_folder("engines", variable="EDGE_SER_ENGINES", xdg="XDG_CACHE_HOME", default=".cache")


class EngineStore:
    """Engines by what they are bound to."""

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        """Look after a folder; nothing is made before an engine is written.

        Args:
            folder: Where the engines lie; None takes the user's own, `default_folder`.

        Raises:
            ConfigError: The user has no home folder.
        """
        self.folder = default_folder() if folder is None else Path(folder)

    def records(self, bundle: str) -> list[EngineRecord]:
        """Return what is known of a bundle's engines, for whatever GPU; records that cannot be read are left out."""
        found = []
        for path in sorted(self.folder.glob(f"*.engine{_RECORD_SUFFIX}")):
            with contextlib.suppress(OSError, EngineMismatchError):
                record = EngineRecord.from_json(read_regular_file(path, _LARGEST_RECORD_BYTES), str(path))
                named = path.name == record.key.file_name + _RECORD_SUFFIX and record.key.precision in PRECISIONS
                if named and record.key.bundle == bundle:
                    found.append(record)
        return found

    def find(self, bundle: Bundle, gpu: str, tensorrt: str) -> EngineRecord | None:
        """Return the engine to run here: of this very graph, for this GPU and version of TensorRT.

        Args:
            bundle: The bundle.
            gpu: `Gpu.slug`.
            tensorrt: Version of TensorRT.

        Returns:
            The record, or None where the bundle has no engine at all.

        Raises:
            EngineMismatchError: There are engines of it, but none that fits.
        """
        records = self.records(bundle.manifest.name)
        here = [record for record in records if (record.key.gpu, record.key.tensorrt) == (gpu, tensorrt)]
        fitting = [record for record in here if record.graph_sha256 == graph_sha256(bundle)]
        if fitting:
            return min(fitting, key=lambda record: PRECISIONS.index(record.key.precision))
        again = f"build it again: python export/build_trt.py {bundle.manifest.name}"
        if here:
            raise EngineMismatchError(
                f"the engine {self.folder / here[0].key.file_name} was built from another version of "
                f"'{bundle.manifest.name}'; need one of this graph; {again}"
            )
        if records:
            built = " and ".join(f"{record.gpu_name} + TensorRT {record.key.tensorrt}" for record in records)
            raise EngineMismatchError(
                f"the engine of '{bundle.manifest.name}' was built for {built}; this is {gpu} + TensorRT {tensorrt}; "
                f"need one for it; {again}"
            )
        return None

    def read(self, record: EngineRecord) -> StoredEngine:
        """Return an engine, if nobody else can have written it.

        Raises:
            ConfigError: The folder or the file is another user's or open to others, a link, or inside a bundle.
            EngineMismatchError: The file is missing or damaged.
        """
        self._check_folder()
        path = self.folder / record.key.file_name
        data = _read_own(path)
        if hashlib.sha256(data).hexdigest() != record.engine_sha256:
            raise EngineMismatchError(
                f"{path} is damaged or changed; need it as it was built; build it again: "
                f"python export/build_trt.py {record.key.bundle} --again"
            )
        return StoredEngine(record, data)

    def write(self, engine: StoredEngine) -> Path:
        """Keep an engine and its record, readable by this user alone, and return its path.

        Raises:
            ConfigError: The folder cannot be written, is open to others, or is a bundle.
        """
        path = self.folder / engine.record.key.file_name
        with self._writing():
            # The record comes last: an engine without one is never run.
            replace_file(path, engine.data)
            replace_file(path.with_name(path.name + _RECORD_SUFFIX), engine.record.to_json().encode())
        return path

    def timing_cache(self, gpu: str, tensorrt: str) -> Path:
        """Return the file of what TensorRT has timed on a GPU; a later build need not time it again."""
        return self.folder / f"{gpu}-trt{tensorrt}.timing"

    def read_timing_cache(self, path: Path) -> bytes:
        """Return the content of a timing cache; nothing where there is none yet.

        Raises:
            ConfigError: The folder or the file is another user's or open to others.
        """
        if not os.path.lexists(path):
            return b""
        self._check_folder()
        return _read_own(path)

    def write_timing_cache(self, path: Path, data: bytes) -> None:
        """Keep a timing cache.

        Raises:
            ConfigError: The folder cannot be written, is open to others, or is a bundle.
        """
        with self._writing():
            replace_file(path, data)

    def provider_folder(self) -> Path:
        """Return a private folder in which ONNX Runtime keeps the engines that it builds for itself.

        Raises:
            ConfigError: It cannot be made, is open to others, or is a bundle.
        """
        folder = self.folder / "onnxruntime"
        with self._writing():
            folder.mkdir(mode=0o700, exist_ok=True)
            _check_own(os.stat(folder), str(folder), 0o077, "chmod 700")
        return folder

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_folder()
            yield
        except OSError as problem:
            raise ConfigError(
                f"engines cannot be kept in {self.folder} ({problem.strerror}); need a folder of your own with some "
                "free space; use --engine-dir or type: export EDGE_SER_ENGINES=FOLDER"
            ) from None

    def _check_folder(self) -> None:
        folder = self.folder.resolve()
        for place in (folder, *folder.parents):
            if os.path.lexists(place / MANIFEST_NAME):
                raise ConfigError(
                    f"{self.folder} is part of the bundle {place}; engines are never run out of a bundle; choose "
                    "another --engine-dir"
                )
        _check_own(os.stat(folder), str(self.folder), 0o077, "chmod 700")


def graph_sha256(bundle: Bundle) -> str:
    """Return the SHA-256 of the bundle's graph `model`, as its manifest says it."""
    return bundle.manifest.files[bundle.manifest.graphs["model"]]


def _read_own(path: Path) -> bytes:
    """Return the content of a file that is this user's, checked on the very file that is read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as problem:
        raise EngineMismatchError(
            f"cannot read {path} ({problem.strerror}); need the file itself, no link; build it again: "
            "python export/build_trt.py --help"
        ) from None
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise EngineMismatchError(f"{path} is no regular file; remove it and build again: see build_trt.py --help")
        _check_own(status, str(path), 0o022, "chmod 600")
        return file.read()


def _check_own(status: os.stat_result, where: str, closed: int, remedy: str) -> None:
    if status.st_uid != os.geteuid():
        raise ConfigError(
            f"{where} belongs to another user; TensorRT runs what an engine holds, so it must be your own; choose "
            "another --engine-dir"
        )
    if stat.S_IMODE(status.st_mode) & closed:
        raise ConfigError(
            f"{where} is open to other users; TensorRT runs what an engine holds, so it must be yours alone; "
            f"type: {remedy} {where}"
        )
