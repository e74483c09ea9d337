"""Fits what turns logits into honest answers: temperature, and thresholds for each risk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_ser.calibration import RiskRow

RISKS = (0.05, 0.1, 0.15, 0.2, 0.3)
"""Shares of wrong answers for which thresholds are stored."""

ONE_SIDED_95 = 1.64
"""Standard errors."""
_TEMPERATURES = np.geomspace(0.3, 5.0, 400)


def negative_log_likelihood(logits: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Return the mean negative log-likelihood of the truth under softmax(logits)."""
    shifted = logits - logits.max(1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(1))
    return float(np.mean(log_total - shifted[np.arange(len(truth)), truth]))


def fit_temperature(logits: NDArray[np.float64], truth: NDArray[np.int64], caution: float = 0.0) -> float:
    """Return the temperature that minimises the negative log-likelihood (Guo et al. 2017).

    Args:
        logits: (clips, labels) of clips that were not learnt from.
        truth: (clips,) label indices.
        caution: How many clips it takes to move it away from 1.
    """

    def cost(temperature: float) -> float:
        doubt = caution / len(truth) * float(np.log(temperature)) ** 2
        return negative_log_likelihood(logits / temperature, truth) + doubt

    return float(min(_TEMPERATURES, key=cost))


def risk_rows(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64], floor: float = 0.0, caution: float = 0.0
) -> tuple[RiskRow, ...]:
    """Return what it takes to be wrong no more often than each risk.

    `min_confidence` is the lowest threshold at which the answers above it are wrong no more often than the risk, never
    below `floor`; `min_probability` is the split-conformal threshold (Sadinle et al. 2019): sets of labels at or above
    it miss the truth no more often than the risk. A risk that no threshold reaches has no row: an answer at that risk
    is never certain.

    Args:
        probabilities: (clips, labels) of clips that were not learnt from.
        truth: (clips,) label indices.
        floor: Probability that sounds which are no speech stay below.
        caution: Standard errors that the share of wrong answers must stay below the risk by (Wilson's bound; 1.64 is a
            one-sided 95 % for one threshold and independent clips, less for many thresholds and clips of few speakers).
    """
    rows = []
    for risk in RISKS:
        threshold = _selective_threshold(probabilities, truth, risk, caution)
        if threshold is not None:
            # Each is rounded to its safe side.
            certain_from = np.ceil(max(threshold, floor) * 1e4) / 1e4
            ruled_out_below = np.floor(_conformal_threshold(probabilities, truth, risk) * 1e4) / 1e4
            rows.append(RiskRow(risk, min(1.0, float(certain_from)), float(ruled_out_below)))
    return tuple(rows)


def strictest_rows(tables: Sequence[tuple[RiskRow, ...]]) -> tuple[RiskRow, ...]:
    """Return the rows that hold by every table, such as with the voice unknown and known."""
    by_risk = [{row.risk: row for row in table} for table in tables]
    shared = sorted(set.intersection(*(set(table) for table in by_risk)))
    return tuple(
        RiskRow(
            risk,
            max(table[risk].min_confidence for table in by_risk),
            min(table[risk].min_probability for table in by_risk),
        )
        for risk in shared
    )


def _selective_threshold(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64], risk: float, caution: float
) -> float | None:
    order = np.argsort(-probabilities.max(1), kind="stable")
    wrong = (probabilities.argmax(1) != truth)[order]
    answered = np.arange(1, len(order) + 1)
    # One imagined error more keeps the promise on new speakers, as conformal risk control does.
    allowed = np.flatnonzero(_upper_bound((np.cumsum(wrong) + 1) / (answered + 1), answered + 1, caution) <= risk)
    return float(probabilities.max(1)[order][allowed[-1]]) if len(allowed) else None


def _upper_bound(shares: NDArray[np.float64], counts: NDArray[np.int64], standard_errors: float) -> NDArray[np.float64]:
    """Return Wilson's upper bound (1927) of shares that were counted in so many cases."""
    squared = standard_errors**2
    spread = np.sqrt(shares * (1.0 - shares) / counts + squared / (4.0 * counts**2))
    bound: NDArray[np.float64] = (shares + squared / (2.0 * counts) + standard_errors * spread) / (
        1.0 + squared / counts
    )
    return bound


def _conformal_threshold(probabilities: NDArray[np.float64], truth: NDArray[np.int64], risk: float) -> float:
    scores = np.sort(probabilities[np.arange(len(truth)), truth])
    place = int(np.floor(risk * (len(scores) + 1))) - 1
    return float(scores[place]) if place >= 0 else 0.0
