"""Two runs side by side: what counts as the same."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

EMOTION = {
    "type": "emotion",
    "utterance": 1,
    "start_s": 0.3,
    "end_s": 3.0,
    "emotion": "sad",
    "confidence": 0.7,
    "probabilities": {"angry": 0.1, "sad": 0.7, "happy": 0.2},
    "uncertain": False,
    "candidates": ["sad"],
    "attributes": None,
    "latency_ms": 4.0,
    "final": True,
}
EVENTS = [{"type": "speech_started", "utterance": 1, "start_s": 0.3}, EMOTION, {"type": "summary", "utterances": 1}]


def compared(jetson: Path, change: Any, tolerance: float = 1e-3) -> Any:
    from event_comparison import compare, read_events

    other = copy.deepcopy(EVENTS)
    change(other)
    return compare(read_events("\n".join(map(json.dumps, EVENTS))), other, tolerance)


def test_equal_runs_are_the_same_however_long_they_took(jetson: Path) -> None:
    comparison = compared(jetson, lambda events: events[1].update(latency_ms=900.0))
    assert comparison.is_same
    assert comparison.utterances == 1
    assert comparison.largest_difference == 0
    assert "0.30-3.00 s" in comparison.table("here", "there")


@pytest.mark.parametrize(("shift", "same"), [(5e-4, True), (2e-3, False)])
def test_scores_may_differ_by_the_tolerance(jetson: Path, shift: float, same: bool) -> None:
    comparison = compared(jetson, lambda events: events[1]["probabilities"].update(sad=0.7 + shift))
    assert comparison.is_same is same
    assert comparison.largest_difference == pytest.approx(shift)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda events: events[1].update(end_s=3.02), "end_s is 3.0 and 3.02"),
        (lambda events: events[1].update(emotion="angry"), "emotion is sad and angry"),
        (lambda events: events[1].update(attributes={"arousal": 0.5}), "scores of"),
        (lambda events: events.pop(), "summary and nothing"),
        (lambda events: events.insert(1, {"type": "rejected"}), "emotion and rejected"),
    ],
)
def test_anything_else_that_differs_is_told(jetson: Path, change: Any, said: str) -> None:
    comparison = compared(jetson, change)
    assert not comparison.is_same
    assert any(said in line for line in comparison.differences)


def test_two_runs_in_which_nothing_was_heard_show_nothing(jetson: Path) -> None:
    from event_comparison import compare

    assert not compare([], [], 1e-3).is_same
