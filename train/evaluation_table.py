"""The figures of an evaluation as text for a person at a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_VOICES = {
    "gain": "one's own from the 11th utterance on",
    "mostly_neutral": "up to 12 of one's own, three in four neutral",
    "wrong_voice": "a stranger's 20",
}


def table(result: Mapping[str, Any]) -> str:
    """Return the figures of `train.evaluate` as lines."""
    lines = [
        f"{result['model']}: {len(result['labels'])} classes, speakers never heard, 95 % intervals",
        f"{'corpus':8} {'voice':6} {'speakers':>8} {'clips':>6}  {'UA':<22} {'WA':>6} {'ECE':>6}  certain: "
        "right (of all)",
    ]
    for corpus, sides in result["corpora"].items():
        lines += [f"{corpus:8} {side:6} {_row(sides[side])}" for side in ("cold", "warm") if sides[side]]
    names = {"home": "home", "away": "away"}
    for side, voices in result["pooled"].items():
        lines += [f"{names[side]:8} {voice:6} {_row(figures)}" for voice, figures in voices.items()]
    lines += _voices(result["corpora"])
    robustness = result["robustness"]
    lines.append(f"what a change costs, in points, on {robustness['clips']} clips ({', '.join(robustness['corpora'])})")
    lines += [f"  {row['name']:<24} {_points(row)}" for row in robustness["conditions"]]
    words = result["words"]
    if words:
        lines.append(f"with a constructed sentence: UA {words['ua']:.3f}, {_points(words)} points")
    noise = result["non_speech"]
    lines.append(
        f"non-speech: {noise['confident_share']:.1%} of {noise['answers']} answers to {noise['sounds']} unheard "
        "sounds were confident"
    )
    return "\n".join(lines)


def _voices(corpora: Mapping[str, Any]) -> list[str]:
    kinds = {key: told for key, told in _VOICES.items() if any(key in figures for figures in corpora.values())}
    if not kinds:
        return []
    lines = [f"a known voice, in points on the same clips: {'; '.join(kinds.values())}"]
    for corpus, figures in corpora.items():
        told = [f"{_points(figures[key]) if key in figures else '-':<22}" for key in kinds]
        lines.append(f"  {corpus:<8} {' '.join(told)}".rstrip())
    return lines


def _points(row: Mapping[str, Any]) -> str:
    low, high = (100 * end for end in row["difference_interval"])
    return f"{100 * row['difference']:+5.1f} [{low:+.1f}, {high:+.1f}]"


def _row(figures: Mapping[str, Any]) -> str:
    low, high = figures["ua_interval"]
    right = "-" if figures["certain_accuracy"] is None else f"{figures['certain_accuracy']:.3f}"
    return (
        f"{figures['speakers']:>8} {figures['clips']:>6}  {figures['ua']:.3f} [{low:.3f}, {high:.3f}]   "
        f"{figures['wa']:>6.3f} {figures['ece']:>6.3f}  {right} ({figures['certain_share']:.0%})"
    )
