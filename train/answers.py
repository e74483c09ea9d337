"""What a model said about clips, and the figures that are made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ser.metrics import (
    confusion_matrix,
    expected_calibration_error,
    selective_accuracy,
    unweighted_accuracy,
    weighted_accuracy,
)

BINS = 15
"""Bins of confidence, as in the calibration error."""
FEW_SPEAKERS = 10
"""With fewer, intervals are taken over clips."""
_RESAMPLES = 1000
_LEVEL = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """What a model said about clips; a row is one answer, and a clip may have several."""

    truth: NDArray[np.int64]
    """(n,) label indices."""
    probabilities: Floats
    """(n, labels)."""
    certain: NDArray[np.bool_]
    """(n,) False where the model said that it does not know."""
    speakers: NDArray[np.str_]
    """(n,)."""
    clips: NDArray[np.int64]
    """(n,) which clip it is."""
    heard: NDArray[np.int64]
    """(n,) utterances of the speaker heard before."""

    def keep(self, rows: NDArray[np.bool_]) -> Answers:
        """Return the answers of the rows that are True in `rows` (n,)."""
        return Answers(*(column[rows] for column in self._columns()))

    def at(self, places: NDArray[np.int64]) -> Answers:
        """Return the answers at these places, in their order."""
        return Answers(*(column[places] for column in self._columns()))

    @staticmethod
    def joined(parts: Sequence[Answers]) -> Answers:
        """Return the answers of several sets of different clips, or of the same clips heard again."""
        return Answers(*(np.concatenate(columns) for columns in zip(*(p._columns() for p in parts), strict=True)))

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(n,) the likeliest labels."""
        return self.probabilities.argmax(1)

    @property
    def right(self) -> NDArray[np.bool_]:
        """(n,) True where the likeliest label is the truth."""
        matches: NDArray[np.bool_] = self.predicted == self.truth
        return matches

    @property
    def confusion(self) -> NDArray[np.int64]:
        """(labels, labels) answers: truth by row."""
        return confusion_matrix(self.truth, self.predicted, self.probabilities.shape[1])

    def _columns(self) -> tuple[NDArray[Any], ...]:
        return (self.truth, self.probabilities, self.certain, self.speakers, self.clips, self.heard)


def ua(truth: NDArray[np.int64], probabilities: Floats) -> float:
    """Return the unweighted accuracy of the likeliest labels."""
    return unweighted_accuracy(confusion_matrix(truth, probabilities.argmax(1), probabilities.shape[1]))


class Draws:
    """Bootstrap draws of speakers, or of clips where there are few speakers; answers of one clip stay together."""

    def __init__(self, answers: Answers, seed: int = 0) -> None:
        """Draw for these answers."""
        owners = answers.speakers if len(set(answers.speakers.tolist())) >= FEW_SPEAKERS else answers.clips
        _, self._group_of = np.unique(owners, return_inverse=True)
        groups = int(self._group_of.max()) + 1
        rng = np.random.default_rng(seed)
        self._weights = rng.multinomial(groups, np.full(groups, 1.0 / groups), _RESAMPLES).astype(np.float64)

    def ua(self, answers: Answers) -> Floats:
        """Return the UA of every draw, shape (draws,); the rows are those that the draws were made for."""
        labels = answers.probabilities.shape[1]
        items = np.stack([self._total(answers.truth == label) for label in range(labels)], axis=1)
        right = np.stack([self._total(answers.right & (answers.truth == label)) for label in range(labels)], axis=1)
        recall = np.divide(right, items, out=np.full_like(right, np.nan), where=items > 0)
        means: Floats = np.nanmean(recall, axis=1)
        return means

    def accuracy(self, answers: Answers, rows: NDArray[np.bool_]) -> Floats:
        """Return the share right among some rows in every draw, NaN where it has none of them."""
        chosen = self._total(rows)
        return np.divide(self._total(answers.right & rows), chosen, out=np.full_like(chosen, np.nan), where=chosen > 0)

    def _total(self, rows: NDArray[np.bool_]) -> Floats:
        counts = np.bincount(self._group_of, weights=rows, minlength=self._weights.shape[1])
        totals: Floats = self._weights @ counts
        return totals


def ends(values: Floats) -> list[float]:
    """Return the ends of the 95 % interval of bootstrap draws."""
    low, high = np.nanquantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return [round(float(low), 4), round(float(high), 4)]


def brief(answers: Answers) -> dict[str, Any]:
    """Return how many clips, the UA and its interval."""
    return {
        "clips": len(set(answers.clips.tolist())),
        "speakers": len(set(answers.speakers.tolist())),
        "ua": round(ua(answers.truth, answers.probabilities), 4),
        "ua_interval": ends(Draws(answers).ua(answers)),
    }


def series(parts: Sequence[Answers]) -> dict[str, Any]:
    """Return how many clips, and UA and interval of each part; the parts hold the same clips."""
    figures = [brief(part) for part in parts]
    return {"clips": figures[0]["clips"], **{key: [item[key] for item in figures] for key in ("ua", "ua_interval")}}


def describe(answers: Answers) -> dict[str, Any]:
    """Return the figures of one set of answers as plain data; certainty is at the model's default risk."""
    accuracy, coverage = selective_accuracy(answers.truth, answers.predicted, answers.certain)
    draws = Draws(answers)
    return {
        **brief(answers),
        "wa": round(weighted_accuracy(answers.confusion), 4),
        "ece": round(expected_calibration_error(answers.probabilities, answers.truth, BINS), 4),
        "certain_share": round(coverage, 4),
        "certain_accuracy": round(accuracy, 4) if coverage else None,
        "certain_interval": ends(draws.accuracy(answers, answers.certain)) if coverage else None,
        "recall": _recall(answers.confusion),
        "confusion": answers.confusion.tolist(),
    }


def _recall(confusion: NDArray[np.int64]) -> list[float | None]:
    items = confusion.sum(axis=1)
    return [round(float(confusion[n, n] / items[n]), 4) if items[n] else None for n in range(len(items))]


def difference(before: Answers, after: Answers) -> dict[str, Any]:
    """Return the UA after minus the UA before, for the same clips in the same order, and its paired interval."""
    draws = Draws(before)
    change = ua(after.truth, after.probabilities) - ua(before.truth, before.probabilities)
    return {"difference": round(change, 4), "difference_interval": ends(draws.ua(after) - draws.ua(before))}


def reliability(answers: Answers) -> list[dict[str, Any]]:
    """Return each bin of confidence that holds answers: its upper edge, how many, mean confidence, share right."""
    confidence = answers.probabilities.max(1)
    bin_of = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return [
        {
            "up_to": round((place + 1) / BINS, 3),
            "answers": int((bin_of == place).sum()),
            "confidence": round(float(confidence[bin_of == place].mean()), 4),
            "right": round(float(answers.right[bin_of == place].mean()), 4),
        }
        for place in np.unique(bin_of).tolist()
    ]


def risk_coverage(answers: Answers, points: int = 20) -> list[dict[str, float]]:
    """Return the share wrong among the most confident answers, by the share of answers kept."""
    wrong = ~answers.right[np.argsort(-answers.probabilities.max(1), kind="stable")]
    shares = [(place + 1) / points for place in range(points)]
    kept = [max(1, round(share * len(wrong))) for share in shares]
    return [
        {"coverage": round(share, 4), "risk": round(float(wrong[:count].mean()), 4)}
        for share, count in zip(shares, kept, strict=True)
    ]


def promises(
    answers: Answers, risks: Sequence[float], is_certain: Callable[[Floats, float], bool]
) -> list[dict[str, Any]]:
    """Return, by risk asked for, the share of answers that are certain and the share of those that are wrong.

    Args:
        answers: What was said.
        risks: Shares of wrong answers, in (0, 1).
        is_certain: Whether probabilities (labels,) make a certain answer at a risk.
    """
    rows = []
    for risk in risks:
        certain = np.array([is_certain(shares, risk) for shares in answers.probabilities])
        accuracy, coverage = selective_accuracy(answers.truth, answers.predicted, certain)
        rows.append(
            {
                "risk": risk,
                "coverage": round(coverage, 4),
                "wrong": round(1 - accuracy, 4) if coverage else None,
            }
        )
    return rows
