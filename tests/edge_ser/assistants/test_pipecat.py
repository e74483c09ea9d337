"""Pipecat: every frame passes, and the emotion comes along."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("pipecat", reason="Pipecat lives in a venv of its own: make test-assistants")

from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    LLMMessagesAppendFrame,
    TextFrame,
    TranscriptionFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.tests.utils import SleepFrame, run_test
from pipecat.workers.runner import WorkerRunner

import edge_ser
from edge_ser.assistants.pipecat import EmotionFrame, EmotionProcessor

Result = TypeVar("Result")
WORDS = "i am so happy today"


def run(scenario: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(asyncio.wait_for(scenario, 30))


def audio_frames(samples: NDArray[np.int16], rate_hz: int = 16_000) -> list[Frame]:
    size = rate_hz // 50
    return [InputAudioRawFrame(samples[at : at + size].tobytes(), rate_hz, 1) for at in range(0, samples.size, size)]


def words(text: str = WORDS) -> TranscriptionFrame:
    return TranscriptionFrame(text, user_id="anna", timestamp="2026-11-21T15:00:00Z")


async def passed(processor: FrameProcessor, frames: list[Frame]) -> list[Frame]:
    down, _ = await run_test(processor, frames_to_send=frames)
    return list(down)


def emotions(frames: list[Frame]) -> list[edge_ser.Emotion]:
    return [frame.event for frame in frames if isinstance(frame, EmotionFrame)]


def test_every_frame_passes_and_the_emotion_comes_along(
    recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16], spoken: edge_ser.Emotion
) -> None:
    sent = [TextFrame("before"), *audio_frames(speech), InterruptionFrame()]
    events: list[edge_ser.events.Event] = []
    told: list[edge_ser.Emotion] = []

    async def scenario() -> list[Frame]:
        processor = EmotionProcessor(recognizer)

        @processor.event_handler("on_event")
        async def on_event(_: EmotionProcessor, event: edge_ser.events.Event) -> None:
            events.append(event)

        @processor.event_handler("on_emotion")
        async def on_emotion(_: EmotionProcessor, event: edge_ser.Emotion) -> None:
            told.append(event)

        return await passed(processor, sent)

    down = run(scenario())
    assert {id(frame) for frame in sent} <= {id(frame) for frame in down}
    audio = [frame for frame in down if isinstance(frame, InputAudioRawFrame)]
    assert audio == [frame for frame in sent if isinstance(frame, InputAudioRawFrame)]
    [emotion] = emotions(down)
    assert emotion.probabilities == pytest.approx(dict(spoken.probabilities), abs=1e-4)
    assert told == [emotion]
    assert [type(event).__name__ for event in events] == ["SpeechStarted", "Emotion", "Summary"]
    summary = events[-1]
    assert isinstance(summary, edge_ser.Summary) and summary.ledger.captured_samples == speech.size
    assert summary.ledger.balances


def test_words_refine_the_answer_and_take_it_along(
    recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16], written: edge_ser.Emotion
) -> None:
    transcription = words()
    silence = np.zeros(16_000, np.int16)
    frames = [*audio_frames(np.concatenate([speech, silence])), transcription, TextFrame("after")]
    down = run(passed(EmotionProcessor(recognizer, patience_s=20), frames))
    first, revised = emotions(down)
    assert (first.revision, revised.revision, revised.text_used) == (0, 1, written.text_used)
    assert revised.probabilities == pytest.approx(dict(written.probabilities), abs=1e-4)
    assert transcription.metadata["emotion"] == revised.to_dict()
    assert transcription.text == WORDS
    places = [down.index(frame) for frame in down if isinstance(frame, (EmotionFrame, TranscriptionFrame))]
    assert isinstance(down[places[-1]], TranscriptionFrame)
    assert down.index(frames[-1]) > places[-1]


def test_words_without_a_voice_pass_as_they_are(recognizer: edge_ser.EmotionRecognizer) -> None:
    transcription = words()
    down = run(passed(EmotionProcessor(recognizer), [transcription]))
    assert down == [transcription]
    assert "emotion" not in transcription.metadata


def test_words_do_not_wait_for_a_model_that_is_too_slow(
    recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16], monkeypatch: pytest.MonkeyPatch
) -> None:
    may_answer = threading.Event()
    judge_again = recognizer.judge_again

    def slow(*values: Any, **named: Any) -> Any:
        may_answer.wait(20)
        return judge_again(*values, **named)

    async def scenario() -> list[Frame]:
        processor = EmotionProcessor(recognizer, patience_s=0.05)
        after = TextFrame("after")

        class Impatient(FrameProcessor):
            async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
                await super().process_frame(frame, direction)
                if frame is after:
                    may_answer.set()
                await self.push_frame(frame, direction)

        pipeline = Pipeline([processor, Impatient()])
        silence = np.zeros(16_000, np.int16)
        return await passed(pipeline, [*audio_frames(np.concatenate([speech, silence])), words(), after])

    monkeypatch.setattr(recognizer, "judge_again", slow)
    down = run(scenario())
    revised = [isinstance(frame, EmotionFrame) and frame.event.revision == 1 for frame in down].index(True)
    assert [type(frame) for frame in down[:revised] if isinstance(frame, TextFrame)] == [TranscriptionFrame, TextFrame]


def test_audio_that_nobody_can_judge_does_not_stop_the_pipeline(recognizer: edge_ser.EmotionRecognizer) -> None:
    frames = [InputAudioRawFrame(bytes(200), 100, 1), words()]
    assert run(passed(EmotionProcessor(recognizer), frames)) == frames


def test_a_cancelled_pipeline_ends(recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16]) -> None:
    async def scenario() -> None:
        worker = PipelineWorker(Pipeline([EmotionProcessor(recognizer)]), cancel_on_idle_timeout=False)

        @worker.event_handler("on_pipeline_started")
        async def on_started(*_: Any) -> None:
            await worker.queue_frames([*audio_frames(speech), CancelFrame()])

        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        await runner.run()

    run(scenario())


def test_an_interruption_does_not_throw_the_emotion_away(spoken: edge_ser.Emotion) -> None:
    class Busy(FrameProcessor):
        """Holds the frames that follow back until the user interrupts, as a bot does that speaks."""

        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TextFrame):
                await asyncio.Event().wait()
            await self.push_frame(frame, direction)

    said = EmotionFrame(spoken)
    down = run(passed(Busy(), [TextFrame("one"), said, TextFrame("two"), SleepFrame(0.1), InterruptionFrame()]))
    assert [frame for frame in down if not isinstance(frame, InterruptionFrame)] == [said]


def test_the_bot_of_readme_tells_its_language_model(
    recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sure = replace(recognizer.recognize(speech), uncertain=False)
    part = (root / "README.md").read_text(encoding="utf-8").partition("### Pipecat")[2].partition("### ")[0]
    [program] = re.findall(r"```python\n(.*?)```", part, re.DOTALL)
    conversation = LLMContext()

    class Passing(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            await self.push_frame(frame, direction)

    class Transport:
        input = output = Passing

    async def scenario() -> None:
        aggregators = LLMContextAggregatorPair(conversation)
        names: dict[str, Any] = {
            **{"EmotionProcessor": EmotionProcessor, "edge_ser": edge_ser, "Pipeline": Pipeline},
            **{"PipelineWorker": PipelineWorker, "LLMMessagesAppendFrame": LLMMessagesAppendFrame},
            **{"transport": Transport(), "stt": Passing(), "llm": Passing(), "tts": Passing(), "context": aggregators},
        }
        exec(program, names)
        worker = names["worker"]

        @worker.event_handler("on_pipeline_started")
        async def on_started(*_: Any) -> None:
            await names["on_emotion"](names["emotions"], sure)
            await worker.queue_frame(EndFrame())

        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        await runner.run()

    run(scenario())
    [message] = conversation.get_messages()
    assert message["content"] == f"The user sounds {sure.emotion}."
