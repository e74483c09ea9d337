"""Fits what turns logits into honest answers: temperature, and thresholds for each risk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_ser.calibration import Calibration
from edge_ser.calibration_fit import (
    ONE_SIDED_95,
    RISKS,
    fit_temperature,
    negative_log_likelihood,
    risk_rows,
    strictest_rows,
)

__all__ = ["DEFAULT_RISK", "RISKS", "fit_calibration", "negative_log_likelihood"]

DEFAULT_RISK = 0.15
_NOISE_ALLOWED = 0.01


def fit_calibration(
    states: Sequence[NDArray[np.float64]], truth: NDArray[np.int64], noise_logits: Sequence[NDArray[np.float64]]
) -> Calibration:
    """Return the calibration for clips whose speakers were not trained on.

    Temperature minimises the negative log-likelihood (Guo et al. 2017). For each risk, `min_confidence` is the lowest
    threshold at which the answers above it are wrong no more often than the risk, in every state of the voice, by
    Wilson's one-sided bound of 95 % with the clips taken as independent, and at most 1 % of sounds that are no speech
    are answered; `min_probability` is the split-conformal threshold (Sadinle et al. 2019): sets of labels at or above
    it miss the truth no more often than the risk. A risk that no threshold reaches has no row: an answer at that risk
    is never certain.

    Args:
        states: Logits (clips, labels) of the same clips with the voice in different states, such as fresh and known.
        truth: (clips,) label indices.
        noise_logits: By sound that is nobody's speech, (utterances, labels) of what a stream takes for clear speech in
            it; mostly (0, labels), since speech detection hears nothing. What it does not take for clear is never
            certain, whatever the model says.
    """
    temperature = fit_temperature(np.concatenate(list(states)), np.tile(truth, len(states)))
    plain = Calibration(temperature, DEFAULT_RISK, ())
    floor = _noise_floor([float(plain.probabilities(rows).max()) if len(rows) else 0.0 for rows in noise_logits])
    tables = [risk_rows(plain.probabilities(logits), truth, floor, ONE_SIDED_95) for logits in states]
    return Calibration(round(temperature, 4), DEFAULT_RISK, strictest_rows(tables))


def _noise_floor(confidences: Sequence[float]) -> float:
    """Return the lowest threshold that answers no more than the allowed share of sounds."""
    allowed = int(_NOISE_ALLOWED * len(confidences))
    loudest = sorted(confidences, reverse=True)[allowed:]
    return float(np.nextafter(loudest[0], 1.0)) if loudest else 0.0
