"""Ctrl-C and SIGTERM end the audio, not the program."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")


class _Interrupted(Exception):
    """Leaves a source that waits for audio."""


class Interruption:
    """While it is entered, the first Ctrl-C or SIGTERM ends a guarded source; the second one aborts the program.

    Nothing is raised while audio is judged, so an interrupted stream can finish its open utterance and its ledger.
    """

    def __init__(self, stop: Callable[[], None] | None = None) -> None:
        """Prepare; signals are caught from `__enter__` on.

        Args:
            stop: Ends a source that ends itself and then still yields what it holds, as a microphone does.
        """
        self._stop = stop
        self._requested = False
        self._waiting = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        # Python allows only its main thread to set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def ends(self, stop: Callable[[], None]) -> None:
        """Let `stop` end the source from now on; it is called at once if a signal has come already."""
        self._stop = stop
        if self._requested:
            stop()

    def guard(self, source: Iterable[Item]) -> Iterator[Item]:
        """Yield the items of a source until it ends or a signal came."""
        items = iter(source)
        while self._stop is not None or not self._requested:
            try:
                item = self._next(items)
            except (StopIteration, _Interrupted):
                return
            yield item

    def _next(self, items: Iterator[Item]) -> Item:
        try:
            self._waiting = True
            # Asked again: a signal that came before `_waiting` has raised nothing.
            if self._requested and self._stop is None:
                raise _Interrupted
            return next(items)
        finally:
            self._waiting = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True
        if self._stop is not None:
            self._stop()
        elif self._waiting:
            raise _Interrupted
