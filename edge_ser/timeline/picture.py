"""A timeline as a picture, PNG or SVG.

Each emotion has a lane of its own, so that place and not colour says which one it is.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from edge_ser.errors import ConfigError
from edge_ser.events import Emotion, Rejected
from edge_ser.timeline import Timeline
from edge_ser.timeline.layout import (
    Row,
    clock,
    rows_of,
    short_names,
    shortened,
    ticks_of,
    wave_of,
    width_pt,
    wordings,
)
from edge_ser.timeline.svg import annotated
from edge_ser.timeline.words import headline, printable

INK, FAINT, PAPER = "#1b1c1e", "#62666d", "#ffffff"
LANE, BAND, OTHER, WAVE, GRID, HATCH = "#f2f3f5", "#dfe5ec", "#b9bec6", "#3c424a", "#d2d5da", "#a4abb4"
LABEL_COLOURS = {
    "#d55e00": "#fae7db",
    "#e69f00": "#fcf0da",
    "#0072b2": "#dbeaf4",
    "#009e73": "#dbf1eb",
    "#cc79a7": "#f8ebf2",
    "#56b4e9": "#e7f4fc",
    "#8c6bb1": "#ede8f3",
    "#7f7f00": "#ececdb",
}
"""One a label, with its tint for uncertain answers; after Okabe and Ito, whom colour-blind readers can follow.

Colours help, but nothing rests on them.
"""

_WIDTH, _RIGHT, _MOST_LEFT = 12.0, 0.25, 1.7
_HEADER, _STRIP, _WAVE, _LANE, _LANE_GAP, _AXIS = 0.98, 0.2, 0.5, 0.21, 0.045, 0.36
_PNG_DPI = 130
_WAVE_COLUMNS_PER_INCH = 130
_TEXT_PT = 8.0
_BOLD = 1.15
"""How much wider bold letters are."""
_HATCH = "//////"
_SETTINGS = {
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": _TEXT_PT,
    "hatch.linewidth": 0.7,
    "path.simplify": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "edge-ser",
    "text.color": INK,
    "text.parse_math": False,
}


def require_matplotlib() -> None:
    """Check that pictures can be drawn.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "matplotlib is not installed, pictures need it. Install it: pip install 'edge-ser[plot]'"
        ) from error


def png_picture(timeline: Timeline) -> bytes:
    """Return the picture as a PNG file; the same timeline gives the same bytes.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    return _drawn(timeline, "png", {"Software": None, "Title": printable(timeline.name)})


def svg_picture(timeline: Timeline) -> str:
    """Return the picture as an SVG file; the same timeline gives the same text.

    Every utterance is a group `utterance-N`, every part of one that goes on in another row `utterance-N-row-R`.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    return annotated(_drawn(timeline, "svg", {"Date": None}).decode(), timeline)


def _drawn(timeline: Timeline, format_name: str, metadata: dict[str, str | None]) -> bytes:
    require_matplotlib()
    with _own_settings():
        written = io.BytesIO()
        _figure(timeline).savefig(written, format=format_name, dpi=_PNG_DPI, metadata=metadata)
    return written.getvalue()


@contextmanager
def _own_settings() -> Iterator[None]:
    """Draw alike whatever the user's own settings of matplotlib are."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # A name may have letters that the font lacks; the picture shows boxes there.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def _figure(timeline: Timeline) -> Any:
    from matplotlib.figure import Figure

    rows, row_s = rows_of(timeline.duration_s)
    names = [printable(label) for label in timeline.labels]
    left = min(_MOST_LEFT, max(width_pt(name, _TEXT_PT) for name in names) / 72 + 0.3)
    inside = _STRIP + _WAVE + len(names) * (_LANE_GAP + _LANE) + _LANE_GAP
    height = _HEADER + len(rows) * (inside + _AXIS)
    figure = Figure(figsize=(_WIDTH, height), facecolor=PAPER)
    per_s = (_WIDTH - left - _RIGHT) / row_s
    _draw_header(figure, timeline, height)
    for number, row in enumerate(rows):
        top = _HEADER + number * (inside + _AXIS)
        width = max(0.01, (row.end_s - row.start_s) * per_s)
        place = (left / _WIDTH, 1 - (top + inside) / height, width / _WIDTH, inside / height)
        axes = figure.add_axes(place, label=f"row {number}", facecolor="none")
        axes.set(xlim=(row.start_s, max(row.end_s, row.start_s + 0.01)), ylim=(inside, 0), yticks=[])
        _RowDrawing(axes, timeline, row, inches_per_s=per_s).draw(number, row_s)
    return figure


def _draw_header(figure: Any, timeline: Timeline, height: float) -> None:
    title, details = headline(timeline)
    for text, inches, style in (
        (shortened(title, 72 * (_WIDTH - 0.5), 12 * _BOLD), 0.18, {"fontsize": 12, "fontweight": "bold"}),
        (details, 0.42, {"color": FAINT}),
    ):
        figure.text(0.2 / _WIDTH, 1 - inches / height, text, va="center", **style)
    axes = figure.add_axes((0.2 / _WIDTH, 1 - 0.74 / height, (_WIDTH - 0.4) / _WIDTH, 0.18 / height), label="key")
    axes.set(xlim=(0, _WIDTH - 0.4), ylim=(0.18, 0))
    axes.axis("off")
    at = 0.0
    for text, style in _key(timeline):
        if style is _EARLY:
            axes.plot([at + 0.03, at + 0.15, at + 0.27], [0.14, 0.08, 0.05], **_EARLY)
        else:
            _box(axes, (at, 0.01), (0.3, 0.16), style)
        if style is _REJECTED:
            _cross(axes, (at, 0.01), (0.3, 0.16))
        axes.text(at + 0.37, 0.1, text, va="center")
        at += 0.37 + width_pt(text, _TEXT_PT) / 72 + 0.25


_CERTAIN = {"facecolor": BAND, "edgecolor": "none"}
_UNCERTAIN = {"facecolor": "none", "edgecolor": HATCH, "hatch": _HATCH, "linewidth": 0.5}
_REJECTED = {"facecolor": "none", "edgecolor": FAINT, "linestyle": (0, (1, 1.5)), "linewidth": 0.9}
_EARLY: dict[str, Any] = {"color": INK, "linewidth": 0.7, "marker": "o", "markersize": 2.2, "zorder": 4}
_ANSWER_EDGE = {"edgecolor": INK, "linewidth": 0.6}


def _key(timeline: Timeline) -> list[tuple[str, dict[str, Any]]]:
    """Return what the header explains, each with how its box looks."""
    return [
        ("the answer; a full lane is probability 1", {"facecolor": next(iter(LABEL_COLOURS)), **_ANSWER_EDGE}),
        ("other emotions", {"facecolor": OTHER, "edgecolor": "none"}),
        ("uncertain: one of the hatched", {"facecolor": PAPER, "hatch": _HATCH, **_ANSWER_EDGE}),
        ("rejected, not judged", _REJECTED),
        *([("early answers", _EARLY)] if timeline.early else []),
    ]


def _box(axes: Any, corner: tuple[float, float], size: tuple[float, float], style: dict[str, Any]) -> Any:
    from matplotlib.patches import Rectangle

    return axes.add_patch(Rectangle(corner, *size, **style))


def _cross(axes: Any, corner: tuple[float, float], size: tuple[float, float]) -> None:
    (left, top), (right, bottom) = corner, np.add(corner, size)
    x, y = [left, right, np.nan, left, right], [top, bottom, np.nan, bottom, top]
    axes.plot(x, y, color=FAINT, linewidth=0.7, zorder=1)


class _RowDrawing:
    """Draws one row; x is seconds, y is inches from its top."""

    def __init__(self, axes: Any, timeline: Timeline, row: Row, inches_per_s: float) -> None:
        self._axes = axes
        self._timeline = timeline
        self._row = row
        self._inches_per_s = inches_per_s
        self._results = [result for result in timeline.results if row.overlaps(result)]
        self._early: dict[int, list[Emotion]] = {}
        for answer in timeline.early:
            self._early.setdefault(answer.utterance, []).append(answer)

    def draw(self, number: int, row_s: float) -> None:
        self._draw_frame(row_s)
        for result in self._results:
            self._draw_band(result, number)
        self._draw_wave()
        for place, label in enumerate(self._timeline.labels):
            self._draw_lane(place, label)
        self._draw_words()

    def _draw_frame(self, row_s: float) -> None:
        axes, row = self._axes, self._row
        ticks = ticks_of(row, row_s)
        axes.set_xticks(ticks, [clock(tick) for tick in ticks], color=FAINT)
        axes.tick_params(axis="x", length=3, color=FAINT, pad=2)
        for side, spine in axes.spines.items():
            spine.set(visible=side == "bottom", color=FAINT, linewidth=0.6)
        axes.vlines(ticks, _STRIP, axes.get_ylim()[0], color=GRID, linewidth=0.5, zorder=0.5)

    def _draw_band(self, result: Emotion | Rejected, number: int) -> None:
        start_s, end_s = self._span(result)
        style = _REJECTED if isinstance(result, Rejected) else _UNCERTAIN if result.uncertain else _CERTAIN
        begins_here = result.start_s >= self._row.start_s
        band = _box(self._axes, (start_s, _STRIP), (end_s - start_s, _WAVE), {**style, "zorder": 1})
        band.set_gid(f"utterance-{result.utterance}" + ("" if begins_here else f"-row-{number + 1}"))
        if isinstance(result, Rejected):
            _cross(self._axes, (start_s, _STRIP), (end_s - start_s, _WAVE))

    def _draw_wave(self) -> None:
        columns = round((self._row.end_s - self._row.start_s) * self._inches_per_s * _WAVE_COLUMNS_PER_INCH)
        time_s, low, high = wave_of(self._timeline, self._row, max(1, columns)).T
        middle, half = _STRIP + _WAVE / 2, 0.94 * _WAVE / 2
        self._axes.fill_between(time_s, middle - half * high, middle - half * low, color=WAVE, linewidth=0.4, zorder=2)

    def _draw_lane(self, place: int, label: str) -> None:
        row, axes = self._row, self._axes
        bottom = _STRIP + _WAVE + (place + 1) * (_LANE_GAP + _LANE)
        _box(
            axes, (row.start_s, bottom - _LANE), (row.end_s - row.start_s, _LANE), {"color": LANE, "lw": 0, "zorder": 0}
        )
        judged = [result for result in self._results if isinstance(result, Emotion)]
        colour, tint = list(LABEL_COLOURS.items())[place % len(LABEL_COLOURS)]
        for kind, style in (
            ("other", {"facecolor": OTHER, "edgecolor": "none"}),
            ("maybe", {"facecolor": tint, "hatch": _HATCH, **_ANSWER_EDGE}),
            ("answer", {"facecolor": colour, **_ANSWER_EDGE}),
        ):
            self._draw_bars([item for item in judged if _kind(item, label) == kind], label, bottom, style)
        for item in judged:
            answers = [*self._early.get(item.utterance, ()), item]
            heights = [bottom - _LANE * answer.probabilities[label] for answer in answers]
            if len(answers) > 1:
                axes.plot([answer.end_s for answer in answers], heights, **_EARLY)
        edge = -0.08 / max(0.01, (row.end_s - row.start_s) * self._inches_per_s)
        name = shortened(printable(label), 72 * (_MOST_LEFT - 0.3), _TEXT_PT)
        axes.text(edge, bottom - _LANE / 2, name, ha="right", va="center", transform=axes.get_yaxis_transform())

    def _draw_bars(self, judged: Sequence[Emotion], label: str, bottom: float, style: dict[str, Any]) -> None:
        from matplotlib.collections import PolyCollection

        corners = []
        for item in judged:
            (start_s, end_s), top = self._span(item), bottom - _LANE * item.probabilities[label]
            corners.append([(start_s, bottom), (start_s, top), (end_s, top), (end_s, bottom)])
        if corners:
            self._axes.add_collection(PolyCollection(corners, zorder=3, **style), autolim=False)

    def _draw_words(self) -> None:
        if not self._timeline.results:
            self._axes.text(0.5, 0.5, "no speech found", ha="center", va="center", transform=self._axes.transAxes)
        short = short_names(self._timeline.labels)
        for result in self._results:
            start_s, end_s = self._span(result)
            room_pt = 72 * (end_s - start_s) * self._inches_per_s
            fitting = (words for words in wordings(result, short) if width_pt(words, _TEXT_PT) <= room_pt)
            words = printable(next(fitting, ""))
            if words:
                self._axes.text((start_s + end_s) / 2, _STRIP / 2, words, ha="center", va="center")

    def _span(self, result: Emotion | Rejected) -> tuple[float, float]:
        return max(result.start_s, self._row.start_s), min(result.end_s, self._row.end_s)


def _kind(result: Emotion, label: str) -> str:
    if result.uncertain:
        return "maybe" if label in result.candidates else "other"
    return "answer" if label == result.emotion else "other"
