"""The examples run as they are, and say what the runtime says."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import soundfile

import edge_ser


@pytest.fixture(scope="module")
def alone(root: Path) -> list[dict[str, Any]]:
    """What a stream says to the example recording when it gets all of it at once."""
    samples, _ = soundfile.read(root / "examples" / "conversation.flac", dtype="float32")
    stream = edge_ser.load().stream()
    return [event.to_dict() for event in stream.push(samples) + stream.finish()]


def output(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    return capsys.readouterr().out.splitlines()


def without_latency(event: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key != "latency_ms"}


def test_a_loop_of_ones_own(
    root: Path, alone: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [json.loads(line) for line in output(root / "examples" / "own_loop.py", capsys, monkeypatch)]
    schema = json.loads((root / "edge_ser" / "events.schema.json").read_text(encoding="utf-8"))
    for event in events:
        jsonschema.validate(event, schema)
    *heard, second, third = events
    assert [without_latency(event) for event in heard] == [without_latency(event) for event in alone]
    assert [(event["utterance"], event["revision"], event["text_used"]) for event in (second, third)] == [
        (2, 1, True),
        (3, 1, True),
    ]


def test_asyncio(
    root: Path, alone: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = output(root / "examples" / "asyncio_loop.py", capsys, monkeypatch)
    answers = [
        f"{event['start_s']:.1f} s: {' or '.join(event['candidates'])}{' (uncertain)' if event['uncertain'] else ''}"
        for event in alone
        if event["type"] == "emotion"
    ]
    for speaker in ("speaker 1, ", "speaker 2, "):
        assert [line.removeprefix(speaker) for line in lines if line.startswith(speaker)] == answers


def test_an_assistant_that_changes_its_tone(
    root: Path, alone: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = root / "examples" / "changing_tone.py"
    example = runpy.run_path(str(path))
    assistant = example["Assistant"]()
    tones = [
        assistant.hear(emotion(label, uncertain), "hello")
        for label, uncertain in (("sad", True), ("angry", False), ("happy", True), ("neutral", False))
    ]
    calm, plain = (f"[{example['TONES'][label]}] User: hello" for label in ("angry", "neutral"))
    assert tones == [plain, calm, calm, plain]
    turns = output(path, capsys, monkeypatch)
    assert [turn.partition("User: ")[2] for turn in turns] == list(example["WORDS"])
    assert len(turns) == alone[-1]["utterances"]


def emotion(label: str, uncertain: bool) -> edge_ser.Emotion:
    return edge_ser.Emotion(
        utterance=1,
        start_s=0.0,
        end_s=1.0,
        emotion=label,
        confidence=0.9,
        probabilities={label: 1.0},
        uncertain=uncertain,
        candidates=(label,),
        attributes=None,
        model="none",
        latency_ms=0.0,
        text_used=False,
        voice_utterances=0,
    )


def test_readme_names_every_example(root: Path) -> None:
    readme = (root / "README.md").read_text(encoding="utf-8")
    for path in sorted((root / "examples").glob("*.py")):
        assert f"examples/{path.name}" in readme, path.name
