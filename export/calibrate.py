"""Fits what turns logits into honest answers: temperature, and thresholds for each risk."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ser.calibration import Calibration, RiskRow

RISKS = (0.05, 0.1, 0.15, 0.2, 0.3)
"""Shares of wrong answers for which thresholds are stored."""
DEFAULT_RISK = 0.15
_TEMPERATURES = np.geomspace(0.3, 5.0, 400)
_NOISE_ALLOWED = 0.01


def fit_calibration(
    logits: NDArray[np.float64], truth: NDArray[np.int64], noise_logits: NDArray[np.float64]
) -> Calibration:
    """Return the calibration for logits of clips whose speakers were not trained on.

    Temperature minimises the negative log-likelihood (Guo et al. 2017). For each risk, `min_confidence` is the lowest
    threshold at which the answers above it are wrong no more often than the risk and at most 1 % of non-speech is
    answered; `min_probability` is the split-conformal threshold (Sadinle et al. 2019): sets of labels at or above it
    miss the truth no more often than the risk. A risk that no threshold reaches gets `min_confidence` 1: never certain.

    Args:
        logits: (clips, labels).
        truth: (clips,) label indices.
        noise_logits: (sounds, labels), of sounds that are nobody's speech.
    """
    temperature = float(min(_TEMPERATURES, key=lambda t: negative_log_likelihood(logits / t, truth)))
    plain = Calibration(temperature, DEFAULT_RISK, ())
    probabilities, noise = plain.probabilities(logits), plain.probabilities(noise_logits)
    floor = float(np.quantile(noise.max(1), 1.0 - _NOISE_ALLOWED, method="higher")) if len(noise) else 0.0
    rows = tuple(
        RiskRow(
            risk,
            _rounded(max(_selective_threshold(probabilities, truth, risk), floor)),
            _rounded(_conformal_threshold(probabilities, truth, risk)),
        )
        for risk in RISKS
    )
    return Calibration(round(temperature, 4), DEFAULT_RISK, rows)


def negative_log_likelihood(logits: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Return the mean negative log-likelihood of the truth under softmax(logits)."""
    shifted = logits - logits.max(1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(1))
    return float(np.mean(log_total - shifted[np.arange(len(truth)), truth]))


def _selective_threshold(probabilities: NDArray[np.float64], truth: NDArray[np.int64], risk: float) -> float:
    order = np.argsort(-probabilities.max(1), kind="stable")
    wrong = (probabilities.argmax(1) != truth)[order]
    answered = np.arange(1, len(order) + 1)
    # One imagined error more keeps the promise on new speakers, as conformal risk control does.
    allowed = np.flatnonzero((np.cumsum(wrong) + 1) / (answered + 1) <= risk)
    return float(probabilities.max(1)[order][allowed[-1]]) if len(allowed) else 1.0


def _conformal_threshold(probabilities: NDArray[np.float64], truth: NDArray[np.int64], risk: float) -> float:
    scores = np.sort(probabilities[np.arange(len(truth)), truth])
    place = int(np.floor(risk * (len(scores) + 1))) - 1
    return float(scores[place]) if place >= 0 else 0.0


def _rounded(value: float) -> float:
    return float(np.clip(np.ceil(value * 1e4) / 1e4, 0.0, 1.0))
