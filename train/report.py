"""Draw what evaluations found: pictures that a model's card can point to.

    python -m train.report benchmarks/results/mdat-int8.json … --out benchmarks/results/pictures

Each JSON comes from `python -m train.evaluate --out`. A model gets a folder of its own, by its name: reliability.png,
risk-coverage.png, cold-to-warm.png, seconds-heard.png and utterances-heard.png. With more than one, models.png beside
the folders compares them. The same figures give the same pictures.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_ser.errors import ConfigError, EdgeSerError
from train.pictures import (
    Change,
    Point,
    change_picture,
    interval_picture,
    reliability_picture,
    risk_picture,
)

PROBE = "a frozen encoder of 8 M parameters"
"""Frozen Whisper tiny.en, layers 1 to 3 pooled, small heads; warm, the running mean of the speaker is subtracted."""
PROBES = {
    "clean": {
        "cremad": (0.827, 0.887),
        "emodb": (0.971, 0.981),
        "nemo": (0.595, 0.768),
        "ravdess": (0.434, 0.779),
        "emovo": (0.667, 0.664),
        "ased": (0.507, 0.567),
    },
    "research": {
        "cremad": (0.816, 0.879),
        "emodb": (0.956, 0.983),
        "nemo": (0.683, 0.908),
        "ravdess": (0.898, 0.927),
        "emovo": (0.542, 0.784),
        "ased": (0.589, 0.701),
    },
}
"""UA cold and warm of the probe, by what it was trained on and by corpus."""
_RESEARCH = {"nemo", "ravdess"}
_HALVES = ((-0.22, "cold"), (0.22, "warm"))
_FEWEST_IN_BIN = 10
"""Answers below which a bin of confidence is not drawn."""


def report(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw the pictures of one evaluation into a folder and return their paths."""
    names = ("reliability", "risk-coverage", "cold-to-warm", "seconds-heard", "utterances-heard")
    paths = [folder / f"{name}.png" for name in names]
    model = results["model"]
    sides = _sides(results)
    reliability_picture(
        {name: _bins(figures["reliability"]) for name, figures in sides.items()},
        paths[0],
        f"{model}: how sure it says it is, and how right it is",
    )
    risk_picture(
        {name: [(row["coverage"], row["risk"]) for row in f["risk_coverage"]] for name, f in sides.items()},
        {name: (f["certain_share"], 1 - f["certain_accuracy"]) for name, f in sides.items() if f["certain_share"]},
        results["default_risk"],
        paths[1],
        f"{model}: wrong answers among those it gives, the most confident first",
    )
    change_picture(
        _changes(results),
        paths[2],
        names=("alone", f"after {results['warm_after_utterances']} utterances of the speaker"),
        reference=PROBE,
        label="UA, 95 % intervals",
        title=f"{model}: speakers never heard",
    )
    _seconds(results, paths[3])
    return paths if _utterances(results, paths[4]) else paths[:4]


def compare(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw UA cold and warm of several models, corpus by corpus."""
    corpora = list(dict.fromkeys(name for result in results for name in result["corpora"]))
    curves = {}
    for result in results:
        points: list[Point] = []
        for place, name in enumerate(corpora):
            sides = result["corpora"].get(name, {})
            points += [_point(place + half, sides[side]) for half, side in _HALVES if sides.get(side)]
            points.append(Point(place, math.nan))  # no line from one corpus to the next
        curves[str(result["model"])] = points
    interval_picture(
        curves,
        path,
        ticks={float(place): name for place, name in enumerate(corpora)},
        labels=("cold, then warm", "UA, 95 % intervals"),
        title="speakers never heard",
    )


def _sides(results: Mapping[str, Any]) -> dict[str, Any]:
    names = {"home": "corpora it knows", "away": "other corpora"}
    return {
        f"{names[side]}, {voice}": figures
        for side, voices in results["pooled"].items()
        for voice, figures in voices.items()
    }


def _bins(rows: Sequence[Mapping[str, Any]]) -> list[tuple[float, float, float]]:
    total = sum(row["answers"] for row in rows)
    drawn = [row for row in rows if row["answers"] >= _FEWEST_IN_BIN] or rows
    return [(row["confidence"], row["right"], row["answers"] / total) for row in drawn]


def _changes(results: Mapping[str, Any]) -> list[Change]:
    corpora = results["corpora"]
    home = {name for name, figures in corpora.items() if figures["home"]}
    probes = PROBES["research" if home >= _RESEARCH else "clean"]
    return [
        Change(
            f"{name}\n({'other speakers known' if name in home else 'never heard'})",
            _point(0.0, figures["cold"]),
            figures["warm"] and _point(0.0, figures["warm"]),
            probes.get(name),
        )
        for name, figures in corpora.items()
    ]


def _seconds(results: Mapping[str, Any], path: Path) -> None:
    heard = {name: figures["seconds_heard"] for name, figures in results["corpora"].items()}
    times = next(iter(heard.values()))["seconds"]
    interval_picture(
        {name: _points(series) for name, series in heard.items()},
        path,
        ticks={float(n): "to the end" if seconds is None else f"{seconds:g} s" for n, seconds in enumerate(times)},
        labels=("speech heard", "UA, 95 % intervals"),
        title=f"{results['model']}: the same clips, cut short",
    )


def _utterances(results: Mapping[str, Any], path: Path) -> bool:
    heard = {name: f["utterances_heard"] for name, f in results["corpora"].items() if "utterances_heard" in f}
    if not heard:
        return False
    spans = next(iter(heard.values()))["spans"]
    interval_picture(
        {name: _points(series) for name, series in heard.items()},
        path,
        ticks={float(place): _span(low, high) for place, (low, high) in enumerate(spans)},
        labels=("utterances of the speaker heard before", "UA, 95 % intervals"),
        title=f"{results['model']}: the same clips, the more of the speaker it has heard",
    )
    return True


def _span(low: int, high: int | None) -> str:
    if high is None:
        return f"{low} on"
    return str(low) if high == low else f"{low} to {high}"


def _points(series: Mapping[str, Any]) -> list[Point]:
    rows = zip(series["ua"], series["ua_interval"], strict=True)
    return [Point(place, ua, (low, high)) for place, (ua, (low, high)) in enumerate(rows)]


def _point(x: float, figures: Mapping[str, Any]) -> Point:
    low, high = figures["ua_interval"]
    return Point(x, figures["ua"], (low, high))


def read_results(path: Path) -> dict[str, Any]:
    """Return the figures of one evaluation.

    Raises:
        ConfigError: The file is no evaluation.
    """
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        results["pooled"], results["corpora"]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise ConfigError(f"{path}: {problem!r}; need the JSON of python -m train.evaluate --out") from None
    return results


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS.json")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args(argv)
    try:
        every = [read_results(path) for path in options.results]
        for results in every:
            for path in report(results, options.out / results["model"]):
                print(path)
        if len(every) > 1:
            compare(every, options.out / "models.png")
            print(options.out / "models.png")
    except EdgeSerError as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
