"""A WebSocket service inside the test, and what its clients do."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from edge_ser.assistants.address import Address
from edge_ser.assistants.limits import Limits
from edge_ser.assistants.websocket import serve
from edge_ser.assistants.websocket_door import Door
from edge_ser.events import Summary
from edge_ser.recognizer import EmotionRecognizer

HELLO = {"type": "hello", "rate_hz": 16_000, "format": "s16le"}
CHUNK_BYTES = 640


@dataclass
class Ledgers:
    """A journal that keeps what it is told."""

    where: str = ""
    came: list[int] = field(default_factory=list)
    left: dict[int, Summary] = field(default_factory=dict)
    why: dict[int, str] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def started(self, where: str) -> None:
        self.where = where
        self.news.set()

    def began(self, client: int) -> None:
        self.came.append(client)

    def ended(self, client: int, summary_event: Summary, why: str) -> None:
        assert client not in self.left
        self.left[client], self.why[client] = summary_event, why
        self.news.set()

    async def wait_for_end(self, client: int) -> Summary:
        while client not in self.left:
            self.news.clear()
            await self.news.wait()
        return self.left[client]


@contextlib.asynccontextmanager
async def serving(recognizer: EmotionRecognizer, door: Door | None = None, **limits: Any) -> AsyncIterator[Ledgers]:
    """Serve while it is entered; every client that came has left then, with a balanced ledger."""
    door = door or Door(Address(port=0), limits=Limits(**limits))
    ledgers, stop = Ledgers(), asyncio.Event()
    service = asyncio.ensure_future(serve(recognizer, door, ledgers, stop))
    news = asyncio.ensure_future(ledgers.news.wait())
    await asyncio.wait({service, news}, return_when=asyncio.FIRST_COMPLETED)
    if service.done():
        news.cancel()
        service.result()
    try:
        yield ledgers
    finally:
        stop.set()
        await asyncio.wait_for(service, 30)
    assert sorted(ledgers.left) == sorted(ledgers.came)
    assert all(summary.ledger.balances for summary in ledgers.left.values())


async def hello(socket: ClientConnection, **more: Any) -> dict[str, Any]:
    """Say hello and return the answer."""
    await socket.send(json.dumps({**HELLO, **more}))
    return dict(json.loads(await socket.recv()))


async def send_all(socket: ClientConnection, audio: bytes, chunk: int = CHUNK_BYTES) -> None:
    for start in range(0, len(audio), chunk):
        await socket.send(audio[start : start + chunk])


async def to_end(socket: ClientConnection) -> tuple[list[dict[str, Any]], int | None, str | None]:
    """Return all messages that still come, and how the connection was closed."""
    messages = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            messages.append(json.loads(await socket.recv()))
    return messages, socket.close_code, socket.close_reason


async def converse(where: str, audio: bytes, chunk: int = CHUNK_BYTES, **more: Any) -> list[dict[str, Any]]:
    """Send a whole recording and return everything that was said to it."""
    async with connect(where) as socket:
        await hello(socket, **more)
        reading = asyncio.ensure_future(to_end(socket))
        await send_all(socket, audio, chunk)
        await socket.send('{"type": "finish"}')
        messages, code, _ = await reading
    assert code == 1000
    return messages


async def closing(where: str, *messages: str | bytes, **more: Any) -> tuple[int | None, str | None]:
    """Connect, send, and return how the service closed."""
    async with connect(where, **more) as socket:
        with contextlib.suppress(ConnectionClosed):
            for message in messages:
                await socket.send(message)
        _, code, reason = await to_end(socket)
        return code, reason


async def status(where: str, origin: str | None = None, host: str | None = None) -> int:
    """Return the HTTP status of an attempt to connect from a page."""
    headers = {} if host is None else {"Host": host}
    try:
        async with connect(where, origin=origin, additional_headers=headers):  # type: ignore[arg-type]
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def http(where: str, request: str) -> str:
    """Return what a raw request is answered with."""
    reader, writer = await dial(where)
    writer.write(request.encode())
    answer = b""
    with contextlib.suppress(ConnectionError):
        answer = await reader.read()
    writer.close()
    return answer.decode(errors="replace")


async def dial(where: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = where.removeprefix("ws://").removesuffix("/listen").rsplit(":", 1)
    return await asyncio.open_connection(host, int(port))
