"""WebSocket: raw audio in, the JSON events of `events.schema.json` out, one connection for each stream.

The client's first message is the hello (`messages.Hello`), the service answers with `ready`. Then the client sends
audio in binary frames, and `revise` and `finish` in text frames; it receives the events, unchanged, `level` messages if
it asked for them, `error` for a command that failed, and last the `summary`. `closing.CloseCode` says why a connection
ended. A connection that was lost can be resumed for 30 s: `ready` says how many bytes of audio had arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from edge_ser.assistants.access import is_token
from edge_ser.assistants.closing import CloseCode, Ending, Refused
from edge_ser.assistants.journal import Journal
from edge_ser.assistants.line import Line, hang_up, send
from edge_ser.assistants.messages import Hello, read_hello
from edge_ser.assistants.notice import NOTICE
from edge_ser.assistants.session import Session
from edge_ser.assistants.sessions import Sessions
from edge_ser.assistants.websocket_door import Door, listen, require_token, where
from edge_ser.crowd import available_cores

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

    from edge_ser.recognizer import EmotionRecognizer

DEFAULT_PORT = 8765
_STOPS = Ending(CloseCode.GOING_AWAY, "the service stops")

_log = logging.getLogger("edge_ser")


async def serve(recognizer: EmotionRecognizer, door: Door, journal: Journal, stop: asyncio.Event) -> None:
    """Serve WebSocket clients until `stop` is set, then finish every open utterance and say goodbye.

    Args:
        recognizer: Judges the utterances of all clients.
        door: Where, and to whom.
        journal: Is told of clients that come and go.
        stop: Ends the service.

    Raises:
        BackendUnavailableError: The package `websockets` is not installed.
        ConfigError: The address is not private and there is no token, or nothing can listen there.
    """
    require_token(door)
    with ThreadPoolExecutor(available_cores(), thread_name_prefix="edge-ser") as executor:
        sessions = Sessions(recognizer, executor, door.limits, journal)
        service = _Service(recognizer, door, sessions, stop)
        server = await listen(door, service.handle)
        try:
            journal.started(where(server, door.address))
            await stop.wait()
        finally:
            stop.set()
            await service.say_goodbye(_STOPS)
            server.close()
            await server.wait_closed()
            if door.address.path is not None:
                Path(door.address.path).unlink(missing_ok=True)


class _Service:
    """Answers every connection: who comes, and with which session."""

    def __init__(self, recognizer: EmotionRecognizer, door: Door, sessions: Sessions, stop: asyncio.Event) -> None:
        self._recognizer = recognizer
        self._door = door
        self._sessions = sessions
        self._stop = stop
        self._serving: set[asyncio.Task[None]] = set()

    async def say_goodbye(self, ending: Ending) -> None:
        """Let every client have its last events, as far as it takes them in time."""
        self._sessions.interrupt_all(ending)
        if self._serving:
            # Time for the summary, and as much for the client's own goodbye.
            await asyncio.wait(self._serving, timeout=2 * self._door.limits.close_s)
        await self._sessions.end_all(ending.reason)

    async def handle(self, socket: ServerConnection) -> None:
        """Serve one connection to its end."""
        from websockets.exceptions import ConnectionClosed

        try:
            hello = await self._hello(socket)
            serving = asyncio.ensure_future(self._serve_client(socket, hello))
            self._serving.add(serving)
            serving.add_done_callback(self._serving.discard)
            await serving
        except Refused as refusal:
            await hang_up(socket, refusal.ending)
        except ConnectionClosed:
            return
        except Exception:
            _log.exception("a fault of the service")
            await hang_up(socket, Ending(CloseCode.FAULT, "a fault of the service; its log says more"))

    async def _serve_client(self, socket: ServerConnection, hello: Hello) -> None:
        session = self._sessions.find(hello) if hello.resume else await self._sessions.open(hello)
        await self._sessions.take(session)
        try:
            interruption = session.attach()
            if self._stop.is_set():
                # It was on its way when all the others were told.
                session.interrupt(_STOPS)
            missed = await session.resume(hello) if hello.resume else []
            line = Line(socket, session, self._door.limits)
            ending = await line.serve([self._ready(session, hello), *missed], interruption)
        finally:
            session.turn.release()
        messages: list[str] = []
        if ending.is_lost and self._door.limits.resume_s and not self._stop.is_set():
            self._sessions.park(session)
        elif ending.code != CloseCode.REPLACED:
            messages = await self._sessions.end(session, ending.reason)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(send(socket, messages), self._door.limits.close_s)
        await hang_up(socket, ending)

    async def _hello(self, socket: ServerConnection) -> Hello:
        try:
            message = await asyncio.wait_for(socket.recv(), self._door.limits.hello_s)
        except asyncio.TimeoutError:
            raise Refused(CloseCode.TIMED_OUT, "no hello came; it must be the first message") from None
        hello = read_hello(message)
        if self._door.token is not None and not is_token(hello.token, self._door.token):
            _log.warning("a client was refused: its token is missing or wrong")
            raise Refused(CloseCode.BAD_TOKEN, "the token is missing or wrong; it is in the file that serve was given")
        if self._stop.is_set():
            raise Refused(_STOPS.code, _STOPS.reason)
        return hello

    def _ready(self, session: Session, hello: Hello) -> str:
        ready = {
            "type": "ready",
            "session": session.id,
            "model": self._recognizer.model,
            "labels": self._recognizer.labels,
            "notice": NOTICE,
            "rate_hz": session.rate_hz,
            "resumed": hello.resume is not None,
            "received_bytes": session.received_bytes,
            "resume_s": self._door.limits.resume_s,
        }
        return json.dumps(ready, ensure_ascii=False)
