"""Calibration: probabilities that sum to 1 and decisions that grow stricter with the risk."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ser.calibration import Calibration, RiskRow
from edge_ser.errors import BundleError, ConfigError
from edge_ser.json_object import JsonObject

TABLE = Calibration(2.0, 0.1, (RiskRow(0.05, 0.9, 0.05), RiskRow(0.1, 0.7, 0.1), RiskRow(0.3, 0.4, 0.2)))

logits = st.lists(st.floats(-50, 50), min_size=2, max_size=8).map(np.array)
shares = logits.map(TABLE.probabilities)
temperatures = st.floats(0.05, 20)


@given(logits, temperatures)
def test_probabilities_sum_to_one_and_keep_the_order(values: np.ndarray, temperature: float) -> None:
    result = Calibration(temperature, 0.1, ()).probabilities(values)
    assert result.dtype == np.float64
    assert result.sum() == pytest.approx(1)
    assert (result >= 0).all()
    assert (np.diff(result[np.argsort(values, kind="stable")]) >= 0).all()


@given(logits, st.floats(-1000, 1000))
def test_a_common_shift_changes_nothing(values: np.ndarray, shift: float) -> None:
    np.testing.assert_allclose(TABLE.probabilities(values + shift), TABLE.probabilities(values), atol=1e-9)


def test_huge_logits_do_not_overflow() -> None:
    assert TABLE.probabilities(np.array([1e30, -1e30], np.float32)).tolist() == [1.0, 0.0]


def test_batches_are_calibrated_row_by_row() -> None:
    rows = np.array([[0.0, 2.0], [4.0, 0.0]])
    expected = [TABLE.probabilities(row) for row in rows]
    np.testing.assert_array_equal(TABLE.probabilities(rows), expected)


@given(logits, temperatures, temperatures)
def test_a_higher_temperature_is_never_more_confident(values: np.ndarray, one: float, other: float) -> None:
    low, high = sorted((one, other))
    confident = Calibration(low, 0.1, ()).probabilities(values).max()
    assert Calibration(high, 0.1, ()).probabilities(values).max() <= confident + 1e-12


@given(shares, st.floats(0.001, 0.999))
def test_candidates_begin_with_the_likeliest_and_fall(values: np.ndarray, risk: float) -> None:
    uncertain, candidates = TABLE.decide(values, risk)
    chosen = values[list(candidates)]
    assert chosen[0] == values.max()
    assert (np.diff(chosen) <= 0).all()
    assert len(set(candidates)) == len(candidates)
    assert uncertain or len(candidates) == 1


@given(shares, st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_a_stricter_risk_is_never_more_certain(values: np.ndarray, one: float, other: float) -> None:
    strict, loose = sorted((one, other))
    uncertain, candidates = TABLE.decide(values, strict)
    loosely_uncertain, loose_candidates = TABLE.decide(values, loose)
    assert uncertain >= loosely_uncertain
    assert set(candidates) >= set(loose_candidates)


@pytest.mark.parametrize(
    ("probabilities", "risk", "expected"),
    [
        ([0.1, 0.7, 0.2], None, (False, (1,))),
        ([0.1, 0.69, 0.21], None, (True, (1, 2, 0))),
        ([0.05, 0.65, 0.3], 0.1, (True, (1, 2))),
        ([0.05, 0.65, 0.3], 0.29, (True, (1, 2))),
        ([0.05, 0.65, 0.3], 0.3, (False, (1,))),
        ([0.05, 0.65, 0.3], 0.99, (False, (1,))),
        ([0.05, 0.65, 0.3], 0.07, (True, (1, 2, 0))),
        ([0.0, 1.0, 0.0], 0.04, (True, (1, 0, 2))),
        ([0.3, 0.35, 0.35], 0.3, (True, (1, 2, 0))),
        ([0.19, 0.19, 0.19, 0.19, 0.24], 0.3, (True, (4,))),
    ],
)
def test_decisions_by_the_table(
    probabilities: list[float], risk: float | None, expected: tuple[bool, tuple[int, ...]]
) -> None:
    assert TABLE.decide(probabilities, risk) == expected


def test_the_top_label_stays_even_below_the_threshold_of_its_row() -> None:
    picky = Calibration(1.0, 0.1, (RiskRow(0.1, 0.9, 0.8),))
    assert picky.decide([0.6, 0.4]) == (True, (0,))


def test_without_a_table_nothing_is_certain() -> None:
    assert Calibration(1.0, 0.1, ()).decide([0.0, 1.0]) == (True, (1, 0))


@pytest.mark.parametrize("risk", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_risk_that_is_no_share_is_refused(risk: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        TABLE.decide([0.5, 0.5], risk)


def test_the_json_form_reads_back() -> None:
    assert Calibration.from_json(JsonObject(TABLE.to_dict(), "here", "mend it", BundleError)) == TABLE


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0},
        {"temperature": -1.0},
        {"temperature": 10**400},
        {"default_risk": 0},
        {"default_risk": 1},
        {"risks": [{"risk": 0.1, "min_confidence": 1.1, "min_probability": 0.1}]},
        {"risks": [{"risk": 0.1, "min_confidence": 0.5, "min_probability": -0.1}]},
        {"risks": [{"risk": 0.1, "min_confidence": 0.5, "min_probability": 0.1}] * 2},
    ],
)
def test_values_out_of_range_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(BundleError, match="here"):
        Calibration.from_json(JsonObject({**TABLE.to_dict(), **change}, "here", "mend it", BundleError))
