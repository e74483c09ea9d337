"""A stream gives the same events for any chunking, and accounts for every sample."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ser.errors import AudioFormatError, ConfigError
from edge_ser.events import Emotion, Rejected, SpeechStarted, Summary
from edge_ser.vad import SileroDetector
from edge_ser.voice import VoiceProfile
from tests.edge_ser.fakes import (
    RATE_HZ,
    SMALL,
    FakeRecognizer,
    ScriptedDetector,
    new_stream,
    of_type,
    scripted_audio,
    voice_like,
    whole,
    without_latency,
)

scripts = st.lists(st.tuples(st.booleans(), st.floats(0.01, 1.5)), max_size=7)
cuts = st.lists(st.floats(0.0, 1.0), max_size=12)


def chunks_of(samples: np.ndarray, shares: list[float]) -> list[np.ndarray]:
    return np.split(samples, sorted(int(share * samples.size) for share in shares))


@given(script=scripts, shares=cuts)
@settings(max_examples=60, deadline=None)
def test_chunk_size_never_changes_an_event(script, shares):
    samples = scripted_audio(script)
    stream = new_stream()
    chunked = [event for chunk in chunks_of(samples, shares) for event in stream.push(chunk)] + stream.finish()
    assert without_latency(chunked) == without_latency(whole(new_stream(), samples))


@given(script=scripts, shares=cuts, dropped=st.integers(0, 5000))
@settings(max_examples=60, deadline=None)
def test_ledger_balances_at_any_moment_and_holds_every_sample_at_the_end(script, shares, dropped):
    samples = scripted_audio(script)
    stream = new_stream()
    pushed = 0
    for chunk in chunks_of(samples, shares):
        stream.push(chunk)
        pushed += chunk.size
        assert stream.ledger.balances
        assert stream.ledger.captured_samples <= pushed
    stream.record_overflow(dropped)
    assert stream.ledger.balances
    *_, summary = stream.finish()
    assert summary.ledger == stream.ledger
    assert summary.ledger.balances
    assert summary.ledger.captured_samples == samples.size + dropped
    assert summary.duration_s == (samples.size + dropped) / RATE_HZ


@given(script=scripts)
@settings(max_examples=60, deadline=None)
def test_the_ledger_is_the_sum_of_the_events_and_the_model_heard_their_samples(script):
    samples = scripted_audio(script)
    recognizer = FakeRecognizer()
    *events, summary = whole(new_stream(recognizer), samples)
    classified = of_type(events, Emotion)
    spans = [slice(round(event.start_s * RATE_HZ), round(event.end_s * RATE_HZ)) for event in classified]
    for span, heard in zip(spans, recognizer.heard, strict=True):
        np.testing.assert_array_equal(heard, samples[span])
    assert summary.ledger.classified_samples == sum(heard.size for heard in recognizer.heard)
    rejected_s = sum(event.end_s - event.start_s for event in of_type(events, Rejected))
    assert summary.ledger.rejected_samples == round(rejected_s * RATE_HZ)
    assert summary.utterances == len(of_type(events, Emotion, Rejected))


@given(script=scripts)
@settings(max_examples=60, deadline=None)
def test_utterances_are_numbered_and_each_is_opened_once_and_answered_once(script):
    events = whole(new_stream(), scripted_audio(script))
    spoken = of_type(events, SpeechStarted, Emotion, Rejected)
    assert [event.utterance for event in spoken] == [1 + index // 2 for index in range(len(spoken))]
    for started, answer in zip(spoken[::2], spoken[1::2], strict=True):
        assert isinstance(started, SpeechStarted)
        assert isinstance(answer, Emotion | Rejected)
        assert started.start_s == answer.start_s
    assert [isinstance(event, Summary) for event in events].index(True) == len(events) - 1


@pytest.mark.parametrize("seconds", [0.0, 0.001, 5.0])
def test_silence_gives_a_summary_only(seconds):
    events = whole(new_stream(), scripted_audio([(False, seconds)]))
    (summary,) = events
    assert summary.ledger.silence_samples == round(seconds * RATE_HZ)


def test_speech_is_announced_while_it_lasts():
    stream = new_stream()
    assert stream.push(scripted_audio([(False, 1.0), (True, 0.1)])) == [
        SpeechStarted(1, 15872 / RATE_HZ - SMALL.pre_roll_s)
    ]


def test_long_speech_loses_nothing():
    samples = scripted_audio([(True, 7.3)])
    recognizer = FakeRecognizer()
    events = whole(new_stream(recognizer), samples)
    assert len(of_type(events, Emotion)) >= 4
    np.testing.assert_array_equal(np.concatenate(recognizer.heard), samples)


@given(longest_s=st.floats(0.2, 10.0))
@settings(max_examples=60, deadline=None)
def test_a_model_for_short_utterances_streams_too(longest_s):
    recognizer = FakeRecognizer(max_duration_s=longest_s)
    samples = scripted_audio([(False, 0.5), (True, 3.0), (False, 1.0)])
    stream = new_stream(recognizer, options=None)
    *_, summary = whole(stream, samples)
    assert max(heard.size for heard in recognizer.heard) <= round(longest_s * RATE_HZ)
    assert summary.ledger.balances
    assert summary.ledger.rejected_samples == 0
    assert summary.ledger.classified_samples >= 3.0 * RATE_HZ


def test_a_model_for_no_utterance_at_all_says_what_a_stream_needs():
    with pytest.raises(ConfigError, match=r"takes 0.1 s at most, a stream needs 0.2 s"):
        new_stream(FakeRecognizer(max_duration_s=0.1), options=None)


def test_utterances_are_no_longer_than_the_model_takes():
    recognizer = FakeRecognizer(max_duration_s=4.0)
    whole(new_stream(recognizer, options=None), scripted_audio([(True, 9.0)]))
    assert max(heard.size for heard in recognizer.heard) <= 4.0 * RATE_HZ


def test_int16_and_float_give_the_same_events():
    samples = (scripted_audio([(False, 0.5), (True, 1.0), (False, 1.0)]) * 32767).astype(np.int16)
    as_float = samples.astype(np.float64) / 32768
    assert without_latency(whole(new_stream(), samples)) == without_latency(whole(new_stream(), as_float))


def test_the_stream_keeps_no_view_of_a_chunk():
    chunk = scripted_audio([(True, 1.0)])
    recognizer = FakeRecognizer()
    stream = new_stream(recognizer)
    stream.push(chunk)
    heard = chunk.copy()
    chunk[:] = 0
    stream.finish()
    np.testing.assert_array_equal(recognizer.heard[0], heard)


def test_a_long_chunk_is_not_kept():
    stream = new_stream()
    silence = np.zeros(60 * RATE_HZ + 100, np.float32)
    tracemalloc.start()
    stream.push(silence)
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held_bytes < silence.nbytes / 10


def test_too_little_speech_is_rejected_without_asking_the_model():
    recognizer = FakeRecognizer()
    events = whole(new_stream(recognizer), scripted_audio([(False, 1.0), (True, 0.1), (False, 1.0)]))
    (rejected,) = of_type(events, Rejected)
    assert rejected.reason == "too_short"
    assert recognizer.heard == []


def test_what_the_model_rejects_is_rejected():
    stream = new_stream(FakeRecognizer(rejection="clipped"))
    events = whole(stream, scripted_audio([(False, 1.0), (True, 1.0), (False, 1.0)]))
    (rejected,) = of_type(events, Rejected)
    assert rejected.reason == "clipped"
    assert stream.ledger.rejected_samples == round((rejected.end_s - rejected.start_s) * RATE_HZ)
    assert stream.ledger.classified_samples == 0
    assert stream.voice.utterances == 0


def test_the_voice_is_learnt_and_used():
    voice = VoiceProfile()
    stream = new_stream(voice=voice)
    events = whole(stream, scripted_audio([(True, 1.0), (False, 1.0)] * 3))
    assert [event.voice_utterances for event in of_type(events, Emotion)] == [0, 1, 2]
    assert stream.voice is voice
    assert voice.utterances == 3


def test_a_stream_without_a_voice_starts_a_fresh_one():
    first, second = new_stream(), new_stream()
    assert first.voice.utterances == 0
    assert first.voice is not second.voice


def test_the_voice_in_force_when_an_utterance_ends_is_used_and_learns():
    anna, ben = VoiceProfile(), VoiceProfile()
    stream = new_stream(voice=anna)
    events = stream.push(scripted_audio([(True, 1.0), (False, 1.0), (True, 0.5)]))
    stream.voice = ben  # in the middle of the second utterance
    events += stream.push(scripted_audio([(True, 0.5), (False, 1.0), (True, 1.0), (False, 1.0)]))
    stream.voice = anna
    events += stream.push(scripted_audio([(True, 1.0)])) + stream.finish()
    assert [event.voice_utterances for event in of_type(events, Emotion)] == [0, 0, 1, 1]
    assert (anna.utterances, ben.utterances) == (2, 2)


def test_a_voice_of_another_model_is_refused_at_once_and_changes_nothing():
    other = VoiceProfile()
    other.update(np.ones(3), "another")
    with pytest.raises(ConfigError, match="fresh"):
        new_stream(voice=other)
    stream = new_stream()
    voice = stream.voice
    with pytest.raises(ConfigError, match="fresh"):
        stream.voice = other
    assert stream.voice is voice


def test_the_risk_reaches_the_model():
    recognizer = FakeRecognizer()
    whole(new_stream(recognizer, risk=0.05), scripted_audio([(True, 1.0)]))
    assert recognizer.risks == [0.05]


@pytest.mark.parametrize(
    "wrong",
    [
        np.array([0.0, np.nan], np.float32),
        np.array([np.inf], np.float32),
        np.zeros((2, 2), np.float32),
        np.zeros(4, np.int32),
        np.array(["a"]),
    ],
)
def test_unusable_audio_is_refused_and_changes_nothing(wrong):
    samples = scripted_audio([(False, 0.5), (True, 1.01), (False, 0.2)])
    stream = new_stream()
    events = stream.push(samples[:9000])
    before = stream.ledger
    with pytest.raises(AudioFormatError):
        stream.push(wrong)
    assert stream.ledger == before
    events += stream.push(samples[9000:]) + stream.finish()
    assert without_latency(events) == without_latency(whole(new_stream(), samples))


def test_a_finished_stream_takes_nothing_and_says_nothing():
    stream = new_stream()
    stream.finish()
    with pytest.raises(ConfigError, match="finished"):
        stream.push(np.zeros(10, np.float32))
    with pytest.raises(ConfigError, match="finished"):
        stream.record_overflow(1)
    assert stream.finish() == []


def test_the_detector_is_reset_where_speech_ends_and_not_where_it_is_cut():
    detector = ScriptedDetector()
    stream = new_stream(detector=detector)
    stream.push(scripted_audio([(True, 5.0)]))
    assert detector.resets == 0
    stream.push(scripted_audio([(False, 1.0)]))
    assert detector.resets == 1


def test_listen_gives_what_push_and_finish_give():
    samples = scripted_audio([(False, 0.4), (True, 1.0), (False, 1.0), (True, 0.8)])
    listened = list(new_stream().listen(iter(np.split(samples, 10))))
    assert without_latency(listened) == without_latency(whole(new_stream(), samples))


@pytest.fixture(scope="module")
def conversation() -> np.ndarray:
    rng = np.random.default_rng(0)
    pause = 0.0005 * rng.standard_normal(RATE_HZ).astype(np.float32)
    return np.concatenate([pause, voice_like(1.5), pause, pause, voice_like(2.0, -60.0, seed=1), pause, pause[:333]])


@pytest.mark.parametrize("chunk_samples", [37, 512, 16_000])
def test_silero_gives_the_same_events_for_any_chunk_size(conversation, chunk_samples):
    stream = new_stream(detector=SileroDetector())
    chunks = np.split(conversation, range(chunk_samples, conversation.size, chunk_samples))
    events = [event for chunk in chunks for event in stream.push(chunk)] + stream.finish()
    expected = whole(new_stream(detector=SileroDetector()), conversation)
    assert without_latency(events) == without_latency(expected)
    assert len(of_type(events, Emotion)) >= 1


@pytest.mark.parametrize("level", [0.0, 1e-4, 1e-3, 0.03, 0.3])
def test_silence_and_noise_give_no_emotion(level):
    noise = (level * np.random.default_rng(5).standard_normal(10 * RATE_HZ)).clip(-1, 1)
    events = whole(new_stream(detector=SileroDetector(), options=None), noise)
    assert of_type(events, Emotion) == []
