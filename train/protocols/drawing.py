"""Pictures of a protocol: confusion matrices, curves over shots, bars of variants, a map of embeddings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from train.protocols.tables import Line
from train.statistics import Spread, t_interval

MARKERS = ("o", "^", "s", "v", "D", "P", "X", "*")
"""One a class or a line, so that nothing is told by colour alone."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's, told apart by colour-blind readers."""

_MOST_MATRICES = 12
_FEW_POINTS = 5


def draw_confusions(path: Path, lines: Sequence[Line], classes: Sequence[str]) -> None:
    """Draw the pooled confusion matrix of up to 12 lines: shares of the true class, counts in brackets."""
    shown = lines[:_MOST_MATRICES]
    across = min(3, len(shown))
    down = math.ceil(len(shown) / across)
    figure = _figure(0.8 + 3.6 * across, 0.4 + 3.5 * down)
    for place, line in enumerate(shown):
        axes = figure.add_subplot(down, across, place + 1)
        counts = line.confusions.sum(axis=0)
        shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
        axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
        axes.set_title("\n".join(_title(line)), fontsize=8)
        axes.set_xticks(range(len(classes)), classes, fontsize=7, rotation=30)
        axes.set_yticks(range(len(classes)), classes, fontsize=7)
        axes.set_xlabel("answer", fontsize=7)
        axes.set_ylabel("truth", fontsize=7)
        for row, column in np.ndindex(counts.shape):
            colour = "white" if shares[row, column] > 0.55 else "black"
            label = f"{100 * shares[row, column]:.0f} %\n({counts[row, column]})"
            axes.text(column, row, label, ha="center", va="center", fontsize=6, color=colour)
    _save(figure, path)


def draw_curves(path: Path, curves: Mapping[str, Mapping[float, Line]], x_label: str, title: str) -> None:
    """Draw the metric over an amount, one curve a name: means with the band of one standard deviation.

    Args:
        path: A PNG or SVG.
        curves: Name -> amount -> line.
        x_label: What the amount is.
        title: What is shown.
    """
    figure = _figure(6.4, 4.2)
    axes = figure.add_subplot()
    metric = ""
    for place, (name, points) in enumerate(curves.items()):
        amounts = sorted(points)
        spreads = [Spread.of(points[amount].values[points[amount].metric]) for amount in amounts]
        scale = 1.0 if points[amounts[0]].rates else 100.0
        metric = f"{points[amounts[0]].metric}{'' if scale == 1 else ', %'}"
        means = scale * np.array([spread.mean for spread in spreads])
        sds = scale * np.array([spread.sd for spread in spreads])
        colour = COLOURS[place % len(COLOURS)]
        axes.plot(amounts, means, color=colour, marker=MARKERS[place % len(MARKERS)], label=name)
        axes.fill_between(amounts, means - sds, means + sds, color=colour, alpha=0.15, linewidth=0)
    ticks = sorted({amount for points in curves.values() for amount in points})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel(x_label)
    axes.set_ylabel(f"{metric}: mean and s.d. over seeds")
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    _save(figure, path)


def draw_bars(path: Path, lines: Sequence[Line], title: str) -> None:
    """Draw one bar a line: the mean, its fits as dots, and the 95 % interval of the mean where there are two fits.

    A published figure is a diamond.
    """
    figure = _figure(max(4.5, 1.2 + 0.75 * len(lines)), 4.6)
    axes = figure.add_subplot()
    metric = lines[0].metric
    scale = 1.0 if lines[0].rates else 100.0
    for place, line in enumerate(lines):
        values = scale * np.array(line.values[metric])
        axes.bar(place, values.mean(), color=COLOURS[place % len(COLOURS)], alpha=0.6, width=0.7)
        axes.plot([place] * len(values), values, ".", color="black", markersize=4)
        low, high = t_interval(line.values[metric])
        if not math.isnan(low):
            axes.plot([place, place], [scale * low, scale * high], color="black", linewidth=1.2)
        if metric in line.published:
            axes.plot(place, scale * line.published[metric].value, "D", color="white", markeredgecolor="black")
    labels = ["\n".join(line.names.values()) for line in lines]
    axes.set_xticks(range(len(lines)), labels, fontsize=6, rotation=0 if len(lines) < 8 else 60)
    axes.set_ylabel(f"{metric}{'' if scale == 1 else ', %'}")
    axes.set_title(title, fontsize=9)
    _save(figure, path)


def draw_map(path: Path, embedding: NDArray[np.floating], labels: Sequence[int], classes: Sequence[str]) -> None:
    """Draw embeddings (n, E) on two axes, PCA beside t-SNE, each class with its own colour and mark."""
    figure = _figure(10.0, 4.6)
    owners = np.asarray(labels)
    for place, (name, points) in enumerate(_projections(np.asarray(embedding, dtype=np.float64)).items()):
        axes = figure.add_subplot(1, 2, place + 1)
        for index, title in enumerate(classes):
            rows = owners == index
            axes.scatter(
                points[rows, 0],
                points[rows, 1],
                s=22,
                marker=MARKERS[index % len(MARKERS)],
                color=COLOURS[index % len(COLOURS)],
                alpha=0.6,
                linewidths=0,
                label=f"{title} ({int(rows.sum())})",
            )
        axes.set_title(name, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.axes[0].legend(fontsize=7)
    _save(figure, path)


def _projections(rows: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    # Imported here: it takes a second, and most of what needs a table needs no picture.
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-9)
    shapes: dict[str, NDArray[np.float64]] = {}
    if min(rows.shape) >= 2:
        pca = PCA(n_components=2, random_state=0).fit(rows)
        explained = 100 * pca.explained_variance_ratio_.sum()
        shapes[f"PCA ({explained:.0f} % of the variance)"] = pca.transform(rows)
    if len(rows) > _FEW_POINTS:
        perplexity = min(30.0, (len(rows) - 1) / 3)
        shapes["t-SNE"] = TSNE(2, perplexity=perplexity, init="random", random_state=0).fit_transform(rows)
    return shapes


def _title(line: Line) -> list[str]:
    names = [name for name in line.names.values() if name]
    return [", ".join(names[:2]), ", ".join(names[2:])] if len(names) > 2 else [", ".join(names)]


def _figure(width: float, height: float) -> Any:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    figure.savefig(partial, dpi=130)
    partial.replace(path)
