"""How good a model is: the definitions that every figure of this project uses.

A confusion matrix counts items by true class (rows) and predicted class (columns).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

_ECE_BINS = 15
_CCC_FLOOR = 1e-8


def confusion_matrix(truth: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Return counts, int64, shape (classes, classes): true class by row, predicted class by column.

    Args:
        truth: Class indices, shape (n,).
        predicted: Class indices, shape (n,).
        classes: How many classes there are.

    Raises:
        ValueError: The lengths differ, or an index is no class.
    """
    pairs = np.stack([_indices(truth, classes), _indices(predicted, classes)])
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (pairs[0], pairs[1]), 1)
    return counts


def unweighted_accuracy(confusion: ArrayLike) -> float:
    """Return UA, the mean recall over the classes that occur: balanced accuracy."""
    counts = _counts(confusion)
    items = counts.sum(axis=1)
    occurs = items > 0
    return float(np.mean(np.diag(counts)[occurs] / items[occurs]))


def weighted_accuracy(confusion: ArrayLike) -> float:
    """Return WA, the share of items that are right."""
    counts = _counts(confusion)
    return float(np.trace(counts) / counts.sum())


def macro_f1(confusion: ArrayLike) -> float:
    """Return the mean F1 over the classes that occur; F1 is 0 where undefined."""
    counts = _counts(confusion)
    return float(np.mean(_f1(counts)[counts.sum(axis=1) > 0]))


def weighted_f1(confusion: ArrayLike) -> float:
    """Return the mean F1 over classes, each weighted by its share of the items; F1 is 0 where undefined."""
    counts = _counts(confusion)
    return float(np.sum(_f1(counts) * counts.sum(axis=1)) / counts.sum())


def expected_calibration_error(probabilities: ArrayLike, truth: ArrayLike, bins: int = _ECE_BINS) -> float:
    """Return ECE: how far confidence is from accuracy, averaged over equally wide bins of confidence.

    Args:
        probabilities: Shape (n, classes); rows sum to 1.
        truth: Class indices, shape (n,).
        bins: Bins over (0, 1], each closed above.

    Raises:
        ValueError: There is no item, the lengths differ, or an index is no class.
    """
    shares = np.asarray(probabilities, dtype=np.float64)
    if shares.ndim != 2 or shares.shape[0] == 0:
        raise ValueError(f"got probabilities of shape {shares.shape}; need (n, classes) with n above 0")
    right = shares.argmax(axis=1) == _indices(truth, shares.shape[1], length=shares.shape[0])
    confidence = shares.max(axis=1)
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    # |sum of confidences - number right| in a bin is its gap times its size.
    gaps = np.bincount(bin_of, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / shares.shape[0])


def ccc(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Return CCC, Lin's concordance of two series, in [-1, 1]; 0 where a series is constant.

    Args:
        truth: Shape (n,).
        predicted: Shape (n,).

    Raises:
        ValueError: The series are empty or of different lengths.
    """
    x, y = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or x.size == 0:
        raise ValueError(f"got series of shapes {x.shape} and {y.shape}; need two of shape (n,) with n above 0")
    covariance = np.mean((x - x.mean()) * (y - y.mean()))
    spread = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    return float(2 * covariance / max(spread, _CCC_FLOOR))


def selective_accuracy(truth: ArrayLike, predicted: ArrayLike, answered: ArrayLike) -> tuple[float, float]:
    """Return the share right among the answered items, and the share answered (the coverage).

    Args:
        truth: Class indices, shape (n,).
        predicted: Class indices, shape (n,).
        answered: True where the model was certain, shape (n,).

    Returns:
        Accuracy, NaN where nothing was answered, and coverage.

    Raises:
        ValueError: There is no item, or the lengths differ.
    """
    right = np.asarray(truth) == np.asarray(predicted)
    mask = np.asarray(answered, dtype=np.bool_)
    if np.ndim(right) != 1 or right.shape != mask.shape or mask.size == 0:
        raise ValueError(f"got {np.shape(truth)}, {np.shape(predicted)} and {mask.shape}; need (n,) thrice, n above 0")
    accuracy = float(right[mask].mean()) if mask.any() else float("nan")
    return accuracy, float(mask.mean())


def bootstrap_interval(
    statistic: Callable[..., float],
    columns: Sequence[ArrayLike],
    groups: ArrayLike | None = None,
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a statistic.

    Args:
        statistic: Called with the resampled columns, in order; a resample for which it is NaN is left out.
        columns: Arrays of shape (n, ...), one row an item.
        groups: Shape (n,); items of one group (a speaker) are drawn together. None draws single items.
        seed: Seed of the draws.
        resamples: How many draws.
        level: Probability that the interval is to cover, in (0, 1).

    Raises:
        ValueError: There is no item, or the lengths differ.
    """
    arrays = [np.asarray(column) for column in columns]
    clusters = _clusters(arrays, groups)
    random = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        drawn = np.concatenate([clusters[index] for index in random.integers(len(clusters), size=len(clusters))])
        values.append(statistic(*(array[drawn] for array in arrays)))
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _clusters(arrays: list[NDArray[np.generic]], groups: ArrayLike | None) -> list[NDArray[np.intp]]:
    lengths = {array.shape[0] for array in arrays} | (set() if groups is None else {np.asarray(groups).shape[0]})
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"got columns and groups of lengths {sorted(lengths)}; need one length above 0")
    if groups is None:
        return [np.array([index]) for index in range(lengths.pop())]
    _, cluster_of = np.unique(np.asarray(groups), return_inverse=True)
    order = np.argsort(cluster_of, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(cluster_of[order])) + 1)


def _indices(values: ArrayLike, classes: int, length: int | None = None) -> NDArray[np.int64]:
    indices = np.asarray(values)
    if indices.ndim != 1 or length not in (None, indices.size):
        raise ValueError(f"got class indices of shape {indices.shape}; need ({'n' if length is None else length},)")
    if indices.size and not (indices.dtype.kind in "iu" and 0 <= indices.min() and indices.max() < classes):
        raise ValueError(f"got class indices that are not whole numbers from 0 to {classes - 1}")
    return indices.astype(np.int64)


def _counts(confusion: ArrayLike) -> NDArray[np.float64]:
    counts = np.asarray(confusion, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.sum() > 0:
        raise ValueError(f"got a confusion matrix of shape {counts.shape}; need (classes, classes) with an item in it")
    return counts


def _f1(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    # 2 P R / (P + R) = 2 right / (true + predicted), which needs no case for an undefined P or R.
    both = counts.sum(axis=0) + counts.sum(axis=1)
    scores: NDArray[np.float64] = np.divide(2 * np.diag(counts), both, out=np.zeros_like(both), where=both > 0)
    return scores
