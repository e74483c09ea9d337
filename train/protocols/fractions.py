"""Fractions: fine-tune a source model with a share of a target's speakers or clips, judge on the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from edge_ser.errors import ConfigError
from train.folds import source_fold
from train.protocols.adaptation import AdaptSettings, adapt
from train.protocols.drawing import draw_curves
from train.protocols.parts import Job, Part
from train.protocols.recipe import Recipe, chosen, draw_common, joined, line_of, source_table, variants_compared
from train.protocols.references import transfer_reference
from train.protocols.study import Study, Variant
from train.protocols.tables import Comparison, Line, Table, compare
from train.published import PublishedTable
from train.supports import Support, draw_fractions


@dataclass(frozen=True)
class Fractions:
    """The table [fractions]."""

    unit: str = "utterance"
    """`speaker`: all clips of some speakers; `utterance`: some clips of each class, speakers on both sides."""
    fractions: tuple[float, ...] = (0.1,)
    """Shares that are learnt from, nested; all are judged on what the largest leaves."""
    corpora: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Other `unit` and `fractions` for single targets: [fractions.corpora.emodb]."""
    validation_fraction: float = 0.1
    """Share of the source's speakers that choose the source model's weights."""
    adapt: str = "full"
    """What moves: `full`, `head` or `norm_bias`."""
    learning_rate: float = 1e-4
    """Of Adam."""
    batch_size: int = 32
    """At most; a smaller set is one batch."""
    epochs: int = 50
    """At most."""
    stop_below: float = 0.0
    """Loss at which fine-tuning ends; 0 never."""

    def of(self, corpus: str) -> tuple[str, tuple[float, ...]]:
        """Return unit and shares of a target."""
        own = dict(self.corpora.get(corpus, {}))
        unit, shares = own.pop("unit", self.unit), tuple(own.pop("fractions", self.fractions))
        if own:
            raise ConfigError(f"[fractions.corpora.{corpus}] has no setting {', '.join(own)}; need unit, fractions")
        return unit, shares

    @property
    def adaptation(self) -> AdaptSettings:
        """Return how a model is fine-tuned."""
        return AdaptSettings(self.adapt, self.learning_rate, self.batch_size, self.epochs, self.stop_below)


def plan(study: Study) -> list[Job]:
    """Return one job a variant, set of sources, seed, target and share, the unadapted model first.

    Raises:
        ConfigError: A switch is wrong or a target too small: said before hours of training, not after.
    """
    options = study.options(Fractions, "fractions")
    options.adaptation.of(1, study.first.fit, 0)
    for target in {target for source in study.sources() for target in study.targets(source)}:
        for seed in study.request.seeds:
            _support(study, options, target, seed)
    return [
        Job(_key(variant, source, target, seed, share), partial(_make, study, variant, source, target, (seed, share)))
        for variant in study.variants
        for source in study.sources()
        for seed in study.request.seeds
        for target in study.targets(source)
        for share in (0.0, *sorted(options.of(target)[1]))
    ]


def report(study: Study, parts: Sequence[Part], folder: Path) -> list[Table]:
    """Return one table: a line a variant, set of sources, target and share."""
    options = study.options(Fractions, "fractions")
    lines: list[Line] = []
    sources: list[PublishedTable | None] = []
    curves: dict[str, dict[float, Line]] = {}
    for source in study.sources():
        for target in study.targets(source):
            unit, shares = options.of(target)
            for variant in study.variants:
                figures, table = transfer_reference(variant, source, target)
                for share in (0.0, *sorted(shares)):
                    own = chosen(parts, variant=variant.name, source=joined(source), target=target, share=share)
                    names = {"system": variant.name, "source": joined(source), "target": target, "of": unit}
                    names["share"] = f"{share:g}"
                    lines.append(line_of(names, own, figures if share == max(shares) else {}))
                    curves.setdefault(f"{variant.name}: {joined(source)} to {target}", {})[share] = lines[-1]
                sources.append(table)
    notes = ["Shares are nested; all are judged on what the largest leaves."]
    if any(line.names["of"] == "utterance" for line in lines):
        notes.append(
            "By utterance, speakers who are judged were learnt from too: it does not measure unheard speakers."
        )
    compared = [*_gains(curves), *variants_compared(lines)]
    title = "Transfer with a share of the target"
    draw_curves(folder / f"fractions{study.request.pictures}", curves, "share of the target that is learnt from", title)
    table_ = Table(title, lines, compared, source_table(sources), notes)
    wheres = [
        f"{joined(source)} to {target}, a share of {max(options.of(target)[1]):g}"
        for source in study.sources()
        for target in study.targets(source)
    ]
    draw_common(study, [table_], folder, wheres)
    return [table_]


def _gains(curves: Mapping[str, Mapping[float, Line]]) -> list[Comparison]:
    return [
        compare(points[max(points)], points[0.0], (f"{name}: a share of {max(points):g}", "nothing"))
        for name, points in curves.items()
    ]


def _key(variant: Variant, source: Sequence[str], target: str, seed: int, share: float) -> str:
    return f"fractions_{variant.id}_{joined(source)}_{target}_s{seed}_{share:g}"


def _support(study: Study, options: Fractions, target: str, seed: int) -> Support:
    clips = study.clips(target)
    unit, shares = options.of(target)
    return draw_fractions(clips, study.labels(clips), shares, unit=unit, draw=study.request.seeds.index(seed))


def _make(study: Study, variant: Variant, source: tuple[str, ...], target: str, which: tuple[int, float]) -> Part:
    seed, share = which
    options = study.options(Fractions, "fractions")
    clips = study.clips(*source)
    fold = source_fold(clips, validation_fraction=options.validation_fraction, seed=study.first.seed)
    system, fitted = study.source_model(variant, fold, clips, seed)
    judged = study.clips(target)
    shares = options.of(target)[1]
    support = _support(study, options, target, seed)
    learnt = [judged[place] for place in support.nested[share]] if share else []
    facts = {
        "source": joined(source),
        "target": target,
        "seed": seed,
        "share": share,
        "learnt": len(learnt),
        "learnt_speakers": len({clip.speaker for clip in learnt}),
        "source_model": dict(fitted),
        "adaptation": adapt(study, variant, system, learnt, options.adaptation, seed),
    }
    query = [judged[place] for place in support.query]
    if share == max(shares):
        study.keep_map(variant, system, query, f"{joined(source)} to {target}, a share of {share:g}", seed)
    part = study.answer(variant, system, query, _key(variant, source, target, seed, share), facts)
    unheard = set(support.unheard)
    return replace(part, marks={"unheard": tuple(place in unheard for place in support.query)})


RECIPE = Recipe(
    purpose="fine-tune a source model with 10 %, 20 % or a third of each target, by speaker or by clip",
    needs="--source and --target",
    plan=plan,
    report=report,
)
