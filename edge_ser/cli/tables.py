"""Plain tables and reports, as text or JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from edge_ser.cli.text import speaks_unicode


def add_format(parser: argparse.ArgumentParser) -> None:
    """Add the choice between text and JSON."""
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how it is written")


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=not speaks_unicode(sys.stdout), allow_nan=False))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns, each as wide as its longest cell."""
    cells = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
