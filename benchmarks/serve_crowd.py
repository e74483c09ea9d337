"""Clients of the WebSocket service: people who talk in real time, and among them some that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

CHUNK_S = 0.02
RATE_HZ = 16_000
CHUNK = round(CHUNK_S * RATE_HZ)
HELLO = {"type": "hello", "rate_hz": RATE_HZ, "format": "s16le"}
_FAILURES = (ConnectionClosed, InvalidHandshake, InvalidMessage, OSError, TimeoutError, asyncio.TimeoutError)


@dataclass
class Scene:
    """Where everybody is, what is said there, and until when."""

    where: str
    """The service's address."""
    recording: NDArray[np.int16]
    """What is said, at 16 kHz; each client repeats it from a place of its own."""
    until_s: float
    """When to leave, on the clock of `time.perf_counter`."""
    seed: int = 0

    def is_over(self) -> bool:
        """Return whether it is time to leave."""
        return time.perf_counter() >= self.until_s


@dataclass
class Conversation:
    """What a well-behaved client said and heard."""

    start: int
    """Sample of the recording where it began."""
    began_s: float = 0.0
    """When its first sample was spoken, on the clock of `time.perf_counter`."""
    sent_samples: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    heard_s: list[float] = field(default_factory=list)
    """When each event came."""
    close_code: int | None = None
    longest_send_s: float = 0.0
    """The longest time that sending a piece of audio took."""


@dataclass
class Mischief:
    """How often the others broke something, and how the service took it."""

    connections: int = 0
    cuts: int = 0
    resumed: int = 0
    close_codes: dict[str, int] = field(default_factory=dict)

    def note(self, socket: ClientConnection) -> None:
        """Count how a connection ended."""
        code = str(socket.close_code)
        self.close_codes[code] = self.close_codes.get(code, 0) + 1


async def well_behaved(scene: Scene, number: int) -> Conversation:
    """Talk until it is time to leave, then finish and hear the summary."""
    rng = random.Random(f"{scene.seed}-{number}")
    conversation = Conversation(rng.randrange(scene.recording.size))
    async with connect(scene.where) as socket:
        await _hello(socket)
        listening = asyncio.ensure_future(_listen(socket, conversation))
        await asyncio.sleep(rng.uniform(0, CHUNK_S))
        conversation.began_s = time.perf_counter()
        with contextlib.suppress(ConnectionClosed):
            while not scene.is_over():
                await _say(scene, socket, conversation)
            await socket.send('{"type": "finish"}')
        await listening
        conversation.close_code = socket.close_code
    return conversation


async def cutter(scene: Scene, number: int, mischief: Mischief) -> None:
    """Talk for a while, lose the connection in the middle of a frame, come back, often to the same session."""
    rng = random.Random(f"cutter-{scene.seed}-{number}")
    session = None
    while not scene.is_over():
        with contextlib.suppress(*_FAILURES):
            async with connect(scene.where) as socket:
                mischief.connections += 1
                ready = await _hello(socket, **({} if session is None else {"resume": session}))
                mischief.resumed += bool(ready.get("resumed"))
                talk = Conversation(rng.randrange(scene.recording.size), time.perf_counter())
                listening = asyncio.ensure_future(_listen(socket, talk))
                end_s = time.perf_counter() + rng.uniform(1, 15)
                while time.perf_counter() < min(end_s, scene.until_s):
                    await _say(scene, socket, talk)
                _cut(socket)
                mischief.cuts += 1
                await listening
                session = ready.get("session") if rng.random() < 0.5 else None
        await asyncio.sleep(rng.uniform(0.2, 2))


async def stalled(scene: Scene, mischief: Mischief) -> None:
    """Talk and read nothing, to the middle; then stop in the middle of a frame, and give no sign of life."""
    middle_s = (time.perf_counter() + scene.until_s) / 2
    talk = Conversation(0, time.perf_counter())
    with contextlib.suppress(*_FAILURES):
        async with connect(scene.where, max_queue=1, close_timeout=1) as socket:
            mischief.connections += 1
            await _hello(socket, levels=True, partials=True)
            while time.perf_counter() < middle_s:
                await asyncio.wait_for(_say(scene, socket, talk), 5)
            socket.transport.abort()
    while not scene.is_over():
        with contextlib.suppress(*_FAILURES):
            async with connect(scene.where, close_timeout=1) as socket:
                mischief.connections += 1
                await _hello(socket)
                socket.transport.pause_reading()
                socket.transport.write(_half_a_frame())
                while not scene.is_over() and not socket.transport.is_closing():
                    await asyncio.sleep(0.2)
                socket.transport.abort()


async def garbage(scene: Scene, mischief: Mischief) -> None:
    """Send what no client sends, in turn: to the port, as a hello, as frames, as audio."""
    rng = random.Random(f"garbage-{scene.seed}")
    host, _, port = scene.where.removeprefix("ws://").partition("/")[0].rpartition(":")
    while not scene.is_over():
        with contextlib.suppress(*_FAILURES):
            if rng.random() < 0.3:
                reader, writer = await asyncio.open_connection(host, int(port))
                mischief.connections += 1
                writer.write(rng.randbytes(rng.randrange(1, 20_000)))
                writer.write_eof()
                await asyncio.wait_for(reader.read(), 10)
                writer.close()
                continue
            async with connect(scene.where, close_timeout=1) as socket:
                mischief.connections += 1
                await _spoil(socket, rng)
                with contextlib.suppress(ConnectionClosed):
                    while True:
                        await asyncio.wait_for(socket.recv(), 10)
                mischief.note(socket)
        await asyncio.sleep(0.05)


async def _spoil(socket: ClientConnection, rng: random.Random) -> None:
    kind = rng.randrange(6)
    if kind == 0:
        await socket.send(rng.choice(["", "{", "[1]", '{"type": 3}', "\0" * 999, '{"type": "hello", "rate_hz": -1}']))
        return
    await _hello(socket)
    if kind == 1:
        socket.transport.write(rng.randbytes(rng.randrange(2, 5_000)))
    elif kind == 2:
        await socket.send(rng.randbytes(300_000))
    elif kind == 3:
        await socket.send(rng.choice(['{"type": "finish", "x": 1}', "null", '{"type": "revise", "utterance": {}}']))
    elif kind == 4:
        # Noise is audio, whatever its length; it is an answer that it may not get.
        for _ in range(50):
            await socket.send(rng.randbytes(rng.randrange(0, 999)))
        await socket.send('{"type": "finish"}')
    else:
        for _ in range(8_000):
            await socket.send(b"")


async def _hello(socket: ClientConnection, **more: object) -> dict[str, Any]:
    await socket.send(json.dumps({**HELLO, **more}))
    return dict(json.loads(await asyncio.wait_for(socket.recv(), 30)))


async def _listen(socket: ClientConnection, conversation: Conversation) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            message = json.loads(await socket.recv())
            conversation.heard_s.append(time.perf_counter())
            conversation.events.append(message)


async def _say(scene: Scene, socket: ClientConnection, conversation: Conversation) -> None:
    """Send the next piece of audio when a microphone would have it."""
    spoken_s = conversation.began_s + (conversation.sent_samples + CHUNK) / RATE_HZ
    await asyncio.sleep(max(0.0, spoken_s - time.perf_counter()))
    begun_s = time.perf_counter()
    await socket.send(spoken(scene.recording, conversation.start + conversation.sent_samples, CHUNK).tobytes())
    conversation.longest_send_s = max(conversation.longest_send_s, time.perf_counter() - begun_s)
    conversation.sent_samples += CHUNK


def spoken(recording: NDArray[np.int16], start: int, samples: int) -> NDArray[np.int16]:
    """Return so many samples of an endless repetition of the recording."""
    return recording.take(range(start, start + samples), mode="wrap")


def _half_a_frame() -> bytes:
    size = 2 * CHUNK
    return bytes([0x82, 0x80 | 126]) + size.to_bytes(2, "big") + b"mask" + bytes(size // 2)


def _cut(socket: ClientConnection) -> None:
    socket.transport.write(_half_a_frame())
    socket.transport.abort()
