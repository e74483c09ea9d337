"""Early answers: on time, the same for any chunking, and without a trace in anything that follows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ser.answering import EARLY_STEP_S
from edge_ser.errors import ConfigError
from edge_ser.events import Emotion, Event, Rejected, SpeechStarted
from edge_ser.segmenter_options import SegmenterOptions
from edge_ser.stream import Stream
from edge_ser.vad import SileroDetector
from tests.edge_ser.fakes import (
    RATE_HZ,
    FakeRecognizer,
    ScriptedDetector,
    scripted_audio,
    voice_like,
    without_latency,
)

SMALL = SegmenterOptions(max_utterance_s=3.0, cut_search_s=0.8)
FRAME_S = 512 / RATE_HZ

scripts = st.lists(st.tuples(st.booleans(), st.floats(0.01, 2.5)), max_size=6)
cuts = st.lists(st.floats(0.0, 1.0), max_size=12)


def new_stream(recognizer: FakeRecognizer | None = None, **settings) -> Stream:
    settings = {"detector": ScriptedDetector(), "options": SMALL, "partials": True, **settings}
    return Stream(recognizer or FakeRecognizer(), **settings)


def whole(stream: Stream, samples: np.ndarray) -> list[Event]:
    return stream.push(samples) + stream.finish()


def emotions(events: list[Event], *, final: bool | None = None) -> list[Emotion]:
    found = [event for event in events if isinstance(event, Emotion)]
    return [event for event in found if final is None or event.final is final]


@given(script=scripts, shares=cuts)
@settings(max_examples=60)
def test_chunk_size_changes_no_early_answer_and_the_ledger_always_balances(script, shares):
    samples = scripted_audio(script)
    stream = new_stream()
    chunked: list[Event] = []
    for chunk in np.split(samples, sorted(int(share * samples.size) for share in shares)):
        chunked += stream.push(chunk)
        assert stream.ledger.balances
    chunked += stream.finish()
    assert stream.ledger.balances
    assert stream.ledger.captured_samples == samples.size
    assert without_latency(chunked) == without_latency(whole(new_stream(), samples))


@given(script=scripts)
@settings(max_examples=60)
def test_without_its_early_answers_a_stream_says_what_it_always_said(script):
    samples = scripted_audio(script)
    early, plain = new_stream(), new_stream(partials=False)
    said = [event for event in whole(early, samples) if not isinstance(event, Emotion) or event.final]
    said = [replace(event, revision=0) if isinstance(event, Emotion) else event for event in said]
    assert without_latency(said) == without_latency(whole(plain, samples))
    assert early.voice == plain.voice


@given(script=scripts)
@settings(max_examples=60)
def test_revisions_count_from_the_first_early_answer_to_the_final_one(script):
    events = whole(new_stream(), scripted_audio(script))
    for number in {event.utterance for event in events if isinstance(event, SpeechStarted)}:
        own = [event for event in events if getattr(event, "utterance", None) == number]
        assert isinstance(own[0], SpeechStarted)
        answers = emotions(own)
        assert [event.revision for event in answers] == list(range(len(answers)))
        assert [event.final for event in answers[:-1]] == [False] * (len(answers) - 1)
        assert {event.start_s for event in answers} <= {own[0].start_s}
        assert isinstance(own[-1], Rejected) or own[-1].final


def test_the_first_comes_after_eight_tenths_of_a_second_of_speech_and_one_every_eight_tenths():
    recognizer = FakeRecognizer()
    stream = new_stream(recognizer, options=SegmenterOptions())
    samples = scripted_audio([(False, 0.512), (True, 0.512), (False, 0.256), (True, 2.048), (False, 1.0)])
    early = emotions(stream.push(samples), final=False)
    # The pause holds no speech: 0.8 s of speech end 0.288 s after it.
    ends_s = [0.512 + 0.256 + EARLY_STEP_S * count for count in (1, 2, 3)]
    assert [event.end_s for event in early] == pytest.approx(ends_s, abs=FRAME_S)
    for event, heard in zip(early, recognizer.heard, strict=False):
        np.testing.assert_array_equal(heard, samples[round(event.start_s * RATE_HZ) : round(event.end_s * RATE_HZ)])


def test_it_comes_while_the_speaker_still_talks():
    stream = new_stream()
    assert [type(event) for event in stream.push(scripted_audio([(True, 0.84)]))] == [SpeechStarted, Emotion]


def test_a_cut_starts_a_new_count():
    events = whole(new_stream(), scripted_audio([(True, 5.0)]))
    finals = emotions(events, final=True)
    assert len(finals) >= 2
    # What follows a cut holds speech already: it gets one answer for all of it, not one for each 0.8 s.
    second = [event for event in emotions(events) if event.utterance == finals[1].utterance]
    assert second[0].revision == 0
    assert len({event.end_s for event in second[:-1]}) == len(second) - 1


def test_what_cannot_be_judged_gets_no_early_answer():
    events = whole(new_stream(FakeRecognizer(rejection="too_quiet")), scripted_audio([(True, 2.0)]))
    assert emotions(events) == []
    assert [event.reason for event in events if isinstance(event, Rejected)] == ["too_quiet"]


@pytest.mark.parametrize("error", [ConfigError("another model's voice"), KeyboardInterrupt()])
def test_an_early_answer_that_fails_loses_no_sample(error):
    recognizer = FakeRecognizer(error=error)
    samples = scripted_audio([(True, 1.5), (False, 1.0), (True, 1.0)])
    stream = new_stream(recognizer)
    with pytest.raises(type(error)):
        stream.push(samples)
    assert stream.ledger.balances
    recognizer.error = None
    *events, summary = stream.finish()
    assert [event.utterance for event in emotions(events, final=True)] == [1, 2]
    assert summary.ledger.balances
    assert summary.ledger.classified_samples > 2.5 * RATE_HZ
    assert summary.ledger.captured_samples == samples.size


@pytest.mark.parametrize("chunk_samples", [97, 16_000])
def test_silero_gives_the_same_early_answers_for_any_chunk_size(chunk_samples):
    pause = np.zeros(RATE_HZ, np.float32)
    samples = np.concatenate([pause, voice_like(3.0), pause])
    stream = new_stream(detector=SileroDetector())
    chunks = np.split(samples, range(chunk_samples, samples.size, chunk_samples))
    events = [event for chunk in chunks for event in stream.push(chunk)] + stream.finish()
    expected = whole(new_stream(detector=SileroDetector()), samples)
    assert without_latency(events) == without_latency(expected)
    assert len(emotions(events, final=False)) >= 2
