"""The real speech-to-text service behind the Wyoming proxy."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit

from wyoming.client import AsyncClient
from wyoming.event import Event
from wyoming.info import Describe, Info, SelectProgram

from edge_ser.assistants.wyoming.messages import BROKEN, well_formed
from edge_ser.errors import ConfigError, EdgeSerError

CONNECT_S = 5.0
"""Seconds in which the service must take a connection, and each event."""
SUFFIX = " + edge-ser"
"""What tells the proxied programs from the real ones, wherever both are listed."""


class UpstreamError(EdgeSerError):
    """The speech-to-text service cannot be reached, or went away."""


def check_uri(uri: str) -> str:
    """Return a Wyoming URI, checked.

    Raises:
        ConfigError: It is no `tcp://HOST:PORT` and no `unix:///PATH`.
    """
    with contextlib.suppress(ValueError):
        parts = urlsplit(uri)
        if parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc:
            return uri
        if parts.scheme == "tcp" and parts.hostname and parts.port is not None and parts.path in ("", "/"):
            return uri
    raise ConfigError(f"got the address {uri!r}; need tcp://HOST:PORT or unix:///PATH; type tcp://127.0.0.1:10300")


class Upstream:
    """One connection to the service; every failure is an `UpstreamError`."""

    def __init__(self, uri: str) -> None:
        """Prepare a connection to `uri`; `connect` makes it."""
        self._uri = uri
        self._client = AsyncClient.from_uri(uri)

    async def connect(self) -> Upstream:
        """Connect, and return itself.

        Raises:
            UpstreamError: The service cannot be reached.
        """
        try:
            await asyncio.wait_for(self._client.connect(), CONNECT_S)
        except (OSError, asyncio.TimeoutError) as error:
            raise UpstreamError(
                f"cannot reach the speech-to-text service at {self._uri} ({str(error) or 'no answer'}); "
                "check that it runs there"
            ) from error
        return self

    async def close(self) -> None:
        """Disconnect."""
        with contextlib.suppress(OSError):
            await self._client.disconnect()

    async def write(self, event: Event) -> None:
        """Pass an event on.

        Raises:
            UpstreamError: The service went away, or takes nothing any more.
        """
        if SelectProgram.is_type(event.type):
            event.data["name"] = str(event.data.get("name", "")).removesuffix(SUFFIX)
        try:
            await asyncio.wait_for(self._client.write_event(event), CONNECT_S)
        except (OSError, asyncio.TimeoutError) as error:
            raise UpstreamError(f"the speech-to-text service at {self._uri} went away") from error

    async def read(self) -> Event:
        """Return the next event as it came.

        Raises:
            UpstreamError: The service has closed the connection.
        """
        try:
            event = well_formed(await self._client.read_event())
        except BROKEN as error:
            raise UpstreamError(f"the speech-to-text service at {self._uri} went away") from error
        if event is None:
            raise UpstreamError(f"the speech-to-text service at {self._uri} has closed the connection")
        return event


async def proxied_info(uri: str) -> Event:
    """Return what the service says about its speech-to-text programs, under names that tell of the proxy.

    Raises:
        UpstreamError: The service cannot be reached, or does not say.
    """
    upstream = await Upstream(uri).connect()
    try:
        await upstream.write(Describe().event())
        while not Info.is_type((event := await asyncio.wait_for(upstream.read(), CONNECT_S)).type):
            pass
    except asyncio.TimeoutError as error:
        raise UpstreamError(f"the speech-to-text service at {uri} does not answer") from error
    finally:
        await upstream.close()
    programs = [{**program, "name": f"{program.get('name')}{SUFFIX}"} for program in event.data.get("asr", [])]
    return Event(type=event.type, data={**Info().event().data, "asr": programs})
