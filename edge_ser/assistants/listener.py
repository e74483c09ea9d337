"""Listens beside an assistant's own pipeline, which never waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from edge_ser.assistants.incoming import IncomingAudio
from edge_ser.assistants.turn import Turn
from edge_ser.assistants.worker import StreamWorker
from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.errors import EdgeSerError
from edge_ser.events import Emotion, Event, Summary
from edge_ser.stream import Stream

BACKLOG_S = 60.0
"""Seconds of audio that may wait; what comes beyond it is dropped and counted as an overflow."""

_log = logging.getLogger("edge_ser")


@dataclass(frozen=True)
class _Audio:
    data: bytes
    decoder: IncomingAudio
    seconds: float


@dataclass(frozen=True)
class _Lost:
    samples: int


@dataclass(frozen=True)
class _Words:
    transcript: str
    answered: asyncio.Future[Emotion | None]


class Listener:
    """Takes audio and words in the order in which they come and tells the events of a stream.

    An error of the audio or the model ends the listening, never the pipeline: it is logged and kept in `problem`.
    """

    def __init__(self, stream: Stream, tell: Callable[[Event], Awaitable[None]]) -> None:
        """Start to listen; this needs a running event loop.

        Args:
            stream: Nobody else may use it from now on.
            tell: Called with every event, revisions too, one at a time.
        """
        self.problem: EdgeSerError | None = None
        """Why the listening ended, None while it goes on."""
        self._worker = StreamWorker(stream)
        self._tell = tell
        self._turn = Turn()
        self._decoder: IncomingAudio | None = None
        self._form: tuple[int, int, int] | None = None
        self._decoding: IncomingAudio | None = None
        self._queue: asyncio.Queue[_Audio | _Lost | _Words | None] = asyncio.Queue()
        self._waiting_s = self._heard_s = self._lost_s = 0.0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._has_ended = self._is_summed_up = False
        self._untold: deque[Event] = deque()
        self._task = asyncio.create_task(self._work())

    @property
    def emotion(self) -> Emotion | None:
        """The latest answer for what is being said, None before the first."""
        return self._turn.emotion

    @property
    def has_ended(self) -> bool:
        """Whether audio that comes now is nobody's."""
        return self._has_ended

    def hear(self, data: bytes, rate_hz: int, width: int = 2, channels: int = 1) -> None:
        """Take the next audio and return at once; after `end` it is nobody's.

        Args:
            data: Interleaved little-endian PCM, any number of bytes.
            rate_hz: Hertz, from 4000 to 384000.
            width: Bytes of a signed sample: 2, 3 or 4.
            channels: Interleaved channels, 1 to 8; they are averaged.
        """
        if self._has_ended or self.problem is not None or not data:
            return
        if self._decoder is None or self._form != (rate_hz, width, channels):
            try:
                self._decoder = IncomingAudio(rate_hz, width, channels)
            except EdgeSerError as error:
                self._give_up(error)
                return
            self._form = rate_hz, width, channels
        seconds = len(data) / (rate_hz * width * channels)
        if self._waiting_s + seconds > BACKLOG_S:
            self._lost_s += seconds
            return
        self._note_loss()
        self._waiting_s += seconds
        self._queue.put_nowait(_Audio(data, self._decoder, seconds))
        if self._waiting_s > BACKLOG_S / 2:
            self._has_room.clear()

    async def room(self) -> None:
        """Wait until little audio waits: for hosts that can make their source wait, so that nothing is dropped."""
        await self._has_room.wait()

    async def read(self, transcript: str, patience_s: float) -> Emotion | None:
        """Revise what was heard so far with the words, and return the answer.

        Args:
            transcript: What was said since the words before.
            patience_s: Seconds to wait for the answer at most.

        Returns:
            The latest answer of the turn; None if nobody was heard, or the answer is not there in time.
        """
        answered: asyncio.Future[Emotion | None] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Words(transcript, answered))
        futures: set[asyncio.Future[Any]] = {answered, self._task}
        await asyncio.wait(futures, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        return answered.result() if answered.done() else self._turn.emotion

    def end(self) -> None:
        """Close the open utterance once everything that waits was heard; words may still come."""
        if not self._has_ended:
            self._note_loss()
            self._queue.put_nowait(None)
            self._has_ended = True

    async def finish(self, patience_s: float) -> None:
        """Do what `end` does, wait for the last event to be told, and close.

        The summary is told in any case: audio that was not heard in time is in its ledger as dropped.

        Args:
            patience_s: Seconds to wait for what is still to be heard, and once more for the summary to be taken.
        """
        self.end()
        await self.read("", patience_s)
        await self.close()
        if not self._is_summed_up:
            await self._sum_up(patience_s)

    async def close(self) -> None:
        """End the listening at once, whatever waits."""
        self._has_ended = True
        self._has_room.set()
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.result()

    def _note_loss(self) -> None:
        if self._lost_s:
            self._queue.put_nowait(_Lost(round(self._lost_s * SAMPLE_RATE_HZ)))
            self._lost_s = 0.0

    def _give_up(self, problem: EdgeSerError) -> None:
        self.problem = problem
        self._has_room.set()
        _log.warning("no emotion from here on: %s", problem)

    async def _work(self) -> None:
        while True:
            item = await self._queue.get()
            try:
                await self._take(item)
            except EdgeSerError as error:
                self._give_up(error)
            finally:
                if isinstance(item, _Words) and not item.answered.done():
                    item.answered.set_result(self._turn.emotion)

    async def _take(self, item: _Audio | _Lost | _Words | None) -> None:
        if self.problem is not None and item is not None:
            return
        if isinstance(item, _Audio):
            self._waiting_s -= item.seconds
            if self._waiting_s <= BACKLOG_S / 2:
                self._has_room.set()
            await self._push(item)
        elif isinstance(item, _Lost):
            await self._report(await self._worker.lose(item.samples))
        elif isinstance(item, _Words):
            await self._revise(self._turn.read(item.transcript, self._heard_s))
        else:
            await self._finish()

    async def _finish(self) -> None:
        try:
            await self._flush()
        except EdgeSerError as error:
            self._give_up(error)
        await self._report(await self._insist(self._worker.finish))

    async def _insist(self, call: Callable[[], Awaitable[list[Event]]]) -> list[Event]:
        try:
            return await call()
        except EdgeSerError as error:
            self._give_up(error)
            # The utterance that failed is counted as rejected; what was left can be done.
            return await call()

    async def _sum_up(self, patience_s: float) -> None:
        """Tell the ledger in place of all that was not told in time."""
        waiting = [self._queue.get_nowait() for _ in range(self._queue.qsize())]
        dropped = sum(item.samples for item in waiting if isinstance(item, _Lost))
        dropped += round(sum(item.seconds for item in waiting if isinstance(item, _Audio)) * SAMPLE_RATE_HZ)
        if dropped:
            await self._insist(lambda: self._worker.lose(dropped))
        events = await self._insist(self._worker.finish)
        [summary] = [event for event in (*self._untold, *events) if isinstance(event, Summary)]
        self._is_summed_up = True
        telling = asyncio.ensure_future(self._tell(summary))
        await asyncio.wait({telling}, timeout=patience_s)
        telling.cancel()
        await asyncio.wait({telling})
        if not telling.cancelled():
            telling.result()

    async def _push(self, item: _Audio) -> None:
        if item.decoder is not self._decoding:
            await self._flush()
            self._decoding = item.decoder
        self._heard_s += item.seconds
        samples = item.decoder.decode(item.data)
        if samples.size:
            await self._report(await self._worker.push(samples))

    async def _flush(self) -> None:
        if self._decoding is not None and (tail := self._decoding.flush()).size:
            await self._report(await self._worker.push(tail))

    async def _report(self, events: list[Event]) -> None:
        self._untold.extend(events)
        while self._untold:
            event = self._untold.popleft()
            self._is_summed_up = isinstance(event, Summary)
            await self._tell(event)
            await self._revise(self._turn.hear(event))

    async def _revise(self, utterances: list[int]) -> None:
        for utterance in utterances:
            try:
                event = await self._worker.revise(utterance, self._turn.transcript)
            except EdgeSerError as error:
                # What else there is to tell, the summary above all, is told.
                return self._give_up(error)
            self._turn.hear(event)
            await self._tell(event)
