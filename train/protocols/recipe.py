"""What a protocol is, and the small things that protocols share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from train.pictures import embedding_picture
from train.protocols.drawing import draw_confusions
from train.protocols.parts import Job, Part
from train.protocols.study import Study, map_key
from train.protocols.tables import Comparison, Line, Table, compare
from train.published import Figure, PublishedTable
from train.statistics import ATTRIBUTES


@dataclass(frozen=True)
class Recipe:
    """One protocol."""

    purpose: str
    """What it answers, in one line."""
    needs: str
    """What the command line or the settings file must give."""
    plan: Callable[[Study], list[Job]]
    """Returns every fit that it takes."""
    report: Callable[[Study, Sequence[Part], Path], list[Table]]
    """Returns its tables and draws its pictures into a folder."""


def chosen(parts: Sequence[Part], **facts: Any) -> list[Part]:
    """Return the parts of which all these facts hold."""
    return [part for part in parts if all(part.facts.get(name) == value for name, value in facts.items())]


def joined(corpora: Sequence[str]) -> str:
    """Return the name of a set of corpora."""
    return "+".join(corpora)


def line_of(names: Mapping[str, str], parts: Sequence[Part], figures: Mapping[str, Figure]) -> Line:
    """Return a line whose published figures are those of metrics that it has."""
    line = Line(names, parts)
    return Line(names, parts, {name: figure for name, figure in figures.items() if name in line.values})


def variants_compared(lines: Sequence[Line], by: str = "system") -> list[Comparison]:
    """Return how lines differ that differ in one name alone; the one listed first should be better."""
    found = []
    for first, second in combinations(lines, 2):
        others = [name for name in first.names if name != by]
        if first.names[by] != second.names[by] and all(first.names[name] == second.names[name] for name in others):
            where = ", ".join(first.names[name] for name in others)
            suffix = f" ({where})" if where else ""
            labels = first.names[by], f"{second.names[by]}{suffix}"
            metrics = ("CCC", *ATTRIBUTES) if first.rates else (first.metric,)
            found += [compare(first, second, labels, metric) for metric in metrics]
    return found


def draw_common(study: Study, tables: Sequence[Table], folder: Path, wheres: Sequence[str]) -> None:
    """Draw what every protocol shows: confusion matrices, and a map of embeddings where one was kept.

    Args:
        study: The study.
        tables: Whose lines have matrices.
        folder: For the pictures.
        wheres: What `Study.keep_map` was told.
    """
    lines = [line for table in tables for line in table.lines if not line.rates]
    if lines:
        draw_confusions(folder / f"confusion{study.request.pictures}", lines, study.classes)
    for variant in study.variants:
        for where in dict.fromkeys(wheres):
            kept = study.store.kept(map_key(variant, where))
            if kept:
                tensors, _ = kept
                path = folder / f"embedding-{file_name(variant.name)}-{file_name(where)}{study.request.pictures}"
                labels = [study.classes[place] for place in tensors["labels"].tolist()]
                title = f"{variant.name}: {where}, seed {study.request.seeds[0]}"
                embedding_picture(tensors["embedding"].numpy(), labels, path, title)


def file_name(name: str) -> str:
    """Return a name with nothing that a file's name cannot hold."""
    return "".join(letter if letter.isalnum() or letter in "-+" else "-" for letter in name.lower())


def source_table(references: Sequence[PublishedTable | None]) -> PublishedTable | None:
    """Return the first published table that there is."""
    return next((table for table in references if table is not None), None)
