"""Two runs of `edge-ser listen --format jsonl` over the same audio, side by side."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

Event = dict[str, Any]

_SCORES = ("confidence", "probabilities", "attributes")
_NOT_COMPARED = ("latency_ms",)


@dataclass
class Comparison:
    """What differs between two runs."""

    tolerance: float
    """Largest difference of a score, between 0 and 1, that is none."""
    utterances: int = 0
    """Utterances with an answer in both runs."""
    largest_difference: float = 0.0
    """Largest difference of a score."""
    differences: list[str] = field(default_factory=list)
    """What is not the same, a line each."""
    rows: list[tuple[str, str, str, float]] = field(default_factory=list)
    """For each utterance: its span, both answers, the largest difference of its scores."""

    @property
    def is_same(self) -> bool:
        """True if nothing differs and something was heard."""
        return not self.differences and self.utterances > 0

    def table(self, first: str, second: str) -> str:
        """Return the comparison as lines for people; the arguments name the runs."""
        lines = [f"{'utterance':<16}{first:<18}{second:<18}largest difference"]
        lines += [f"{span:<16}{one:<18}{other:<18}{difference:.6f}" for span, one, other, difference in self.rows]
        if not self.utterances:
            lines.append("no utterance was heard")
        return "\n".join(lines + self.differences)


def read_events(text: str) -> list[Event]:
    """Return the events of JSON lines."""
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def compare(first: list[Event], second: list[Event], tolerance: float) -> Comparison:
    """Return what differs: events, times and decisions must be equal, scores within the tolerance."""
    comparison = Comparison(tolerance)
    for number, (one, other) in enumerate(zip_longest(first, second, fillvalue={}), start=1):
        if one.get("type") != other.get("type"):
            comparison.differences.append(
                f"event {number}: {one.get('type', 'nothing')} and {other.get('type', 'nothing')}"
            )
            break
        _compare_event(comparison, number, one, other)
    return comparison


def _compare_event(comparison: Comparison, number: int, one: Event, other: Event) -> None:
    for key in sorted((one.keys() | other.keys()) - {*_SCORES, *_NOT_COMPARED}):
        if one.get(key) != other.get(key):
            comparison.differences.append(f"event {number}: {key} is {one.get(key)} and {other.get(key)}")
    if one["type"] != "emotion":
        return
    mine, yours = _scores(one), _scores(other)
    if mine.keys() != yours.keys():
        comparison.differences.append(f"event {number}: scores of {sorted(mine)} and {sorted(yours)}")
        return
    difference = max(abs(mine[name] - yours[name]) for name in mine)
    if difference > comparison.tolerance:
        comparison.differences.append(f"event {number}: scores differ by {difference:.6f}")
    comparison.utterances += bool(one.get("final", True))
    comparison.largest_difference = max(comparison.largest_difference, difference)
    span = f"{one['start_s']:.2f}-{one['end_s']:.2f} s"
    comparison.rows.append((span, _answer(one), _answer(other), difference))


def _scores(event: Event) -> dict[str, float]:
    found: dict[str, float] = {}
    for key in _SCORES:
        value = event.get(key)
        if isinstance(value, dict):
            found |= {f"{key}.{name}": float(score) for name, score in value.items()}
        elif value is not None:
            found[key] = float(value)
    return found


def _answer(event: Event) -> str:
    return f"{'? ' if event['uncertain'] else ''}{event['emotion']} {event['confidence']:.4f}"
