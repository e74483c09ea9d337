"""The last lines of a terminal, redrawn in place, while what is written stays above them."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TextIO

_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_CUT_AT_THE_EDGE, _WRAP_AT_THE_EDGE = "\x1b[?7l", "\x1b[?7h"
_ERASE_LINE, _ERASE_BELOW = "\x1b[K", "\x1b[J"
# Never from the first cell of the screen on: tmux takes that for `clear` and keeps what was there in its history.
_ERASE_ALL = f"{_ERASE_LINE}\x1b7\x1b[B{_ERASE_BELOW}\x1b8"


class LiveRegion:
    """Lines at the end of a terminal.

    The cursor rests on their first letter, and they are never wrapped. So however a terminal moves lines about when
    its size changes, all that was drawn lies at the cursor and below it, and nothing else does.
    """

    def __init__(self, file: TextIO) -> None:
        """Start without lines, at the cursor of `file`, which is a terminal."""
        self._file = file
        self._lines: Sequence[str] = ()
        self._lock = threading.RLock()

    def draw(self, lines: Sequence[str], above: str = "") -> None:
        """Show lines instead of those shown before; they may hold style codes.

        Args:
            lines: They fit into the terminal; what does not fit is cut off.
            above: Text that stays above them; it ends with a line feed.
        """
        with self._lock:
            self._lines = lines
            self._write(above)

    def write_above(self, text: str) -> None:
        """Write text that stays above the lines as they are; it ends with a line feed."""
        with self._lock:
            self._write(text)

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Hide the cursor and let what others write to stderr stand above the lines; at the end erase them."""
        self._file.write(_HIDE_CURSOR)
        try:
            with self._stderr_above():
                yield
        finally:
            self.draw(())
            self._file.write(_SHOW_CURSOR)
            self._file.flush()

    def _write(self, above: str) -> None:
        written = f"\r{_ERASE_ALL}{above}" if above or not self._lines else "\r"
        if self._lines:
            lines = f"{_ERASE_LINE}\n".join(self._lines) + _ERASE_BELOW
            up = f"\x1b[{len(self._lines) - 1}A" if len(self._lines) > 1 else ""
            written += f"{_CUT_AT_THE_EDGE}{lines}{_WRAP_AT_THE_EDGE}{up}\r"
        self._file.write(written)
        self._file.flush()

    @contextlib.contextmanager
    def _stderr_above(self) -> Iterator[None]:
        if not sys.stderr.isatty():
            yield
            return
        above = _Above(self)
        # Log handlers keep the file that they were made with.
        handlers = [item for item in logging.getLogger().handlers if isinstance(item, logging.StreamHandler)]
        diverted = [item for item in handlers if item.stream is sys.stderr]
        before = sys.stderr
        for handler in diverted:
            handler.setStream(above)
        try:
            with contextlib.redirect_stderr(above):
                yield
        finally:
            for handler in diverted:
                handler.setStream(before)
            above.end_line()


class _Above(io.TextIOBase):
    """Takes what is meant for stderr, and writes each whole line above the region."""

    def __init__(self, region: LiveRegion) -> None:
        self._region = region
        self._begun = ""

    def write(self, text: str) -> int:
        whole, newline, self._begun = (self._begun + text).rpartition("\n")
        if newline:
            self._region.write_above(whole + newline)
        return len(text)

    def isatty(self) -> bool:
        return True

    def end_line(self) -> None:
        """End a line that was begun."""
        if self._begun:
            self.write("\n")
