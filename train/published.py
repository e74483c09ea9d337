"""Figures as their sources printed them (published.toml): reference points beside ours, never a pass mark."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edge_ser.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REFERENCE = (
    "A published figure is a reference point, never a pass mark: its source gives no seeds, splits or checkpoints."
)
"""What is printed below every table that shows one."""

_SCALES = {"%": 0.01, "share": 1.0, "CCC": 1.0}


@dataclass(frozen=True)
class Figure:
    """One printed figure."""

    value: float
    """A share in [0, 1], or a CCC in [-1, 1]."""
    sd: float | None = None
    """Printed standard deviation on the same scale, where there is one."""
    significant: bool = False
    """Whether the source marks it as significantly better than the others."""


@dataclass(frozen=True)
class PublishedTable:
    """One table of a source."""

    id: str
    """What the protocols call it."""
    source: str
    """Short name of the source."""
    title: str
    """What the table shows."""
    table: str
    """Its number in the source; empty for a figure without numbers."""
    unit: str
    """How it is printed: `%`, `share` or `CCC`."""
    keys: tuple[str, ...]
    """Heads of the leading columns, which name a row."""
    columns: tuple[str, ...]
    """Heads of the columns of figures."""
    figures: Mapping[tuple[tuple[str, ...], str], Figure]
    """By names of the row and head of the column."""
    systems: Mapping[str, str]
    """Our systems -> how the table names them."""
    note: tuple[str, ...]
    """What contradicts the table within its own source, and other doubts."""

    @property
    def cited(self) -> str:
        """Return where the figures stand, for a reader: source and number of the table."""
        return f"{self.source}, table {self.table}" if self.table else f"{self.source}, a figure without numbers"

    def find(self, column: str, row: Mapping[str, str]) -> Figure | None:
        """Return the figure of a column in the first row that has these names, None where there is none.

        Names match whatever their case and punctuation: `cremad` is CREMA-D.

        Args:
            column: Head of the column.
            row: Head of a key column -> what stands there; other key columns may hold anything.
        """
        wanted = {self.keys.index(key): _plain(name) for key, name in row.items()}
        for (names, head), figure in self.figures.items():
            if _plain(head) == _plain(column) and all(_plain(names[key]) == name for key, name in wanted.items()):
                return figure
        return None


def published(table: str) -> PublishedTable:
    """Return a table by its id.

    Raises:
        ConfigError: No such table.
    """
    tables = all_published()
    if table not in tables:
        raise ConfigError(f"no published table {table!r}; need one of {', '.join(tables)}")
    return tables[table]


@cache
def all_published() -> Mapping[str, PublishedTable]:
    """Return every table by its id."""
    content = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return {name: _table(name, entry) for name, entry in content.items()}


def _table(name: str, entry: Mapping[str, Any]) -> PublishedTable:
    keys, columns = tuple(entry["keys"]), tuple(entry["columns"])
    scale = _SCALES[entry["unit"]]
    marked = {tuple(mark) for mark in entry.get("significant", [])}
    figures: dict[tuple[tuple[str, ...], str], Figure] = {}
    for row in entry["rows"]:
        if len(row) != len(keys) + len(columns):
            raise ConfigError(f"published table {name}: row {row} has {len(row)} cells; need one a column")
        names = tuple(row[: len(keys)])
        for column, cell in zip(columns, row[len(keys) :], strict=True):
            if cell != "":
                figures[names, column] = _figure(cell, scale, (*names, column) in marked)
    return PublishedTable(
        id=name,
        source=entry["source"],
        title=entry["title"],
        table=entry["table"],
        unit=entry["unit"],
        keys=keys,
        columns=columns,
        figures=figures,
        systems=entry.get("systems", {}),
        note=tuple(entry["note"]),
    )


def _figure(cell: float | Sequence[float], scale: float, significant: bool) -> Figure:
    if isinstance(cell, (int, float)):
        return Figure(cell * scale, None, significant)
    value, sd = cell
    return Figure(value * scale, sd * scale, significant)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum() or letter in "+&/")
