from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="the press needs onnx: pip install -e '.[export]'")

from edge_ser.calibration import Calibration
from edge_ser.calibration_fit import risk_rows
from edge_ser.metrics import expected_calibration_error
from export.calibrate import RISKS, fit_calibration, negative_log_likelihood


def overconfident(clips: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    honest = rng.normal(size=(clips, 4)) * 1.5
    shares = np.exp(honest) / np.exp(honest).sum(1, keepdims=True)
    truth = np.array([rng.choice(4, p=row) for row in shares])
    return honest * 3.0, truth


def fitted(clips: int) -> Calibration:
    logits, truth = overconfident(clips, 0)
    return fit_calibration([logits], truth, [])


def test_temperature_undoes_overconfidence_for_people_it_was_not_fitted_on() -> None:
    calibration = fitted(20_000)
    assert calibration.temperature == pytest.approx(3.0, rel=0.15)
    logits, truth = overconfident(20_000, 1)
    raw = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    after = expected_calibration_error(calibration.probabilities(logits), truth)
    assert after < 0.03 < 0.1 < expected_calibration_error(raw, truth)


def test_certain_answers_keep_their_risk_on_new_data() -> None:
    calibration = fitted(20_000)
    logits, truth = overconfident(20_000, 1)
    probabilities = calibration.probabilities(logits)
    for row in calibration.risks:
        certain = probabilities.max(1) >= row.min_confidence
        if certain.sum() > 200:
            assert np.mean(probabilities.argmax(1)[certain] != truth[certain]) <= row.risk + 0.02
        sets = probabilities >= row.min_probability
        assert np.mean(~sets[np.arange(len(truth)), truth]) <= row.risk + 0.02


def test_the_promise_holds_in_the_worse_state_of_the_voice() -> None:
    warm, truth = overconfident(4000, 0)
    cold = warm + np.random.default_rng(2).normal(size=warm.shape) * 4.0
    both = fit_calibration([cold, warm], truth, [])
    shares = both.probabilities(cold)
    for row in both.risks:
        certain = shares.max(1) >= row.min_confidence
        assert not certain.any() or np.mean(shares.argmax(1)[certain] != truth[certain]) <= row.risk


def test_few_clips_promise_less_than_many() -> None:
    # The same clips a hundred times over: the same shares of wrong answers, known a hundred times as well.
    logits, truth = overconfident(200, 0)
    few = fit_calibration([logits], truth, []).row(0.3)
    many = fit_calibration([np.tile(logits, (100, 1))], np.tile(truth, 100), []).row(0.3)
    assert few is not None and many is not None and few.min_confidence > many.min_confidence + 0.02


def test_caution_is_wilsons_bound() -> None:
    # 10 of 100 wrong: Wilson's upper bound at 1.645 standard errors is 0.159 (11 of 101, one imagined: 0.169).
    probabilities = np.tile([0.9, 0.1], (100, 1))
    truth = np.array([1] * 10 + [0] * 90)
    assert [row.risk for row in risk_rows(probabilities, truth, caution=0.0)] == [0.15, 0.2, 0.3]
    assert [row.risk for row in risk_rows(probabilities, truth, caution=1.645)] == [0.2, 0.3]


def test_a_stricter_risk_never_answers_more() -> None:
    rows = fitted(20_000).risks
    assert [row.risk for row in rows] == list(RISKS)
    assert all(a.min_confidence >= b.min_confidence for a, b in pairwise(rows))
    assert all(a.min_probability <= b.min_probability for a, b in pairwise(rows))


def test_confident_answers_to_noise_raise_the_bar() -> None:
    logits, truth = overconfident(1000, 0)
    silent = [np.zeros((0, 4))] * 45
    noise = [np.array([[9.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])] * 5
    calibration = fit_calibration([logits], truth, silent + noise)
    assert calibration.risks[-1].min_confidence > calibration.probabilities(noise[0][0]).max() - 1e-4
    alone = fit_calibration([logits], truth, silent * 3 + noise[:1])
    assert alone.risks == fit_calibration([logits], truth, []).risks


def test_a_hopeless_model_is_never_certain() -> None:
    rng = np.random.default_rng(0)
    calibration = fit_calibration([rng.normal(size=(400, 4))], rng.integers(0, 4, 400), [])
    assert min((row.risk for row in calibration.risks), default=1.0) > 0.2


def test_negative_log_likelihood_of_no_preference_is_log_of_classes() -> None:
    assert negative_log_likelihood(np.zeros((3, 4)), np.array([0, 1, 2])) == pytest.approx(np.log(4.0))
