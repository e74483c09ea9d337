"""How sure a figure is: spread over seeds and folds, intervals over speakers, tests between systems."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from edge_ser.metrics import (
    bootstrap_interval,
    ccc,
    confusion_matrix,
    macro_f1,
    unweighted_accuracy,
    weighted_accuracy,
    weighted_f1,
)

METRICS: Mapping[str, Callable[[ArrayLike], float]] = {
    "UA": unweighted_accuracy,
    "WA": weighted_accuracy,
    "WF1": weighted_f1,
    "UWF1": macro_f1,
}
"""What is computed from a confusion matrix, by the names of the tables, each in [0, 1]."""

ATTRIBUTES = ("Aro.", "Val.", "Dom.")
"""Names of the three attributes in tables, in the order of the targets."""


@dataclass(frozen=True)
class Spread:
    """A figure over several seeds or folds."""

    mean: float
    """The mean."""
    sd: float
    """Population standard deviation, 0 for one value: how published tables over folds give it."""
    count: int
    """How many values."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of values.

        Raises:
            ValueError: There is none.
        """
        if not len(values):
            raise ValueError("got no value; need at least one")
        array = np.asarray(values, dtype=np.float64)
        return cls(float(array.mean()), float(array.std()), len(array))


@dataclass(frozen=True)
class Welch:
    """Welch's test of two sets of values whose variances may differ."""

    t: float
    """The statistic; positive where the first set has the higher mean."""
    p: float
    """Probability of such a statistic, or one further out, where the means are equal."""


def welch(first: Sequence[float], second: Sequence[float], alternative: str = "greater") -> Welch:
    """Return Welch's t-test, one-tailed unless told otherwise: is the mean of `first` greater than that of `second`?

    Sets without any variance have no test: NaN. So has a set of one value.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(a) < 2 or len(b) < 2 or max(np.ptp(a), np.ptp(b)) < 1e-12:
        return Welch(math.nan, math.nan)
    with warnings.catch_warnings():
        # One set may be (nearly) constant: five seeds that all answer alike. The test is still defined.
        warnings.simplefilter("ignore", RuntimeWarning)
        result = stats.ttest_ind(a, b, equal_var=False, alternative=alternative)
    return Welch(float(result.statistic), float(result.pvalue))


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Return the interval of the mean of a few values by Student's t with their sample deviation; NaN below two."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) < 2:
        return math.nan, math.nan
    half = stats.t.ppf((1 + level) / 2, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array))
    return float(array.mean() - half), float(array.mean() + half)


def by_speaker(truth: ArrayLike, predicted: ArrayLike, speakers: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Return one confusion matrix a speaker, int64, shape (speakers, classes, classes), in order of their names.

    Args:
        truth: Class indices, shape (n,).
        predicted: Class indices, shape (n,).
        speakers: Ids, shape (n,).
        classes: How many classes there are.
    """
    right, answer = np.asarray(truth), np.asarray(predicted)
    names, owner = np.unique(np.asarray(speakers), return_inverse=True)
    return np.stack([confusion_matrix(right[owner == k], answer[owner == k], classes) for k in range(len(names))])


def interval(confusions: NDArray[np.int64], metric: str = "UA", seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of a metric on pooled answers, bootstrapped by speaker.

    Args:
        confusions: What `by_speaker` returned; drawing a speaker draws all of the speaker's items.
        metric: One of `METRICS`.
        seed: Seed of the draws.
    """
    return bootstrap_interval(lambda drawn: METRICS[metric](drawn.sum(axis=0)), [confusions], seed=seed)


def paired_interval(
    first: NDArray[np.int64], second: NDArray[np.int64], metric: str = "UA", seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of first - second on the same speakers, who are drawn for both at once."""

    def difference(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
        return METRICS[metric](a.sum(axis=0)) - METRICS[metric](b.sum(axis=0))

    return bootstrap_interval(difference, [first, second], seed=seed)


def mean_ccc(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Return the mean CCC over attributes; both of shape (n, attributes), on a whole test set."""
    right, answer = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    return float(np.mean([ccc(right[:, column], answer[:, column]) for column in range(right.shape[1])]))


def ccc_interval(truth: ArrayLike, predicted: ArrayLike, speakers: ArrayLike, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the mean CCC, bootstrapped by speaker."""
    return bootstrap_interval(mean_ccc, [truth, predicted], np.asarray(speakers), seed=seed)
