"""One client's stream as a conversation has it: bytes and commands in, messages out; it outlives a lost connection."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from edge_ser.assistants.closing import CloseCode, Ending, Refused
from edge_ser.assistants.incoming import IncomingAudio
from edge_ser.assistants.levels import LevelMeter
from edge_ser.assistants.messages import Hello, Revise
from edge_ser.assistants.worker import StreamWorker
from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.errors import ConfigError, EdgeSerError
from edge_ser.events import Event, Summary
from edge_ser.kept_voice import KeptVoice
from edge_ser.voices import VoiceStore

if TYPE_CHECKING:
    from edge_ser.recognizer import EmotionRecognizer
    from edge_ser.stream import Stream

KEPT_EVENTS = 256
"""Latest events that can be sent again."""
SAVED_EVERY_UTTERANCES = 3
"""A crash loses fewer utterances of a kept voice than this."""

SAMPLE_BYTES = 2
"""Bytes of a sample of s16le."""

_log = logging.getLogger("edge_ser")


class Session:
    """The stream of one client, and what it was told."""

    def __init__(self, number: int, stream: Stream, hello: Hello, executor: Executor, voice: KeptVoice | None) -> None:
        """Begin to hear a client; `Session.open` is the short way.

        Args:
            number: The client's number, from 1.
            stream: It belongs to this session from now on.
            hello: What the client asked for.
            executor: Threads to work on.
            voice: The kept voice that the stream uses and teaches.
        """
        self.number = number
        self.id = secrets.token_urlsafe(16)
        """Known to the client only: whoever knows it can resume the session."""
        self.rate_hz = hello.rate_hz
        self.received_bytes = 0
        """Bytes of audio taken so far."""
        self.summary: Summary | None = None
        """The last event, once there is one."""
        self.turn = asyncio.Lock()
        """Held by the connection that carries the session."""
        self._audio = IncomingAudio(hello.rate_hz)
        self._worker = StreamWorker(stream, executor)
        self._voice = voice
        self._meter = LevelMeter() if hello.levels else None
        self._told: deque[str] = deque(maxlen=KEPT_EVENTS)
        self._told_count = 0
        self._lost_bytes = 0
        self._astray_bytes = 0
        self._ending: asyncio.Future[Ending] | None = None

    @staticmethod
    def open(number: int, recognizer: EmotionRecognizer, hello: Hello, executor: Executor) -> Session:
        """Return a new session.

        Raises:
            EdgeSerError: What the client asked for is not to be had.
        """
        voice = None
        if hello.voice is not None:
            if recognizer.bundle.manifest.input_of("voice") is None:
                raise ConfigError(f"{recognizer.model} hears no voice; leave out 'voice'")
            voice = KeptVoice(VoiceStore(), hello.voice)
        stream = recognizer.stream(
            voice=None if voice is None else voice.profile, partials=hello.partials, risk=hello.risk
        )
        return Session(number, stream, hello, executor, voice)

    def attach(self) -> asyncio.Future[Ending]:
        """Begin with a connection; the future will hold why it shall end, if that comes from outside."""
        self._ending = asyncio.get_running_loop().create_future()
        return self._ending

    def interrupt(self, ending: Ending) -> None:
        """End the connection that carries the session, if there is one."""
        if self._ending is not None and not self._ending.done():
            self._ending.set_result(ending)

    async def hear(self, data: bytes) -> list[str]:
        """Take the next bytes of audio and return what is to be said to that.

        Raises:
            EdgeSerError: The model failed.
        """
        self.received_bytes += len(data)
        samples = self._audio.decode(data[self._astray_bytes :])
        self._astray_bytes = max(0, self._astray_bytes - len(data))
        events = await self._worker.push(samples)
        messages = self._record(events)
        if self._meter is not None:
            self._meter.follow(samples, events)
            level = self._meter.message(self._worker.ledger)
            messages += [] if level is None else [json.dumps(level)]
        if self._voice is not None and self._voice.unsaved_utterances >= SAVED_EVERY_UTTERANCES:
            await self._worker.do(self._save_voice)
        return messages

    async def resume(self, hello: Hello) -> list[str]:
        """Account for audio that its client has lost for good, and return the events that it has not seen.

        Raises:
            Refused: It says that it has seen more than there was.
        """
        if not hello.lost_bytes:
            return self.missed(hello.events_seen)
        lost = round(hello.lost_bytes / SAMPLE_BYTES * SAMPLE_RATE_HZ / self.rate_hz)
        # Where half a sample is lost, the other half is of no use.
        self._lost_bytes += hello.lost_bytes
        self._astray_bytes = (self.received_bytes + self._lost_bytes) % SAMPLE_BYTES
        events = await self._calmly(self._worker.push(tail := self._audio.flush()))
        events += await self._calmly(self._worker.lose(lost))
        if self._meter is not None:
            self._meter.follow(tail, events)
        messages = self._record(events)
        return messages if hello.events_seen is None else self.missed(hello.events_seen)

    async def revise(self, command: Revise) -> list[str]:
        """Return the answer for an utterance again, or why there is none."""
        try:
            event = await self._worker.revise(command.utterance, command.transcript)
        except ConfigError as problem:
            return [json.dumps({"type": "error", "utterance": command.utterance, "message": str(problem)})]
        return self._record([event])

    async def finish(self) -> list[str]:
        """Close the open utterance and return the last messages, the summary at the end."""
        if self.summary is not None:
            return []
        messages = self._record(await self._calmly(self._worker.push(self._audio.flush())))
        messages += self._record(await self._calmly(self._worker.finish()))
        if self.summary is None:
            # An utterance failed and is counted as rejected; what was left can be finished.
            messages += self._record(await self._worker.finish())
        if self._voice is not None:
            await self._worker.do(self._save_voice)
        return messages

    async def _calmly(self, call: Awaitable[list[Event]]) -> list[Event]:
        try:
            return await call
        except EdgeSerError as problem:
            _log.warning("client %d: %s", self.number, problem)
            return []

    def missed(self, events_seen: int | None) -> list[str]:
        """Return the events that a client has not seen, as far as they are kept.

        Args:
            events_seen: How many it has received in this session; None takes it to have received all.

        Raises:
            Refused: There were not so many.
        """
        if events_seen is None:
            return []
        count = self._told_count - events_seen
        if count < 0:
            raise Refused(CloseCode.MALFORMED, f"'events_seen' is {events_seen}, but only {self._told_count} were sent")
        return list(self._told)[max(0, len(self._told) - count) :]

    def _record(self, events: Sequence[Event]) -> list[str]:
        messages = [event.to_json() for event in events]
        self._told.extend(messages)
        self._told_count += len(messages)
        if events and isinstance(events[-1], Summary):
            self.summary = events[-1]
        return messages

    def _save_voice(self, stream: Stream) -> None:
        voice = self._voice
        if voice is None:
            return
        try:
            voice.save()
        except ConfigError as problem:
            _log.warning("client %d: %s", self.number, problem)
            self._voice = None
        else:
            stream.voice = voice.profile
