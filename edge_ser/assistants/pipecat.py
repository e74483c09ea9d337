"""Pipecat: a processor that passes every frame on and adds how the user sounds.

Put it behind the speech-to-text service, which passes audio on, so that the words refine the answer::

    emotions = EmotionProcessor(edge_ser.load())
    Pipeline([transport.input(), stt, emotions, context.user(), llm, tts, transport.output(), context.assistant()])

Before the speech-to-text service it works as well, from the voice alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edge_ser.assistants.listener import Listener
from edge_ser.errors import BackendUnavailableError
from edge_ser.events import Emotion, Event
from edge_ser.recognizer import EmotionRecognizer

try:
    from pipecat.frames.frames import DataFrame, EndFrame, Frame, InputAudioRawFrame, TranscriptionFrame
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
except ImportError as error:
    raise BackendUnavailableError(
        "pipecat-ai is not installed, this processor needs it. Install it: pip install 'edge-ser[pipecat]'"
    ) from error

END_S = 5.0
"""Seconds that the end of the pipeline waits for the last answers at most."""


@dataclass
class EmotionFrame(DataFrame):
    """How one utterance was said; a later frame with a higher `revision` replaces an earlier one."""

    event: Emotion
    """The event, unchanged."""
    # It comes when the user speaks, which is when interruptions throw frames away.
    interruptible: bool = field(default=False, init=False)


class EmotionProcessor(FrameProcessor):
    """Hears the user's audio and pushes an `EmotionFrame` for each answer.

    A `TranscriptionFrame` that passes by refines the answer and takes it along in `metadata["emotion"]`. The event
    handlers `on_emotion` and `on_event` get the answers, and all events of the stream. No frame waits for audio to be
    judged, but a transcription does for its own answer, for `patience_s` at most.
    """

    def __init__(
        self,
        recognizer: EmotionRecognizer,
        *,
        risk: float | None = None,
        partials: bool = False,
        patience_s: float = 0.5,
        **kwargs: Any,
    ) -> None:
        """Judge with a recognizer, which several processors may share.

        Args:
            recognizer: Judges the utterances.
            risk: Accepted share of wrong answers; None takes the model's default.
            partials: Whether to answer while the user still talks, too.
            patience_s: Seconds that a transcription waits for its answer at most; then it goes without.
            kwargs: Passed to `FrameProcessor`.

        Raises:
            ConfigError: The risk is outside (0, 1).
        """
        super().__init__(**kwargs)
        self._patience_s = patience_s
        self._stream = recognizer.stream(risk=risk, partials=partials)
        self._listener: Listener | None = None
        self._register_event_handler("on_emotion")
        self._register_event_handler("on_event")

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Begin to listen."""
        await super().setup(setup)
        self._listener = Listener(self._stream, self._tell)

    async def cleanup(self) -> None:
        """End the listening, where no `EndFrame` has."""
        try:
            if self._listener is not None:
                await self._listener.close()
        finally:
            await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Pass a frame on; hear it if it is the user's audio, read it if it is the user's words."""
        await super().process_frame(frame, direction)
        if self._listener is not None and direction == FrameDirection.DOWNSTREAM:
            if isinstance(frame, InputAudioRawFrame):
                self._listener.hear(frame.audio, frame.sample_rate, channels=frame.num_channels)
            elif isinstance(frame, TranscriptionFrame):
                emotion = await self._listener.read(frame.text, self._patience_s)
                if emotion is not None:
                    frame.metadata["emotion"] = emotion.to_dict()
            elif isinstance(frame, EndFrame):
                await self._listener.finish(END_S)
        await self.push_frame(frame, direction)

    async def _tell(self, event: Event) -> None:
        await self._call_event_handler("on_event", event)
        if isinstance(event, Emotion):
            await self._call_event_handler("on_emotion", event)
            await self.push_frame(EmotionFrame(event))
