"""A speech-to-text of LiveKit Agents without a model."""

from __future__ import annotations

from typing import Any

from livekit import rtc
from livekit.agents import stt
from livekit.agents.stt import SpeechEvent
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions


class CannedSTT(stt.STT[Any]):
    """Hears what it was told to hear when the audio ends."""

    def __init__(self, events: list[SpeechEvent], problem: Exception | None = None) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=True))
        self.events = events
        self.problem = problem
        self.audio = b""
        self.flushes = self.attempts = 0
        self.offset_s = 0.0

    @property
    def model(self) -> str:
        return "canned"

    @property
    def provider(self) -> str:
        return "nobody"

    def stream(self, *, language: Any = None, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS) -> Any:
        return CannedStream(stt=self, conn_options=conn_options)

    async def _recognize_impl(self, buffer: Any, *, language: Any, conn_options: APIConnectOptions) -> SpeechEvent:
        self.attempts += 1
        if self.problem is not None:
            raise self.problem
        return self.events[-1]


class CannedStream(stt.RecognizeStream):
    async def _run(self) -> None:
        owner = self._stt
        assert isinstance(owner, CannedSTT)
        owner.attempts += 1
        owner.offset_s = self.start_time_offset
        if owner.problem is not None:
            raise owner.problem
        async for item in self._input_ch:
            if isinstance(item, rtc.AudioFrame):
                owner.audio += item.data.tobytes()
            else:
                owner.flushes += 1
        for event in owner.events:
            self._event_ch.send_nowait(event)
