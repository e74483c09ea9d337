"""The live view on a terminal of any size: what its screen shows after each event."""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
import pty
import struct
import sys
import termios
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyte
import pytest

from edge_ser.cli import live_view
from edge_ser.cli.display import JsonLines, PlainLines, open_display
from edge_ser.cli.live_view import LiveView
from edge_ser.events import DeviceLost, DeviceRestored, Emotion, Overflow, Rejected, SpeechStarted, Summary
from edge_ser.ledger import AudioLedger

LABELS = ("angry", "happy", "neutral", "sad")
LEDGER = AudioLedger(64_000, 32_000, 16_000, 8_000, 8_000, 1.5)
HAPPY = Emotion(1, 0.3, 2.5, "happy", 0.83, {}, False, ("happy",), None, "tiny", 1.0, False, 0)


class Terminal(io.TextIOBase):
    """A file that is a terminal, shows what is written to it, and takes a new size."""

    encoding = "utf-8"  # type: ignore[assignment]

    def __init__(self, columns: int) -> None:
        self._ours, self._theirs = pty.openpty()  # for its size only
        self._screen = pyte.HistoryScreen(columns, 24)
        self._stream = pyte.Stream(self._screen)
        self.written = ""
        self.resize(columns)

    def write(self, text: str) -> int:
        self.written += text
        self._stream.feed(text.replace("\n", "\r\n"))
        return len(text)

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._theirs

    def resize(self, columns: int, lines: int = 24) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._screen.resize(lines, columns)

    def lines(self) -> list[str]:
        """Return what the screen shows."""
        return [line.rstrip() for line in self._screen.display if line.strip()]

    def history(self) -> list[str]:
        """Return what has left the screen at its top."""
        columns = range(self._screen.columns)
        return ["".join(line[column].data for column in columns).rstrip() for line in self._screen.history.top]

    def cursor_is_hidden(self) -> bool:
        return bool(self._screen.cursor.hidden)

    def close(self) -> None:
        os.close(self._ours)
        os.close(self._theirs)
        super().close()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    made = Terminal(100)
    monkeypatch.setattr(live_view, "_REFRESH_S", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    yield made
    made.close()


@contextlib.contextmanager
def live(terminal: Terminal, *, unicode: bool = True) -> Iterator[LiveView]:
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal):
        with LiveView(LABELS, unicode, lambda: LEDGER) as opened:
            yield opened


@pytest.fixture
def view(terminal: Terminal) -> Iterator[LiveView]:
    with live(terminal) as opened:
        yield opened


def sound(level: float, seconds: float = 0.1) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.full(round(16_000 * seconds), level, np.float32)


def row(terminal: Terminal, name: str) -> str:
    return next(line for line in terminal.lines() if line.startswith(name)).removeprefix(name).strip()


def test_level_and_time_follow_the_audio(view: LiveView, terminal: Terminal) -> None:
    view.hear(sound(0.1, 3.2))
    assert terminal.lines()[1] == f"00:03.2 {'█' * 16}         -20 dB  listening"
    view.hear(sound(1.0))
    assert terminal.lines()[1].endswith("0 dB  too loud")
    view.hear(sound(0.0))
    assert terminal.lines()[1].split() == ["00:03.4", "-60", "dB", "listening"]


def test_an_utterance_goes_from_nothing_over_early_answers_to_its_result(view: LiveView, terminal: Terminal) -> None:
    view.hear(sound(0.1))
    assert row(terminal, "now") == "(nothing said yet)"
    view.show(SpeechStarted(1, 0.3))
    assert row(terminal, "now") == "..."
    assert terminal.lines()[1].endswith("speech")
    view.show(replace(HAPPY, confidence=0.5, final=False, end_s=1.1))
    assert row(terminal, "now") == "happy    0.50  █████  (so far)"
    doubt = replace(HAPPY, uncertain=True, candidates=("happy", "sad"), final=False, revision=1, end_s=1.9)
    view.show(doubt)
    assert row(terminal, "now") == "? happy or sad  (so far)"
    assert not terminal.lines()[0].startswith("00:"), "an early answer does not stay"
    view.show(replace(HAPPY, revision=2))
    assert terminal.lines()[0] == "00:00.3\N{EN DASH}00:02.5  happy    0.83  ████████▎"
    assert row(terminal, "now") == "happy    0.83  ████████▎"
    assert row(terminal, "last") == "happy 0.83"
    assert terminal.lines()[2].endswith("listening")


def test_the_last_answers_and_the_ledger_are_there(view: LiveView, terminal: Terminal) -> None:
    for number in range(9):
        view.show(replace(HAPPY, utterance=number, confidence=number / 10))
    view.show(Rejected(10, 3.0, 3.2, "too_short"))
    assert row(terminal, "last") == "happy 0.40 · happy 0.50 · happy 0.60 · happy 0.70 · happy 0.80 · (too short)"
    assert row(terminal, "now") == "(too short to judge)"
    ledger = "2.0 s judged, 1.0 s silence, 0.5 s rejected, 0.5 s lost, 1.5 s without a microphone"
    assert row(terminal, "audio") == ledger


def test_a_microphone_that_goes_away_shows(view: LiveView, terminal: Terminal) -> None:
    view.hear(sound(0.5))
    view.show(DeviceLost(4.0, "USB \x1b[2J Mic"))
    view.show(Overflow(4.0, 8_000))
    assert terminal.lines()[:2] == ["00:04.0  USB ?[2J Mic went away", "00:04.0  0.5 s of audio lost"]
    assert terminal.lines()[3].endswith("-60 dB  no microphone")
    view.show(DeviceRestored(4.0, "USB", 2.5))
    assert terminal.lines()[2] == "00:04.0  USB is back after 2.5 s"
    assert terminal.lines()[4].endswith("listening")


def test_a_new_size_changes_the_view_and_keeps_the_results(view: LiveView, terminal: Terminal) -> None:
    view.show(HAPPY)
    assert len(terminal.lines()) == 6
    for columns, expected in ((60, 2), (45, 2), (200, 6), (39, 1), (80, 6)):
        terminal.resize(columns)
        view.hear(sound(0.1))
        screen = terminal.lines()
        assert len(screen) == expected, f"at {columns} columns"
        assert screen[0].startswith("00:00.3\N{EN DASH}00:02.5  happy    0.83")
    view.show(replace(HAPPY, utterance=2))
    assert sum(line.startswith("00:00.3") for line in terminal.lines()) == 2


def test_a_low_terminal_shows_one_line(terminal: Terminal) -> None:
    terminal.resize(100, lines=9)
    with live(terminal) as view:
        view.hear(sound(0.1))
        assert len(terminal.lines()) == 1


def test_results_scroll_away_above_the_view_and_nothing_else_does(view: LiveView, terminal: Terminal) -> None:
    for number in range(40):
        view.hear(sound(0.1))
        view.show(replace(HAPPY, utterance=number, start_s=number, end_s=number + 1))
    screen = terminal.lines()
    assert [line[:7] for line in screen[:19]] == [f"00:{second:02}.0" for second in range(21, 40)]
    assert [line.split()[0] for line in screen[20:]] == ["00:04.0", "now", "last", "audio"]
    assert [line[:7] for line in terminal.history()] == [f"00:{second:02}.0" for second in range(21)]


def test_what_others_say_on_stderr_stands_whole_above_the_view(terminal: Terminal) -> None:
    handler = logging.StreamHandler(terminal)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with live(terminal) as view:
            view.hear(sound(0.1))
            print("a word", "and one more", file=sys.stderr)
            logging.getLogger("edge_ser.test").warning("a log line")
            print("half a line", end="", file=sys.stderr)
            assert terminal.lines()[:2] == ["a word and one more", "a log line"]
            assert len(terminal.lines()) == 7
        assert terminal.lines() == ["a word and one more", "a log line", "half a line"]
        assert handler.stream is terminal
    finally:
        root.removeHandler(handler)


def test_the_view_is_gone_at_the_end_and_after_an_error(terminal: Terminal) -> None:
    with pytest.raises(KeyError), live(terminal) as view:
        view.hear(sound(0.1))
        view.show(HAPPY)
        assert terminal.cursor_is_hidden()
        raise KeyError
    assert terminal.lines() == ["00:00.3\N{EN DASH}00:02.5  happy    0.83  ████████▎"]
    assert not terminal.cursor_is_hidden()


def test_the_screen_is_never_cleared_from_its_first_cell(view: LiveView, terminal: Terminal) -> None:
    """Tmux would keep what was there in its history."""
    view.hear(sound(0.1))
    view.show(HAPPY)
    assert "\x1b[J" in terminal.written
    assert "\r\x1b[J" not in terminal.written


def test_long_labels_and_names_never_leave_their_line(terminal: Terminal) -> None:
    labels = ("不安と期待が入り混じった" * 5, "x" * 200)
    with contextlib.redirect_stdout(terminal), LiveView(labels, True, lambda: LEDGER) as view:
        for columns in (100, 50):
            terminal.resize(columns)
            view.show(SpeechStarted(1, 0.0))
            for label in labels:
                view.show(replace(HAPPY, emotion=label, candidates=(label,), final=False))
                view.hear(sound(0.1))
            assert len(terminal.lines()) == (5 if columns == 100 else 1)


def test_ascii_terminals_get_ascii(terminal: Terminal) -> None:
    with live(terminal, unicode=False) as view:
        view.hear(sound(0.1))
        view.show(HAPPY)
        view.show(replace(HAPPY, utterance=2))
        assert "".join(terminal.lines()).isascii()


def test_the_display_fits_the_output(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def kind(wanted: str = "auto") -> type:
        with contextlib.redirect_stdout(terminal):
            return type(open_display(wanted, LABELS, lambda: LEDGER))

    monkeypatch.setenv("COLUMNS", "100")
    assert kind() is LiveView
    assert kind("jsonl") is JsonLines
    monkeypatch.setenv("COLUMNS", "39")
    assert kind() is PlainLines
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")
    assert kind() is PlainLines


def test_the_summary_ends_the_view(view: LiveView, terminal: Terminal) -> None:
    view.show(Summary("tiny", 2, 4.0, replace(LEDGER, overflow_estimated_s=0.2)))
    said = " ".join(" ".join(terminal.lines()[:2]).split())
    assert said.startswith(
        "2 utterances in 4.0 s: 2.0 s judged, 1.0 s silence, 0.5 s rejected, 0.5 s lost, about 0.2 s"
    )
