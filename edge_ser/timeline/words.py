"""What a timeline says in words."""

from __future__ import annotations

from collections import Counter

from edge_ser.events import Emotion, Rejected
from edge_ser.timeline import Timeline
from edge_ser.timeline.layout import clock


def printable(text: str) -> str:
    """Return a text without control codes and broken letters, which no picture can hold."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def headline(timeline: Timeline) -> tuple[str, str]:
    """Return the title of a timeline and, in a line, what was heard."""
    return printable(timeline.name), f"{clock(timeline.duration_s)}, {counts(timeline)}, model {timeline.model}"


def counts(timeline: Timeline) -> str:
    """Return how many utterances there are, and of what kind: `5 utterances (2 happy, 1 sad, 2 uncertain)`."""
    if not timeline.results:
        return "no speech found"
    judged = [result for result in timeline.results if isinstance(result, Emotion)]
    certain = Counter(printable(result.emotion) for result in judged if not result.uncertain)
    parts = [f"{count} {name}" for name, count in certain.most_common()]
    uncertain = sum(result.uncertain for result in judged)
    rejected = len(timeline.results) - len(judged)
    parts += [f"{uncertain} uncertain"] * bool(uncertain) + [f"{rejected} rejected"] * bool(rejected)
    many = "1 utterance" if len(timeline.results) == 1 else f"{len(timeline.results)} utterances"
    return f"{many} ({', '.join(parts)})"


def description(result: Emotion | Rejected) -> str:
    """Return one utterance in a sentence."""
    head = f"Utterance {result.utterance}, {clock(result.start_s)} to {clock(result.end_s)}:"
    if isinstance(result, Rejected):
        return f"{head} rejected, {result.reason.replace('_', ' ')}."
    shares = sorted(result.probabilities.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{printable(label)} {share:.2f}" for label, share in shares)
    if result.uncertain:
        return f"{head} uncertain, {' or '.join(map(printable, result.candidates))} ({listed})."
    return f"{head} {printable(result.emotion)} ({listed})."
