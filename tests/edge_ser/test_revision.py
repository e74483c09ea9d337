"""Revisions: the same utterance again, with its words, without its audio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ser.answering import REVISABLE
from edge_ser.backends import open_backend
from edge_ser.bundle import Bundle
from edge_ser.errors import BundleError, ConfigError
from edge_ser.events import Emotion, Rejected
from edge_ser.recognizer import EmotionRecognizer, load
from edge_ser.segmenter_options import SegmenterOptions
from edge_ser.sources import read_samples
from edge_ser.stream import Stream
from edge_ser.testing import write_tiny_bundle
from edge_ser.voice import VoiceProfile
from tests.edge_ser.fakes import RATE_HZ, FakeRecognizer, ScriptedDetector, scripted_audio

PAIR = [(True, 0.8), (False, 0.7)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", attributes=("arousal",))


@pytest.fixture(scope="module")
def recognizer(folder: Path) -> EmotionRecognizer:
    return load(folder, threads=1)


def new_stream(recognizer: EmotionRecognizer | FakeRecognizer, **settings) -> Stream:
    return Stream(recognizer, detector=ScriptedDetector(), **settings)


def audio(utterances: int) -> np.ndarray:
    return scripted_audio(PAIR * utterances)


def finals(stream: Stream, samples: np.ndarray) -> list[Emotion]:
    events = stream.push(samples) + stream.finish()
    return [event for event in events if isinstance(event, Emotion) and event.final]


def span_of(event: Emotion, samples: np.ndarray) -> np.ndarray:
    return samples[round(event.start_s * RATE_HZ) : round(event.end_s * RATE_HZ)]


words = st.sampled_from(["i am happy", "sad", "not so ANGRY today", "", "  "])


@given(transcript=words, partials=st.booleans())
@settings(max_examples=20)
def test_a_revision_is_what_the_model_says_to_sound_words_and_voice_together(recognizer, transcript, partials):
    samples = audio(3)
    stream = new_stream(recognizer, partials=partials)
    events = finals(stream, samples)
    ledger, taught = stream.ledger, stream.voice.as_input(8)
    voice = VoiceProfile()
    for event in events:
        revised = stream.revise(event.utterance, transcript)
        expected = recognizer.judge(span_of(event, samples), transcript=transcript, voice=voice)
        assert revised.probabilities == expected.probabilities
        assert revised.attributes == expected.attributes
        assert (revised.uncertain, revised.candidates) == (expected.uncertain, expected.candidates)
        assert (revised.final, revised.revision) == (True, event.revision + 1)
        assert revised.text_used == bool(transcript.strip()) == expected.text_used
        assert (revised.start_s, revised.end_s) == (event.start_s, event.end_s)
        assert revised.voice_utterances == event.voice_utterances == expected.voice_utterances
    assert stream.ledger == ledger
    assert np.array_equal(stream.voice.as_input(8), taught)


def test_the_bundled_model_says_of_its_frames_what_it_says_of_the_sound(root: Path):
    recognizer = load("mdat-int8", threads=1)
    samples = read_samples(root / "examples" / "conversation.flac")[: 7 * RATE_HZ]
    stream = recognizer.stream()
    events = finals(stream, samples)
    assert len(events) == 2
    voice = VoiceProfile()
    for event in events:
        revised = stream.revise(event.utterance, "I hate this, you are a disgusting idiot!")
        heard = span_of(event, samples)
        said = recognizer.judge(heard, transcript="I hate this, you are a disgusting idiot!", voice=voice)
        assert revised.probabilities == said.probabilities
        assert revised.probabilities["angry"] > event.probabilities["angry"]


def test_each_revision_counts_and_keeps_what_it_is_not_told_anew(recognizer):
    stream = new_stream(recognizer)
    (event,) = finals(stream, audio(1))
    said = stream.revise(1, "i am happy")
    anna = VoiceProfile()
    recognizer.judge(audio(1), voice=anna)
    of_anna = stream.revise(1, voice=anna)
    assert of_anna.text_used and of_anna.voice_utterances == 1
    assert of_anna.probabilities != said.probabilities
    unsaid = stream.revise(1, "")
    assert not unsaid.text_used and unsaid.voice_utterances == 1
    again = stream.revise(1, voice=VoiceProfile())
    assert again.probabilities == event.probabilities
    assert [one.revision for one in (said, of_anna, unsaid, again)] == [1, 2, 3, 4]
    assert anna.utterances == 1


def test_an_utterance_in_windows_is_revised_in_the_same_windows(recognizer):
    options = SegmenterOptions(max_utterance_s=20.0)
    samples = scripted_audio([(True, 17.0), (False, 1.0)])
    stream = new_stream(recognizer, options=options)
    (event,) = finals(stream, samples)
    assert event.end_s - event.start_s > 2 * recognizer.max_duration_s
    revised = stream.revise(1, "i am sad")
    expected = recognizer.judge(span_of(event, samples), transcript="i am sad")
    assert revised.probabilities == expected.probabilities


def test_words_may_come_while_the_next_utterance_is_spoken(recognizer):
    samples = audio(2)
    stream, undisturbed = new_stream(recognizer), new_stream(recognizer)
    half = round(1.9 * RATE_HZ)
    first = [event for event in stream.push(samples[:half]) if isinstance(event, Emotion)]
    assert len(first) == 1
    with pytest.raises(ConfigError, match="utterance 2 is still being spoken"):
        stream.revise(2, "i am sad")
    assert stream.revise(1, "i am sad").text_used
    second = finals(stream, samples[half:])
    expected = finals(undisturbed, samples)
    assert second[0].probabilities == expected[1].probabilities
    assert stream.voice == undisturbed.voice


def test_the_last_thirty_two_can_be_revised():
    stream = new_stream(FakeRecognizer())
    events = finals(stream, audio(REVISABLE + 2))
    assert [event.utterance for event in events] == list(range(1, REVISABLE + 3))
    for number in (1, 2):
        with pytest.raises(ConfigError, match=f"utterance {number} is too long ago; only the last 32 answers"):
            stream.revise(number, "late")
    assert [stream.revise(number, "words").utterance for number in range(3, REVISABLE + 3)] == list(
        range(3, REVISABLE + 3)
    )


@pytest.mark.parametrize("number", [0, -1, 3, 99])
def test_an_utterance_that_was_never_heard_is_said_to_be_none(number):
    stream = new_stream(FakeRecognizer())
    finals(stream, audio(2))
    with pytest.raises(ConfigError, match=f"got utterance {number}; the stream has heard 2 utterances"):
        stream.revise(number, "words")


def test_a_rejected_utterance_cannot_be_revised():
    stream = new_stream(FakeRecognizer())
    events = stream.push(scripted_audio([*PAIR, (True, 0.1), (False, 1.0)])) + stream.finish()
    (rejected,) = [event for event in events if isinstance(event, Rejected)]
    with pytest.raises(ConfigError, match=f"utterance {rejected.utterance} was rejected"):
        stream.revise(rejected.utterance, "words")


def test_an_utterance_that_was_lost_to_an_interrupt_cannot_be_revised():
    recognizer = FakeRecognizer(error=KeyboardInterrupt())
    # Only `finish` finds that the speech must be cut, and that it ends: two utterances at once.
    stream = new_stream(recognizer, options=SegmenterOptions(max_utterance_s=2.0, cut_search_s=0.8))
    stream.push(scripted_audio([(True, 2.01)]))
    with pytest.raises(KeyboardInterrupt):
        stream.finish()
    stream.finish()
    for number in (1, 2):
        with pytest.raises(ConfigError, match=f"utterance {number} was rejected"):
            stream.revise(number, "words")


def test_a_voice_of_another_model_is_refused_and_changes_nothing(recognizer):
    other = VoiceProfile()
    other.update(np.ones(3), "another")
    stream = new_stream(recognizer)
    finals(stream, audio(1))
    with pytest.raises(ConfigError, match="fresh"):
        stream.revise(1, voice=other)
    assert stream.revise(1, "sad").revision == 1


def test_a_model_without_text_gives_its_answer_again(tmp_path: Path):
    stream = new_stream(load(write_tiny_bundle(tmp_path / "deaf", text=False)))
    (event,) = finals(stream, audio(1))
    revised = stream.revise(1, "i am happy")
    assert (revised.probabilities, revised.text_used, revised.revision) == (event.probabilities, False, 1)


@pytest.mark.parametrize("transcript", ["sad " * 1_000_000, "a" * 1_000_000, "\ud800", "\x00", "🙂" * 5000])
def test_any_transcript_is_taken(recognizer, transcript):
    stream = new_stream(recognizer)
    finals(stream, audio(1))
    assert stream.revise(1, transcript).text_used


def test_a_graph_that_has_changed_on_disk_is_not_revised_with(tmp_path: Path):
    folder = write_tiny_bundle(tmp_path / "tiny")
    stream = new_stream(load(folder))
    finals(stream, audio(1))
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\x00")
    with pytest.raises(BundleError, match="has changed since it was opened"):
        stream.revise(1, "sad")


def test_frames_that_do_not_carry_all_that_is_heard_are_refused(folder: Path, tmp_path: Path):
    import onnx

    bundle = Bundle.open(folder)
    model = onnx.load_from_string(bundle.read("model.onnx"))
    # The answer looks past the frames, at what they were made of.
    for node in model.graph.node:
        if node.output[0] == "heard":
            node.input[:] = ["heard_features" if name == "features" else name for name in node.input]
    files = {"model.onnx": model.SerializeToString(), "tokenizer.json": bundle.read("tokenizer.json")}
    leaky = Bundle.write(tmp_path / "leaky", bundle.manifest, files)
    stream = new_stream(EmotionRecognizer(leaky, open_backend(leaky)))
    finals(stream, audio(1))
    with pytest.raises(BundleError, match="'logits' cannot be had from 'frames' alone"):
        stream.revise(1, "sad")
