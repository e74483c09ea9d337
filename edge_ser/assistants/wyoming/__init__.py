"""Wyoming, the protocol of Home Assistant's voice services: a proxy before speech-to-text, or a service of its own.

With an upstream, audio goes on to the real speech-to-text service and everything it says comes back unchanged, but that
a transcript carries the emotion in its `context`. Every event of the stream is a `user-event` of the same name. Without
one, the transcript is empty; a client that knows the words sends a `transcript` and hears the emotion again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import dataclass, field

from edge_ser.errors import BackendUnavailableError, ConfigError

try:
    import wyoming as _wyoming  # noqa: F401
except ImportError as error:
    raise BackendUnavailableError(
        "wyoming is not installed, this service needs it. Install it: pip install 'edge-ser[serve]'"
    ) from error

from edge_ser.assistants.address import Address
from edge_ser.assistants.journal import Journal
from edge_ser.assistants.wyoming.listening import announced, listening, may_connect, network
from edge_ser.assistants.wyoming.session import Service, Session, StreamBook
from edge_ser.assistants.wyoming.upstream import check_uri
from edge_ser.recognizer import EmotionRecognizer

__all__ = ["DEFAULT_PORT", "Door", "Service", "check", "serve"]

DEFAULT_PORT = 10330
MAX_CLIENTS = 64

_log = logging.getLogger("edge_ser")


@dataclass(frozen=True)
class Door:
    """Where the service listens, and to whom it opens."""

    address: Address = field(default_factory=lambda: Address(port=DEFAULT_PORT))
    """Where."""
    allow: tuple[str, ...] = ()
    """Machines that may connect, as `192.168.1.20` or `192.168.1.0/24`; Wyoming itself knows no password."""
    announced: str | None = None
    """Name to announce to Home Assistant over zeroconf; None announces nothing."""


def check(door: Door, service: Service) -> None:
    """Refuse what cannot be served.

    Raises:
        ConfigError: Other machines can reach the address and `allow` names none, a name in it is no network, the
            upstream is no Wyoming address, or a Unix socket is to be announced.
    """
    if service.upstream is not None:
        check_uri(service.upstream)
    for name in door.allow:
        network(name)
    if door.announced is not None and door.address.path is not None:
        raise ConfigError(f"got the socket {door.address.path}; only a TCP port can be announced; leave out --announce")
    if not door.allow and not door.address.is_private:
        raise ConfigError(
            f"{door.address.netloc} can be reached from other machines, and Wyoming knows no password; say which may "
            "connect, for example --allow 192.168.1.20, or leave out --host"
        )


async def serve(
    recognizer: EmotionRecognizer, door: Door, journal: Journal, stop: asyncio.Event, service: Service | None = None
) -> None:
    """Serve Wyoming clients until `stop` is set, then finish every open utterance and leave.

    Args:
        recognizer: Judges the utterances of all clients.
        door: Where, and to whom.
        journal: Is told of audio that comes and goes.
        stop: Ends the service.
        service: What clients get; None takes the defaults, without an upstream.

    Raises:
        BackendUnavailableError: zeroconf is asked for and not installed.
        ConfigError: The door or the service cannot be (see `check`), or nothing can listen there.
    """
    service = service or Service()
    check(door, service)
    visitors = _Visitors(recognizer, service, journal, door.allow)
    async with listening(visitors, door.address) as where, announced(door.announced, where):
        journal.started(f"unix://{where.path}" if where.path is not None else f"tcp://{where.netloc}")
        try:
            await stop.wait()
        finally:
            await visitors.leave()


class _Visitors:
    """Serves every client that connects."""

    def __init__(
        self, recognizer: EmotionRecognizer, service: Service, journal: Journal, allow: tuple[str, ...]
    ) -> None:
        self._recognizer = recognizer
        self._service = service
        self._journal = journal
        self._allowed = [network(name) for name in allow]
        self._numbers = itertools.count(1)
        self._sessions: dict[Session, asyncio.Task[None] | None] = {}
        self._refused: set[str] = set()
        self._is_leaving = False

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client to its end."""
        if not self._admits(writer.get_extra_info("peername")):
            writer.transport.abort()
            return
        session = Session(self._recognizer, self._service, StreamBook(self._journal, self._numbers), reader, writer)
        self._sessions[session] = asyncio.current_task()
        try:
            await session.run()
        finally:
            del self._sessions[session]

    async def leave(self) -> None:
        """Send everybody away, and wait until they are gone."""
        self._is_leaving = True
        for session in self._sessions:
            session.cut_off()
        tasks = [task for task in self._sessions.values() if task is not None]
        if tasks:
            await asyncio.wait(tasks)

    def _admits(self, peer: object) -> bool:
        if not may_connect(peer, self._allowed):
            host = str(peer[0]) if isinstance(peer, tuple) else str(peer)
            if host not in self._refused and len(self._refused) < MAX_CLIENTS:
                self._refused.add(host)
                _log.warning("%s was refused; if it may connect, start with --allow %s", host, host)
            return False
        return not self._is_leaving and len(self._sessions) < MAX_CLIENTS
