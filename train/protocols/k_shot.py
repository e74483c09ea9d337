"""k-shot: adapt a source model to k labelled clips a class of a target; nested supports, one query for every k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from edge_ser.errors import ConfigError
from train.corpora.utterance import Utterance
from train.folds import source_fold
from train.protocols.adaptation import AdaptSettings, adapt
from train.protocols.drawing import draw_curves
from train.protocols.parts import Job, Part
from train.protocols.recipe import Recipe, chosen, draw_common, joined, line_of, source_table, variants_compared
from train.protocols.references import shot_reference
from train.protocols.study import Study, Variant
from train.protocols.tables import Comparison, Line, Table, compare
from train.published import PublishedTable
from train.supports import Support, draw_shots

WHOLE = "whole target"
QUERY = "support's speakers in the query"
UNHEARD = "support's speakers left out"


@dataclass(frozen=True)
class KShot:
    """The table [k_shot]."""

    shots: tuple[int, ...] = (0, 5, 10, 15)
    """Sizes of the support; 0 is the source model as it is."""
    shots_per: str = "class"
    """`class`: k of each class; `total`: k in all."""
    support: str = "half"
    """Speakers that the support is drawn from: `half` of them, as `few` as can give so many clips, or `all`."""
    source_seeds: int = 0
    """How many source models the seeds share in turn; 0 fits one for each seed."""
    validation_fraction: float = 0.1
    """Share of the source's speakers that choose the source model's weights."""
    adapt: str = "full"
    """What moves: `full`, `head` or `norm_bias`."""
    learning_rate: float = 1e-4
    """Of Adam."""
    batch_size: int = 16
    """At most; a smaller support is one batch."""
    epochs: int = 50
    """At most."""
    stop_below: float = 0.01
    """Loss on the support at which adaptation ends."""
    replay: int = 0
    """Clips of the source that are learnt again beside each clip of the support, so that little is unlearnt."""

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        if not self.shots or min(self.shots) < 0:
            raise ConfigError(f"shots is {list(self.shots)}; need at least one number from 0")
        if self.source_seeds < 0 or self.replay < 0:
            raise ConfigError(f"source_seeds is {self.source_seeds}, replay {self.replay}; need numbers from 0")

    @property
    def adaptation(self) -> AdaptSettings:
        """Return how a model is adapted."""
        return AdaptSettings(self.adapt, self.learning_rate, self.batch_size, self.epochs, self.stop_below)


def plan(study: Study) -> list[Job]:
    """Return, for each variant, set of sources, seed and target, one job a k; the whole target once a source model.

    Raises:
        ConfigError: A switch is wrong or a target too small: said before hours of training, not after.
    """
    options = study.options(KShot, "k_shot")
    options.adaptation.of(1, study.first.fit, 0)
    for target in {target for source in study.sources() for target in study.targets(source)}:
        for seed in study.request.seeds:
            _support(study, options, target, seed)
    return [
        Job(_key(variant, source, target, seed, k), partial(_make, study, variant, source, target, seed, k))
        for variant in study.variants
        for source in study.sources()
        for seed in study.request.seeds
        for target in study.targets(source)
        # Seeds that share a source model would judge the same weights on the same clips again.
        for k in (*((None,) if _source_seed(study, options, seed) == seed else ()), *sorted(set(options.shots)))
    ]


def report(study: Study, parts: Sequence[Part], folder: Path) -> list[Table]:
    """Return tables of the whole target at 0 shots, of the query, and of it without the support's speakers."""
    options = study.options(KShot, "k_shot")
    queries = chosen(parts, judged=QUERY)
    heard = [part.only("unheard") for part in queries if any(part.marks["unheard"])]
    tables = [
        _table(study, WHOLE, chosen(parts, judged=WHOLE), None),
        _table(study, QUERY, queries, options.shots),
    ]
    if heard:
        tables.append(_table(study, UNHEARD, heard, options.shots))
    axis = "shots per class" if options.shots_per == "class" else "shots in total"
    for table, name in zip(tables[1:], ("k-shot", "k-shot-unheard"), strict=False):
        draw_curves(folder / f"{name}{study.request.pictures}", _curves(table.lines), axis, table.title)
    most = max(options.shots)
    draw_common(study, tables[-1:], folder, [f"{pair}, {most} shots" for pair in study.pairs()])
    return tables


def _table(study: Study, judged: str, parts: Sequence[Part], shots: Sequence[int] | None) -> Table:
    lines: list[Line] = []
    sources: list[PublishedTable | None] = []
    for source in study.sources():
        for target in study.targets(source):
            for variant in study.variants:
                for k in [0] if shots is None else sorted(set(shots)):
                    own = chosen(parts, variant=variant.name, source=joined(source), target=target, shots=k)
                    if not own:
                        continue
                    figures, table = shot_reference(variant, source, target, k, study.classes)
                    names = {"system": variant.name, "source": joined(source), "target": target, "shots": str(k)}
                    lines.append(line_of(names, own, figures))
                    sources.append(table)
    notes = [
        f"Judged: {judged}. Supports are nested, drawn by corpus and seed; the query is the target without the largest "
        "support, the same for every k."
    ]
    models = min(study.options(KShot, "k_shot").source_seeds or len(study.request.seeds), len(study.request.seeds))
    if shots is None:
        notes = [f"Judged: the whole target, by each of {models} source model(s) as it is."]
    elif models < len(study.request.seeds):
        notes.append(f"The {len(study.request.seeds)} seeds of the supports share {models} source model(s).")
    notes += _absent(study, lines)
    compared = [*_gains(lines), *variants_compared(lines)]
    return Table(f"k-shot, {judged}", lines, compared, source_table(sources), notes)


def _absent(study: Study, lines: Sequence[Line]) -> list[str]:
    """Return which classes nobody is judged on: few speakers may own a class, and leaving them out leaves none."""
    found = set()
    for line in lines if not study.rates else ():
        counts = line.confusions.sum(axis=(0, 2))
        missing = [name for name, count in zip(study.classes, counts, strict=True) if not count]
        if missing:
            found.add(f"{line.names['target']}: no clip of {', '.join(missing)} is left; UA is over the other classes.")
    return sorted(found)


def _gains(lines: Sequence[Line]) -> list[Comparison]:
    """Return, for each system and target, what the most shots gain over none."""
    found = []
    for curve in _curves(lines).values():
        most = max(curve)
        if 0 in curve and most > 0:
            name = ", ".join(value for head, value in curve[most].names.items() if head != "shots")
            found.append(compare(curve[most], curve[0], (f"{name}: {most:g} shots", "0 shots")))
    return found


def _curves(lines: Sequence[Line]) -> Mapping[str, dict[float, Line]]:
    curves: dict[str, dict[float, Line]] = {}
    for line in lines:
        name = f"{line.names['system']}: {line.names['source']} to {line.names['target']}"
        curves.setdefault(name, {})[float(line.names["shots"])] = line
    return curves


def _key(variant: Variant, source: Sequence[str], target: str, seed: int, k: int | None) -> str:
    return f"k-shot_{variant.id}_{joined(source)}_{target}_s{seed}_{'whole' if k is None else f'k{k}'}"


def _make(study: Study, variant: Variant, source: tuple[str, ...], target: str, seed: int, k: int | None) -> Part:
    options = study.options(KShot, "k_shot")
    clips = study.clips(*source)
    fold = source_fold(clips, validation_fraction=options.validation_fraction, seed=study.first.seed)
    system, fitted = study.source_model(variant, fold, clips, _source_seed(study, options, seed))
    judged = study.clips(target)
    key = _key(variant, source, target, seed, k)
    facts = {"source": joined(source), "target": target, "seed": seed, "source_model": dict(fitted)}
    if k is None:
        return study.answer(variant, system, judged, key, {**facts, "judged": WHOLE, "shots": 0})
    support = _support(study, options, target, seed)
    learnt = [judged[place] for place in support.nested[k]] if k else []
    facts |= {"judged": QUERY, "shots": k, "support": len(learnt), "support_speakers": len({c.speaker for c in learnt})}
    again = _replayed([clips[place] for place in fold.train], options.replay * len(learnt), seed)
    facts |= {"adaptation": adapt(study, variant, system, [*learnt, *again], options.adaptation, seed)}
    query = [judged[place] for place in support.query]
    if k == max(options.shots):
        study.keep_map(variant, system, query, f"{joined(source)} to {target}, {k} shots", seed)
    part = study.answer(variant, system, query, key, facts)
    unheard = set(support.unheard)
    return replace(part, marks={"unheard": tuple(place in unheard for place in support.query)})


def _support(study: Study, options: KShot, target: str, seed: int) -> Support:
    clips = study.clips(target)
    return draw_shots(clips, study.labels(clips), options.shots, seed=seed, per=options.shots_per, pool=options.support)


def _replayed(source: Sequence[Utterance], count: int, seed: int) -> list[Utterance]:
    """Return clips that the source model was trained on, drawn by seed."""
    order = np.random.default_rng(seed).permutation(len(source))
    return [source[place] for place in order[:count].tolist()]


def _source_seed(study: Study, options: KShot, seed: int) -> int:
    seeds = study.request.seeds
    return seeds[seeds.index(seed) % (options.source_seeds or len(seeds))]


RECIPE = Recipe(
    purpose="adapt a source model to 0, 5, 10 and 15 clips a class of each target",
    needs="--source and --target",
    plan=plan,
    report=report,
)
