"""Tables of a protocol: our figures over fits, with intervals, beside the published ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ser.metrics import bootstrap_interval, ccc
from train.protocols.parts import Part
from train.published import REFERENCE, Figure, PublishedTable
from train.run_folder import plain
from train.statistics import (
    ATTRIBUTES,
    METRICS,
    Spread,
    by_speaker,
    ccc_interval,
    interval,
    mean_ccc,
    paired_interval,
    t_interval,
    welch,
)

Confusions = NDArray[np.int64]

_MOST_MATRICES = 8
_FEW_SPEAKERS = 5


@dataclass(frozen=True)
class Line:
    """One line of a table: the parts of one system under one condition, one a seed and fold."""

    names: Mapping[str, str]
    """Head of a column -> what stands there."""
    parts: Sequence[Part]
    """At least one."""
    published: Mapping[str, Figure] = field(default_factory=dict)
    """Metric -> what the source printed."""

    @property
    def rates(self) -> bool:
        """Return whether the answers are attributes."""
        return self.parts[0].truth.ndim > 1

    @property
    def metric(self) -> str:
        """Return the metric that the line is compared by."""
        return "CCC" if self.rates else "UA"

    @cached_property
    def values(self) -> Mapping[str, list[float]]:
        """Return every metric of every fit."""
        names: tuple[str, ...] = ("CCC", *ATTRIBUTES)
        if self.rates:
            rows = [[mean_ccc(p.truth, p.logits), *_each_ccc(p)] for p in self.parts]
        else:
            names = tuple(METRICS)
            matrices = [self._speakers(part).sum(axis=0) for part in self.parts]
            rows = [[metric(matrix) for metric in METRICS.values()] for matrix in matrices]
        return {name: [row[place] for row in rows] for place, name in enumerate(names)}

    @property
    def seeds(self) -> list[Any]:
        """Return the seed of every fit; a fit that tells none stands for itself."""
        return [part.facts.get("seed", f"fit {place}") for place, part in enumerate(self.parts)]

    @property
    def overlapping(self) -> bool:
        """Return whether one seed's folds are all there is to compare: they learn from mostly the same clips."""
        return len(self.parts) > 1 and len(set(self.seeds)) == 1

    @cached_property
    def observations(self) -> Mapping[str, list[float]]:
        """Return what a test may count: every metric once a seed, the mean over its folds; with one seed, the folds.

        Folds of one seed, and seeds of one fold, are no fresh samples: counted singly, they make any interval narrow.
        """
        seeds = self.seeds
        if len(set(seeds)) == 1:
            return self.values
        return {
            name: [
                float(np.mean([value for value, own in zip(values, seeds, strict=True) if own == seed]))
                for seed in dict.fromkeys(seeds)
            ]
            for name, values in self.values.items()
        }

    @cached_property
    def confusions(self) -> Confusions:
        """Return one confusion matrix a speaker, (speakers, C, C), over all fits."""
        return by_speaker(
            np.concatenate([part.truth for part in self.parts]),
            np.concatenate([part.logits.argmax(axis=1) for part in self.parts]),
            np.concatenate([np.array(part.speakers) for part in self.parts]),
            self.parts[0].logits.shape[1],
        )

    @property
    def speakers(self) -> frozenset[str]:
        """Return who was judged on."""
        return frozenset(name for part in self.parts for name in part.speakers)

    @cached_property
    def pooled(self) -> Mapping[str, tuple[float, float, float]]:
        """Return every metric of the pooled answers with its 95 % interval, bootstrapped by speaker."""
        if not self.rates:
            whole = self.confusions.sum(axis=0)
            return {name: (metric(whole), *interval(self.confusions, name)) for name, metric in METRICS.items()}
        truth = np.concatenate([part.truth for part in self.parts])
        answers = np.concatenate([part.logits for part in self.parts])
        owners = np.concatenate([np.array(part.speakers) for part in self.parts])
        return {"CCC": (mean_ccc(truth, answers), *ccc_interval(truth, answers, owners))}

    def result(self) -> dict[str, Any]:
        """Return everything about the line, ready for JSON."""
        figures = {}
        for name, values in self.values.items():
            spread = Spread.of(values)
            entry: dict[str, Any] = {"mean": spread.mean, "sd": spread.sd, "fits": spread.count, "values": values}
            entry["observations"] = len(self.observations[name])
            entry["t_interval"] = list(t_interval(self.observations[name]))
            if name in self.pooled:
                pooled, low, high = self.pooled[name]
                entry |= {"pooled": pooled, "low": low, "high": high}
            if name in self.published:
                entry["published"] = self.published[name].value
                entry["published_sd"] = self.published[name].sd
            figures[name] = entry
        counts = {"speakers": len(self.speakers), "answers": sum(len(part.files) for part in self.parts)}
        matrix = {} if self.rates else {"confusion": self.confusions.sum(axis=0).tolist()}
        facts = [dict(part.facts) for part in self.parts]
        return {**self.names, "figures": plain(figures), **counts, **matrix, "fits": plain(facts)}

    def _speakers(self, part: Part) -> Confusions:
        return by_speaker(part.truth, part.logits.argmax(axis=1), part.speakers, part.logits.shape[1])


@dataclass(frozen=True)
class Comparison:
    """Whether one line is better than another."""

    better: str
    """Names the line that should be better, by the order in which they were listed."""
    worse: str
    """Names the other one."""
    metric: str
    """What they are compared by."""
    difference: float
    """Mean over the fits of the one less that of the other."""
    low: float
    """Lower end of the 95 % interval of the pooled difference, bootstrapped by speaker; NaN where speakers differ."""
    high: float
    """Upper end."""
    t: float
    """Of Welch's one-tailed test over the lines' observations; NaN below two each."""
    p: float
    """Probability of such a t or a higher one where neither is better."""

    def result(self) -> dict[str, Any]:
        """Return the comparison, ready for JSON."""
        content: dict[str, Any] = plain(vars(self))
        return content


def random_guess(classes: int) -> float:
    """Return the UA, and on balanced clips the WA, that guessing at random has on average: exactly 1 / classes."""
    return 1.0 / classes


def compare(better: Line, worse: Line, names: tuple[str, str], metric: str = "") -> Comparison:
    """Return how two lines over the same clips differ in a metric, the lines' first one unless named."""
    metric = metric or better.metric
    low = high = math.nan
    if better.rates:
        low, high = _ccc_difference(better, worse, metric)
    elif better.speakers == worse.speakers:
        low, high = paired_interval(better.confusions, worse.confusions, metric)
    difference = float(np.mean(better.values[metric]) - np.mean(worse.values[metric]))
    test = welch(better.observations[metric], worse.observations[metric])
    return Comparison(*names, metric, difference, low, high, test.t, test.p)


def _ccc_difference(better: Line, worse: Line, metric: str) -> tuple[float, float]:
    """Return the interval of the difference in CCC on the same clips, NaN where they differ."""
    if [part.files for part in better.parts] != [part.files for part in worse.parts]:
        return math.nan, math.nan
    columns = slice(None) if metric == "CCC" else slice(*(ATTRIBUTES.index(metric) + step for step in (0, 1)))
    truth = np.concatenate([part.truth for part in better.parts])[:, columns]
    answers = [np.concatenate([part.logits for part in line.parts])[:, columns] for line in (better, worse)]
    speakers = np.concatenate([np.array(part.speakers) for part in better.parts])

    def difference(right: NDArray[Any], a: NDArray[Any], b: NDArray[Any]) -> float:
        return mean_ccc(right, a) - mean_ccc(right, b)

    return bootstrap_interval(difference, [truth, *answers], speakers)


@dataclass(frozen=True)
class Table:
    """Lines under one title."""

    title: str
    """What it shows."""
    lines: Sequence[Line]
    """In order."""
    comparisons: Sequence[Comparison] = ()
    """What is better than what."""
    source: PublishedTable | None = None
    """Where the published figures stand."""
    notes: Sequence[str] = ()
    """What a reader must know."""

    def result(self) -> dict[str, Any]:
        """Return the table, ready for JSON."""
        return {
            "title": self.title,
            "chance": None if self.lines[0].rates else random_guess(self._classes),
            "lines": [line.result() for line in self.lines],
            "comparisons": [comparison.result() for comparison in self.comparisons],
            "published": None if self.source is None else {"table": self.source.cited, "doubts": self.source.note},
            "notes": [*self.notes, *self._cautions],
        }

    @property
    def _cautions(self) -> list[str]:
        """Return what the intervals of these lines cannot say."""
        said = []
        if any(len(line.observations[line.metric]) < len(line.parts) for line in self.lines):
            said.append("t 95 % and Welch count n observations: one a seed, the mean over its folds.")
        if any(line.overlapping for line in self.lines):
            said.append(
                "With one seed, the n observations of t 95 % and Welch are its folds, which learn from mostly the same "
                "clips: take the interval as the least there is."
            )
        few = sorted({len(line.speakers) for line in self.lines if len(line.speakers) < _FEW_SPEAKERS})
        if few:
            said.append(
                f"By speaker 95 %: {' or '.join(map(str, few))} speaker(s) have few ways to be drawn anew; below "
                f"{_FEW_SPEAKERS} the interval says little."
            )
        return said

    @property
    def _classes(self) -> int:
        return int(self.lines[0].confusions.shape[-1])

    def text(self, classes: Sequence[str]) -> str:
        """Return the table for a terminal, its pooled confusion matrices below."""
        names = list(self.lines[0].names)
        metrics = list(self.lines[0].values)
        first = metrics[0]
        head = [*names, "fits", "n", "speakers", first, "t 95 %", "pooled", "by speaker 95 %"]
        head += [*metrics[1:], "published"]
        blocks = [self.title, aligned(head, [_cells(line, names, metrics) for line in self.lines])]
        blocks.append("mean ± s.d. over fits; pooled answers with their interval bootstrapped by speaker")
        blocks += self._cautions
        if self.comparisons:
            blocks.append(_comparisons(self.comparisons, self.lines[0].rates))
        if any(line.published for line in self.lines) and self.source is not None:
            blocks.append(f"Published: {self.source.cited}. {REFERENCE}")
        blocks += self.notes
        if not self.lines[0].rates:
            blocks.append(f"chance: {random_guess(self._classes):.3f} (1/{self._classes})")
            shown = self.lines[:_MOST_MATRICES]
            blocks += [_matrix(line, classes) for line in shown]
            if len(self.lines) > len(shown):
                blocks.append(f"{len(self.lines) - len(shown)} more confusion matrices are in result.json")
        return "\n\n".join(blocks)


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return columns, each as wide as its longest cell."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def number(value: float, rates: bool = False) -> str:
    """Return a share as percent with one digit, a CCC with three; NaN as a dash."""
    if math.isnan(value):
        return "-"
    return f"{value:.3f}" if rates else f"{100 * value:.1f}"


def _cells(line: Line, names: Sequence[str], metrics: Sequence[str]) -> list[str]:
    spreads = {name: Spread.of(line.values[name]) for name in metrics}

    def show(value: float) -> str:
        return number(value, line.rates)

    def both(name: str) -> str:
        return f"{show(spreads[name].mean)} ± {show(spreads[name].sd)}"

    first = metrics[0]
    low, high = t_interval(line.observations[first])
    pooled, bottom, top = line.pooled[first]
    return [
        *(line.names[name] for name in names),
        str(len(line.parts)),
        str(len(line.observations[first])),
        str(len(line.speakers)),
        both(first),
        "-" if math.isnan(low) else f"{show(low)} to {show(high)}",
        show(pooled),
        f"{show(bottom)} to {show(top)}",
        *(both(name) for name in metrics[1:]),
        _published(line),
    ]


def _published(line: Line) -> str:
    shown = []
    for name, figure in line.published.items():
        spread = "" if figure.sd is None else f" ± {number(figure.sd, line.rates)}"
        shown.append(f"{name} {number(figure.value, line.rates)}{spread}{'*' if figure.significant else ''}")
    return ", ".join(shown) or "-"


def _comparisons(comparisons: Sequence[Comparison], rates: bool) -> str:
    def signed(value: float) -> str:
        return "-" if math.isnan(value) else f"{value:+.3f}" if rates else f"{100 * value:+.1f}"

    rows = [
        [
            f"{one.better} > {one.worse}: {one.metric}",
            signed(one.difference),
            f"{signed(one.low)} to {signed(one.high)}",
            "-" if math.isnan(one.p) else f"t {one.t:.2f}, p {one.p:.3f}",
        ]
        for one in comparisons
    ]
    return aligned(["is it better?", "difference", "by speaker 95 %", "one-tailed Welch over n"], rows)


def _matrix(line: Line, classes: Sequence[str]) -> str:
    counts = line.confusions.sum(axis=0)
    title = ", ".join(line.names.values())
    rows = [[name, *map(str, row)] for name, row in zip(classes, counts.tolist(), strict=True)]
    return f"{title}: true class by row\n" + aligned(["", *classes], rows)


def _each_ccc(part: Part) -> list[float]:
    return [ccc(part.truth[:, column], part.logits[:, column]) for column in range(part.truth.shape[1])]
