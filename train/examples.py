"""Utterances as a system sees them: features and targets, gathered into padded batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SEQUENCES = ("speech", "text", "mfcc", "lpcc", "log_power", "audio")
"""Features with a time axis first, which come with a mask; the others have one shape for every utterance."""

_ATTRIBUTES = 3


@dataclass(frozen=True)
class Example:
    """One utterance."""

    path: Path
    """The audio file, which names the utterance."""
    speaker: str
    """Id of the speaker."""
    corpus: str
    """Name of the corpus."""
    features: Mapping[str, NDArray[np.floating]]
    """By name: a sequence (T, ...) or an array of fixed shape; a missing one (no transcript) is absent or (0, D)."""
    emotion: int = -1
    """Class index, -1 where there is none."""
    gender: int = -1
    """0 female, 1 male, -1 unknown."""
    attributes: tuple[float, float, float] | None = None
    """Arousal, valence and dominance in [0, 1]."""


def collate(examples: Sequence[Example]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return inputs and targets of a batch: float32, sequences padded with zeros at the end, masks beside them.

    A sequence that only some utterances have is an empty one for the others; it keeps at least one (masked) frame, so
    that no axis is ever of length 0. An array of fixed shape that only some have is zeros for the others, with a mask
    (B, 1); one that all have comes without.
    """
    inputs: dict[str, Tensor] = {}
    for name in sorted({name for example in examples for name in example.features}):
        arrays = [example.features.get(name) for example in examples]
        if name in SEQUENCES:
            inputs[name], inputs[f"{name}_mask"] = _padded(arrays)
        else:
            inputs |= _stacked(name, arrays)
    targets = {
        "emotion": torch.tensor([example.emotion for example in examples], dtype=torch.int64),
        "gender": torch.tensor([example.gender for example in examples], dtype=torch.int64),
        "attributes": torch.tensor([example.attributes or (float("nan"),) * _ATTRIBUTES for example in examples]),
    }
    return inputs, targets


def batch_plan(examples: Sequence[Example], batch_size: int, rng: np.random.Generator | None = None) -> list[list[int]]:
    """Return the indices of each batch: all of them once.

    With `rng`, in a random order in which a batch holds utterances of about one length (sorted within random pools of
    16 batches), so that little is padded; without, in the given order.
    """
    if rng is None:
        return [
            list(range(start, min(start + batch_size, len(examples)))) for start in range(0, len(examples), batch_size)
        ]
    order = rng.permutation(len(examples))
    pool = 16 * batch_size
    batches: list[list[int]] = []
    for start in range(0, len(order), pool):
        chosen = sorted(order[start : start + pool].tolist(), key=lambda place: _length(examples[place]))
        batches += list(_slices(chosen, batch_size))
    return [batches[place] for place in rng.permutation(len(batches))]


def exchange(examples: Sequence[Example], name: str, within: str, rng: np.random.Generator) -> list[Example]:
    """Return the examples after they have exchanged one feature at random.

    Args:
        examples: Utterances; those without the feature stay as they are.
        name: The feature, such as `text`.
        within: `emotion`: among those of one emotion; `all`: among all.
        rng: Draws.
    """
    order = list(range(len(examples)))
    groups: dict[int, list[int]] = {}
    for place, example in enumerate(examples):
        if name in example.features:
            groups.setdefault(example.emotion if within == "emotion" else 0, []).append(place)
    for _, places in sorted(groups.items()):
        for place, giver in zip(places, rng.permutation(places).tolist(), strict=True):
            order[place] = giver
    return [
        replace(example, features={**example.features, name: examples[giver].features[name]})
        if name in example.features
        else example
        for example, giver in zip(examples, order, strict=True)
    ]


def _slices(places: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(places), size):
        yield places[start : start + size]


def _length(example: Example) -> int:
    return sum(len(example.features[name]) for name in SEQUENCES if name in example.features and name != "text")


def _stacked(name: str, arrays: Sequence[NDArray[np.floating] | None]) -> dict[str, Tensor]:
    there = [array is not None for array in arrays]
    present = next(array for array in arrays if array is not None)
    nothing = np.zeros(present.shape, np.float32)
    whole = [nothing if array is None else np.asarray(array, np.float32) for array in arrays]
    stacked = {name: torch.from_numpy(np.stack(whole))}
    return stacked if all(there) else {**stacked, f"{name}_mask": torch.tensor(there, dtype=torch.float32)[:, None]}


def _padded(arrays: Sequence[NDArray[np.floating] | None]) -> tuple[Tensor, Tensor]:
    present = next(array for array in arrays if array is not None)
    longest = max(1, max(0 if array is None else len(array) for array in arrays))
    padded = np.zeros((len(arrays), longest, *present.shape[1:]), dtype=np.float32)
    mask = np.zeros((len(arrays), longest), dtype=np.float32)
    for row, array in enumerate(arrays):
        if array is not None and len(array):
            padded[row, : len(array)] = array
            mask[row, : len(array)] = 1.0
    return torch.from_numpy(padded), torch.from_numpy(mask)
