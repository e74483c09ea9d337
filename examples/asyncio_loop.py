"""Several speakers in one asyncio program: a stream each, one recognizer, and an event loop that is never held up.

    python examples/asyncio_loop.py [recording ...]

`push` works inside the call, for some milliseconds when an utterance ends; `asyncio.to_thread` does it beside the loop.
One call after another for each stream, any number of streams at once.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import soundfile

import edge_ser

RECORDING = Path(__file__).with_name("conversation.flac")
CHUNK_SAMPLES = 1_600
"""Samples at 16 kHz: 100 ms."""


async def main(*recordings: str | Path) -> None:
    """Hear all recordings at once and print how each utterance was said."""
    recognizer = await asyncio.to_thread(edge_ser.load)
    speakers = recordings or (RECORDING, RECORDING)
    await asyncio.gather(*(follow(number, recognizer, each) for number, each in enumerate(speakers, 1)))


async def follow(speaker: int, recognizer: edge_ser.EmotionRecognizer, recording: str | Path) -> None:
    """Print the answers for one speaker as they come."""
    async for event in events(recognizer.stream(), sound(recording)):
        if isinstance(event, edge_ser.Emotion):
            answer = " or ".join(event.candidates)
            print(f"speaker {speaker}, {event.start_s:.1f} s: {answer}{' (uncertain)' if event.uncertain else ''}")


async def events(stream: edge_ser.Stream, chunks: AsyncIterator[np.ndarray]) -> AsyncIterator[object]:
    """Yield what a stream says to chunks that come from anywhere."""
    async for chunk in chunks:
        for event in await asyncio.to_thread(stream.push, chunk):
            yield event
    for event in await asyncio.to_thread(stream.finish):
        yield event


async def sound(recording: str | Path) -> AsyncIterator[np.ndarray]:
    """Stand in for a socket: yield a recording's chunks, leaving the event loop its turn."""
    for chunk in soundfile.blocks(recording, CHUNK_SAMPLES, dtype="float32"):
        await asyncio.sleep(0)
        yield chunk


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
