from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the workshop needs scipy: pip install -e '.[train]'")

from scipy import stats

from edge_ser.metrics import bootstrap_interval, confusion_matrix, unweighted_accuracy
from train.statistics import (
    Spread,
    by_speaker,
    ccc_interval,
    interval,
    mean_ccc,
    paired_interval,
    t_interval,
    welch,
)


def test_a_spread_has_the_population_deviation() -> None:
    assert Spread.of([0.5, 0.7]) == Spread(pytest.approx(0.6), pytest.approx(0.1), 2)
    assert Spread.of([0.4]) == Spread(0.4, 0.0, 1)
    with pytest.raises(ValueError, match="no value"):
        Spread.of([])


def test_welch_is_one_tailed_in_the_direction_of_the_first() -> None:
    high, low = [0.71, 0.74, 0.70, 0.73], [0.60, 0.66, 0.58, 0.63]
    right, wrong = welch(high, low), welch(low, high)
    assert right.p < 0.01 and right.p + wrong.p == pytest.approx(1.0)
    two = stats.ttest_ind(high, low, equal_var=False)
    assert right.t == pytest.approx(two.statistic) and right.p == pytest.approx(two.pvalue / 2)


def test_sets_without_variance_or_of_one_value_have_no_test() -> None:
    assert math.isnan(welch([0.5, 0.5], [0.4, 0.4]).p)
    assert math.isnan(welch([0.5], [0.4, 0.3]).p)


def test_one_constant_set_still_has_a_test() -> None:
    assert 0 < welch([0.5, 0.6, 0.7], [0.25, 0.25, 0.25]).p < 0.05


def test_the_t_interval_is_the_textbooks() -> None:
    low, high = t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (low, high) == (pytest.approx(3 - 1.9632, abs=1e-3), pytest.approx(3 + 1.9632, abs=1e-3))
    assert math.isnan(t_interval([1.0])[0])


def answers(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(4, size=400)
    predicted = np.where(rng.random(400) < 0.6, truth, rng.integers(4, size=400))
    return truth, predicted, np.array([f"s{place % 10}" for place in range(400)])


def test_the_interval_is_that_of_the_bootstrap_over_speakers() -> None:
    truth, predicted, speakers = answers()

    def ua(right: np.ndarray, answer: np.ndarray) -> float:
        return unweighted_accuracy(confusion_matrix(right, answer, 4))

    expected = bootstrap_interval(ua, [truth, predicted], speakers)
    matrices = by_speaker(truth, predicted, speakers, 4)
    assert matrices.shape == (10, 4, 4)
    assert interval(matrices) == pytest.approx(expected)


def test_a_paired_interval_is_narrower_than_its_parts_and_zero_for_equal_answers() -> None:
    truth, predicted, speakers = answers()
    better = np.where(np.arange(400) % 7 == 0, truth, predicted)
    first, second = by_speaker(truth, better, speakers, 4), by_speaker(truth, predicted, speakers, 4)
    low, high = paired_interval(first, second)
    assert 0 < low < high
    alone = interval(first)
    assert high - low < alone[1] - alone[0]
    assert paired_interval(second, second) == (0.0, 0.0)


def test_ccc_is_averaged_over_attributes_on_the_whole_set() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random((60, 3))
    assert mean_ccc(truth, truth) == pytest.approx(1.0)
    noisy = truth + 0.2 * rng.standard_normal(truth.shape)
    speakers = np.arange(60) % 6
    low, high = ccc_interval(truth, noisy, speakers)
    assert low < mean_ccc(truth, noisy) < high
