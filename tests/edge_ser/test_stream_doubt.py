"""What a stream makes of sound that its detector or its model is not sure of."""

from __future__ import annotations

import pytest

from edge_ser.events import Emotion, Rejected
from edge_ser.quality import Speech
from edge_ser.segmenter_options import SegmenterOptions
from edge_ser.vad import SileroDetector, WebRtcDetector, is_graded
from tests.edge_ser.fakes import RATE_HZ, FakeRecognizer, ScriptedDetector, new_stream, of_type, scripted_audio, whole


class DoubtfulDetector(ScriptedDetector):
    """Is never sure."""

    def __call__(self, frame):
        return min(super().__call__(frame), 0.7)


@pytest.mark.parametrize("partials", [False, True])
def test_what_neither_detector_nor_model_is_sure_of_is_not_speech(partials):
    stream = new_stream(FakeRecognizer(uncertain=True), detector=DoubtfulDetector(), partials=partials)
    events = whole(stream, scripted_audio([(False, 1.0), (True, 1.5), (False, 2.0), (True, 3.0), (False, 1.0)]))
    rejected = of_type(events, Rejected)
    assert len(rejected) >= 3 and {event.reason for event in rejected} == {"not_speech"}
    assert of_type(events, Emotion) == []
    assert stream.ledger.rejected_samples == sum(round((one.end_s - one.start_s) * RATE_HZ) for one in rejected)
    assert stream.voice.utterances == 0


@pytest.mark.parametrize(
    ("recognizer", "detector"),
    [
        (FakeRecognizer(uncertain=True), ScriptedDetector()),
        (FakeRecognizer(uncertain=False), DoubtfulDetector()),
    ],
)
def test_the_doubt_of_one_of_them_loses_no_word(recognizer, detector):
    events = whole(new_stream(recognizer, detector=detector), scripted_audio([(True, 1.0), (False, 1.0)]))
    assert len(of_type(events, Emotion)) == 1


@pytest.mark.parametrize("surest", [0.93, 0.97])
def test_an_answer_is_certain_only_where_the_detector_is_sure_too(surest):
    class SurerDetector(ScriptedDetector):
        def __call__(self, frame):
            return min(super().__call__(frame), surest)

    sure = FakeRecognizer(uncertain=False)
    stream = new_stream(sure, detector=SurerDetector(), options=SegmenterOptions(), partials=True)
    events = stream.push(scripted_audio([(True, 2.0), (False, 1.0)]))
    answers = [*of_type(events, Emotion), stream.revise(1, transcript="really")]
    assert len(answers) >= 3
    assert {answer.uncertain for answer in answers} == {surest < 0.95}
    assert all(answer.emotion in answer.candidates for answer in answers)


@pytest.mark.parametrize("speech", list(Speech))
def test_where_a_detector_only_votes_another_is_asked_before_an_answer_is_certain(speech, monkeypatch):
    monkeypatch.setattr("edge_ser.stream.is_graded", lambda detector: False)
    monkeypatch.setattr("edge_ser.answering.speech_in", lambda samples: speech)
    events = whole(new_stream(FakeRecognizer(uncertain=False)), scripted_audio([(True, 1.0), (False, 1.0)]))
    assert [event.uncertain for event in of_type(events, Emotion)] == [speech is not Speech.CLEAR]


def test_only_votes_are_not_graded():
    assert is_graded(SileroDetector()) and is_graded(ScriptedDetector()) and not is_graded(WebRtcDetector())
