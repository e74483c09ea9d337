"""Fits what turns logits into honest answers: temperature, and thresholds for each risk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_ser.calibration import Calibration
from edge_ser.calibration_fit import RISKS, fit_temperature, negative_log_likelihood, risk_rows

__all__ = ["DEFAULT_RISK", "RISKS", "fit_calibration", "negative_log_likelihood"]

DEFAULT_RISK = 0.15
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
        noise_logits: By sound that is nobody's speech, (utterances, labels) of what a stream takes for clear speech in
            it; mostly (0, labels), since speech detection hears nothing. What it does not take for clear is never
            certain, whatever the model says.
    """
    temperature = fit_temperature(logits, truth)
    plain = Calibration(temperature, DEFAULT_RISK, ())
    floor = _noise_floor([float(plain.probabilities(rows).max()) if len(rows) else 0.0 for rows in noise_logits])
    rows = risk_rows(plain.probabilities(logits), truth, floor)
    return Calibration(round(temperature, 4), DEFAULT_RISK, rows)


def _noise_floor(confidences: Sequence[float]) -> float:
    """Return the lowest threshold that answers no more than the allowed share of sounds."""
    allowed = int(_NOISE_ALLOWED * len(confidences))
    loudest = sorted(confidences, reverse=True)[allowed:]
    return float(np.nextafter(loudest[0], 1.0)) if loudest else 0.0
