"""What breaks while a stream runs: a model, a device, a source, the caller. No sample is lost unaccounted."""

from __future__ import annotations

import pytest

from edge_ser.errors import AudioDeviceError, ConfigError
from edge_ser.events import DeviceLost, DeviceRestored, Emotion, Event, Overflow, SpeechStarted, Summary
from tests.edge_ser.fakes import FakeRecognizer, ScriptedDetector, new_stream, of_type, scripted_audio


def test_a_model_that_fails_loses_no_sample():
    samples = scripted_audio([(True, 1.0), (False, 1.0)])
    stream = new_stream(FakeRecognizer(error=ConfigError("another model's voice")))
    with pytest.raises(ConfigError, match="another model's voice"):
        stream.push(samples)
    *_, summary = stream.finish()
    assert summary.ledger.balances
    assert summary.ledger.captured_samples == samples.size
    assert summary.ledger.rejected_samples > 0


@pytest.mark.parametrize("error", [ConfigError("another model's voice"), KeyboardInterrupt()])
def test_a_model_that_fails_on_the_first_of_several_utterances_loses_no_sample(error):
    recognizer = FakeRecognizer(error=error)
    # Speech until the last frame, which is not full: only `finish` finds that it must be cut, and that it ends.
    samples = scripted_audio([(True, 2.01)])
    stream = new_stream(recognizer)
    stream.push(samples)
    assert recognizer.heard == []
    with pytest.raises(type(error)):
        stream.finish()
    assert len(recognizer.heard) == 1
    assert stream.ledger.balances
    (summary,) = stream.finish()
    assert summary.ledger.balances
    assert summary.utterances == 2
    assert summary.ledger.captured_samples == summary.ledger.rejected_samples == samples.size


def test_an_interrupt_while_the_model_judges_loses_no_sample():
    samples = scripted_audio([(True, 1.0), (False, 1.0)])
    stream = new_stream(FakeRecognizer(error=KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        stream.push(samples)
    assert stream.ledger.balances
    *_, summary = stream.finish()
    assert summary.ledger.balances
    assert summary.ledger.rejected_samples > 0


def test_an_overflow_closes_the_utterance_and_moves_the_clock():
    stream = new_stream()
    events = stream.push(scripted_audio([(True, 1.0)]))
    events += stream.record_overflow(8000, estimated_s=0.25)
    events += stream.push(scripted_audio([(True, 1.0)])) + stream.finish()
    kinds = [type(event) for event in events]
    assert kinds == [SpeechStarted, Emotion, Overflow, SpeechStarted, Emotion, Summary]
    assert (events[1].end_s, events[2]) == (1.0, Overflow(1.0, 8000, 0.25))
    assert (events[3].start_s, events[4].end_s, events[5].duration_s) == (1.5, 2.5, 2.5)
    ledger = events[5].ledger
    assert (ledger.dropped_samples, ledger.captured_samples, ledger.overflow_estimated_s) == (8000, 40_000, 0.25)
    assert ledger.balances


@pytest.mark.parametrize("loss", [{"dropped_samples": -1}, {"dropped_samples": 0, "estimated_s": -0.1}])
def test_a_negative_loss_is_refused(loss):
    with pytest.raises(ConfigError, match="0 or more"):
        new_stream().record_overflow(**loss)


def test_listen_records_what_happens_to_the_device():
    speech = scripted_audio([(True, 1.0)])
    source = [
        speech,
        DeviceLost(99.0, "usb"),
        DeviceRestored(99.0, "usb", 1.5),
        speech,
        Overflow(99.0, 160, 0.5),
        speech[:0],
    ]
    events = list(new_stream().listen(source))
    assert [event.to_dict()["type"] for event in events] == [
        *("speech_started", "emotion", "device_lost", "device_restored"),
        *("speech_started", "emotion", "overflow", "summary"),
    ]
    assert events[2:4] == [DeviceLost(1.0, "usb"), DeviceRestored(1.0, "usb", 1.5)]
    assert events[6] == Overflow(2.0, 160, 0.5)
    ledger = events[7].ledger
    assert (ledger.device_gap_s, ledger.dropped_samples, ledger.overflow_estimated_s) == (1.5, 160, 0.5)
    assert events[7].ledger.balances


def test_a_source_that_fails_still_gets_its_summary():
    def source():
        yield scripted_audio([(True, 1.0)])
        raise AudioDeviceError("unplugged")

    events: list[Event] = []
    with pytest.raises(AudioDeviceError, match="unplugged"):
        for event in new_stream().listen(source()):
            events.append(event)
    assert [type(event) for event in events] == [SpeechStarted, Emotion, Summary]


def test_the_caller_finishes_after_an_interrupt():
    def source():
        yield scripted_audio([(True, 1.0)])
        raise KeyboardInterrupt

    stream = new_stream()
    with pytest.raises(KeyboardInterrupt):
        list(stream.listen(source()))
    assert [type(event) for event in stream.finish()] == [Emotion, Summary]


class InterruptedDetector(ScriptedDetector):
    """Ctrl-C arrives while it works on the 51st frame."""

    def __call__(self, frame):
        probability = super().__call__(frame)
        if self.frames == 51:
            raise KeyboardInterrupt
        return probability


def test_an_interrupted_push_loses_nothing():
    samples = scripted_audio([(False, 1.0), (True, 1.0), (False, 2.0), (True, 1.0)])
    stream = new_stream(detector=InterruptedDetector())
    with pytest.raises(KeyboardInterrupt):
        stream.push(samples)
    assert stream.ledger.balances
    *events, summary = stream.finish()
    assert len(of_type(events, Emotion)) == 2
    assert summary.ledger.balances
    assert summary.ledger.captured_samples == samples.size
