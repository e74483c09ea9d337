"""A Unix socket that is this user's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterator

from edge_ser.errors import ConfigError


@contextlib.contextmanager
def private() -> Iterator[None]:
    """Let nobody but this user connect to a socket that is made meanwhile."""
    mask = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(mask)


async def make_way(path: str) -> None:
    """Take away the socket of a service that is gone, and nothing else.

    Raises:
        ConfigError: Another service listens there, or it is no socket.
        OSError: It cannot be looked at, or not be taken away.
    """
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise ConfigError(f"{path} is there and is no socket; choose another path: --uri unix:///PATH")
    except FileNotFoundError:
        return
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        os.unlink(path)
        return
    writer.close()
    raise ConfigError(f"another service listens at {path}; stop it, or choose another path: --uri unix:///PATH")
