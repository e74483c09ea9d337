"""Metrics: checked against figures worked out by hand and against what must hold for any data."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_ser.metrics import (
    bootstrap_interval,
    ccc,
    confusion_matrix,
    expected_calibration_error,
    macro_f1,
    selective_accuracy,
    unweighted_accuracy,
    weighted_accuracy,
    weighted_f1,
)

# Rows are the truth: class 0 has recall 3/4, class 1 1/2, class 2 never occurs.
BY_HAND = [[3, 0, 1], [1, 1, 0], [0, 0, 0]]
ALL = [unweighted_accuracy, weighted_accuracy, macro_f1, weighted_f1]

classes = st.integers(0, 3)
labels = st.integers(1, 60).flatmap(
    lambda n: st.tuples(hnp.arrays(np.int64, n, elements=classes), hnp.arrays(np.int64, n, elements=classes))
)
series = hnp.arrays(np.float64, st.integers(2, 40), elements=st.floats(-10, 10))


def test_the_confusion_matrix_has_the_truth_in_rows() -> None:
    counts = confusion_matrix([0, 0, 1, 2], [0, 1, 1, 0], 3)
    assert counts.dtype == np.int64
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert confusion_matrix([], [], 2).tolist() == [[0, 0], [0, 0]]


def test_figures_by_hand() -> None:
    f1_of_0 = 2 * (3 / 4) * (3 / 4) / (3 / 4 + 3 / 4)
    f1_of_1 = 2 * 1 * (1 / 2) / (1 + 1 / 2)
    assert unweighted_accuracy(BY_HAND) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert weighted_accuracy(BY_HAND) == pytest.approx(4 / 6)
    assert macro_f1(BY_HAND) == pytest.approx((f1_of_0 + f1_of_1) / 2)
    assert weighted_f1(BY_HAND) == pytest.approx((4 * f1_of_0 + 2 * f1_of_1) / 6)


@given(labels)
def test_scores_are_shares_and_full_where_all_is_right(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = pair
    assert confusion_matrix(truth, predicted, 4).sum() == len(truth)
    for score in ALL:
        assert 0 <= score(confusion_matrix(truth, predicted, 4)) <= 1
        assert score(confusion_matrix(truth, truth, 4)) == pytest.approx(1)


@given(labels, st.permutations(range(4)))
def test_the_numbering_of_classes_does_not_matter(pair: tuple[np.ndarray, np.ndarray], order: list[int]) -> None:
    renamed = np.array(order)
    truth, predicted = pair
    for score in ALL:
        before = score(confusion_matrix(truth, predicted, 4))
        assert score(confusion_matrix(renamed[truth], renamed[predicted], 4)) == pytest.approx(before)


@given(labels, st.integers(2, 5))
def test_ua_ignores_how_often_a_class_occurs(pair: tuple[np.ndarray, np.ndarray], times: int) -> None:
    counts = confusion_matrix(*pair, 4)
    weights = np.array([times, 1, 1, 1])[:, np.newaxis]
    assert unweighted_accuracy(counts * weights) == pytest.approx(unweighted_accuracy(counts))


def test_shares_of_items_score_like_items() -> None:
    for score in ALL:
        assert score(np.array(BY_HAND) / 6) == pytest.approx(score(BY_HAND))


@pytest.mark.parametrize("score", ALL)
@pytest.mark.parametrize("confusion", [np.zeros((3, 3)), np.ones((2, 3)), np.ones(3), np.full((2, 2), np.nan)])
def test_no_score_without_items(score: object, confusion: np.ndarray) -> None:
    with pytest.raises(ValueError, match="confusion matrix"):
        score(confusion)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("truth", "predicted"), [([0, 4], [0, 0]), ([0, 0], [0, -1]), ([0.0], [1.0]), ([0, 1], [0]), ([[0]], [[0]])]
)
def test_indices_that_are_no_classes_are_refused(truth: object, predicted: object) -> None:
    with pytest.raises(ValueError, match=r"class indices|same shape"):
        confusion_matrix(truth, predicted, 4)  # type: ignore[arg-type]


def test_calibration_error_by_hand() -> None:
    # Bin (9/15, 10/15]: two items at 0.65, one right. Bin (14/15, 1]: one item at 1.0, right.
    probabilities = [[0.65, 0.35], [0.35, 0.65], [1.0, 0.0]]
    assert expected_calibration_error(probabilities, [0, 0, 0]) == pytest.approx(2 / 3 * abs(0.65 - 0.5))


def test_bins_are_closed_above() -> None:
    # 0.6 = 9/15 shares no bin with 0.61: gaps of 0.4 and 0.61 do not cancel.
    assert expected_calibration_error([[0.6, 0.4], [0.61, 0.39]], [0, 1]) == pytest.approx((0.4 + 0.61) / 2)


@given(st.floats(0.5, 1), st.integers(1, 30))
def test_calibration_error_of_one_confidence_is_its_gap(confidence: float, right: int) -> None:
    probabilities = np.tile([confidence, 1 - confidence], (30, 1))
    truth = np.array([0] * right + [1] * (30 - right))
    assert expected_calibration_error(probabilities, truth) == pytest.approx(abs(confidence - right / 30))


@pytest.mark.parametrize(
    ("probabilities", "truth"), [(np.zeros((0, 4)), []), ([0.5, 0.5], [0]), ([[0.5, 0.5]], [0, 1]), ([[1.0, 0.0]], [2])]
)
def test_calibration_error_needs_matching_items(probabilities: object, truth: object) -> None:
    with pytest.raises(ValueError, match="got"):
        expected_calibration_error(probabilities, truth)  # type: ignore[arg-type]


@given(series)
def test_concordance_of_a_series_with_itself_is_one(x: np.ndarray) -> None:
    if x.std() > 1e-2:
        assert ccc(x, x) == pytest.approx(1)
        assert ccc(x, -(x - x.mean()) + x.mean()) == pytest.approx(-1)
        assert abs(ccc(x, x + 1)) < 1


@given(series, st.floats(-5, 5))
def test_concordance_with_a_constant_is_zero(x: np.ndarray, constant: float) -> None:
    assert ccc(x, np.full_like(x, constant)) == pytest.approx(0, abs=1e-6)


@given(series, st.floats(0.5, 4), st.floats(-5, 5))
def test_a_common_change_of_scale_keeps_the_concordance(x: np.ndarray, scale: float, shift: float) -> None:
    y = np.roll(x, 1)
    if x.std() > 1e-2:
        assert ccc(scale * x + shift, scale * y + shift) == pytest.approx(ccc(x, y), abs=1e-6)


def test_concordance_by_hand() -> None:
    # Means 2 and 3, variances 2/3, covariance 2/3.
    assert ccc([1, 2, 3], [2, 3, 4]) == pytest.approx((4 / 3) / (4 / 3 + 1))


def test_concordance_needs_two_equal_series() -> None:
    for x, y in ([], []), ([1, 2], [1]), ([[1]], [[1]]):
        with pytest.raises(ValueError, match="got series"):
            ccc(x, y)  # type: ignore[arg-type]


def test_selective_accuracy_counts_the_answered_only() -> None:
    assert selective_accuracy([0, 1, 2, 3], [0, 1, 0, 0], [True, True, True, False]) == (pytest.approx(2 / 3), 0.75)
    accuracy, coverage = selective_accuracy([0], [0], [False])
    assert math.isnan(accuracy)
    assert coverage == 0
    with pytest.raises(ValueError, match="need"):
        selective_accuracy([], [], [])


def mean(values: np.ndarray) -> float:
    return float(values.mean())


def test_an_interval_is_the_same_for_the_same_seed_only() -> None:
    data = np.random.default_rng(1).standard_normal(50)
    assert bootstrap_interval(mean, [data], seed=3) == bootstrap_interval(mean, [data], seed=3)
    assert bootstrap_interval(mean, [data], seed=3) != bootstrap_interval(mean, [data], seed=4)


def test_an_interval_of_a_mean_is_that_of_theory() -> None:
    data = np.random.default_rng(1).standard_normal(400)
    low, high = bootstrap_interval(mean, [data], seed=0, resamples=5000)
    half_width = 1.96 * data.std() / 20
    assert data.mean() - low == pytest.approx(half_width, rel=0.06)
    assert high - data.mean() == pytest.approx(half_width, rel=0.06)


def test_groups_are_drawn_whole() -> None:
    values, groups = np.repeat(np.arange(5.0), 4), np.repeat(list("abcde"), 4)
    drawn: list[list[float]] = []

    def keep(column: np.ndarray, group: np.ndarray) -> float:
        drawn.append(sorted(column.tolist()))
        assert len(set(zip(column.tolist(), group.tolist(), strict=True))) == len(set(column.tolist()))
        return mean(column)

    order = np.random.default_rng(0).permutation(20)
    grouped = bootstrap_interval(keep, [values[order], groups[order]], groups[order], resamples=300)
    assert all(column.count(value) % 4 == 0 for column in drawn for value in column)
    single = bootstrap_interval(mean, [values], resamples=300)
    assert grouped[1] - grouped[0] > 1.5 * (single[1] - single[0])


def test_a_wider_level_is_a_wider_interval() -> None:
    data = np.random.default_rng(1).standard_normal(50)
    narrow, wide = (bootstrap_interval(mean, [data], level=level) for level in (0.5, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_resamples_without_a_value_are_left_out() -> None:
    data = np.array([0.0, 1.0])
    low, high = bootstrap_interval(lambda x: float("nan") if x.sum() == 0 else mean(x), [data], resamples=200)
    assert (low, high) == (0.5, 1.0)


def test_columns_must_match() -> None:
    for columns, groups in (([[1, 2], [1]], None), ([[1, 2]], [1]), ([[]], None), ([], None)):
        with pytest.raises(ValueError, match="lengths"):
            bootstrap_interval(lambda *_: 0.0, columns, groups)  # type: ignore[arg-type]
