"""LiveKit Agents: a wrapper for any speech-to-text that puts the emotion into the metadata of what was said.

::

    session = AgentSession(stt=EmotionSTT(deepgram.STT(), edge_ser.load()), llm=..., tts=...)

Each final transcript carries the event in `alternatives[0].metadata["emotion"]`, and the wrapper emits `emotion` for
every answer as it comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from edge_ser.assistants.listener import Listener
from edge_ser.errors import BackendUnavailableError, EdgeSerError
from edge_ser.events import Emotion, Event
from edge_ser.recognizer import EmotionRecognizer
from edge_ser.stream import Stream

try:
    from livekit import rtc
    from livekit.agents import stt, utils
    from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, APIConnectOptions, NotGivenOr
except ImportError as error:
    raise BackendUnavailableError(
        "livekit-agents is not installed, this wrapper needs it. Install it: pip install 'edge-ser[livekit]'"
    ) from error

END_S = 5.0
"""Seconds that the end of the audio waits for the last answers at most."""

_log = logging.getLogger("edge_ser")


class EmotionSTT(stt.STT[Literal["emotion"]]):
    """Speech-to-text whose final transcripts carry how they were said; everything else is the wrapped one's."""

    def __init__(
        self,
        wrapped: stt.STT[Any],
        recognizer: EmotionRecognizer,
        *,
        risk: float | None = None,
        patience_s: float = 0.5,
    ) -> None:
        """Wrap a speech-to-text.

        Args:
            wrapped: Any speech-to-text of LiveKit Agents.
            recognizer: Judges the utterances; many wrappers may share it.
            risk: Accepted share of wrong answers; None takes the model's default.
            patience_s: Seconds that a final transcript waits for its answer at most; then it goes without.
        """
        super().__init__(capabilities=wrapped.capabilities)
        self._wrapped = wrapped
        self._recognizer = recognizer
        self._risk = risk
        self._patience_s = patience_s
        # The wrapped one measures itself: a second measurement would count the same audio twice.
        self._recognize_metrics_needed = False
        wrapped.on("metrics_collected", self._on_metrics_collected)

    @property
    def model(self) -> str:
        """Name of the wrapped one's model."""
        return str(self._wrapped.model)

    @property
    def provider(self) -> str:
        """Name of the wrapped one's provider."""
        return str(self._wrapped.provider)

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> EmotionStream:
        """Begin to transcribe and to listen."""
        wrapped = self._wrapped.stream(language=language, conn_options=conn_options)
        return EmotionStream(self, wrapped, self._recognizer.stream(risk=self._risk), self._patience_s)

    async def aclose(self) -> None:
        """Let go of the wrapped speech-to-text; whoever made it closes it."""
        self._wrapped.off("metrics_collected", self._on_metrics_collected)

    def prewarm(self) -> None:
        """Prepare the wrapped speech-to-text."""
        self._wrapped.prewarm()

    async def _recognize_impl(
        self, buffer: utils.AudioBuffer, *, language: NotGivenOr[str] = NOT_GIVEN, conn_options: APIConnectOptions
    ) -> stt.SpeechEvent:
        # Failures are tried again by whoever called, so not inside as well.
        once = replace(conn_options, max_retry=0)
        event = await self._wrapped.recognize(buffer, language=language, conn_options=once)
        audio = utils.merge_frames(buffer)
        samples = np.frombuffer(audio.data, np.int16).reshape(-1, audio.num_channels)
        text = event.alternatives[0].text if event.alternatives else None
        try:
            emotion = await asyncio.to_thread(
                self._recognizer.recognize, samples, audio.sample_rate, transcript=text, risk=self._risk
            )
        except EdgeSerError as error:
            _log.warning("no emotion for this utterance: %s", error)
            return event
        self.emit("emotion", emotion)
        return _with_emotion(event, emotion)

    def _update_session_keyterms(self, keyterms: list[str]) -> None:
        self._wrapped._update_session_keyterms(keyterms)

    def _push_conversation_item(self, item: Any) -> None:
        self._wrapped._push_conversation_item(item)

    def _on_metrics_collected(self, *values: Any) -> None:
        self.emit("metrics_collected", *values)


class EmotionStream(stt.RecognizeStream):
    """Passes audio to the wrapped stream and its events back, final transcripts with the emotion."""

    def __init__(self, owner: EmotionSTT, wrapped: stt.RecognizeStream, emotions: Stream, patience_s: float) -> None:
        """Begin; `EmotionSTT.stream` is the way here."""
        # The wrapped stream has its own way to try again.
        super().__init__(stt=owner, conn_options=APIConnectOptions(max_retry=0))
        self._owner = owner
        self._wrapped = wrapped
        self._patience_s = patience_s
        self._listener = Listener(emotions, self._tell)

    @property
    def start_time_offset(self) -> float:
        """Seconds between the beginning of the session and that of this stream, as the wrapped one counts them."""
        return float(self._wrapped.start_time_offset)

    @start_time_offset.setter
    def start_time_offset(self, value: float) -> None:
        self._wrapped.start_time_offset = value

    async def _run(self) -> None:
        tasks = [asyncio.create_task(self._pass_on()), asyncio.create_task(self._relay())]
        try:
            await asyncio.gather(*tasks)
            await self._listener.finish(END_S)
        finally:
            await utils.aio.cancel_and_wait(*tasks)
            await self._wrapped.aclose()
            await self._listener.close()

    async def _pass_on(self) -> None:
        async for item in self._input_ch:
            if isinstance(item, rtc.AudioFrame):
                self._wrapped.push_frame(item)
                self._listener.hear(item.data.tobytes(), item.sample_rate, channels=item.num_channels)
            else:
                self._wrapped.flush()
        self._wrapped.end_input()
        self._listener.end()

    async def _relay(self) -> None:
        async for event in self._wrapped:
            if event.type == stt.SpeechEventType.FINAL_TRANSCRIPT and event.alternatives:
                event = _with_emotion(event, await self._listener.read(event.alternatives[0].text, self._patience_s))
            self._event_ch.send_nowait(event)

    async def _tell(self, event: Event) -> None:
        if isinstance(event, Emotion):
            self._owner.emit("emotion", event)

    async def _metrics_monitor_task(self, event_aiter: AsyncIterable[stt.SpeechEvent]) -> None:
        # The wrapped stream reports its own use.
        async for _ in event_aiter:
            pass


def _with_emotion(event: stt.SpeechEvent, emotion: Emotion | None) -> stt.SpeechEvent:
    if emotion is not None:
        for alternative in event.alternatives:
            alternative.metadata = {**(alternative.metadata or {}), "emotion": emotion.to_dict()}
    return event
