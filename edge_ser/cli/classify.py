"""`edge-ser classify`: files and folders, one row per utterance."""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from edge_ser.cli.options import Commands, add_model, add_risk, add_vad, load_model
from edge_ser.cli.rows import ROWS, Rows
from edge_ser.cli.text import is_terminal, report
from edge_ser.errors import AudioFormatError, ConfigError
from edge_ser.events import Event
from edge_ser.sources import AUDIO_SUFFIXES

if TYPE_CHECKING:
    from edge_ser.recognizer import EmotionRecognizer

Judge: TypeAlias = Callable[[Path], list[Event]]


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "classify",
        help="judge files and folders",
        description="Judges the utterances of audio files. A broken file is reported and the rest go on.",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", type=Path, help="a file, or a folder with all below it")
    add_model(parser)
    add_vad(parser)
    add_risk(parser)
    parser.add_argument("--whole", action="store_true", help="judge each file as one utterance")
    parser.add_argument(
        "--transcripts", metavar="CSV", type=Path, help="what was said: columns path,transcript (with --whole)"
    )
    parser.add_argument("--format", choices=tuple(ROWS), default="table", help="how rows are written")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Judge every file; return 1 if one could not be judged."""
    if arguments.transcripts and not arguments.whole:
        arguments.usage_error("--transcripts needs --whole")
    transcripts = read_transcripts(arguments.transcripts) if arguments.transcripts else {}
    files, failed = find_files(arguments.paths)
    recognizer = load_model(arguments)
    if arguments.whole:
        judge = _whole(recognizer, transcripts, arguments.risk)
    else:
        judge = _by_utterance(recognizer, arguments.vad, arguments.risk)
    rows: Rows = ROWS[arguments.format](recognizer.labels, files)
    with _progress(files) as advance:
        for path in files:
            try:
                rows.write(path, judge(path))
            except AudioFormatError as error:
                failed += 1
                report(error)
            advance()
    return 1 if failed else 0


def find_files(paths: Sequence[Path]) -> tuple[list[Path], int]:
    """Return the files that are meant, each once, and how many folders hold none or cannot be read, each reported."""
    files: list[Path] = []
    failed = 0
    for path in paths:
        unreadable: list[OSError] = []
        # Not Path.is_dir: it raises where a folder above cannot be read. Reading the file will say so.
        below = list(_audio_below(path, unreadable.append)) if os.path.isdir(path) else [path]
        files += below
        for error in unreadable:
            report(f"{error.filename} cannot be read ({error.strerror}). Check it: ls -ld {error.filename}")
        failed += len(unreadable)
        if not below and not unreadable:
            failed += 1
            report(f"{path} holds no audio files. Files are found by their suffix: {' '.join(sorted(AUDIO_SUFFIXES))}")
    return list(dict.fromkeys(files)), failed


def _audio_below(folder: Path, on_unreadable: Callable[[OSError], None]) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=on_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES:
                yield Path(parent, name)


def read_transcripts(path: Path) -> dict[Path, str]:
    """Return the transcripts of a CSV file by absolute path; relative ones start at the CSV file's folder.

    Raises:
        ConfigError: The file cannot be read or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = {"path", "transcript"} - set(reader.fieldnames or ())
            if missing:
                raise ConfigError(
                    f"{path} has no column {' and '.join(sorted(missing))}, path and transcript are needed. "
                    "Let its first line be: path,transcript"
                )
            rows = [(row["path"], row["transcript"]) for row in reader]
        return {_absolute(path.parent / name): transcript or "" for name, transcript in rows if name}
    except (OSError, ValueError, csv.Error) as error:  # ValueError: no UTF-8, or a name that no file can have.
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path} cannot be read as CSV ({reason}), UTF-8 text is needed. Check the file.") from error


def _absolute(path: Path) -> Path:
    # Not Path.resolve: it raises for links in a circle.
    return Path(os.path.realpath(path))


def _whole(recognizer: EmotionRecognizer, transcripts: dict[Path, str], risk: float | None) -> Judge:
    from edge_ser.sources import read_samples

    def judge(path: Path) -> list[Event]:
        transcript = transcripts.get(_absolute(path))
        return [recognizer.recognize(read_samples(path), transcript=transcript, risk=risk)]

    return judge


def _by_utterance(recognizer: EmotionRecognizer, vad: str, risk: float | None) -> Judge:
    from edge_ser.sources import read_blocks

    def judge(path: Path) -> list[Event]:
        return list(recognizer.stream(vad=vad, risk=risk).listen(read_blocks(path)))

    return judge


@contextlib.contextmanager
def _progress(files: Sequence[Path]) -> Iterator[Callable[[], None]]:
    """Show a bar on stderr if a person reads it; yield what moves it on by one file."""
    if len(files) < 2 or not is_terminal(sys.stderr) or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(bar_width=None), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    # Rows go through the bar's console only where both are on the terminal; else a pipe would lose them.
    both = is_terminal(sys.stdout)
    with Progress(*columns, console=console, transient=True, redirect_stdout=both) as progress:
        task = progress.add_task("", total=len(files))
        yield lambda: progress.advance(task)
