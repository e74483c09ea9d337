"""Fits what turns logits into honest answers: temperature, and thresholds for each risk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_ser.calibration import Calibration, RiskRow

RISKS = (0.05, 0.1, 0.15, 0.2, 0.3)
"""Shares of wrong answers for which thresholds are stored."""
DEFAULT_RISK = 0.15
_TEMPERATURES = np.geomspace(0.3, 5.0, 400)
_NOISE_ALLOWED = 0.01


def fit_calibration(
    logits: NDArray[np.float64], truth: NDArray[np.int64], noise_logits: Sequence[NDArray[np.float64]]
) -> Calibration:
    """Return the calibration for logits of clips whose speakers were not trained on.

    Temperature minimises the negative log-likelihood (Guo et al. 2017). For each risk, `min_confidence` is the lowest
    threshold at which the answers above it are wrong no more often than the risk and at most 1 % of sounds that are no
    speech are answered; `min_probability` is the split-conformal threshold (Sadinle et al. 2019): sets of labels at or
    above it miss the truth no more often than the risk. A risk that no threshold reaches has no row: an answer at that
    risk is never certain.

    Args:
        logits: (clips, labels).
        truth: (clips,) label indices.
        noise_logits: By sound that is nobody's speech, (utterances, labels) of what a stream finds in it; mostly
            (0, labels), since speech detection hears nothing.
    """
    temperature = float(min(_TEMPERATURES, key=lambda t: negative_log_likelihood(logits / t, truth)))
    plain = Calibration(temperature, DEFAULT_RISK, ())
    probabilities = plain.probabilities(logits)
    floor = _noise_floor([float(plain.probabilities(rows).max()) if len(rows) else 0.0 for rows in noise_logits])
    rows = []
    for risk in RISKS:
        threshold = _selective_threshold(probabilities, truth, risk)
        if threshold is not None:
            # Each is rounded to its safe side.
            certain_from = np.ceil(max(threshold, floor) * 1e4) / 1e4
            ruled_out_below = np.floor(_conformal_threshold(probabilities, truth, risk) * 1e4) / 1e4
            rows.append(RiskRow(risk, min(1.0, float(certain_from)), float(ruled_out_below)))
    return Calibration(round(temperature, 4), DEFAULT_RISK, tuple(rows))


def _noise_floor(confidences: Sequence[float]) -> float:
    """Return the lowest threshold that answers no more than the allowed share of sounds."""
    allowed = int(_NOISE_ALLOWED * len(confidences))
    loudest = sorted(confidences, reverse=True)[allowed:]
    return float(np.nextafter(loudest[0], 1.0)) if loudest else 0.0


def negative_log_likelihood(logits: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Return the mean negative log-likelihood of the truth under softmax(logits)."""
    shifted = logits - logits.max(1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(1))
    return float(np.mean(log_total - shifted[np.arange(len(truth)), truth]))


def _selective_threshold(probabilities: NDArray[np.float64], truth: NDArray[np.int64], risk: float) -> float | None:
    order = np.argsort(-probabilities.max(1), kind="stable")
    wrong = (probabilities.argmax(1) != truth)[order]
    answered = np.arange(1, len(order) + 1)
    # One imagined error more keeps the promise on new speakers, as conformal risk control does.
    allowed = np.flatnonzero((np.cumsum(wrong) + 1) / (answered + 1) <= risk)
    return float(probabilities.max(1)[order][allowed[-1]]) if len(allowed) else None


def _conformal_threshold(probabilities: NDArray[np.float64], truth: NDArray[np.int64], risk: float) -> float:
    scores = np.sort(probabilities[np.arange(len(truth)), truth])
    place = int(np.floor(risk * (len(scores) + 1))) - 1
    return float(scores[place]) if place >= 0 else 0.0
