"""How `classify` writes what it finds: a table, JSON lines or CSV."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from edge_ser.cli.text import EventText, is_terminal, speaks_unicode
from edge_ser.events import Emotion, Event, Rejected, Summary

NO_SPEECH = "no speech found; --whole judges the whole file"
_SIDE_BY_SIDE_COLUMNS = 80
_ANSWER_COLUMNS = 46


class Rows(Protocol):
    """Writes the results of one file after the other to stdout."""

    def write(self, path: Path, events: Sequence[Event]) -> None:
        """Write the events of one file: of its utterances, or one `Emotion` for the whole of it."""
        ...


def _results(events: Sequence[Event]) -> list[Emotion | Rejected]:
    return [event for event in events if isinstance(event, Emotion | Rejected)]


class TableRows:
    """A line per utterance, the file's name before it or, where that is too narrow, above it."""

    def __init__(self, labels: Sequence[str], files: Sequence[Path]) -> None:
        terminal = is_terminal(sys.stdout)
        columns = shutil.get_terminal_size().columns if terminal else None
        longest = max((len(str(path)) for path in files), default=0)
        self._side_by_side = columns is None or columns >= _SIDE_BY_SIDE_COLUMNS
        self._path_columns = longest if columns is None else min(longest, columns - _ANSWER_COLUMNS)
        below = None if columns is None else columns - (self._path_columns if self._side_by_side else 0) - 2
        self._text = EventText(labels, below, speaks_unicode(sys.stdout))

    def write(self, path: Path, events: Sequence[Event]) -> None:
        """Write the lines of one file."""
        lines = [line for event in _results(events) for line in self._text.lines(event)] or [NO_SPEECH]
        if not self._side_by_side:
            lines = [str(path), *(f"  {line}" for line in lines)]
        else:
            lines = [f"{self._short(str(path)):<{self._path_columns}}  {line}" for line in lines]
        print("\n".join(lines), flush=True)

    def _short(self, name: str) -> str:
        # The end of a path tells files apart.
        return name if len(name) <= self._path_columns else "..." + name[3 - self._path_columns :]


class JsonRows:
    """The stream's own events, each with the `path` it belongs to; a file without speech has a `note`."""

    def __init__(self, labels: Sequence[str], files: Sequence[Path]) -> None:
        self._ascii = not speaks_unicode(sys.stdout)

    def write(self, path: Path, events: Sequence[Event]) -> None:
        """Write the lines of one file."""
        for event in events:
            if isinstance(event, Emotion | Rejected | Summary):
                silent = isinstance(event, Summary) and not _results(events)
                row = {"path": str(path), **event.to_dict(), **({"note": NO_SPEECH} if silent else {})}
                print(json.dumps(row, ensure_ascii=self._ascii, allow_nan=False), flush=True)


class CsvRows:
    """A row per utterance; `note` says why there is no emotion."""

    _FIELDS = ("path", "utterance", "start_s", "end_s", "emotion", "confidence", "uncertain", "candidates", "note")

    def __init__(self, labels: Sequence[str], files: Sequence[Path]) -> None:
        # csv ends its lines with \r\n by itself; a pipe wants \n.
        self._writer = csv.DictWriter(
            sys.stdout, [*self._FIELDS, *(f"p_{label}" for label in labels)], restval="", lineterminator="\n"
        )
        self._writer.writeheader()

    def write(self, path: Path, events: Sequence[Event]) -> None:
        """Write the rows of one file."""
        for row in [self._row(event) for event in _results(events)] or [{"note": NO_SPEECH}]:
            self._writer.writerow({"path": str(path), **row})
        sys.stdout.flush()

    def _row(self, event: Emotion | Rejected) -> Mapping[str, object]:
        row: dict[str, object] = {
            "utterance": event.utterance,
            "start_s": round(event.start_s, 3),
            "end_s": round(event.end_s, 3),
        }
        if isinstance(event, Rejected):
            return {**row, "note": event.reason}
        row["emotion"] = event.emotion
        row["confidence"] = round(event.confidence, 4)
        row["uncertain"] = str(event.uncertain).lower()
        row["candidates"] = " ".join(event.candidates)
        return {**row, **{f"p_{label}": round(share, 4) for label, share in event.probabilities.items()}}


ROWS: Mapping[str, Callable[[Sequence[str], Sequence[Path]], Rows]] = {
    "table": TableRows,
    "jsonl": JsonRows,
    "csv": CsvRows,
}
