"""Pictures of runs and protocols, PNG or SVG by the file's suffix.

They are readable in black and white and by colour-blind readers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from edge_ser.errors import ConfigError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's, which colour-blind readers tell apart."""
MARKERS = ("o", "^", "s", "v", "D", "P", "X", "*")
"""One a curve or class, so that nothing is told by colour alone."""
_LINES = ("-", "--", "-.", ":")
_HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")
_CANVASES = {".png": FigureCanvasAgg, ".svg": FigureCanvasSVG}
_DARK = 0.55
_ACROSS = 3
_FEW_POINTS = 5


@dataclass(frozen=True)
class Bar:
    """One bar: the mean of some fits."""

    name: str
    """What stands below it; may have several lines."""
    values: Sequence[float]
    """One a fit, shown as dots; at least one."""
    interval: tuple[float, float] = (math.nan, math.nan)
    """Ends of the interval of the mean; NaN draws none."""
    published: float | None = None
    """A published value, drawn as a diamond."""


@dataclass(frozen=True)
class Point:
    """A measured value on a curve."""

    x: float
    """Place on the axis."""
    value: float
    """What was measured."""
    interval: tuple[float, float] = (math.nan, math.nan)
    """Ends of its interval; NaN draws none."""


@dataclass(frozen=True)
class Change:
    """A row of a picture of changes: two values and their intervals."""

    name: str
    """What stands beside it."""
    before: Point
    """`x` is of no matter."""
    after: Point | None
    """None where there is no after."""
    reference: tuple[float, float] | None = None
    """Somebody else's before and after."""


def confusion_picture(matrix: ArrayLike, names: Sequence[str], path: Path, title: str = "") -> None:
    """Draw one confusion matrix, as `confusion_pictures` does."""
    confusion_pictures([(title, matrix)], names, path)


def confusion_pictures(matrices: Sequence[tuple[str, ArrayLike]], names: Sequence[str], path: Path) -> None:
    """Draw confusion matrices side by side, truth by row: the share of each true class, its count below.

    Args:
        matrices: Title and counts (C, C) of each; at least one.
        names: Of the C classes.
        path: A .png or .svg file.

    Raises:
        ConfigError: A matrix does not fit the names, or the suffix is neither .png nor .svg.
    """
    across = min(_ACROSS, len(matrices))
    down = math.ceil(len(matrices) / across)
    size = 2.0 + 0.8 * len(names)
    figure = Figure(figsize=(size * across, size * down), layout="constrained")
    for place, (title, matrix) in enumerate(matrices):
        _matrix(figure.add_subplot(down, across, place + 1), np.asarray(matrix, dtype=np.int64), names, title)
    _save(figure, path)


def curve_picture(
    curves: Mapping[str, Mapping[float, tuple[float, float]]],
    path: Path,
    *,
    labels: tuple[str, str] = ("", ""),
    title: str = "",
) -> None:
    """Draw curves over one axis, each with the band of its deviation.

    Args:
        curves: By name: place on the axis -> mean and deviation.
        path: A .png or .svg file.
        labels: What x and y are.
        title: What is shown.

    Raises:
        ConfigError: The suffix is neither .png nor .svg.
    """
    figure, axes = _one(6.4, 4.2, title, labels)
    for place, (name, points) in enumerate(curves.items()):
        x = sorted(points)
        means, deviations = np.array([points[at] for at in x], dtype=float).T
        _curve(axes, x, means, name, place)
        axes.fill_between(
            x, means - deviations, means + deviations, color=COLOURS[place % len(COLOURS)], alpha=0.15, linewidth=0
        )
    ticks = sorted({at for points in curves.values() for at in points})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    _save(figure, path)


def learning_picture(history: Sequence[Mapping[str, float]], best_epoch: int, path: Path) -> None:
    """Draw a run: losses above, the other validation metrics below, the kept epoch marked.

    Args:
        history: One entry an epoch, as `train.fit.FitResult` has it; at least one.
        best_epoch: Which weights were kept.
        path: A .png or .svg file.
    """
    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    epochs = [line["epoch"] for line in history]
    losses = [name for name in ("loss", "validation_loss") if name in history[0]]
    shown = [name for name in history[0] if name.startswith("validation_") and name not in losses]
    for axes, names, label in ((upper, losses, "loss"), (lower, shown, "validation metric")):
        for place, name in enumerate(names):
            _curve(axes, epochs, [line[name] for line in history], name.removeprefix("validation_"), place)
        if axes is upper and len(losses) > 1:
            for line, name in zip(axes.get_lines(), ("training", "validation"), strict=True):
                line.set_label(name)
        axes.axvline(best_epoch, color="black", linewidth=0.8, linestyle=":", label="kept")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    lower.set_xlabel("epoch")
    _save(figure, path)


def bar_picture(bars: Sequence[Bar], path: Path, *, y_label: str = "", title: str = "") -> None:
    """Draw bars: means, fits as dots, intervals as lines, published values as diamonds.

    Raises:
        ConfigError: The suffix is neither .png nor .svg.
    """
    figure, axes = _one(max(4.5, 1.2 + 0.75 * len(bars)), 4.6, title, ("", y_label))
    for place, bar in enumerate(bars):
        axes.bar(
            place,
            float(np.mean(bar.values)),
            width=0.7,
            color=COLOURS[place % len(COLOURS)],
            alpha=0.6,
            hatch=_HATCHES[place % len(_HATCHES)],
            edgecolor="black",
        )
        axes.plot([place] * len(bar.values), bar.values, ".", color="black", markersize=4)
        if not any(map(math.isnan, bar.interval)):
            axes.plot([place, place], bar.interval, color="black", linewidth=1.2)
        if bar.published is not None:
            axes.plot(place, bar.published, "D", color="white", markeredgecolor="black")
    axes.set_xticks(range(len(bars)), [bar.name for bar in bars], fontsize=6, rotation=0 if len(bars) < 8 else 60)
    _save(figure, path)


def embedding_picture(points: ArrayLike, labels: Sequence[str], path: Path, title: str = "") -> None:
    """Draw embeddings (n, E) on two axes, PCA beside t-SNE where there are points enough; each label has its own mark.

    Raises:
        ConfigError: As many labels as points are needed, or the suffix is neither .png nor .svg.
    """
    rows = np.asarray(points, dtype=np.float64)
    if rows.ndim != 2 or len(rows) != len(labels) or min(rows.shape) < 2:
        raise ConfigError(f"got points of shape {rows.shape} and {len(labels)} labels; need (n, 2 or more) and n")
    figure = Figure(figsize=(10.0, 4.6), layout="constrained")
    figure.suptitle(title, fontsize=10)
    owners = np.asarray(labels)
    for column, (name, flat) in enumerate(_projections(rows).items()):
        axes = figure.add_subplot(1, 2, column + 1)
        for place, label in enumerate(dict.fromkeys(sorted(labels))):
            own = flat[owners == label]
            axes.scatter(
                own[:, 0],
                own[:, 1],
                s=20,
                marker=MARKERS[place % len(MARKERS)],
                color=COLOURS[place % len(COLOURS)],
                alpha=0.6,
                linewidths=0,
                label=f"{label} ({len(own)})",
            )
        axes.set_title(name, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.axes[0].legend(fontsize=8)
    _save(figure, path)


def interval_picture(
    curves: Mapping[str, Sequence[Point]],
    path: Path,
    *,
    ticks: Mapping[float, str],
    labels: tuple[str, str] = ("", ""),
    title: str = "",
) -> None:
    """Draw curves over one axis, each value with its interval.

    Args:
        curves: Points by name, by rising x; a value of NaN interrupts the line.
        path: A .png or .svg file.
        ticks: What stands at places of the axis.
        labels: What x and y are.
        title: What is shown.

    Raises:
        ConfigError: The suffix is neither .png nor .svg.
    """
    figure, axes = _one(max(7.2, 2.0 + 1.1 * len(ticks)), 4.4, title, labels)
    step = min((b - a for a, b in itertools.pairwise(sorted(ticks))), default=1.0)
    for place, (name, points) in enumerate(curves.items()):
        # Side by side, so that one interval does not hide another.
        shift = (place - (len(curves) - 1) / 2) * 0.06 * step
        x = [point.x + shift for point in points]
        _curve(axes, x, [point.value for point in points], name, place)
        for at, point in zip(x, points, strict=True):
            axes.plot([at, at], point.interval, color=COLOURS[place % len(COLOURS)], linewidth=1.0)
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, path)


def reliability_picture(
    curves: Mapping[str, Sequence[tuple[float, float, float]]], path: Path, title: str = ""
) -> None:
    """Draw the share right against confidence, and below how often each confidence occurs.

    Args:
        curves: By name, bins: mean confidence, share right, share of the answers.
        path: A .png or .svg file.
        title: What is shown.

    Raises:
        ConfigError: The suffix is neither .png nor .svg.
    """
    figure = Figure(figsize=(5.2, 5.8), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":", label="as right as it says")
    for place, (name, bins) in enumerate(curves.items()):
        confidence, right, shares = np.array(bins, dtype=float).T
        _curve(upper, confidence, right, name, place)
        _curve(lower, confidence, 100 * shares, name, place)
    upper.set_ylabel("share right")
    upper.set_ylim(0.0, 1.02)
    upper.set_title(title, fontsize=10)
    upper.legend(fontsize=8)
    lower.set_ylabel("% of answers")
    lower.set_ylim(bottom=0.0)
    lower.set_xlabel("confidence")
    lower.set_xlim(0.2, 1.01)
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    _save(figure, path)


def risk_picture(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    marks: Mapping[str, tuple[float, float]],
    risk: float,
    path: Path,
    title: str = "",
) -> None:
    """Draw the share of wrong answers against the share of answers kept, the most confident first.

    Args:
        curves: By name: coverage and risk.
        marks: By the same names: coverage and risk of what the model calls certain.
        risk: The risk that was asked for, a line.
        path: A .png or .svg file.
        title: What is shown.

    Raises:
        ConfigError: The suffix is neither .png nor .svg.
    """
    figure, axes = _one(8.4, 4.4, title, ("share of utterances answered", "share of these answers that are wrong"))
    for place, (name, points) in enumerate(curves.items()):
        _curve(axes, [x for x, _ in points], [y for _, y in points], name, place)
        if name in marks:
            axes.plot(*marks[name], MARKERS[place], markersize=11, color="white", markeredgecolor="black", zorder=3)
    axes.axhline(risk, color="black", linewidth=0.8, linestyle=":", label=f"risk asked for: {risk:g}")
    axes.plot([], [], "o", markersize=11, color="white", markeredgecolor="black", label="called certain")
    axes.set_xlim(0.0, 1.02)
    axes.set_ylim(bottom=0.0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, path)


def change_picture(
    rows: Sequence[Change], path: Path, *, names: tuple[str, str], reference: str = "", label: str = "", title: str = ""
) -> None:
    """Draw what a change does, row by row: an open mark before, a full one after, intervals as lines.

    Args:
        rows: From top to bottom.
        path: A .png or .svg file.
        names: Of before and after.
        reference: Whose the grey marks are.
        label: What x is.
        title: What is shown.

    Raises:
        ConfigError: The suffix is neither .png nor .svg.
    """
    figure, axes = _one(7.2, 1.4 + 0.62 * len(rows), title, (label, ""))
    for place, row in enumerate(rows):
        for point, y, fill in ((row.before, place - 0.1, "white"), (row.after, place + 0.1, "black")):
            if point is not None:
                axes.plot(point.interval, [y, y], color="black", linewidth=1.0)
                axes.plot(point.value, y, "o", color=fill, markeredgecolor="black", markersize=7)
        if row.reference is not None:
            before, after = row.reference
            arrow = {"arrowstyle": "->", "color": "grey", "linestyle": "--", "shrinkA": 0.0, "shrinkB": 0.0}
            axes.annotate("", (after, place + 0.32), (before, place + 0.32), arrowprops=arrow)
            axes.plot([before, after], [place + 0.32] * 2, "|", color="grey", markersize=6)
    for name, mark, fill in ((names[0], "o", "white"), (names[1], "o", "black")):
        axes.plot([], [], mark, color=fill, markeredgecolor="black", label=name)
    if any(row.reference for row in rows):
        axes.plot([], [], "--|", color="grey", label=reference)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.5)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    _save(figure, path)


def _matrix(axes: Axes, counts: NDArray[np.int64], names: Sequence[str], title: str) -> None:
    if counts.shape != (len(names), len(names)):
        raise ConfigError(f"got a matrix of shape {counts.shape} and {len(names)} names; need one name a class")
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    axes.imshow(shares, cmap="Greys", vmin=0.0, vmax=1.0)
    axes.set_xticks(range(len(names)), names, rotation=30)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    axes.set_title(title, fontsize=9)
    for row, column in np.ndindex(counts.shape):
        colour = "white" if shares[row, column] > _DARK else "black"
        label = f"{100 * shares[row, column]:.0f} %\n{counts[row, column]}"
        axes.text(column, row, label, ha="center", va="center", fontsize=8, color=colour)


def _projections(rows: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    # Imported here: it takes a second, and most pictures need no projection.
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-9)
    pca = PCA(n_components=2, random_state=0).fit(rows)
    shapes = {f"PCA ({100 * pca.explained_variance_ratio_.sum():.0f} % of the variance)": pca.transform(rows)}
    if len(rows) > _FEW_POINTS:
        perplexity = min(30.0, (len(rows) - 1) / 3)
        shapes["t-SNE"] = TSNE(2, perplexity=perplexity, init="random", random_state=0).fit_transform(rows)
    return shapes


def _one(width: float, height: float, title: str, labels: tuple[str, str]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    return figure, axes


def _curve(axes: Axes, x: Sequence[float], values: ArrayLike, name: str, place: int) -> None:
    axes.plot(
        x,
        values,
        label=name,
        color=COLOURS[place % len(COLOURS)],
        linestyle=_LINES[place % len(_LINES)],
        marker=MARKERS[place % len(MARKERS)],
        markersize=4,
    )


def _save(figure: Figure, path: Path) -> None:
    if path.suffix not in _CANVASES:
        raise ConfigError(f"picture is {path.name}; need a name that ends in {' or '.join(_CANVASES)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _CANVASES[path.suffix](figure)
    # A reader never sees half of it. The temporary name keeps the suffix, by which matplotlib knows the format.
    partial = path.with_name(f".partial-{path.name}")
    figure.savefig(partial, dpi=150)
    partial.replace(path)
