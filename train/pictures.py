"""Pictures of a run, PNG or SVG by the file's suffix: readable in black and white and by colour-blind readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from edge_ser.errors import ConfigError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's, which colour-blind readers tell apart."""
MARKERS = ("o", "^", "s", "v", "D", "P", "X", "*")
"""One a curve or class, so that nothing is told by colour alone."""
_LINES = ("-", "--", "-.", ":")
_HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")
_CANVASES = {".png": FigureCanvasAgg, ".svg": FigureCanvasSVG}
_DARK = 0.55

Interval = tuple[float, float]
"""Lower and upper end."""


def confusion_picture(matrix: ArrayLike, names: Sequence[str], path: Path, title: str = "") -> None:
    """Draw a confusion matrix (C, C), truth by row: the share of each true class, its count below.

    Raises:
        ConfigError: The matrix does not fit the names, or the suffix is neither .png nor .svg.
    """
    counts = np.asarray(matrix, dtype=np.int64)
    if counts.shape != (len(names), len(names)):
        raise ConfigError(f"got a matrix of shape {counts.shape} and {len(names)} names; need one name a class")
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    size = 2.0 + 0.8 * len(names)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Greys", vmin=0.0, vmax=1.0)
    axes.set_xticks(range(len(names)), names, rotation=30)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    axes.set_title(title)
    for row, column in np.ndindex(counts.shape):
        colour = "white" if shares[row, column] > _DARK else "black"
        label = f"{100 * shares[row, column]:.0f} %\n{counts[row, column]}"
        axes.text(column, row, label, ha="center", va="center", fontsize=8, color=colour)
    _save(figure, path)


def curve_picture(
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    path: Path,
    *,
    labels: tuple[str, str] = ("", ""),
    bands: Mapping[str, Sequence[Interval]] | None = None,
    title: str = "",
) -> None:
    """Draw curves over one axis.

    Args:
        x: Places, shape (n,).
        curves: By name, values of shape (n,); NaN leaves a gap.
        path: A .png or .svg file.
        labels: What x and y are.
        bands: By name of a curve, its interval at each place.
        title: What is shown.

    Raises:
        ConfigError: A curve of another length, or the suffix is neither .png nor .svg.
    """
    figure, axes = _one(6.4, 4.2, title, labels)
    for place, (name, values) in enumerate(curves.items()):
        if len(values) != len(x):
            raise ConfigError(f"curve {name!r} has {len(values)} values for {len(x)} places; need as many")
        _curve(axes, x, values, name, place)
        if bands and name in bands:
            low, high = np.asarray(bands[name], dtype=float).T
            axes.fill_between(x, low, high, color=COLOURS[place % len(COLOURS)], alpha=0.15, linewidth=0)
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


def bar_picture(
    values: Mapping[str, float],
    path: Path,
    *,
    y_label: str = "",
    intervals: Mapping[str, Interval] | None = None,
    published: Mapping[str, float] | None = None,
    title: str = "",
) -> None:
    """Draw one bar a name, with its interval and, as a diamond, a published value where there is one.

    Raises:
        ConfigError: The suffix is neither .png nor .svg.
    """
    figure, axes = _one(max(4.0, 1.5 + 0.8 * len(values)), 4.2, title, ("", y_label))
    for place, (name, value) in enumerate(values.items()):
        axes.bar(
            place,
            value,
            width=0.7,
            color=COLOURS[place % len(COLOURS)],
            alpha=0.7,
            hatch=_HATCHES[place % len(_HATCHES)],
            edgecolor="black",
        )
        if intervals and name in intervals:
            low, high = intervals[name]
            axes.errorbar(place, value, yerr=[[value - low], [high - value]], color="black", capsize=4)
        if published and name in published:
            axes.plot(place, published[name], "D", color="white", markeredgecolor="black")
    axes.set_xticks(range(len(values)), list(values), rotation=20 if len(values) > 4 else 0)
    _save(figure, path)


def embedding_picture(points: ArrayLike, labels: Sequence[str], path: Path, title: str = "") -> None:
    """Draw embeddings (n, E), each label with its own mark; more than two axes are projected on the widest two (PCA).

    Raises:
        ConfigError: As many labels as points are needed, or the suffix is neither .png nor .svg.
    """
    rows = np.asarray(points, dtype=np.float64)
    if rows.ndim != 2 or len(rows) != len(labels) or rows.shape[1] < 2:
        raise ConfigError(f"got points of shape {rows.shape} and {len(labels)} labels; need (n, 2 or more) and n")
    if rows.shape[1] > 2:
        centred = rows - rows.mean(axis=0)
        _, _, axes_of_spread = np.linalg.svd(centred, full_matrices=False)
        rows = centred @ axes_of_spread[:2].T
    figure, axes = _one(5.6, 5.0, title, ("", ""))
    for place, name in enumerate(dict.fromkeys(labels)):
        own = rows[[label == name for label in labels]]
        axes.scatter(
            own[:, 0],
            own[:, 1],
            s=18,
            marker=MARKERS[place % len(MARKERS)],
            color=COLOURS[place % len(COLOURS)],
            alpha=0.7,
            linewidths=0,
            label=f"{name} ({len(own)})",
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(fontsize=8)
    _save(figure, path)


def _one(width: float, height: float, title: str, labels: tuple[str, str]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    return figure, axes


def _curve(axes: Axes, x: Sequence[float], values: Sequence[float], name: str, place: int) -> None:
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
    figure.savefig(path, dpi=150)
