"""Some streams through one door in real time: what they cost and how late their answers are.

    python benchmarks/adapter_doors.py DOOR STREAMS SECONDS

prints one JSON object: the processor time of the process that hears, and how long each answer took beyond the work of
the core. A door whose name ends in `-deaf` is its framework alone, which passes the audio on and hears nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np

import edge_ser
from edge_ser.sources import read_blocks
from edge_ser.stream import Stream

PIECE_S = 0.02
PIECE_SAMPLES = 320
WARM_UP_S = 2.0


@dataclass
class Talk:
    """A recording that is spoken in real time, and what was heard of it; times are those of the machine's clock."""

    pieces: list[bytes]
    sent_s: list[float] = field(default_factory=list)
    heard_s: dict[int, float] = field(default_factory=dict)
    worked_s: dict[int, float] = field(default_factory=dict)
    told_at: dict[int, int] = field(default_factory=dict)

    async def speak(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send every piece when it is due."""
        begin_s = time.monotonic() + PIECE_S * np.random.default_rng().random()
        for number, piece in enumerate(self.pieces):
            await asyncio.sleep(max(0.0, begin_s + number * PIECE_S - time.monotonic()))
            self.sent_s.append(time.monotonic())
            await send(piece)

    def hear(self, event: object) -> None:
        """Take down when an answer arrived."""
        if isinstance(event, edge_ser.Emotion):
            self.heard_s[event.utterance] = time.monotonic()

    def added_ms(self) -> list[float]:
        """Return what the door added to each answer: from the piece that brought it, less the work of the core."""
        return [
            round(1000 * (self.heard_s[utterance] - self.sent_s[piece] - self.worked_s[piece]), 3)
            for utterance, piece in self.told_at.items()
            if utterance in self.heard_s
        ]


def talks_of(streams: int, seconds: float) -> list[Talk]:
    """Return the example recording, begun elsewhere in each talk."""
    samples = np.concatenate(list(read_blocks(ROOT / "examples" / "conversation.flac")))
    pcm = np.round(samples * 32768).astype("<i2")
    count = round(seconds / PIECE_S)
    talks = []
    for number in range(streams):
        audio = np.resize(np.roll(pcm, -number * pcm.size // streams), count * PIECE_SAMPLES)
        talks.append(Talk([piece.tobytes() for piece in np.split(audio, count)]))
    return talks


class Watched:
    """A recognizer whose streams take down what they work, in the order of the talks."""

    def __init__(self, talks: list[Talk]) -> None:
        """Load the model and warm it up."""
        self._recognizer = edge_ser.load(threads=1)
        self._recognizer.judge(np.zeros(16_000, np.float32))
        self._talks = iter(talks)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._recognizer, name)

    def stream(self, **options: Any) -> Stream:
        """Return a stream for the next talk."""
        talk, stream, begun = next(self._talks), self._recognizer.stream(**options), [0]
        push = stream.push

        def watched(samples: Any) -> list[Any]:
            begin_s = time.monotonic()
            events = push(samples)
            begun[0] += len(samples)
            piece = (begun[0] - 1) // PIECE_SAMPLES
            talk.worked_s[piece] = time.monotonic() - begin_s
            talk.told_at.update({event.utterance: piece for event in events if isinstance(event, edge_ser.Emotion)})
            return events

        stream.push = watched  # type: ignore[method-assign]
        return stream


async def counted(talking: Awaitable[Any]) -> float:
    """Return the seconds of processor time that this process takes while others talk, the first two seconds aside."""
    task = asyncio.ensure_future(talking)
    await asyncio.sleep(WARM_UP_S)
    begin_s = time.process_time()
    await task
    return time.process_time() - begin_s


async def library(talks: list[Talk], recognizer: Any) -> float:
    """The bare core, on the thread that has the audio."""

    async def talk_to(talk: Talk) -> None:
        stream = recognizer.stream() if recognizer else None

        async def send(piece: bytes) -> None:
            for event in stream.push(np.frombuffer(piece, np.int16)) if stream else ():
                talk.hear(event)

        await talk.speak(send)

    return await counted(asyncio.gather(*map(talk_to, talks)))


async def pipecat(talks: list[Talk], recognizer: Any) -> float:
    """Pipelines of one processor that takes the answers, and the one that gives them before it."""
    from loguru import logger
    from pipecat.frames.frames import EndFrame, Frame, InputAudioRawFrame
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineWorker
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
    from pipecat.workers.runner import WorkerRunner

    from edge_ser.assistants.pipecat import EmotionFrame, EmotionProcessor

    logger.remove()

    class Bot(FrameProcessor):
        def __init__(self, talk: Talk) -> None:
            super().__init__()
            self.talk = talk

        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, EmotionFrame):
                self.talk.hear(frame.event)
            await self.push_frame(frame, direction)

    class Passing(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            await self.push_frame(frame, direction)

    class Mouth(Passing):
        """Speaks from here on: what a pipeline takes before its first processor is not the adapter's."""

        def __init__(self, talk: Talk) -> None:
            super().__init__()
            self.talk, self.pieces = talk, 0

        async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
            if isinstance(frame, InputAudioRawFrame):
                self.talk.sent_s[self.pieces] = time.monotonic()
                self.pieces += 1
            await super().push_frame(frame, direction)

    async def talk_to(talk: Talk) -> None:
        processors = [Mouth(talk), EmotionProcessor(recognizer) if recognizer else Passing(), Bot(talk)]
        worker = PipelineWorker(Pipeline(processors), cancel_on_idle_timeout=False, enable_rtvi=False)
        started = asyncio.Event()

        @worker.event_handler("on_pipeline_started")
        async def on_started(*_: object) -> None:
            started.set()

        async def send(piece: bytes) -> None:
            await worker.queue_frame(InputAudioRawFrame(piece, 16_000, 1))

        async def speak() -> None:
            await started.wait()
            await talk.speak(send)
            await worker.queue_frame(EndFrame())

        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        await asyncio.gather(runner.run(), speak())

    return await counted(asyncio.gather(*map(talk_to, talks)))


async def livekit(talks: list[Talk], recognizer: Any) -> float:
    """A speech-to-text that writes nothing, and the wrapper around it."""
    from livekit import rtc
    from livekit.agents import stt

    from edge_ser.assistants.livekit import EmotionSTT
    from tests.edge_ser.assistants.livekit_fakes import CannedSTT

    async def talk_to(talk: Talk) -> None:
        transcriber: stt.STT[Any] = CannedSTT([])
        if recognizer:
            transcriber = EmotionSTT(transcriber, recognizer)
            transcriber.on("emotion", talk.hear)
        async with transcriber.stream() as stream:

            async def send(piece: bytes) -> None:
                stream.push_frame(rtc.AudioFrame(piece, 16_000, 1, len(piece) // 2))

            await talk.speak(send)

    return await counted(asyncio.gather(*map(talk_to, talks)))


class Journal:
    """Learns where the service is."""

    def __init__(self) -> None:
        self.where: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def started(self, where: str) -> None:
        """Note the address."""
        self.where.set_result(where)

    def began(self, client: int) -> None:
        """Note nothing."""

    def ended(self, client: int, summary: edge_ser.Summary, why: str) -> None:
        """Note nothing."""


async def service(protocol: str, talks: list[Talk], recognizer: Any) -> float:
    """A service, and its clients in another process, so that their work is not the service's."""
    journal, stop = Journal(), asyncio.Event()
    serve = (serve_websocket if protocol == "websocket" else serve_wyoming)(recognizer, journal, stop)
    serving = asyncio.ensure_future(serve)
    words = [f"{protocol}-clients", str(len(talks)), str(len(talks[0].pieces) * PIECE_S), await journal.where]
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, *words, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()  # they are about to talk
    cpu_s = await counted(process.stdout.readline())
    for talk, heard in zip(talks, json.loads(await process.stdout.read()), strict=True):
        talk.sent_s = heard["sent_s"]
        talk.heard_s = {int(utterance): at_s for utterance, at_s in heard["heard_s"].items()}
    await process.wait()
    stop.set()
    await serving
    return cpu_s


async def serve_websocket(recognizer: Any, journal: Journal, stop: asyncio.Event) -> None:
    """Serve WebSocket clients; without a recognizer nobody listens to them."""
    from websockets.asyncio.server import ServerConnection
    from websockets.asyncio.server import serve as serve_deaf

    from edge_ser.assistants.address import Address
    from edge_ser.assistants.websocket import serve
    from edge_ser.assistants.websocket_door import Door

    if recognizer:
        await serve(recognizer, Door(Address(port=0)), journal, stop)
        return

    async def ignore(socket: ServerConnection) -> None:
        async for message in socket:
            if isinstance(message, str):
                await socket.send(message)

    async with serve_deaf(ignore, "127.0.0.1", 0) as server:
        journal.started(f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}")
        await stop.wait()


async def serve_wyoming(recognizer: Any, journal: Journal, stop: asyncio.Event) -> None:
    """Serve Wyoming clients; without a recognizer nobody listens to them."""
    from wyoming.event import async_read_event, async_write_event
    from wyoming.ping import Ping, Pong

    from edge_ser.assistants.address import Address
    from edge_ser.assistants.wyoming import Door, serve

    if recognizer:
        await serve(recognizer, Door(Address(port=0)), journal, stop)
        return

    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (event := await async_read_event(reader)) is not None:
            if Ping.is_type(event.type):
                await async_write_event(Pong().event(), writer)
        writer.close()

    async with await asyncio.start_server(ignore, "127.0.0.1", 0) as server:
        journal.started(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await stop.wait()


async def websocket_clients(talks: list[Talk], where: str) -> None:
    """Send the talks over WebSockets."""
    from websockets.asyncio.client import ClientConnection, connect

    async def read(talk: Talk, socket: ClientConnection) -> None:
        async for message in socket:
            event = json.loads(message)
            if event["type"] == "emotion":
                talk.heard_s[event["utterance"]] = time.monotonic()

    sockets = []
    for _ in talks:
        sockets.append(await connect(where))
        await sockets[-1].send(json.dumps({"type": "hello", "rate_hz": 16_000, "format": "s16le"}))
        await sockets[-1].recv()
    reading = [asyncio.ensure_future(read(talk, socket)) for talk, socket in zip(talks, sockets, strict=True)]
    print("begin", flush=True)
    await asyncio.gather(*(talk.speak(socket.send) for talk, socket in zip(talks, sockets, strict=True)))
    print("end", flush=True)
    for task in reading:
        task.cancel()


async def wyoming_clients(talks: list[Talk], where: str) -> None:
    """Send the talks over Wyoming."""
    from wyoming.audio import AudioChunk, AudioStart
    from wyoming.client import AsyncClient
    from wyoming.ping import Ping

    async def read(talk: Talk, connection: AsyncClient) -> None:
        while (event := await connection.read_event()) is not None:
            if event.data.get("name") == "emotion":
                talk.heard_s[event.data["data"]["utterance"]] = time.monotonic()

    async def speak(talk: Talk, connection: AsyncClient) -> None:
        await talk.speak(lambda piece: connection.write_event(AudioChunk(16_000, 2, 1, piece).event()))

    connections = []
    for _ in talks:
        connections.append(AsyncClient.from_uri(where))
        await connections[-1].connect()
        await connections[-1].write_event(AudioStart(16_000, 2, 1).event())
        await connections[-1].write_event(Ping(text="").event())
        await connections[-1].read_event()
    reading = [asyncio.ensure_future(read(*pair)) for pair in zip(talks, connections, strict=True)]
    print("begin", flush=True)
    await asyncio.gather(*(speak(*pair) for pair in zip(talks, connections, strict=True)))
    print("end", flush=True)
    for task in reading:
        task.cancel()


async def through(door: str, talks: list[Talk]) -> float:
    """Send the talks through a door and return the seconds of processor time."""
    name = door.removesuffix("-deaf")
    recognizer = None if name != door else Watched(talks)
    if name in ("websocket", "wyoming"):
        return await service(name, talks, recognizer)
    return await {"library": library, "pipecat": pipecat, "livekit": livekit}[name](talks, recognizer)


def main() -> None:
    """Run one door, or the clients of one, and print what it took."""
    door, streams, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    talks = talks_of(streams, seconds)
    if door.endswith("-clients"):
        clients = websocket_clients if door.startswith("websocket") else wyoming_clients
        asyncio.run(clients(talks, sys.argv[4]))
        print(json.dumps([{"sent_s": talk.sent_s, "heard_s": talk.heard_s} for talk in talks]), flush=True)
        os._exit(0)  # connections are left as they are: nobody counts any more
    cpu_s = asyncio.run(through(door, talks))
    print(json.dumps({"cpu_s": cpu_s, "added_ms": [late for talk in talks for late in talk.added_ms()]}), flush=True)


if __name__ == "__main__":
    main()
