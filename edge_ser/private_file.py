"""Small files that only their owner may read, and that a crash or a full disk leaves whole."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Give a file its new content; at any moment the old or the new one is there, whole.

    A process that is killed may leave `.NAME-????????` beside it, with the same permissions.

    Raises:
        OSError: It cannot be written; the old content is still there.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names that were added, replaced or removed outlive a power cut, where the file system can do it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_regular_file(path: str | os.PathLike[str], limit_bytes: int) -> bytes:
    """Return the content of a file, at most `limit_bytes` + 1 of it; one that is no regular file is never waited for.

    Raises:
        OSError: It cannot be read, or it is a folder, a pipe or a device.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(limit_bytes + 1)
    finally:
        os.close(handle)
