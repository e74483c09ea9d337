"""The figures of a set of predictions, with intervals over speakers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_ser.metrics import (
    bootstrap_interval,
    ccc,
    confusion_matrix,
    expected_calibration_error,
    macro_f1,
    unweighted_accuracy,
    weighted_accuracy,
    weighted_f1,
)
from train.examples import Example

ATTRIBUTES = ("arousal", "valence", "dominance")
"""The columns of an attribute system's output."""


def rates_attributes(examples: Sequence[Example]) -> bool:
    """Return whether the examples carry attributes and no classes."""
    return bool(examples) and all(e.emotion < 0 and e.attributes is not None for e in examples)


def scores(logits: NDArray[np.float32], examples: Sequence[Example]) -> dict[str, float]:
    """Return UA, WA, WF1 and UWF1 of class logits (n, C), or CCC by attribute and its mean of values (n, 3)."""
    if rates_attributes(examples):
        return _ccc_scores(_attributes(examples), logits)
    truth = np.array([example.emotion for example in examples])
    return _class_scores(truth, logits.argmax(1), logits.shape[1])


def confusion(logits: NDArray[np.float32], examples: Sequence[Example]) -> NDArray[np.int64]:
    """Return the confusion matrix (C, C) of class logits (n, C)."""
    return confusion_matrix([example.emotion for example in examples], logits.argmax(1), logits.shape[1])


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return softmax over classes, shape (n, C)."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    shares: NDArray[np.float64] = shifted / shifted.sum(1, keepdims=True)
    return shares


def by_utterance(logits: NDArray[np.float32], examples: Sequence[Example]) -> tuple[NDArray[np.float32], list[Example]]:
    """Return the mean logits of each utterance whose pieces were answered one by one, and one example of each."""
    rows: dict[Path, list[int]] = {}
    for row, example in enumerate(examples):
        rows.setdefault(example.path, []).append(row)
    means = np.stack([logits[own].mean(0) for own in rows.values()])
    return means, [examples[own[0]] for own in rows.values()]


def report(
    logits: NDArray[np.float32],
    examples: Sequence[Example],
    *,
    temperature: float = 1.0,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, object]:
    """Return every figure with its 95 % interval, speakers drawn together, and the counts behind them.

    Args:
        logits: (n, C), or the values of attributes (n, 3).
        examples: One a row.
        temperature: Divides the logits before they are probabilities; no figure but the calibration error sees it.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
    """
    if rates_attributes(examples):
        columns: list[ArrayLike] = [_attributes(examples), logits]

        def measure(*drawn: NDArray[np.generic]) -> dict[str, float]:
            return _ccc_scores(np.asarray(drawn[0], np.float64), np.asarray(drawn[1], np.float64))

    else:
        columns = [np.array([example.emotion for example in examples]), logits.argmax(1)]
        classes = logits.shape[1]

        def measure(*drawn: NDArray[np.generic]) -> dict[str, float]:
            return _class_scores(drawn[0], drawn[1], classes)

    point = measure(*(np.asarray(column) for column in columns))
    speakers = [f"{example.corpus}/{example.speaker}" for example in examples]
    figures: dict[str, object] = {}
    for name, value in point.items():
        low, high = bootstrap_interval(_only(measure, name), columns, groups=speakers, seed=seed, resamples=resamples)
        figures[name] = {"value": value, "low": low, "high": high}
    figures |= {"utterances": len(examples), "speakers": len(set(speakers))}
    if not rates_attributes(examples):
        truth = [example.emotion for example in examples]
        figures["ece"] = expected_calibration_error(probabilities(logits / np.float32(temperature)), truth)
        figures["confusion"] = confusion(logits, examples).tolist()
    return figures


def _only(measure: Callable[..., Mapping[str, float]], name: str) -> Callable[..., float]:
    return lambda *columns: measure(*columns)[name]


def _class_scores(truth: ArrayLike, predicted: ArrayLike, classes: int) -> dict[str, float]:
    counts = confusion_matrix(truth, predicted, classes)
    return {
        "ua": unweighted_accuracy(counts),
        "wa": weighted_accuracy(counts),
        "wf1": weighted_f1(counts),
        "uwf1": macro_f1(counts),
    }


def _ccc_scores(truth: NDArray[np.float64], values: NDArray[np.floating]) -> dict[str, float]:
    each = {}
    for column, name in enumerate(ATTRIBUTES):
        known = ~np.isnan(truth[:, column])
        if known.any():
            each[f"ccc_{name}"] = ccc(truth[known, column], values[known, column])
    return {"ccc": float(np.mean(list(each.values()))), **each}


def _attributes(examples: Sequence[Example]) -> NDArray[np.float64]:
    return np.array([example.attributes for example in examples], dtype=np.float64)
