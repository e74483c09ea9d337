"""Disks that are full: a real one of 32 kB where we may mount it, else a limit on the size of files."""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small(folder: Path) -> Iterator[Path]:
    """Yield an empty disk of 32 kB, mounted at `folder`; skip the test where that needs other rights."""
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    folder.mkdir()
    command = [str(mount), "-t", "tmpfs", "-o", "size=32k,mode=700", "tmpfs", str(folder)]
    if not (mount and unmount) or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a disk needs root")
    try:
        yield folder
    finally:
        subprocess.run([unmount, "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Fill a disk and return the file to remove when there shall be room."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    return filler


@contextlib.contextmanager
def limited(limit_bytes: int) -> Iterator[None]:
    """Let this process write no file beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
