"""What a person sees while `listen` runs: results that stay and, below them, how it stands just now."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.cli.live_region import LiveRegion
from edge_ser.cli.text import EventText, clock, whereabouts
from edge_ser.events import DeviceLost, DeviceRestored, Emotion, Event, Overflow, Rejected, SpeechStarted, Summary
from edge_ser.ledger import AudioLedger

LEAST_COLUMNS = 40
"""Columns that the one line needs."""
_WIDE_COLUMNS = 80
_WIDE_LINES = 10
_REFRESH_S = 0.1
_METER_FLOOR_DBFS = -60.0
_CLIPPED_LEVEL = 0.999
_REMEMBERED = 6

_PLAIN, _BOLD, _DIM, _YELLOW = "", "1", "2", "33"


class LiveView:
    """Level, speech, the present answer, the last ones and the ledger; a line of it where there is little room."""

    def __init__(self, labels: Sequence[str], unicode: bool, ledger: Callable[[], AudioLedger]) -> None:
        """Show on stdout, which is a terminal.

        Args:
            labels: The model's emotions.
            unicode: False uses ASCII only.
            ledger: Returns the stream's ledger.
        """
        self._labels = labels
        self._unicode = unicode
        self._ledger = ledger
        self._file = sys.stdout
        self._region = LiveRegion(self._file)
        self._open = contextlib.ExitStack()
        self._has_colour = not os.environ.get("NO_COLOR")
        self._heard_samples = 0
        self._peak = 0.0
        self._shown_s = -math.inf
        self._speech: SpeechStarted | None = None
        self._has_device = True
        self._answer: Emotion | Rejected | None = None
        self._last: deque[Emotion | Rejected] = deque(maxlen=_REMEMBERED)

    def hear(self, chunk: NDArray[np.float32]) -> None:
        """Move the meter and the time."""
        self._heard_samples += len(chunk)
        self._peak = max(self._peak, float(np.abs(chunk).max(initial=0.0)))
        now_s = time.monotonic()
        if now_s - self._shown_s >= _REFRESH_S:
            self._shown_s = now_s
            self._refresh()
            self._peak = 0.0

    def show(self, event: Event) -> None:
        """Write a result where it stays, and let the rest move the view."""
        self._note(event)
        stays = not isinstance(event, Emotion) or event.final
        columns, _ = _size(self._file)
        lines = EventText(self._labels, columns, self._unicode).lines(event) if stays else []
        self._refresh("".join(f"{self._styled(line, _style(event))}\n" for line in lines))

    def _note(self, event: Event) -> None:
        if isinstance(event, SpeechStarted):
            self._speech, self._answer = event, None
        elif isinstance(event, Emotion | Rejected):
            self._answer = event
            if isinstance(event, Rejected) or event.final:
                self._speech = None
                self._last.append(event)
        elif isinstance(event, DeviceLost | DeviceRestored):
            self._has_device = isinstance(event, DeviceRestored)
            self._peak = 0.0

    def _refresh(self, above: str = "") -> None:
        columns, lines = _size(self._file)
        # The last column stays free: some terminals go on to the next line once it is written.
        text = EventText(self._labels, columns - 1, self._unicode)
        if columns < LEAST_COLUMNS:
            self._region.draw((), above)
        elif columns < _WIDE_COLUMNS or lines < _WIDE_LINES:
            self._region.draw([self._one_line(text)[: columns - 1]], above)
        else:
            rows = [(line[: columns - 1], style) for line, style in self._few_lines(text, columns - 1)]
            self._region.draw([self._styled(line, style) for line, style in rows], above)

    def _one_line(self, text: EventText) -> str:
        answer = "" if self._answer is None else f"  {text.brief(self._answer)}"
        return f"{self._clock()} {self._meter(text, 8)} {self._doing()}{answer}"

    def _few_lines(self, text: EventText, columns: int) -> list[tuple[str, str]]:
        answers = [text.brief(answer) for answer in self._last]
        while len(answers) > 1 and sum(map(len, answers)) + 3 * len(answers) + 6 > columns:
            del answers[0]
        between = " · " if self._unicode else " | "
        return [
            # Short, so that no terminal which narrows breaks the line that the cursor rests on.
            (("─" if self._unicode else "-") * (LEAST_COLUMNS - 1), _DIM),
            (f"{self._clock():<7} {self._meter(text, 24)}  {self._doing()}", _PLAIN),
            (f"now     {self._now(text)}", _BOLD),
            (f"last    {between.join(answers) or '(none yet)'}", _PLAIN),
            (f"audio   {whereabouts(self._ledger())}", _DIM),
        ]

    def _now(self, text: EventText) -> str:
        if isinstance(self._answer, Emotion):
            return text.answer(self._answer)
        if isinstance(self._answer, Rejected):
            return f"({text.reason(self._answer)})"
        return "..." if self._speech else "(nothing said yet)"

    def _doing(self) -> str:
        if not self._has_device:
            return "no microphone"
        if self._peak >= _CLIPPED_LEVEL:
            return "too loud"
        return "speech" if self._speech else "listening"

    def _meter(self, text: EventText, columns: int) -> str:
        level_dbfs = max(_METER_FLOOR_DBFS, 20 * math.log10(max(self._peak, 1e-9)))
        meter = text.bar(1 - level_dbfs / _METER_FLOOR_DBFS, columns)
        return f"{meter:<{columns}} {level_dbfs:3.0f} dB"

    def _clock(self) -> str:
        return clock(self._heard_samples / SAMPLE_RATE_HZ)

    def _styled(self, line: str, style: str) -> str:
        wanted = style and (self._has_colour or style != _YELLOW)
        return f"\x1b[{style}m{line}\x1b[0m" if wanted else line

    def __enter__(self) -> LiveView:
        self._open.enter_context(self._region.open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.close()


def _style(event: Event) -> str:
    if isinstance(event, Emotion):
        return _YELLOW if event.uncertain else _BOLD
    if isinstance(event, Overflow | DeviceLost):
        return _YELLOW
    return _PLAIN if isinstance(event, DeviceRestored | Summary) else _DIM


def _size(file: TextIO) -> tuple[int, int]:
    """Return columns and lines of a terminal as they are now."""
    try:
        columns, lines = os.get_terminal_size(file.fileno())
    except OSError:
        columns = lines = 0
    # A terminal may not know its size, as in some containers.
    fallback = shutil.get_terminal_size()
    return columns or fallback.columns, lines or fallback.lines
