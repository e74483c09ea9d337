"""Ablation: variants of one system under another protocol, side by side, with bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_ser.errors import ConfigError
from train.protocols import cross_language, folded, fractions, k_shot, low_resource
from train.protocols.drawing import draw_bars
from train.protocols.parts import Job, Part
from train.protocols.recipe import Recipe, file_name
from train.protocols.study import Study
from train.protocols.tables import Table

_UNDER = {
    "cross-language": cross_language.RECIPE,
    "k-shot": k_shot.RECIPE,
    "within-corpus": folded.WITHIN_CORPUS,
    "leave-speakers-out": folded.LEAVE_SPEAKERS_OUT,
    "fractions": fractions.RECIPE,
    "low-resource": low_resource.RECIPE,
}


@dataclass(frozen=True)
class Ablation:
    """The table [ablation]."""

    by: str = "cross-language"
    """The protocol that judges the variants, with its own table of settings."""


def plan(study: Study) -> list[Job]:
    """Return the jobs of the protocol that judges.

    Raises:
        ConfigError: There are no two variants, or no such protocol.
    """
    if len(study.variants) < 2:
        raise ConfigError(
            "got one variant; need at least two; add tables [[variants]] with name and model to the settings"
        )
    return _under(study).plan(study)


def report(study: Study, parts: Sequence[Part], folder: Path) -> list[Table]:
    """Return the tables of the protocol that judges, and draw a bar a variant."""
    tables = _under(study).report(study, parts, folder)
    for table in tables:
        wheres: dict[str, list[int]] = {}
        for place, line in enumerate(table.lines):
            wheres.setdefault(" ".join(value for head, value in line.names.items() if head != "system"), []).append(
                place
            )
        for where, places in wheres.items():
            suffix = f"-{len(tables)}-{file_name(table.title)}" if len(tables) > 1 else ""
            path = folder / f"ablation-{file_name(where)}{suffix}{study.request.pictures}"
            draw_bars(path, [table.lines[place] for place in places], f"{table.title}: {where}")
    return tables


def _under(study: Study) -> Recipe:
    by = study.options(Ablation, "ablation").by
    if by not in _UNDER:
        raise ConfigError(f"[ablation] by is {by!r}; need one of {', '.join(_UNDER)}")
    return _UNDER[by]


RECIPE = Recipe(
    purpose="variants of one system, judged by another protocol (cross-language unless [ablation] by says otherwise)",
    needs="[[variants]] in the settings, and what the protocol that judges needs",
    plan=plan,
    report=report,
)
