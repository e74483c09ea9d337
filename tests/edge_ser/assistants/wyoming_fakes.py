"""A speech-to-text service that does as it is told, and the way in which assistants use one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.event import Event, async_read_event, async_write_event
from wyoming.info import AsrModel, AsrProgram, Attribution, Describe, Info

import edge_ser
from edge_ser.assistants.address import Address
from edge_ser.assistants.wyoming import Door, Service, serve
from edge_ser.events import Summary

BY = Attribution(name="somebody", url="https://example.com")
TRANSCRIPT = Event("transcript", {"text": "i am so happy today", "language": "en", "context": {"turn": 3}, "beam": 5})
"""As a real service might send it, with a key that the package does not know."""


@dataclass
class Journal:
    """Remembers what it is told."""

    started_at: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    begun: list[int] = field(default_factory=list)
    summaries: list[Summary] = field(default_factory=list)

    def started(self, where: str) -> None:
        self.started_at.set_result(where)

    def began(self, client: int) -> None:
        self.begun.append(client)

    def ended(self, client: int, summary: Summary, why: str) -> None:
        self.summaries.append(summary)


@dataclass
class SpeechToText:
    """Writes down what it got, and answers the end of the audio as `answer` does."""

    answer: Callable[[asyncio.StreamWriter], Awaitable[None]]
    got: list[Event] = field(default_factory=list)
    client: asyncio.StreamWriter | None = None
    """Whoever has connected last."""

    async def say(self, event: Event) -> None:
        """Say something unasked."""
        assert self.client is not None
        await async_write_event(event, self.client)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.client = writer
        with contextlib.suppress(OSError):
            while (event := await async_read_event(reader)) is not None:
                self.got.append(event)
                if Describe.is_type(event.type):
                    model = AsrModel("tiny", BY, True, "Tiny", "1", languages=["de", "en"])
                    program = AsrProgram("whisper", BY, True, "Whisper", "1", models=[model])
                    await async_write_event(Info(asr=[program]).event(), writer)
                elif AudioStop.is_type(event.type):
                    await self.answer(writer)
        writer.close()

    @property
    def audio(self) -> bytes:
        return b"".join(event.payload or b"" for event in self.got if AudioChunk.is_type(event.type))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self, "127.0.0.1", 0)
        async with server:
            yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def transcribed(writer: asyncio.StreamWriter) -> None:
    await async_write_event(TRANSCRIPT, writer)


def requests(samples: NDArray[np.int16], chunk_samples: int = 1024) -> list[Event]:
    """Return what Home Assistant sends for one command."""
    chunks = [samples[start : start + chunk_samples].tobytes() for start in range(0, samples.size, chunk_samples)]
    return [
        Transcribe(language="en").event(),
        AudioStart(16_000, 2, 1).event(),
        *(AudioChunk(16_000, 2, 1, chunk).event() for chunk in chunks),
        AudioStop().event(),
    ]


async def answers(client: AsyncClient) -> list[Event]:
    """Return what comes until a transcript, as Home Assistant reads, or until the end of the connection."""
    events: list[Event] = []
    while (event := await client.read_event()) is not None:
        events.append(event)
        if Transcript.is_type(event.type):
            break
    return events


LOCAL = Door(Address(port=0))


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


@contextlib.asynccontextmanager
async def served(
    recognizer: edge_ser.EmotionRecognizer, door: Door = LOCAL, service: Service | None = None
) -> AsyncIterator[tuple[str, Journal]]:
    """Serve, and yield where and what the service tells."""
    journal, stop = Journal(), asyncio.Event()
    serving = asyncio.create_task(serve(recognizer, door, journal, stop, service))
    await asyncio.wait({serving, journal.started_at}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    try:
        yield journal.started_at.result(), journal
    finally:
        stop.set()
        await serving


async def ask(uri: str, events: list[Event]) -> list[Event]:
    async with AsyncClient.from_uri(uri) as client:
        for event in events:
            await client.write_event(event)
        return await answers(client)
