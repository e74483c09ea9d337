"""Low resource: a second language from nested subsets of its clips, by an adapter over a source model or otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge_ser.errors import ConfigError
from train.corpora.utterance import Utterance
from train.fit import FitSettings, fit
from train.folds import Fold, check_folds, fold_hash, split_fold
from train.protocols.drawing import draw_curves
from train.protocols.parts import Facts, Job, Part
from train.protocols.recipe import Recipe, chosen, draw_common, joined, line_of, source_table, variants_compared
from train.protocols.references import (
    NOTHING,
    Reference,
    first_language_reference,
    learns_once,
    second_language_reference,
)
from train.protocols.study import Study, Variant
from train.protocols.tables import Comparison, Line, Table, compare
from train.published import PublishedTable
from train.run_folder import load_stored_state, stored_state
from train.supports import nested_subsets
from train.systems import System

TARGET = "second language"
BEFORE = "first language before"
ON = "first language, pack on"
OFF = "first language, pack off"
"""What is judged: unheard speakers of either language, the first with the second's adapter and head on, and off."""

_ONE_STAGE = ("off_the_shelf", "finetuned")


@dataclass(frozen=True)
class LowResource:
    """The table [low_resource]."""

    sizes: tuple[int, ...] = (1_000, 2_000, 5_000, 10_000, 20_000)
    """Clips of the second language, nested; sizes above what there is are one, of all. The source model is judged too.
    """
    validation_fraction: float = 0.1
    """Share of each corpus's speakers that choose the weights, where the corpus has no official parts."""
    test_fraction: float = 0.3
    """Share of each corpus's speakers that judge, where the corpus has no official parts."""
    fit: Mapping[str, Any] = field(default_factory=dict)
    """What the second stage changes of [fit]: [low_resource.fit]."""

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        if any(size < 0 for size in self.sizes):
            raise ConfigError(f"sizes is {list(self.sizes)}; need numbers from 0")


def plan(study: Study) -> list[Job]:
    """Return, for each variant, set of sources, seed and target, the source model's answers and those of every size."""
    options = study.options(LowResource, "low_resource")
    jobs = []
    for variant in study.variants:
        _second_fit(variant.experiment.fit, options)
        for source in study.sources():
            for seed in study.request.seeds:
                for target in study.targets(source):
                    later = _sizes(study, variant, target)
                    named = _named(study, variant, source, target)
                    for size, judged in [(0, TARGET), (0, BEFORE)] + [(n, j) for n in later for j in (TARGET, ON, OFF)]:
                        key = f"low-resource_{named}_s{seed}_n{size}_{judged}"
                        make = partial(_make, study, variant, (source, target), (seed, size, judged), key)
                        jobs.append(Job(key, make))
    return jobs


def report(study: Study, parts: Sequence[Part], folder: Path) -> list[Table]:
    """Return the table of the second language and that of what the first one loses."""
    second = _table(study, parts, (TARGET,), "Low resource: the second language, unheard speakers")
    first = _table(study, parts, (BEFORE, ON, OFF), "Low resource: the first language afterwards, unheard speakers")
    curves: dict[str, dict[float, Line]] = {}
    for line in second.lines:
        name = f"{line.names['system']}: {line.names['source']} to {line.names['target']}"
        curves.setdefault(name, {})[float(line.names["clips"])] = line
    draw_curves(folder / f"low-resource{study.request.pictures}", curves, "clips of the second language", second.title)
    wheres = [_where(part.facts["source"], part.facts["target"], part.facts["size"]) for part in parts]
    draw_common(study, [second], folder, wheres)
    return [second, first]


def divided(clips: Sequence[Utterance], options: LowResource, seed: int) -> Fold:
    """Return training, validation and test: the official parts where every clip has one, else by speaker.

    Official parts are taken as they are, with the speakers that they may share (some corpora have speakers whom nobody
    knows); test sets beyond the first are left out.
    """
    names = {clip.partition for clip in clips}
    if "" in names or not {"train", "dev"} <= names:
        shares = {"validation_fraction": options.validation_fraction, "test_fraction": options.test_fraction}
        return split_fold(clips, seed=seed, **shares)
    test = next((name for name in ("test", "test1", "test-1") if name in names), "")
    if not test:
        raise ConfigError(f"official parts are {', '.join(sorted(names))}; need train, dev and test or test1")
    sides = [tuple(p for p, clip in enumerate(clips) if clip.partition == name) for name in ("train", "dev", test)]
    return check_folds(clips, [Fold("official", *sides)], speaker_independent=False, covers=False)[0]


def _table(study: Study, parts: Sequence[Part], judged: Sequence[str], title: str) -> Table:
    lines: list[Line] = []
    sources: list[PublishedTable | None] = []
    for source in study.sources():
        for target in study.targets(source):
            for what in judged:
                for variant in study.variants:
                    facts = {"variant": variant.name, "source": joined(source), "target": target, "judged": what}
                    most = max([0, *_sizes(study, variant, target)])
                    for size in sorted({int(part.facts["size"]) for part in chosen(parts, **facts)}):
                        names = {"system": variant.name, "source": joined(source), "target": target}
                        names |= {"clips": str(size), "judged": what}
                        figures, table = _reference(study, variant, (source, target), what, (size, most))
                        lines.append(line_of(names, chosen(parts, size=size, **facts), figures))
                        sources.append(table)
    return Table(title, lines, [*_gains(lines), *variants_compared(lines)], source_table(sources))


def _reference(
    study: Study, variant: Variant, corpora: tuple[tuple[str, ...], str], judged: str, sizes: tuple[int, int]
) -> Reference:
    """Return the published figure of a line whose size is the first of `sizes`, the largest the second.

    A method that learns once is published as it is after that, the others after the whole second language.
    """
    (source, target), (size, most) = corpora, sizes
    if size != (0 if learns_once(variant) else most) or (size == 0) != learns_once(variant):
        return NOTHING
    if judged == TARGET:
        return second_language_reference(variant, target, study.first.task)
    if judged in (BEFORE, ON):
        return first_language_reference(variant, source, study.first.task)
    return NOTHING


def _sizes(study: Study, variant: Variant, target: str) -> list[int]:
    """Return how many clips of a target a variant learns from: each subset once, whatever sizes were asked for."""
    options = study.options(LowResource, "low_resource")
    if variant.experiment.model.get("mode") in _ONE_STAGE:
        return []
    there = len(divided(study.clips(target), options, study.first.seed).train)
    return sorted({min(size, there) for size in options.sizes if size})


def _where(source: str, target: str, size: int) -> str:
    return f"{source} to {target}, {size} clips"


def _gains(lines: Sequence[Line]) -> list[Comparison]:
    """Return what the most clips gain on the second language over none, system by system."""
    found = []
    for none in (line for line in lines if line.names["clips"] == "0" and line.names["judged"] == TARGET):
        same = [
            line
            for line in lines
            if all(line.names[name] == none.names[name] for name in ("system", "source", "target", "judged"))
        ]
        most = max(same, key=lambda line: int(line.names["clips"]))
        if most is not none:
            name = f"{most.names['system']}, {most.names['target']}: {most.names['clips']} clips"
            found.append(compare(most, none, (name, "none")))
    return found


def _named(study: Study, variant: Variant, source: Sequence[str], target: str) -> str:
    """Return what names a variant's parts between two languages: who stands on which side of them, too."""
    options = study.options(LowResource, "low_resource")
    sides = [
        fold_hash(clips, divided(clips, options, study.first.seed))
        for clips in (study.clips(*source), study.clips(target))
    ]
    return f"{variant.id}_{joined(source)}_{target}_{'-'.join(sides)}"


def _make(
    study: Study, variant: Variant, corpora: tuple[tuple[str, ...], str], which: tuple[int, int, str], key: str
) -> Part:
    (source, target), (seed, size, judged) = corpora, which
    options = study.options(LowResource, "low_resource")
    clips, second = study.clips(*source), study.clips(target)
    fold = divided(clips, options, study.first.seed)
    system, facts = study.source_model(variant, fold, clips, seed)
    first_language, language = _languages(system, second)
    if size:
        facts = _second_stage(study, variant, system, second, (source, target, language), (seed, size))
        _call(system, "use", first_language if judged == OFF else language)
    judges = divided(second, options, study.first.seed).test if judged == TARGET else fold.test
    heard = [(second if judged == TARGET else clips)[place] for place in judges]
    if judged == TARGET:
        if size == max([0, *_sizes(study, variant, target)]):
            study.keep_map(variant, system, heard, _where(joined(source), target, size), seed)
    told = {"source": joined(source), "target": target, "seed": seed, "size": size, "judged": judged}
    return study.answer(variant, system, heard, key, {**told, **facts})


def _second_stage(
    study: Study,
    variant: Variant,
    system: System,
    clips: Sequence[Utterance],
    names: tuple[tuple[str, ...], str, str],
    which: tuple[int, int],
) -> Facts:
    """Put the second language into a source model: its adapter and head where the system has such, else all weights."""
    (source, target, language), (seed, size) = names, which
    options = study.options(LowResource, "low_resource")
    fold = divided(clips, options, study.first.seed)
    # What a new adapter starts from belongs to the seed, not to how many jobs this process has done.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _call(system, "begin", language)

    def make() -> tuple[dict[str, Tensor], Facts]:
        learnt = [clips[place] for place in fold.train]
        subset = nested_subsets(learnt, [size], seed=seed)[size]
        settings = replace(_second_fit(variant.experiment.fit, options), seed=seed, statistics=False)
        train = study.examples(variant, [learnt[place] for place in subset], "train")
        validation = study.examples(variant, [clips[place] for place in fold.validation], "validation")
        result = fit(
            system, [e for group in train for e in group], [e for group in validation for e in group], settings
        )
        facts = {"learnt": len(subset), "best_epoch": result.best_epoch, "validation": result.best}
        return {name: tensor.cpu() for name, tensor in stored_state(system).items()}, facts

    key = f"pack_{_named(study, variant, source, target)}_s{seed}_n{size}"
    tensors, facts = study.store.weights(key, make)
    load_stored_state(system, tensors, key)
    system.eval()
    return facts


def _second_fit(settings: FitSettings, options: LowResource) -> FitSettings:
    try:
        return replace(settings, **options.fit)
    except TypeError as error:
        raise ConfigError(f"[low_resource.fit]: {error}; need settings of [fit]") from None


def _languages(system: System, clips: Sequence[Utterance]) -> tuple[str, str]:
    """Return how the system calls the first language and that of the clips."""
    known = tuple(getattr(getattr(system, "config", None), "languages", ()))
    if len(known) < 2:
        return "", ""
    own = clips[0].language.partition("-")[0]
    return known[0], own if own in known[1:] else known[1]


def _call(system: System, method: str, language: str) -> None:
    """Call a method of a system that keeps its languages apart; others have one set of weights."""
    if language and hasattr(system, method):
        getattr(system, method)(language)


RECIPE = Recipe(
    purpose="a second language from nested subsets: LoRA, fine-tuning or nothing, and what the first one loses",
    needs="--source and --target",
    plan=plan,
    report=report,
)
