"""Listening beside a pipeline: nothing is lost in silence, words find their utterance, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import edge_ser
from edge_ser.assistants import listener as listening
from edge_ser.assistants.listener import Listener
from edge_ser.assistants.turn import Turn
from edge_ser.events import Emotion, Event, Overflow, Rejected, SpeechStarted, Summary
from edge_ser.stream import Stream
from tests.edge_ser.fakes import FakeRecognizer, ScriptedDetector, scripted_audio


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))


def pcm(*script: tuple[bool, float]) -> bytes:
    return bytes((scripted_audio(list(script)) * 32767).astype("<i2").tobytes())


SPOKEN = pcm((False, 0.5), (True, 1.0), (False, 1.0))


class Heard:
    """A listener and what it told."""

    def __init__(self, recognizer: FakeRecognizer | None = None) -> None:
        self.events: list[Event] = []
        stream = Stream(recognizer or FakeRecognizer(), detector=ScriptedDetector())  # type: ignore[arg-type]
        self.listener = Listener(stream, self.tell)

    async def tell(self, event: Event) -> None:
        self.events.append(event)

    @property
    def emotions(self) -> list[Emotion]:
        return [event for event in self.events if isinstance(event, Emotion)]

    async def finish(self) -> Summary:
        await self.listener.finish(10)
        summary = self.events[-1]
        assert isinstance(summary, Summary) and summary.ledger.balances
        return summary


def held_back(heard: Heard) -> threading.Event:
    """Let no audio be judged before the event that is returned is set."""
    may_go_on = threading.Event()
    push = heard.listener._worker._stream.push

    def slow(samples: NDArray[np.generic]) -> list[Event]:
        assert may_go_on.wait(10)
        return push(samples)

    heard.listener._worker._stream.push = slow  # type: ignore[method-assign]
    return may_go_on


def test_pieces_of_any_size_are_heard_as_one_recording() -> None:
    async def scenario() -> None:
        answers = []
        for size in (len(SPOKEN), 641, 20):
            heard = Heard()
            for start in range(0, len(SPOKEN), size):
                heard.listener.hear(SPOKEN[start : start + size], 16_000)
            summary = await heard.finish()
            assert summary.ledger.captured_samples == len(SPOKEN) // 2
            answers.append([(event.start_s, event.end_s, dict(event.probabilities)) for event in heard.emotions])
        assert len(answers[0]) == 1
        assert answers[0] == answers[1] == answers[2]

    run(scenario())


def test_words_revise_what_was_heard_before_them_and_after() -> None:
    async def scenario() -> None:
        heard = Heard()
        heard.listener.hear(SPOKEN, 16_000)
        emotion = await heard.listener.read("so happy", 10)
        assert emotion is not None and (emotion.utterance, emotion.revision, emotion.text_used) == (1, 1, True)
        emotion = await heard.listener.read("today", 10)
        assert emotion is not None and emotion.revision == 2
        heard.listener.hear(SPOKEN, 16_000)
        emotion = await heard.listener.read("", 10)
        assert emotion is not None and (emotion.utterance, emotion.text_used) == (2, False)
        assert [(event.utterance, event.revision) for event in heard.emotions] == [(1, 0), (1, 1), (1, 2), (2, 0)]
        await heard.finish()

    run(scenario())


def test_words_that_come_while_one_speaks_wait_for_the_answer() -> None:
    async def scenario() -> None:
        heard = Heard()
        heard.listener.hear(pcm((False, 0.5), (True, 1.0)), 16_000)
        assert await heard.listener.read("so happy", 10) is None
        heard.listener.end()
        emotion = await heard.listener.read("", 10)
        assert emotion is not None and emotion.text_used
        await heard.finish()

    run(scenario())


def test_audio_that_piles_up_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "BACKLOG_S", 3.0)
    monkeypatch.setattr("edge_ser.assistants.worker.SHORT_SAMPLES", 0)

    async def scenario() -> None:
        heard = Heard()
        may_go_on = held_back(heard)
        for _ in range(4):
            heard.listener.hear(SPOKEN, 16_000)
        waiting = asyncio.create_task(heard.listener.room())
        await asyncio.sleep(0)
        may_go_on.set()
        await waiting
        summary = await heard.finish()
        assert summary.ledger.dropped_samples == 3 * len(SPOKEN) // 2
        assert [event.dropped_samples for event in heard.events if isinstance(event, Overflow)] == [
            summary.ledger.dropped_samples
        ]

    run(scenario())


def test_what_is_no_audio_ends_the_listening_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        heard = Heard()
        heard.listener.hear(SPOKEN, 16_000, width=1)
        heard.listener.hear(SPOKEN, 16_000)
        assert await heard.listener.read("so happy", 10) is None
        assert "samples of 1 bytes" in str(heard.listener.problem)
        summary = await heard.finish()
        assert summary.ledger.captured_samples == 0

    run(scenario())
    assert "no emotion from here on" in caplog.text


def test_a_model_that_fails_keeps_nobody_waiting() -> None:
    async def scenario() -> None:
        heard = Heard(FakeRecognizer(error=edge_ser.BundleError("the bundle is gone")))
        heard.listener.hear(SPOKEN, 16_000)
        assert await heard.listener.read("so happy", 10) is None
        assert isinstance(heard.listener.problem, edge_ser.BundleError)
        await heard.listener.room()
        await heard.finish()

    run(scenario())


def test_a_model_that_fails_at_the_end_keeps_nobody_from_the_ledger() -> None:
    async def scenario() -> None:
        heard = Heard(FakeRecognizer(error=edge_ser.BundleError("the bundle is gone")))
        heard.listener.hear(pcm((False, 0.5), (True, 1.0)), 16_000)
        summary = await heard.finish()
        assert isinstance(heard.listener.problem, edge_ser.BundleError)
        assert summary.ledger.rejected_samples > 0

    run(scenario())


def test_words_that_the_model_fails_at_keep_nobody_from_the_ledger() -> None:
    async def scenario() -> None:
        recognizer = FakeRecognizer()

        def fail(*values: Any, **named: Any) -> Any:
            raise edge_ser.BundleError("the bundle is gone")

        recognizer.judge_again = fail  # type: ignore[method-assign]
        heard = Heard(recognizer)
        heard.listener.hear(pcm((False, 0.5), (True, 1.0)), 16_000)
        await heard.listener.read("so happy", 10)
        summary = await heard.finish()
        assert summary.ledger.classified_samples > 0

    run(scenario())


def test_a_listener_that_fails_for_an_unknown_reason_says_so_at_the_end() -> None:
    async def scenario() -> None:
        heard = Heard(FakeRecognizer(error=ZeroDivisionError("a fault")))
        heard.listener.hear(SPOKEN, 16_000)
        assert await heard.listener.read("so happy", 10) is None
        with pytest.raises(ZeroDivisionError):
            await heard.finish()

    run(scenario())


def test_what_is_at_hand_is_the_answer_when_patience_ends() -> None:
    async def scenario() -> None:
        may_answer = threading.Event()
        recognizer = FakeRecognizer()
        judge_again = recognizer.judge_again

        def slow(*values: Any, **named: Any) -> Any:
            assert may_answer.wait(10)
            return judge_again(*values, **named)

        recognizer.judge_again = slow  # type: ignore[method-assign]
        heard = Heard(recognizer)
        heard.listener.hear(SPOKEN, 16_000)
        await heard.listener.read("", 10)
        emotion = await heard.listener.read("so happy", 0.01)
        assert emotion is not None and emotion.revision == 0
        may_answer.set()
        await heard.finish()
        assert heard.emotions[-1].revision == 1

    run(scenario())


def answer(utterance: int, end_s: float = 1.0, final: bool = True) -> Emotion:
    return Emotion(
        utterance, 0.0, end_s, "sad", 1.0, {"sad": 1.0}, False, ("sad",), None, "m", 1.0, False, 0, final=final
    )


def test_a_turn_ends_when_somebody_speaks_after_its_words() -> None:
    turn = Turn()
    for number in (1, 2):
        assert turn.hear(SpeechStarted(number, 0.0)) == []
        assert turn.hear(answer(number)) == []
    assert turn.read("both at once", 1.0) == [1, 2]
    assert turn.hear(SpeechStarted(3, 0.0)) == []
    assert turn.emotion is None and turn.transcript == ""
    assert turn.hear(answer(3, final=False)) == []
    assert turn.read("early", 1.0) == []
    assert turn.hear(answer(3)) == [3]
    assert turn.read("words", 1.0) == [3]
    assert turn.transcript == "early words"


def test_words_of_what_nobody_heard_belong_to_nobody() -> None:
    turn = Turn()
    assert turn.read("from the radio", 1.0) == []
    turn.hear(SpeechStarted(1, 0.0))
    turn.hear(Rejected(1, 0.0, 1.0, "too_quiet"))
    assert turn.read("whispered", 1.0) == []
    turn.hear(SpeechStarted(2, 0.0))
    turn.hear(answer(2, end_s=3.0))
    assert turn.read("much later", 20.0) == []
    assert turn.emotion is None


@pytest.mark.parametrize("size", [320, 1600])
@pytest.mark.parametrize("partials", [False, True])
def test_no_utterance_is_judged_where_none_was_expected(
    recognizer: edge_ser.EmotionRecognizer, recording: NDArray[np.int16], size: int, partials: bool
) -> None:
    stream = recognizer.stream(partials=partials)
    expected = unexpected = 0
    for start in range(0, recording.size, size):
        piece = recording[start : start + size]
        may_answer = stream.may_answer(piece.size)
        answered = any(isinstance(event, (Emotion, Rejected)) for event in stream.push(piece))
        expected += may_answer
        unexpected += answered and not may_answer
    assert unexpected == 0
    if not partials:
        assert expected < 0.2 * recording.size / size


def test_the_ledger_is_told_even_if_patience_ends_before_everything_was_heard() -> None:
    async def scenario() -> None:
        heard = Heard()
        may_go_on = held_back(heard)
        for _ in range(3):
            heard.listener.hear(SPOKEN, 16_000)
        asyncio.get_running_loop().call_later(0.2, may_go_on.set)
        await heard.listener.finish(0.05)
        [summary] = [event for event in heard.events if isinstance(event, Summary)]
        assert summary.ledger.balances and summary.ledger.captured_samples == 3 * len(SPOKEN) // 2
        assert summary.ledger.dropped_samples == 2 * len(SPOKEN) // 2
        await heard.listener.finish(0.05)
        assert heard.events[-1] is summary

    run(scenario())


def test_the_ledger_is_told_even_if_somebody_takes_nothing() -> None:
    class Deaf(Heard):
        async def tell(self, event: Event) -> None:
            await super().tell(event)
            await asyncio.Event().wait()

    async def scenario() -> None:
        heard = Deaf()
        heard.listener.hear(SPOKEN, 16_000)
        await heard.listener.finish(0.05)
        assert [type(event) for event in heard.events] == [SpeechStarted, Summary]

    run(scenario())
