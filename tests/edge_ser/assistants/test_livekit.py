"""LiveKit Agents: any speech-to-text, wrapped, says how it was said as well."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("livekit.agents", reason="LiveKit Agents lives in a venv of its own: make test-assistants")

from livekit import rtc
from livekit.agents import APIConnectionError, stt
from livekit.agents.stt import SpeechData, SpeechEvent, SpeechEventType
from livekit.agents.types import APIConnectOptions

import edge_ser
from edge_ser.assistants.livekit import EmotionSTT
from tests.edge_ser.assistants.livekit_fakes import CannedSTT

Result = TypeVar("Result")
WORDS = "i am so happy today"


def run(scenario: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(asyncio.wait_for(scenario, 30))


def said(text: str, kind: SpeechEventType = SpeechEventType.FINAL_TRANSCRIPT) -> SpeechEvent:
    return SpeechEvent(kind, "7", [SpeechData("en", text, metadata={"own": 1})])


def frames(samples: NDArray[np.int16], channels: int = 1) -> list[rtc.AudioFrame]:
    wide = np.repeat(samples[:, None], channels, axis=1)
    return [
        rtc.AudioFrame(wide[at : at + 160].tobytes(), 16_000, channels, 160) for at in range(0, len(wide) - 159, 160)
    ]


def heard(wrapper: EmotionSTT, audio: list[rtc.AudioFrame]) -> list[SpeechEvent]:
    async def scenario() -> list[SpeechEvent]:
        async with wrapper.stream() as stream:
            stream.start_time_offset = 12.5
            for frame in audio:
                stream.push_frame(frame)
            stream.end_input()
            return [event async for event in stream]

    return run(scenario())


def test_a_final_transcript_carries_the_emotion_of_its_words(
    recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16], written: edge_ser.Emotion
) -> None:
    kinds = [SpeechEventType.START_OF_SPEECH, SpeechEventType.INTERIM_TRANSCRIPT, SpeechEventType.END_OF_SPEECH]
    others = [SpeechEvent(kinds[0]), said("i am", kinds[1]), SpeechEvent(kinds[2])]
    canned = CannedSTT([*others, said(WORDS)])
    wrapper = EmotionSTT(canned, recognizer, patience_s=20)
    told: list[edge_ser.Emotion] = []
    wrapper.on("emotion", told.append)
    events = heard(wrapper, frames(speech))

    assert events[:3] == others
    [alternative] = events[3].alternatives
    assert (alternative.text, events[3].request_id) == (WORDS, "7")
    assert alternative.metadata is not None and alternative.metadata["own"] == 1
    assert alternative.metadata["emotion"] == told[-1].to_dict()
    assert told[-1].probabilities == pytest.approx(dict(written.probabilities), abs=1e-4)
    assert [event.revision for event in told] == [0, 1]
    assert canned.audio == speech.tobytes()
    assert canned.flushes >= 1
    assert canned.offset_s == pytest.approx(12.5, abs=0.5)


def test_it_passes_for_the_one_it_wraps(recognizer: edge_ser.EmotionRecognizer) -> None:
    canned = CannedSTT([])
    wrapper = EmotionSTT(canned, recognizer)
    assert (wrapper.model, wrapper.provider) == ("canned", "nobody")
    assert wrapper.capabilities is canned.capabilities


def test_silence_leaves_the_transcript_as_it_is(recognizer: edge_ser.EmotionRecognizer) -> None:
    [event] = heard(EmotionSTT(CannedSTT([said(WORDS)]), recognizer), frames(np.zeros(16_000, np.int16)))
    assert event.alternatives[0].metadata == {"own": 1}


def test_a_whole_utterance_is_recognised_at_once(
    recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16]
) -> None:
    wrapper = EmotionSTT(CannedSTT([said(WORDS)]), recognizer)
    event = run(wrapper.recognize(frames(speech, channels=2)))
    metadata = event.alternatives[0].metadata
    assert metadata is not None
    direct = recognizer.recognize(speech, transcript=WORDS)
    assert metadata["emotion"]["probabilities"] == pytest.approx(dict(direct.probabilities), abs=1e-4)


def test_a_failure_is_passed_on_and_tried_again_once_only(
    recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16]
) -> None:
    twice = APIConnectOptions(max_retry=1, retry_interval=0.0)

    async def recognise(wrapper: EmotionSTT) -> None:
        await wrapper.recognize(frames(speech), conn_options=twice)

    async def listen(wrapper: EmotionSTT) -> None:
        async with wrapper.stream(conn_options=twice) as stream:
            async for _ in stream:
                pass

    for use in (recognise, listen):
        canned = CannedSTT([], APIConnectionError("the service is gone"))
        with pytest.raises(APIConnectionError):
            run(use(EmotionSTT(canned, recognizer)))
        assert canned.attempts == 2


def test_audio_that_nobody_can_judge_does_not_cost_the_transcript(recognizer: edge_ser.EmotionRecognizer) -> None:
    wrapper = EmotionSTT(CannedSTT([said(WORDS)]), recognizer)
    odd = rtc.AudioFrame(bytes(200), 100, 1, 100)
    [event] = heard(wrapper, [odd])
    assert event.alternatives[0].metadata == {"own": 1}
    event = run(wrapper.recognize(odd))
    assert event.alternatives[0].metadata == {"own": 1}


def test_its_use_is_counted_once(recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16]) -> None:
    used = SpeechEvent(SpeechEventType.RECOGNITION_USAGE, recognition_usage=stt.RecognitionUsage(audio_duration=3.3))
    wrapper = EmotionSTT(CannedSTT([used, said(WORDS)]), recognizer)
    metrics: list[Any] = []
    wrapper.on("metrics_collected", metrics.append)
    heard(wrapper, frames(speech))
    assert [metric.audio_duration for metric in metrics] == [3.3]
    run(wrapper.recognize(frames(speech)))
    assert len(metrics) == 2


def test_a_stream_that_is_closed_early_ends(recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16]) -> None:
    async def scenario() -> None:
        async with EmotionSTT(CannedSTT([]), recognizer).stream() as stream:
            for frame in frames(speech):
                stream.push_frame(frame)

    run(scenario())
