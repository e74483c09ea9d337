"""Where the events of `listen` go: JSON lines, plain lines, or a terminal with a live view."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_ser.cli.live_view import LEAST_COLUMNS, LiveView
from edge_ser.cli.text import EventText, is_terminal, speaks_unicode
from edge_ser.events import Event
from edge_ser.ledger import AudioLedger

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


def open_display(wanted: str, labels: Sequence[str], ledger: Callable[[], AudioLedger]) -> Display:
    """Return the display for stdout.

    Args:
        wanted: `text`, `jsonl`, or `auto`: text for a person at a terminal, JSON lines for a program.
        labels: The model's emotions.
        ledger: Returns the stream's ledger.
    """
    if wanted == "jsonl" or (wanted == "auto" and not is_terminal(sys.stdout)):
        return JsonLines()
    unicode = speaks_unicode(sys.stdout)
    if not is_terminal(sys.stdout):
        return PlainLines(EventText(labels, None, unicode))
    columns = shutil.get_terminal_size().columns
    if columns < LEAST_COLUMNS or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        return PlainLines(EventText(labels, columns, unicode))
    return LiveView(labels, unicode, ledger)


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
