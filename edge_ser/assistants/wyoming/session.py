"""One Wyoming client: its audio is heard, and passed on to the real speech-to-text service where there is one."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, async_read_event, async_write_event
from wyoming.info import Describe
from wyoming.ping import Ping, Pong
from wyoming.user_event import UserEvent

from edge_ser.assistants.journal import Journal
from edge_ser.assistants.listener import Listener
from edge_ser.assistants.wyoming.messages import BROKEN, BoundedReader, form_of, own_info, well_formed
from edge_ser.assistants.wyoming.upstream import Upstream, UpstreamError, proxied_info
from edge_ser.errors import EdgeSerError
from edge_ser.events import Event as StreamEvent
from edge_ser.events import Summary
from edge_ser.recognizer import EmotionRecognizer

LINGER_S = 2.0
"""Seconds in which a client that is still sending can read of an error before it is cut off."""
MOST_UNANSWERED = 4
"""Streams that may wait for their transcript while the next is heard."""


@dataclass(frozen=True)
class Service:
    """What every client of one server gets."""

    upstream: str | None = None
    """Address of the real speech-to-text service; None where there is none."""
    risk: float | None = None
    """Accepted share of wrong answers; None takes the model's default."""
    answer_s: float = 60.0
    """Seconds between the end of the audio, or a part of the answer, and what must follow from the real service."""
    emotion_s: float = 5.0
    """Seconds that a transcript of the real service waits for the emotion at most; then it goes without."""
    tell: Callable[[StreamEvent], None] | None = None
    """Called with every event of every client."""


class StreamBook:
    """Numbers the streams of all clients and tells the journal of them."""

    def __init__(self, journal: Journal, numbers: Iterator[int]) -> None:
        """Write in `journal`; `numbers` are shared by all clients."""
        self._journal = journal
        self._numbers = numbers

    def begin(self) -> int:
        """Note that a stream begins, and return its number."""
        number = next(self._numbers)
        self._journal.began(number)
        return number

    def end(self, number: int, summary: Summary, why: str) -> None:
        """Note what became of a stream."""
        self._journal.ended(number, summary, why)


class Session:
    """Serves one client until it leaves, or its speech-to-text service does."""

    def __init__(
        self,
        recognizer: EmotionRecognizer,
        service: Service,
        book: StreamBook,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Serve a client that has connected."""
        self._recognizer = recognizer
        self._service = service
        self._book = book
        self._source = reader
        self._reader = cast(asyncio.StreamReader, BoundedReader(reader))
        self._writer = writer
        self._sending = asyncio.Lock()
        self._listener: Listener | None = None
        self._unanswered: deque[Listener] = deque()
        self._upstream: Upstream | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._progress = asyncio.Event()
        self._is_pending = self._is_sending_audio = self._has_failed = False

    async def run(self) -> None:
        """Serve until the client leaves or is cut off."""
        try:
            while (event := await self._next()) is not None and await self._handle(event):
                pass
        except OSError:
            pass  # the client has left before it was answered
        finally:
            await self._close()

    async def _next(self) -> Event | None:
        # What is no event of the protocol ends the connection, as does a client that leaves in the middle of one.
        try:
            return well_formed(await async_read_event(self._reader))
        except BROKEN:
            return None

    async def _handle(self, event: Event) -> bool:
        if self._has_failed:
            return not AudioStop.is_type(event.type)
        try:
            await self._answer(event)
        except EdgeSerError as error:
            await self._fail(error)
            return self._is_sending_audio
        return True

    async def _answer(self, event: Event) -> None:
        upstream = self._service.upstream
        if Describe.is_type(event.type):
            await self._send(await proxied_info(upstream) if upstream else own_info(self._recognizer))
        elif Ping.is_type(event.type):
            await self._send(Pong(text=event.data.get("text")).event())
        else:
            if Transcribe.is_type(event.type) or AudioStart.is_type(event.type):
                self._is_sending_audio = True
            elif AudioStop.is_type(event.type):
                self._is_sending_audio = False
            await self._pass_on(event)
            await self._hear(event)

    async def _pass_on(self, event: Event) -> None:
        if self._service.upstream is None:
            return
        if self._upstream is None:
            self._upstream = await Upstream(self._service.upstream).connect()
            self._tasks.append(asyncio.create_task(self._relay(self._upstream)))
        await self._upstream.write(event)
        if AudioStop.is_type(event.type):
            self._tasks = [task for task in self._tasks if not task.done()]
            self._tasks.append(asyncio.create_task(self._watch()))

    async def _hear(self, event: Event) -> None:
        if AudioStart.is_type(event.type):
            await self._start(is_request=True)
        elif AudioChunk.is_type(event.type):
            listener = self._listener
            if listener is None or listener.has_ended:
                # A transcript before the end of the audio ends what was said; what follows is a stream of its own.
                listener = await self._start(is_request=listener is None)
            listener.hear(event.payload or b"", *form_of(event))
            await listener.room()
        elif AudioStop.is_type(event.type) and self._listener is not None:
            self._listener.end()
            if self._service.upstream is None:
                transcript = Transcript(text="").event()
                await self._send(await self._with_emotion(transcript, self._listener, self._service.answer_s))
        elif Transcript.is_type(event.type) and self._service.upstream is None and self._listener is not None:
            await self._listener.read(str(event.data.get("text")), self._service.answer_s)

    async def _start(self, is_request: bool) -> Listener:
        await self._end_stream()
        self._is_pending = self._is_pending or is_request
        # A stream opens its speech detector, which takes a moment.
        stream = await asyncio.to_thread(lambda: self._recognizer.stream(risk=self._service.risk))
        self._listener = Listener(stream, functools.partial(self._tell, self._book.begin()))
        return self._listener

    async def _end_stream(self) -> None:
        """End the listening; where the transcript is still to come, its words are for this stream."""
        listener = self._listener
        if listener is None:
            return
        if self._service.upstream is not None and self._is_pending:
            if len(self._unanswered) == MOST_UNANSWERED:
                raise UpstreamError(f"the speech-to-text service has not answered {MOST_UNANSWERED} requests")
            self._unanswered.append(listener)
            self._listener = None
            listener.end()
            await listener.read("", self._service.emotion_s)
        else:
            await listener.finish(self._service.emotion_s)

    async def _end_listening(self) -> None:
        listeners = [*self._unanswered, *([] if self._listener is None else [self._listener])]
        await asyncio.gather(*(listener.finish(self._service.emotion_s) for listener in listeners))

    async def _tell(self, number: int, event: StreamEvent) -> None:
        if self._service.tell is not None:
            self._service.tell(event)
        if isinstance(event, Summary):
            self._book.end(number, event, "cut off before its end" if self._is_sending_audio else "its audio ended")
        data = event.to_dict()
        with contextlib.suppress(OSError):
            await self._send(UserEvent(name=str(data["type"]), data=data).event())

    async def _relay(self, upstream: Upstream) -> None:
        """Pass on what the real service says, as it says it."""
        try:
            while True:
                event = await upstream.read()
                self._progress.set()
                if Transcript.is_type(event.type):
                    event = await self._answered(event)
                await self._send(event)
                if Error.is_type(event.type):
                    return self.cut_off()
        except UpstreamError as error:
            if self._is_pending:
                await self._fail(error)
            else:
                self.cut_off()
        except OSError:
            self.cut_off()

    async def _answered(self, transcript: Event) -> Event:
        """Return the transcript of the real service with the emotion of the stream that it answers."""
        if not self._unanswered:
            self._is_pending = False
            return await self._with_emotion(transcript, self._listener, self._service.emotion_s)
        listener = self._unanswered[0]
        transcript = await self._with_emotion(transcript, listener, self._service.emotion_s)
        await listener.finish(self._service.emotion_s)
        self._unanswered.popleft()
        return transcript

    async def _with_emotion(self, transcript: Event, listener: Listener | None, patience_s: float) -> Event:
        if listener is None:
            return transcript
        # A transcript ends what was said, even where the client has not said so yet.
        listener.end()
        emotion = await listener.read(str(transcript.data.get("text", "")), patience_s)
        if emotion is None:
            if listener.problem is not None and self._service.upstream is None:
                raise listener.problem
            return transcript
        context = transcript.data.get("context")
        context = {**(context if isinstance(context, dict) else {}), "emotion": emotion.to_dict()}
        return Event(transcript.type, {**transcript.data, "context": context}, transcript.payload)

    async def _watch(self) -> None:
        """Give the real service up when nothing comes from it any more."""
        # While the client speaks, nothing needs to come but what is owed for an earlier request.
        while self._unanswered or (self._is_pending and not self._is_sending_audio):
            self._progress.clear()
            try:
                await asyncio.wait_for(self._progress.wait(), self._service.answer_s)
            except asyncio.TimeoutError:
                await self._fail(
                    UpstreamError(f"no answer from the speech-to-text service in {self._service.answer_s:g} s")
                )
                return

    async def _fail(self, error: EdgeSerError) -> None:
        """Tell the client; what it still sends is thrown away, so that it can read why."""
        self._has_failed = True
        with contextlib.suppress(OSError):
            await self._send(Error(text=str(error), code=type(error).__name__).event())
        if self._is_sending_audio:
            asyncio.get_running_loop().call_later(LINGER_S, self.cut_off)
        else:
            self.cut_off()

    def cut_off(self) -> None:
        """End the connection."""
        self._writer.close()
        self._source.feed_eof()

    async def _send(self, event: Event) -> None:
        async with self._sending:
            await async_write_event(event, self._writer)

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        try:
            await self._end_listening()
        finally:
            await self._disconnect()

    async def _disconnect(self) -> None:
        if self._upstream is not None:
            await self._upstream.close()
        self._writer.close()
        try:
            await asyncio.wait_for(self._writer.wait_closed(), LINGER_S)
        except (OSError, asyncio.TimeoutError):
            self._writer.transport.abort()
