"""A stream beside an event loop: what takes long is done on threads, in order, one call at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_ser.events import Emotion, Event
from edge_ser.ledger import AudioLedger
from edge_ser.stream import Stream
from edge_ser.voice import VoiceProfile

SHORT_SAMPLES = 1_600
"""Samples at 16 kHz up to which a piece in which no utterance can end is taken on the event loop itself."""

Result = TypeVar("Result")


class StreamWorker:
    """Owns a stream and lets coroutines use it; nothing here blocks the event loop for more than a moment.

    Calls are served in the order in which they came. Nothing is queued but the callers: whoever waits for one call
    before it makes the next never has more than that one piece of audio in here.
    """

    def __init__(self, stream: Stream, executor: Executor | None = None) -> None:
        """Take over a stream.

        Args:
            stream: Nobody else may use it from now on.
            executor: Threads to work on, which several workers may share; None takes the event loop's own.
        """
        self._stream = stream
        self._executor = executor
        self._turn = asyncio.Lock()
        self._calls = 0
        self._unclaimed: list[Event] = []

    @property
    def ledger(self) -> AudioLedger:
        """Where every settled sample went; exact between two calls."""
        return self._stream.ledger

    async def push(self, samples: NDArray[np.generic]) -> list[Event]:
        """Take the next samples and return the events that they settle.

        A caller that is cancelled loses nothing: the audio is taken; the next `push` or `finish` returns the events.

        Args:
            samples: Mono at 16 kHz, shape (n,), any n: float in [-1, 1] or int16.

        Raises:
            AudioFormatError: The array is no such audio.
            ConfigError: The stream is finished.
        """
        if not self._calls and samples.size <= SHORT_SAMPLES and not self._stream.may_answer(samples.size):
            # To look for speech in a short piece costs less than to go to a thread and back.
            self._unclaimed += self._stream.push(samples)
            events, self._unclaimed = self._unclaimed, []
            return events
        return await self._events(lambda: self._stream.push(samples))

    async def lose(self, dropped_samples: int) -> list[Event]:
        """Account for audio at 16 kHz that was lost before it came here, and return the events.

        Raises:
            ConfigError: The number is negative, or the stream is finished.
        """
        return await self._events(lambda: self._stream.record_overflow(dropped_samples))

    async def finish(self) -> list[Event]:
        """Close the open utterance and return the last events, the `Summary` at the end; a second call returns none."""
        return await self._events(self._stream.finish)

    async def revise(self, utterance: int, transcript: str | None = None, voice: VoiceProfile | None = None) -> Emotion:
        """Return the answer for an utterance again; see `Stream.revise`.

        Raises:
            ConfigError: The utterance cannot be revised, or the voice is another model's.
        """
        return await self.do(lambda stream: stream.revise(utterance, transcript, voice))

    async def do(self, call: Callable[[Stream], Result]) -> Result:
        """Return what a function makes of the stream, on a thread and when nobody else uses it."""
        return await self._run(lambda: call(self._stream))

    async def _events(self, call: Callable[[], list[Event]]) -> list[Event]:
        await self._run(call, self._keep)
        events, self._unclaimed = self._unclaimed, []
        return events

    def _keep(self, events: list[Event]) -> None:
        self._unclaimed += events

    async def _run(self, call: Callable[[], Result], keep: Callable[[Result], None] | None = None) -> Result:
        self._calls += 1
        # A task of its own: a thread cannot be cancelled, and what it was given must be taken even if the caller is.
        return await asyncio.shield(asyncio.ensure_future(self._in_turn(call, keep)))

    async def _in_turn(self, call: Callable[[], Result], keep: Callable[[Result], None] | None) -> Result:
        try:
            async with self._turn:
                result = await asyncio.get_running_loop().run_in_executor(self._executor, call)
                if keep is not None:
                    keep(result)  # on the event loop, as everything that touches what is kept
                return result
        finally:
            self._calls -= 1
