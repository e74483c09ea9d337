"""Where the events of `listen` go: JSON lines, plain lines, or a terminal with a live line."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.cli.text import EventText, clock, is_terminal, speaks_unicode
from edge_ser.events import Emotion, Event, Rejected, SpeechStarted

_LIVE_COLUMNS = 60
_REFRESH_S = 0.1
_METER_COLUMNS = 20
_METER_FLOOR_DBFS = -60.0

Item = TypeVar("Item")


class Display(Protocol):
    """Shows what a stream hears and says."""

    def hear(self, chunk: NDArray[np.float32]) -> None:
        """Take note of audio that goes into the stream."""
        ...

    def show(self, event: Event) -> None:
        """Show what came out of it."""
        ...

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def open_display(wanted: str, labels: Sequence[str]) -> Display:
    """Return the display for stdout.

    Args:
        wanted: `text`, `jsonl`, or `auto`: text for a person at a terminal, JSON lines for a program.
        labels: The model's emotions.
    """
    if wanted == "jsonl" or (wanted == "auto" and not is_terminal(sys.stdout)):
        return JsonLines()
    unicode = speaks_unicode(sys.stdout)
    if not is_terminal(sys.stdout):
        return PlainLines(EventText(labels, None, unicode))
    columns = shutil.get_terminal_size().columns
    if columns < _LIVE_COLUMNS or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        return PlainLines(EventText(labels, columns, unicode))
    return LiveLines(EventText(labels, columns, unicode))


def tapped(source: Iterable[Item], display: Display) -> Iterator[Item]:
    """Yield the items of a source and let the display hear the audio among them."""
    for item in source:
        if isinstance(item, np.ndarray):
            display.hear(item)
        yield item


class JsonLines:
    """One JSON object per line, each written at once."""

    def hear(self, chunk: NDArray[np.float32]) -> None:
        """Do nothing."""

    def show(self, event: Event) -> None:
        """Write the event."""
        print(event.to_json(), flush=True)

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


class PlainLines:
    """Lines of text without any control codes."""

    def __init__(self, text: EventText) -> None:
        self._text = text

    def hear(self, chunk: NDArray[np.float32]) -> None:
        """Do nothing."""

    def show(self, event: Event) -> None:
        """Write the event's lines."""
        for line in self._text.lines(event):
            print(line, flush=True)

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


class LiveLines:
    """Finished lines scroll away above one live line: running time, level meter, speech."""

    def __init__(self, text: EventText) -> None:
        from rich.console import Console
        from rich.live import Live

        self._text = text
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._heard_samples = 0
        self._peak = 0.0
        self._in_speech = False
        self._shown_s = -math.inf

    def hear(self, chunk: NDArray[np.float32]) -> None:
        """Move the meter and the time."""
        self._heard_samples += len(chunk)
        self._peak = max(self._peak, float(np.abs(chunk).max(initial=0.0)))
        self._refresh()

    def show(self, event: Event) -> None:
        """Print the event's lines above the live one."""
        if isinstance(event, SpeechStarted):
            self._in_speech = True
        elif isinstance(event, Emotion | Rejected):
            self._in_speech = False
        for line in self._text.lines(event):
            self._console.print(line, style=_style(event), markup=False)

    def _refresh(self) -> None:
        now_s = time.monotonic()
        if now_s - self._shown_s < _REFRESH_S:
            return
        self._shown_s = now_s
        self._live.update(self._line(), refresh=True)
        self._peak = 0.0

    def _line(self) -> str:
        level_dbfs = max(_METER_FLOOR_DBFS, 20 * math.log10(max(self._peak, 1e-9)))
        meter = self._text.bar(1 - level_dbfs / _METER_FLOOR_DBFS, _METER_COLUMNS)
        heard = clock(self._heard_samples / SAMPLE_RATE_HZ)
        doing = "speech" if self._in_speech else "listening"
        return f"{heard}  {meter:<{_METER_COLUMNS}} {level_dbfs:4.0f} dB  {doing}"

    def __enter__(self) -> LiveLines:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()


def _style(event: Event) -> str:
    if isinstance(event, Emotion):
        return "yellow" if event.uncertain else "bold"
    return "dim"
