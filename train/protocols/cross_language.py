"""Cross-language: learn from source corpora, judge on the whole of another one, never select on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from train.folds import source_fold
from train.protocols.parts import Job, Part
from train.protocols.recipe import Recipe, chosen, draw_common, joined, line_of, source_table, variants_compared
from train.protocols.references import cross_reference
from train.protocols.study import Study, Variant
from train.protocols.tables import Table


@dataclass(frozen=True)
class CrossLanguage:
    """The table [cross_language]."""

    validation_fraction: float = 0.1
    """Share of the source's speakers that choose the weights."""


def plan(study: Study) -> list[Job]:
    """Return one job a variant, set of sources, seed and target."""
    return [
        Job(_key(variant, source, seed, target), partial(_make, study, variant, source, seed, target))
        for variant in study.variants
        for source in study.sources()
        for seed in study.request.seeds
        for target in study.targets(source)
    ]


def report(study: Study, parts: Sequence[Part], folder: Path) -> list[Table]:
    """Return one table: a line a variant, set of sources and target."""
    lines, sources = [], []
    for source in study.sources():
        for target in study.targets(source):
            for variant in study.variants:
                own = chosen(parts, variant=variant.name, source=joined(source), target=target)
                figures, reference = cross_reference(variant, source, target, study.classes)
                names = {"system": variant.name, "source": joined(source), "target": target}
                lines.append(line_of(names, own, figures))
                sources.append(reference)
    table = Table(
        "Cross-language: trained on the source, judged on the whole target",
        lines,
        variants_compared(lines),
        source_table(sources),
    )
    draw_common(study, [table], folder, study.pairs())
    return [table]


def _key(variant: Variant, source: Sequence[str], seed: int, target: str) -> str:
    return f"cross-language_{variant.id}_{joined(source)}_{target}_s{seed}"


def _make(study: Study, variant: Variant, source: tuple[str, ...], seed: int, target: str) -> Part:
    clips = study.clips(*source)
    options = study.options(CrossLanguage, "cross_language")
    fold = source_fold(clips, validation_fraction=options.validation_fraction, seed=study.first.seed)
    system, fitted = study.source_model(variant, fold, clips, seed)
    judged = study.clips(target)
    study.keep_map(variant, system, judged, f"{joined(source)} to {target}", seed)
    facts = {"source": joined(source), "target": target, "seed": seed, **fitted}
    return study.answer(variant, system, judged, _key(variant, source, seed, target), facts)


RECIPE = Recipe(
    purpose="train on source corpora, judge on the whole of each target",
    needs="--source and --target",
    plan=plan,
    report=report,
)
