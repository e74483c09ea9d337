"""The WebSocket service's port: who may come in, and what else is to be had there."""

from __future__ import annotations

import asyncio
import functools
import http
import logging
import socket
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from edge_ser.assistants.access import may_connect
from edge_ser.assistants.address import Address
from edge_ser.assistants.limits import Limits
from edge_ser.assistants.line import QUEUED_MESSAGES
from edge_ser.assistants.page import HEADERS, PageFile, page_file
from edge_ser.assistants.unix_socket import make_way, private
from edge_ser.errors import BackendUnavailableError, ConfigError

if TYPE_CHECKING:
    from websockets.asyncio.server import Server, ServerConnection
    from websockets.http11 import Request, Response

Handler: TypeAlias = "Callable[[ServerConnection], Awaitable[None]]"

SOCKET_PATH = "/listen"
RECEIVED_BYTES = 1 << 15
"""Bytes that the system takes from a client ahead of the service, which reads them in one go: a second of audio, but
thousands of empty messages, for whose sake nobody else shall wait."""


@dataclass(frozen=True)
class Door:
    """Where a service listens, and to whom it opens."""

    address: Address = field(default_factory=Address)
    """Where."""
    token: str | None = None
    """What every client must know; None asks for nothing, which only an address of this machine may."""
    shows_page: bool = False
    """Whether browsers get the page."""
    allowed_origins: Collection[str] = ()
    """Web pages of other hosts that may connect, as `https://assistant.example`."""
    limits: Limits = field(default_factory=Limits)
    """What one client may ask."""


def require_token(door: Door) -> None:
    """Refuse a door that stands open to the network.

    Raises:
        ConfigError: Other machines can reach the address, and there is no token.
    """
    if door.token is None and not door.address.is_private:
        raise ConfigError(
            f"{door.address} can be reached from other machines, clients there need a token; "
            "add --token-file FILE, or leave out --host"
        )


def answer_request(door: Door, is_private: bool, connection: ServerConnection, request: Request) -> Response | None:
    """Return the page, or a refusal; None lets a WebSocket begin."""
    if getattr(connection, "is_one_too_many", False):
        return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections; try again later.\n")
    hosts, origins = request.headers.get_all("Host"), request.headers.get_all("Origin")
    host, origin = next(iter(hosts), None), next(iter(origins), None)
    is_plain = len(hosts) <= 1 and len(origins) <= 1
    if not is_plain or not may_connect(host, origin, is_private, door.allowed_origins):
        return connection.respond(
            http.HTTPStatus.FORBIDDEN,
            "Pages of other hosts may not connect, but for those that --allow-origin names.\n",
        )
    path = request.path.partition("?")[0]
    if path == SOCKET_PATH:
        return None
    file = page_file(path) if door.shows_page else None
    if file is None:
        return connection.respond(http.HTTPStatus.NOT_FOUND, f"The WebSocket is at {SOCKET_PATH}.\n")
    return _page_response(file)


def _page_response(file: PageFile) -> Response:
    from websockets.datastructures import Headers
    from websockets.http11 import Response

    headers = Headers(HEADERS)
    headers["Content-Type"] = file.content_type
    headers["Content-Length"] = str(len(file.body))
    headers["Connection"] = "close"
    return Response(http.HTTPStatus.OK, "OK", headers, file.body)


async def listen(door: Door, handler: Handler) -> Server:
    """Return a server that is open.

    Args:
        door: Where, and to whom.
        handler: Serves one connection to its end.

    Raises:
        BackendUnavailableError: The package `websockets` is not installed.
        ConfigError: Nothing can listen there.
    """
    try:
        from websockets.asyncio.server import serve as open_port
        from websockets.asyncio.server import unix_serve as open_socket
    except ImportError:
        raise BackendUnavailableError(
            "websockets is not installed here, the WebSocket service needs it; type: pip install 'edge-ser[serve]'"
        ) from None
    address = door.address
    server: Server
    try:
        if address.path is None:
            server = await open_port(handler, address.host, address.port, **_options(door))
        else:
            await make_way(address.path)
            with private():
                server = await open_socket(handler, address.path, **_options(door))
    except OSError as problem:
        raise ConfigError(
            f"cannot listen on {address} ({problem.strerror}); need an address of this machine that is free; "
            "choose another --port or --uri"
        ) from None
    for listening in server.sockets:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED_BYTES)
    return server


def _options(door: Door) -> dict[str, Any]:
    # It would log what clients send, tokens included, and a traceback for each that breaks off a handshake.
    silent = logging.getLogger("edge_ser.websockets")
    silent.setLevel(logging.CRITICAL + 1)
    return {
        "process_request": functools.partial(answer_request, door, door.address.is_private),
        "create_connection": _counted(door.limits.max_clients + door.limits.max_waiting),
        "server_header": None,
        "compression": None,  # sound does not shrink, and what unpacks to more than it seems is an attack
        "open_timeout": door.limits.handshake_s,
        "close_timeout": door.limits.close_s,
        "ping_interval": None,  # see `Line`
        "max_size": door.limits.max_message_bytes,
        "max_queue": QUEUED_MESSAGES,
        "logger": silent,
    }


def _counted(most: int) -> type[ServerConnection]:
    """Return the kind of connection of which so many may be open; those beyond are refused once their request is read.

    Where there are twice as many, nobody waits for the request.
    """
    from websockets.asyncio.server import ServerConnection

    class Counted(ServerConnection):
        is_one_too_many = False
        open: ClassVar[set[ServerConnection]] = set()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.open.add(self)
            self.is_one_too_many = len(self.open) > most
            if len(self.open) > 2 * most:
                self.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            self.open.discard(self)
            super().connection_lost(exc)

    return Counted


def where(server: Server, address: Address) -> str:
    """Return what a client connects to."""
    if address.path is not None:
        return f"ws+unix://{address.path}:{SOCKET_PATH}"
    port = server.sockets[0].getsockname()[1]
    return f"ws://{replace(address, port=port).netloc}{SOCKET_PATH}"
