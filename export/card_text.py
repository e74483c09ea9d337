"""Markdown for cards: tables and numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def joined(*parts: str) -> str:
    """Return the parts that say something, a blank line between them."""
    return "\n\n".join(part for part in parts if part) + "\n"


def section(title: str, *parts: str) -> str:
    """Return a section, or nothing where no part says anything."""
    said = [part for part in parts if part]
    return "\n\n".join([f"## {title}", *said]) if said else ""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table, or nothing where it has no row."""
    lines = [_line(row) for row in rows]
    return "\n".join([_line(head), _line(["---"] * len(head)), *lines]) if lines else ""


def ua(figures: Mapping[str, Any] | None) -> str:
    """Return a UA and its interval."""
    if not figures:
        return "-"
    low, high = figures["ua_interval"]
    return f"{figures['ua']:.3f} [{low:.3f}, {high:.3f}]"


def points(figures: Mapping[str, Any] | None) -> str:
    """Return a difference and its interval in points, hundredths of UA."""
    if not figures:
        return "-"
    low, high = (100 * end for end in figures["difference_interval"])
    return f"{100 * figures['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"


def certain(figures: Mapping[str, Any]) -> str:
    """Return how often certain answers are right, and their share."""
    right = figures["certain_accuracy"]
    return f"{'-' if right is None else f'{right:.3f}'} ({figures['certain_share']:.0%})"


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"
