"""Where things stand in a timeline's picture: a recording is broken into rows, as text is into lines."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ser.events import Emotion, Rejected
from edge_ser.timeline import BIN_S, Timeline

_ROW_S = (30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 43_200, 86_400)
_SHORTEST_ROW_S = 5.0
_OVERHANG = 1.01
"""A row is a little longer rather than that the next one holds nearly nothing."""
_MOST_ROWS = 12
_TICKS_S = (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600)
_MOST_TICKS = 12
_LETTER_WIDTH = 0.59
"""Of a letter's size: a little more than the mean of the fonts that are likely there."""
_BELOW_FULL_SCALE = 0.995
_QUIETEST_FULL_SCALE = 0.01


@dataclass(frozen=True)
class Row:
    """A stretch of the recording."""

    start_s: float
    """Seconds."""
    end_s: float
    """Seconds; the last row may be shorter than the others."""

    def overlaps(self, result: Emotion | Rejected) -> bool:
        """Return whether part of an utterance lies in the row."""
        return result.start_s < self.end_s and result.end_s > self.start_s


def rows_of(duration_s: float) -> tuple[list[Row], float]:
    """Return the rows of a recording and the seconds of a full one."""
    row_s = float(next((length for length in _ROW_S if duration_s <= length * _MOST_ROWS), _ROW_S[-1]))
    if duration_s <= _ROW_S[0] * _OVERHANG:
        row_s = max(_SHORTEST_ROW_S, duration_s)
    count = max(1, math.ceil(duration_s / row_s - _OVERHANG + 1))
    ends_s = [(place + 1) * row_s for place in range(count - 1)] + [duration_s]
    return [Row(start_s, end_s) for start_s, end_s in zip([0.0, *ends_s], ends_s, strict=False)], row_s


def ticks_of(row: Row, row_s: float) -> list[float]:
    """Return the times, in seconds, that are written below a row."""
    step_s = next((step for step in _TICKS_S if row_s <= step * _MOST_TICKS), _TICKS_S[-1])
    first, last = math.ceil(row.start_s / step_s - 1e-9), math.floor(row.end_s / step_s + 1e-9)
    return [place * step_s for place in range(first, last + 1)]


def clock(seconds: float) -> str:
    """Return `0:03.5`, `0:03` or `1:00:03`."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    part = f".{tenths % 10}" if tenths % 10 else ""
    return f"{hours}:{minutes:02}:{tenths // 10:02}{part}" if hours else f"{minutes}:{tenths // 10:02}{part}"


def wave_of(timeline: Timeline, row: Row, columns: int) -> NDArray[np.float64]:
    """Return the envelope of a row, scaled to how loud the recording is.

    Args:
        timeline: The recording.
        row: The stretch that is wanted.
        columns: At most so many points.

    Returns:
        Time in seconds, lowest and highest value in [-1, 1]; shape (points, 3).
    """
    first, last = math.floor(row.start_s / BIN_S + 1e-6), math.ceil(row.end_s / BIN_S - 1e-6)
    pairs = timeline.envelope[first:last].astype(np.float64)
    if not len(pairs):
        return np.empty((0, 3))
    starts = np.unique(np.linspace(0, len(pairs), min(columns, len(pairs)), endpoint=False).astype(int))
    low, high = np.minimum.reduceat(pairs[:, 0], starts), np.maximum.reduceat(pairs[:, 1], starts)
    # A single bang shall not flatten all speech, and a recording of silence not look like one of noise.
    full = max(_QUIETEST_FULL_SCALE, float(np.quantile(np.abs(timeline.envelope).max(axis=1), _BELOW_FULL_SCALE)))
    low, high = np.clip(low / full, -1, 1), np.clip(high / full, -1, 1)
    return np.stack([(first + starts + 0.5) * BIN_S, low, high], axis=1)


def width_pt(text: str, size_pt: float) -> float:
    """Return about how wide a text is, in points."""
    letters = sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
    return letters * _LETTER_WIDTH * size_pt


def shortened(text: str, room_pt: float, size_pt: float) -> str:
    """Return a text, its middle left out where it is too wide."""
    if width_pt(text, size_pt) <= room_pt:
        return text
    kept = max(2, int(room_pt / (_LETTER_WIDTH * size_pt)) - 1)
    return f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"


def short_names(labels: Sequence[str]) -> dict[str, str]:
    """Return for each label the fewest first letters that tell it from the others."""
    return {
        label: next(
            (
                label[:size]
                for size in range(1, len(label))
                if not any(other.startswith(label[:size]) for other in labels if other != label)
            ),
            label,
        )
        for label in labels
    }


def wordings(result: Emotion | Rejected, short: dict[str, str]) -> list[str]:
    """Return what may stand above an utterance, the longest first; the first that fits is taken."""
    if isinstance(result, Rejected):
        return [f"{result.utterance} {result.reason.replace('_', ' ')}", result.reason.replace("_", " "), "x"]
    if result.uncertain:
        candidates = " or ".join(result.candidates)
        initials = "/".join(short[label] for label in result.candidates)
        return [f"{result.utterance} {candidates}?", f"{candidates}?", f"{initials}?", "?"]
    share = f"{result.confidence:.2f}"
    return [
        f"{result.utterance} {result.emotion} {share}",
        f"{result.emotion} {share}",
        result.emotion,
        short[result.emotion],
    ]
