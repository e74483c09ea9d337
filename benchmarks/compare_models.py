"""The bundled models side by side: UA on people they never heard, alone and once a voice is known.

    python benchmarks/compare_models.py

reads the evaluations in benchmarks/results (`python -m train.evaluate NAME --out benchmarks/results/NAME.json`) and
prints one row a model. A corpus of which a model never heard anything is marked with a star.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from edge_ser.bundle import bundled_names, find_bundle

RESULTS = ROOT / "benchmarks" / "results"
CORPORA = ("cremad", "emodb", "nemo", "ravdess", "emovo", "ased")


def row(name: str) -> list[str]:
    """Return a model's name, megabytes, and UA cold -> warm by corpus."""
    figures = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    megabytes = sum(path.stat().st_size for path in find_bundle(name).folder.iterdir()) / 1e6
    return [name, f"{megabytes:.1f}", *(_cell(figures["corpora"].get(corpus)) for corpus in CORPORA)]


def _cell(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "-"
    cold, warm = (figures[kind]["ua"] for kind in ("cold", "warm"))
    return f"{cold:.2f} -> {warm:.2f}{' ' if figures['home'] else '*'}"


def main() -> int:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rows = [["model", "MB", *CORPORA], *(row(name) for name in bundled_names())]
    widths = [max(len(line[column]) for line in rows) for column in range(len(rows[0]))]
    print("UA of four classes, unheard speakers: first words -> from the 11th utterance on (*: unheard corpus)")
    for line in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
