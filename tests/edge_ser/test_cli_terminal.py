"""What a person sees: real terminals, wide, narrow and dumb."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path

import pyte
import pytest

from edge_ser.testing import write_tiny_bundle

ROOT = Path(__file__).parents[2]
CONVERSATION = ROOT / "examples" / "conversation.flac"
CONTROL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x09\x0b\x0c\x0e-\x1f]")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_bundle(tmp_path_factory.mktemp("models") / "tiny"))


def shown(written: str, columns: int) -> list[str]:
    """Return the lines that a terminal shows in the end."""
    screen = pyte.Screen(columns, 24)
    pyte.Stream(screen).feed(written)
    return [line.rstrip() for line in screen.display if line.strip()]


def in_terminal(
    words: list[str], columns: int, term: str = "xterm-256color", settings: Mapping[str, str] | None = None
) -> str:
    """Run a command with all its streams on a terminal; return all it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    unwanted = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
    environment = {name: value for name, value in os.environ.items() if name not in unwanted} | dict(settings or {})
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_ser", *words],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env={**environment, "TERM": term},
    )  # fmt: skip
    os.close(theirs)
    written = b""
    while True:
        try:
            written += os.read(ours, 65_536)
        except OSError:  # Linux says EIO when the last writer has closed its end.
            break
    os.close(ours)
    process.wait(20)
    return written.decode()


@pytest.mark.parametrize("columns", [40, 80])
def test_a_terminal_shows_a_live_view_and_keeps_the_results(columns: int, tiny: str) -> None:
    written = in_terminal(["listen", "--model", tiny, "--input", str(CONVERSATION), "--partials"], columns)
    text = CONTROL_CODES.sub("", written)

    assert text.count(" dB ") > 6
    assert ("audio   " in text) == (columns >= 80), "only a wide terminal has several lines"
    screen = shown(written, columns)
    results = [line for line in screen if re.match(r"\d\d:\d\d\.\d\W\d\d:", line)]
    assert len(results) == 6, "an early answer does not stay"
    assert len(screen) - len(results) == (2 if columns == 40 else 1), "nothing stays but the results and the ledger"
    assert screen[6].startswith("6 utterances in 21.1 s: ")
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l"), "the cursor must be shown again"


def test_the_view_can_do_without_colour(tiny: str) -> None:
    command = ["listen", "--model", tiny, "--input", str(CONVERSATION), "--risk", "0.05"]
    with_colour, without = (in_terminal(command, 100, settings=some) for some in ({}, {"NO_COLOR": "1"}))
    assert "\x1b[33m" in with_colour
    assert re.findall(r"\x1b\[[34]\d", without) == []
    assert shown(with_colour, 100) == shown(without, 100)


@pytest.mark.parametrize(("columns", "term"), [(39, "xterm-256color"), (100, "dumb")])
def test_a_narrow_or_dumb_terminal_shows_plain_lines_that_fit(tiny: str, columns: int, term: str) -> None:
    for command in (["listen", "--model", tiny, "--input"], ["classify", "--model", tiny]):
        written = in_terminal([*command, str(CONVERSATION)], columns, term)
        lines = written.replace("\r\n", "\n").splitlines()

        assert CONTROL_CODES.findall(written.replace("\r\n", "\n")) == []
        results = [line for line in lines if str(CONVERSATION) != line]
        assert len(results) >= 6
        assert max(len(line) for line in results) <= columns


def test_a_bar_shows_on_a_terminal_and_leaves_the_rows_alone(tiny: str, tmp_path: Path) -> None:
    for name in ("a.flac", "b.flac"):
        (tmp_path / name).write_bytes(CONVERSATION.read_bytes())
    written = in_terminal(["classify", "--model", tiny, str(tmp_path)], 160)

    assert "2/2" in written
    rows = [line for line in CONTROL_CODES.sub("", written).splitlines() if ".flac  " in line]
    assert len(rows) == 12


def test_reading_a_terminal_as_audio_is_refused(tiny: str) -> None:
    written = in_terminal(["listen", "--model", tiny, "--input", "-"], 200)
    assert written.startswith("edge-ser: stdin is a terminal")


INTERRUPTED_AT = """
import os, signal, sys
import edge_ser

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == INTERRUPTED:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

INTERRUPTED, *sys.argv[1:] = sys.argv[1:]
sys.meta_path.insert(0, Interrupt())
from edge_ser.__main__ import run
raise SystemExit(run())
"""


@pytest.mark.parametrize(("module", "status"), [("numpy", -signal.SIGINT), ("onnxruntime", 0)])
def test_ctrl_c_while_loading_shows_nothing_of_the_inside(module: str, status: int, tiny: str) -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "conversation.flac"
    command = [sys.executable, "-c", INTERRUPTED_AT, module, "listen", "--model", tiny, "--input", str(example)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, "")
    # Once it can say what became of the audio, it does: none was taken.
    assert ('"captured_samples": 0' in done.stdout) == (status == 0)
