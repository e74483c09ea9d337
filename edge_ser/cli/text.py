"""Events as lines that people read."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from typing import TextIO

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.events import DeviceLost, DeviceRestored, Emotion, Event, Overflow, Rejected, Summary
from edge_ser.ledger import AudioLedger

BAR_COLUMNS = 10
_MIN_BAR_COLUMNS = 4
_EIGHTHS = " ▏▎▍▌▋▊▉"
_DASH = "\N{EN DASH}"
SO_FAR = "(so far)"
"""Stands after an early answer, while the speaker still talks."""
_REASONS = {
    "too_short": "too short to judge",
    "too_quiet": "too quiet to judge",
    "clipped": "clipped, lower the input level",
    "not_speech": "no speech",
}


def speaks_unicode(file: TextIO) -> bool:
    """Return whether a file can take bars and dashes."""
    try:
        f"{_EIGHTHS}█{_DASH}".encode(file.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


class EventText:
    """Turns events into lines of a certain width."""

    def __init__(self, labels: Sequence[str], columns: int | None = None, unicode: bool = True) -> None:
        """Prepare for a model and an output.

        Args:
            labels: The model's emotions; the longest sets the width of its column.
            columns: Columns of the terminal; None does not wrap.
            unicode: False uses ASCII only.
        """
        self._label_columns = max(len(label) for label in labels)
        self._labels = len(labels)
        self._columns = columns
        self._unicode = unicode

    def lines(self, event: Event) -> list[str]:
        """Return the lines that say an event; an event that is no result has none."""
        # A device may bear any name; one with control codes must not move the cursor.
        text = "".join(letter if letter.isprintable() else "?" for letter in self._text(event))
        if not text:
            return []
        if self._columns is None:
            return [text]
        return textwrap.wrap(text, max(10, self._columns), subsequent_indent="  ", drop_whitespace=True)

    def _text(self, event: Event) -> str:
        if isinstance(event, Emotion):
            return f"{self.span(event.start_s, event.end_s)}  {self.answer(event)}"
        if isinstance(event, Rejected):
            return f"{self.span(event.start_s, event.end_s)}  ({self.reason(event)})"
        if isinstance(event, Overflow):
            return f"{clock(event.at_s)}  {_lost(event)}"
        if isinstance(event, DeviceLost):
            return f"{clock(event.at_s)}  {event.device} went away"
        if isinstance(event, DeviceRestored):
            return f"{clock(event.at_s)}  {event.device} is back after {event.gap_s:.1f} s"
        return summary(event) if isinstance(event, Summary) else ""

    def span(self, start_s: float, end_s: float) -> str:
        """Return from when to when, in minutes and seconds."""
        return f"{clock(start_s)}{_DASH if self._unicode else '-'}{clock(end_s)}"

    def answer(self, event: Emotion) -> str:
        """Return the emotion, its confidence and a bar; or, if it is uncertain, what it may be."""
        early = "" if event.final else f"  {SO_FAR}"
        if event.uncertain:
            return self._doubt(event.candidates) + early
        answer = f"{event.emotion:<{self._label_columns}}  {event.confidence:.2f}"
        used = len(self.span(event.start_s, event.end_s)) + 2 + len(answer) + 2 + len(early)
        free = BAR_COLUMNS if self._columns is None else min(BAR_COLUMNS, self._columns - used)
        bar = f"  {self.bar(event.confidence, free)}".rstrip() if free >= _MIN_BAR_COLUMNS else ""
        return f"{answer}{bar}{early}"

    def brief(self, event: Emotion | Rejected) -> str:
        """Return the answer in a word or two, as it stands in a row of answers."""
        if isinstance(event, Rejected):
            return f"({event.reason.replace('_', ' ')})"
        return self._doubt(event.candidates) if event.uncertain else f"{event.emotion} {event.confidence:.2f}"

    def _doubt(self, candidates: Sequence[str]) -> str:
        if len(candidates) == self._labels and self._labels > 2:
            return "? unclear"
        *first, last = candidates
        return f"? {', '.join(first)} or {last}" if first else f"? perhaps {last}"

    def reason(self, event: Rejected) -> str:
        """Return in words why an utterance was not judged."""
        return _REASONS.get(event.reason, event.reason)

    def bar(self, share: float, columns: int) -> str:
        """Return a bar whose full length is `columns`, without spaces after it."""
        eighths = round(min(1.0, max(0.0, share)) * columns * 8)
        if not self._unicode:
            return "#" * round(eighths / 8)
        return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def clock(seconds: float) -> str:
    """Return `00:03.2`, or `1:00:03.2` from an hour on."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    short = f"{minutes:02}:{tenths // 10:02}.{tenths % 10}"
    return f"{hours}:{short}" if hours else short


def summary(event: Summary) -> str:
    """Return where the audio went, in one sentence."""
    utterances = "1 utterance" if event.utterances == 1 else f"{event.utterances} utterances"
    return f"{utterances} in {event.duration_s:.1f} s: {whereabouts(event.ledger)}"


def whereabouts(ledger: AudioLedger) -> str:
    """Return where the audio of a ledger went."""
    parts = [f"{_seconds(ledger.classified_samples)} judged", f"{_seconds(ledger.silence_samples)} silence"]
    if ledger.rejected_samples:
        parts.append(f"{_seconds(ledger.rejected_samples)} rejected")
    if ledger.dropped_samples:
        parts.append(f"{_seconds(ledger.dropped_samples)} lost")
    if ledger.overflow_estimated_s >= 0.05:
        parts.append(f"about {ledger.overflow_estimated_s:.1f} s lost by the device")
    if ledger.device_gap_s:
        parts.append(f"{ledger.device_gap_s:.1f} s without a microphone")
    return ", ".join(parts)


def _seconds(samples: int) -> str:
    return f"{samples / SAMPLE_RATE_HZ:.1f} s"


def _lost(event: Overflow) -> str:
    if event.dropped_samples:
        return f"{_seconds(event.dropped_samples)} of audio lost"
    about = f"about {event.estimated_s:.1f} s of" if event.estimated_s >= 0.05 else "some"
    return f"{about} audio lost by the device"


def is_terminal(file: TextIO | None) -> bool:
    """Return whether a person reads along, or writes; None is a file that was closed before the program began."""
    try:
        return file is not None and file.isatty()
    except ValueError:
        return False


def report(message: object) -> None:
    """Say something to the person, on stderr, in one line; nobody may be there to read it."""
    try:
        print(f"edge-ser: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
    except BrokenPipeError:
        # What stays in the buffer would be tried again at the end, and make that one a failure.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def discard_output() -> None:
    """Let what is written to stdout go nowhere from now on, what waits in its buffer too."""
    # Python writes what is left when it exits, and would complain once more.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
