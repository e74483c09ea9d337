"""Events and their published schema are the same thing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jsonschema
import pytest

import edge_ser.events
from edge_ser.events import DeviceLost, DeviceRestored, Emotion, Overflow, Rejected, SpeechStarted, Summary
from edge_ser.ledger import AudioLedger
from edge_ser.stream import Stream
from tests.edge_ser.fakes import FakeRecognizer, ScriptedDetector, scripted_audio

SCHEMA = json.loads(Path(edge_ser.events.__file__).with_name("events.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
LEDGER = AudioLedger(
    captured_samples=10, classified_samples=4, silence_samples=3, rejected_samples=2, dropped_samples=1
)
EMOTION = Emotion(
    utterance=1,
    start_s=0.5,
    end_s=2.0,
    emotion="happy",
    confidence=0.75,
    probabilities={"happy": 0.75, "sad": 0.25},
    uncertain=True,
    candidates=("happy", "sad"),
    attributes=None,
    model="mdat-int8",
    latency_ms=3.5,
    text_used=False,
    voice_utterances=2,
)
EVENTS = {
    "speech_started": SpeechStarted(1, 0.5),
    "emotion": EMOTION,
    "rejected": Rejected(2, 2.5, 2.75, "too_short"),
    "overflow": Overflow(3.0, 320),
    "device_lost": DeviceLost(4.0, "usb"),
    "device_restored": DeviceRestored(4.0, "usb", 1.25),
    "summary": Summary("mdat-int8", 2, 4.0, LEDGER),
}


def test_the_schema_is_a_schema_and_names_every_event():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert [entry["$ref"] for entry in SCHEMA["oneOf"]] == [f"#/$defs/{name}" for name in EVENTS]
    assert set(SCHEMA["$defs"]) == {*EVENTS, "ledger"}


@pytest.mark.parametrize("name", EVENTS)
def test_schema_and_dataclass_have_the_same_fields(name):
    definition = SCHEMA["$defs"][name]
    fields = [field.name for field in dataclasses.fields(EVENTS[name])]
    assert list(definition["properties"]) == ["type", *fields]
    assert definition["required"] == ["type", *fields]
    assert definition["additionalProperties"] is False


def test_schema_and_ledger_have_the_same_fields():
    definition = SCHEMA["$defs"]["ledger"]
    assert list(definition["properties"]) == [field.name for field in dataclasses.fields(AudioLedger)]
    assert definition["required"] == list(definition["properties"])
    assert definition["additionalProperties"] is False


@pytest.mark.parametrize("name", SCHEMA["$defs"])
def test_every_field_says_what_it_is_and_in_which_unit(name):
    units = ("Seconds", "Milliseconds", "Samples", "samples at 16 kHz", "[0, 1]", "(no unit)", "(a count)")
    for field, described in SCHEMA["$defs"][name]["properties"].items():
        assert any(unit in described["description"] for unit in (*units, "from 1")), field


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_validates_and_survives_json(name):
    line = EVENTS[name].to_json()
    assert "\n" not in line
    plain = json.loads(line)
    VALIDATOR.validate(plain)
    assert plain == EVENTS[name].to_dict()
    assert next(iter(plain)) == "type"
    assert plain["type"] == name


@pytest.mark.parametrize("name", EVENTS)
def test_the_schema_refuses_a_missing_and_an_unknown_field(name):
    plain = json.loads(EVENTS[name].to_json())
    for field in plain:
        assert not VALIDATOR.is_valid({key: value for key, value in plain.items() if key != field}), field
    assert not VALIDATOR.is_valid({**plain, "more": 1})


@pytest.mark.parametrize(
    "wrong",
    [
        {"confidence": 1.5},
        {"probabilities": {}},
        {"probabilities": {"happy": -0.1}},
        {"candidates": []},
        {"utterance": 0},
        {"latency_ms": -1},
        {"attributes": {"arousal": 2.0}},
        {"emotion": None},
    ],
)
def test_the_schema_refuses_values_out_of_range(wrong):
    assert not VALIDATOR.is_valid({**EMOTION.to_dict(), **wrong})


def test_attributes_may_be_there():
    VALIDATOR.validate(dataclasses.replace(EMOTION, attributes={"arousal": 0.5}).to_dict())


def test_nan_is_never_written():
    with pytest.raises(ValueError, match="JSON"):
        dataclasses.replace(EMOTION, confidence=float("nan")).to_json()


def test_what_a_stream_emits_validates():
    audio = scripted_audio([(True, 1.0), (False, 1.0), (True, 0.1), (False, 1.0)])
    source = [audio, DeviceLost(0.0, "usb"), DeviceRestored(0.0, "usb", 1.0), Overflow(0.0, 5)]
    events = list(Stream(FakeRecognizer(), detector=ScriptedDetector()).listen(source))
    assert {event.to_dict()["type"] for event in events} == set(EVENTS)
    for event in events:
        VALIDATOR.validate(json.loads(event.to_json()))
