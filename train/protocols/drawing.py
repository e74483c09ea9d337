"""Pictures of a protocol's lines: confusion matrices, curves over an amount, bars of variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from train.pictures import Bar, bar_picture, confusion_pictures, curve_picture
from train.protocols.tables import Line
from train.statistics import Spread, t_interval

_MOST_MATRICES = 12


def draw_confusions(path: Path, lines: Sequence[Line], classes: Sequence[str]) -> None:
    """Draw the pooled confusion matrices of up to 12 lines."""
    matrices = [("\n".join(_title(line)), line.confusions.sum(axis=0)) for line in lines[:_MOST_MATRICES]]
    confusion_pictures(matrices, classes, path)


def draw_curves(path: Path, curves: Mapping[str, Mapping[float, Line]], x_label: str, title: str) -> None:
    """Draw the metric over an amount, one curve a name: means with the band of one standard deviation.

    Args:
        path: A PNG or SVG.
        curves: Name -> amount -> line; at least one.
        x_label: What the amount is.
        title: What is shown.
    """
    first = next(line for points in curves.values() for line in points.values())
    points = {
        name: {amount: _mean_and_sd(line) for amount, line in sorted(lines.items())} for name, lines in curves.items()
    }
    curve_picture(points, path, labels=(x_label, f"{_axis(first)}: mean and s.d. over fits"), title=title)


def draw_bars(path: Path, lines: Sequence[Line], title: str) -> None:
    """Draw one bar a line: the mean, its fits as dots, and the 95 % interval of the mean where there is one."""
    scale = _scale(lines[0])
    bars = []
    for line in lines:
        low, high = t_interval(line.observations[line.metric])
        figure = line.published.get(line.metric)
        name = "\n".join(line.names.values())
        values = [scale * value for value in line.values[line.metric]]
        bars.append(Bar(name, values, (scale * low, scale * high), None if figure is None else scale * figure.value))
    bar_picture(bars, path, y_label=_axis(lines[0]), title=title)


def _mean_and_sd(line: Line) -> tuple[float, float]:
    spread = Spread.of(line.values[line.metric])
    return _scale(line) * spread.mean, _scale(line) * spread.sd


def _scale(line: Line) -> float:
    return 1.0 if line.rates else 100.0


def _axis(line: Line) -> str:
    return line.metric if line.rates else f"{line.metric}, %"


def _title(line: Line) -> list[str]:
    names = [name for name in line.names.values() if name]
    return [", ".join(names[:2]), ", ".join(names[2:])] if len(names) > 2 else [", ".join(names)]
