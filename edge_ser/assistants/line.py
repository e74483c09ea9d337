"""One WebSocket connection while it carries a session."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from edge_ser.assistants.closing import CloseCode, Ending, Refused
from edge_ser.assistants.limits import Allowance, Limits
from edge_ser.assistants.messages import Finish, read_command
from edge_ser.assistants.session import SAMPLE_BYTES, Session
from edge_ser.errors import EdgeSerError

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.exceptions import ConnectionClosed

QUEUED_MESSAGES = 16
"""Messages of a client that may wait to be read; the socket takes no more of it then."""

MOST_UNREAD_BYTES = 1 << 20
"""Bytes that may wait for a client to read them; what the service itself says stays far below."""
WATCH_EVERY_S = 1.0
ARRIVED_S = 0.01
"""Seconds; what takes longer to be read had not arrived yet."""

_log = logging.getLogger("edge_ser")


class Line:
    """Reads what a client sends, one message at a time, and answers before it reads the next.

    That is all the back-pressure there is: a client that does not read its answers, or sends faster than it may, is not
    read from, and the network makes it wait. Nothing piles up here and no audio is lost.
    """

    def __init__(self, socket: ServerConnection, session: Session, limits: Limits) -> None:
        """Carry a session over a connection whose hello was answered."""
        self._socket = socket
        self._session = session
        self._limits = limits
        bytes_per_s = SAMPLE_BYTES * session.rate_hz
        self._bytes = Allowance(limits.max_speed * bytes_per_s, limits.burst_s * bytes_per_s)
        self._messages = Allowance(limits.max_messages_per_s, limits.burst_messages)
        self._heard = 0
        self._work: asyncio.Task[None] | None = None
        self._unsaid: deque[str] = deque()

    async def serve(self, first: list[str], interruption: asyncio.Future[Ending]) -> Ending:
        """Serve the client until it ends, breaks a limit or vanishes, and return which.

        Args:
            first: Messages to begin with.
            interruption: Holds an ending as soon as there is one from outside.
        """
        reading = asyncio.ensure_future(self._read(first))
        watching = [asyncio.ensure_future(self._watch_life()), asyncio.ensure_future(self._watch_replies())]
        try:
            await asyncio.wait({reading, interruption}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reading, *watching):
                task.cancel()
            await asyncio.wait({reading, *watching})
        if reading.cancelled():
            ending = interruption.result()
            await self._complete(ending)
            if ending.code == CloseCode.GOING_AWAY:
                await self._take_what_arrived()
            return ending
        return reading.result()

    async def _read(self, first: list[str]) -> Ending:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._say(first)
            while True:
                message = await self._socket.recv()
                self._heard += 1
                if self._messages.take(1):
                    return Ending(
                        CloseCode.TOO_MANY_MESSAGES, "too many messages a second; send longer pieces of audio"
                    )
                if isinstance(message, bytes):
                    await self._answer(self._session.hear(message))
                    await asyncio.sleep(self._bytes.take(len(message)))
                elif isinstance(command := read_command(message), Finish):
                    return Ending(CloseCode.FINISHED, "finished")
                else:
                    await self._answer(self._session.revise(command))
        except ConnectionClosed as closed:
            return _ending(closed)
        except Refused as refusal:
            return refusal.ending
        except EdgeSerError as problem:
            _log.error("client %d: %s", self._session.number, problem)
            return Ending(CloseCode.FAULT, str(problem))
        except Exception:
            _log.exception("client %d: a fault of the service", self._session.number)
            return Ending(CloseCode.FAULT, "a fault of the service; its log says more")

    async def _answer(self, work: Coroutine[Any, Any, list[str]]) -> None:
        # A task of its own: what the session has done is told, even if the reading is cancelled meanwhile.
        self._work = asyncio.ensure_future(self._do(work))
        await asyncio.shield(self._work)
        await self._say([])

    async def _do(self, work: Coroutine[Any, Any, list[str]]) -> None:
        self._unsaid.extend(await work)

    async def _complete(self, ending: Ending) -> None:
        """Bring to its end what the reading had begun; a client that stays for the end is told of it."""
        if self._work is not None:
            await asyncio.wait({self._work})
            if (problem := self._work.exception()) is not None:
                _log.error("client %d: %s", self._session.number, problem)
        if not ending.is_lost and ending.code != CloseCode.REPLACED:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._say([]), self._limits.close_s)

    async def _say(self, messages: list[str]) -> None:
        from websockets.exceptions import ConnectionClosed

        # Where the client is gone, what it sent before is heard all the same; reading says when that is all.
        with contextlib.suppress(ConnectionClosed):
            self._unsaid.extend(messages)
            while self._unsaid:
                await self._socket.send(self._unsaid.popleft())

    async def _watch_life(self) -> None:
        """End a connection that gives no sign of life: neither messages nor an answer to a ping."""
        while True:
            await asyncio.sleep(self._limits.ping_s)
            heard = self._heard
            # The answer to a ping stands in line behind audio that waits to be read.
            if not await self._answers_ping() and self._heard == heard:
                break
        self._session.interrupt(Ending(CloseCode.TIMED_OUT, "no sign of life; connect again", is_lost=True))

    async def _watch_replies(self) -> None:
        """End a connection whose client lets the library's own replies, to its pings, pile up."""
        while self._socket.transport.get_write_buffer_size() <= MOST_UNREAD_BYTES:
            await asyncio.sleep(WATCH_EVERY_S)
        self._session.interrupt(Ending(CloseCode.TIMED_OUT, "nothing is read; read what is sent"))

    async def _answers_ping(self) -> bool:
        from websockets.exceptions import ConnectionClosed

        async def ping() -> None:
            with contextlib.suppress(ConnectionClosed):
                await (await self._socket.ping())

        # Not `wait_for`: before Python 3.12 it forgets that it was cancelled if the answer comes at that moment.
        asked = asyncio.ensure_future(ping())
        try:
            answered, _ = await asyncio.wait({asked}, timeout=self._limits.ping_s)
        finally:
            asked.cancel()
        return bool(answered)

    async def _take_what_arrived(self) -> None:
        """Hear what the client had sent until now, which a client in real time ends by its next pause."""
        from websockets.exceptions import ConnectionClosed

        until_s = time.monotonic() + self._limits.close_s
        with contextlib.suppress(ConnectionClosed, asyncio.TimeoutError, EdgeSerError):
            while (left_s := until_s - time.monotonic()) > 0:
                message = await asyncio.wait_for(self._socket.recv(), ARRIVED_S)
                if isinstance(message, bytes):
                    await asyncio.wait_for(self._say(await self._session.hear(message)), left_s)


async def send(socket: ServerConnection, messages: list[str]) -> None:
    """Send messages; it waits while the client reads too slowly.

    Raises:
        ConnectionClosed: The connection is gone.
    """
    for message in messages:
        await socket.send(message)


async def hang_up(socket: ServerConnection, ending: Ending) -> None:
    """Close a connection, and wait until it is closed."""
    # What still comes is read and left alone: the client's own goodbye stands in line behind it.
    leaving = asyncio.ensure_future(_read_on(socket))
    await socket.close(ending.code, ending.short_reason)
    await leaving


async def _read_on(socket: ServerConnection) -> None:
    from websockets.exceptions import ConnectionClosed

    with contextlib.suppress(ConnectionClosed):
        while True:
            await socket.recv()


def _ending(closed: ConnectionClosed) -> Ending:
    """Return how a connection ended that somebody else has closed."""
    if closed.rcvd is not None:
        return Ending(CloseCode.FINISHED, "the client closed the connection")
    if closed.sent is None:
        return Ending(CloseCode.GOING_AWAY, "the connection was lost", is_lost=True)
    if closed.sent.code == CloseCode.TOO_BIG:
        return Ending(CloseCode.TOO_BIG, "a message was too large")
    return Ending(CloseCode.MALFORMED, f"the client broke the WebSocket protocol ({closed.sent.reason})")
