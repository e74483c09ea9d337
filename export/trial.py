"""What quantisation costs, measured: of single blocks, and of a choice of them against a budget."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ser.metrics import confusion_matrix, unweighted_accuracy
from export.material import Material, progress
from export.ranges import Ranges
from export.receipt import Inputs, cosine, open_session, run, sqnr_db
from export.static_int8 import quantise

_CLIPS = 12
"""Of each length: what measures a block alone."""


@dataclass(frozen=True)
class Budget:
    """What quantisation may cost."""

    cosine: float = 0.99
    """Smallest cosine between embeddings, at any length."""
    ua_points: float = 0.5
    """Loss of UA on the validation speakers, cold and over cold and warm answers, in points (hundredths)."""
    shift: float = 0.03
    """Mean change of a probability, at any length; unlike the embedding it sees fusion, words and voice."""


@dataclass(frozen=True)
class Trial:
    """One quantised graph and what it costs."""

    cosines: dict[float, float]
    """Smallest cosine between embeddings, by seconds of audio."""
    shifts: dict[float, float]
    """Mean change of a probability, by seconds of audio."""
    cold: NDArray[np.float64]
    """Logits of the validation clips, each with a fresh voice."""
    warm: NDArray[np.float64]
    """Logits of the same clips, each with the voice of those before it."""
    loss_points: float
    """Loss of UA in points."""

    @property
    def both(self) -> NDArray[np.float64]:
        """Logits cold, then warm."""
        return np.concatenate([self.cold, self.warm])

    def __str__(self) -> str:
        """Return the costs in a few words."""
        return (
            f"cosine {min(self.cosines.values()):.4f}, probability shift {max(self.shifts.values()):.4f}, "
            f"{self.loss_points:.2f} points"
        )

    def fits(self, budget: Budget) -> bool:
        """Return whether every length and the UA are within the budget; what is no number never is."""
        return (
            all(value >= budget.cosine for value in self.cosines.values())
            and all(value <= budget.shift for value in self.shifts.values())
            and self.loss_points <= budget.ua_points
        )


def all_logits(graph: Path, inputs: Iterable[Inputs]) -> NDArray[np.float64]:
    """Return logits (n, labels) of every input."""
    session = open_session(graph)
    rows = [session.run(["logits"], item)[0][0] for item in inputs]
    return np.array(rows, dtype=np.float64)


def ua(truth: NDArray[np.int64], logits: NDArray[np.float64]) -> float:
    """Return the unweighted accuracy of the largest logits."""
    return unweighted_accuracy(confusion_matrix(truth, logits.argmax(1), logits.shape[1]))


def measure(graph: Path, out: Path, material: Material, before: Trial | None = None) -> Trial:
    """Return what `out` costs in the place of `graph`; the UA is compared with that of an earlier trial."""
    cosines, shifts = {}, {}
    for seconds, inputs in material.lengths.items():
        reference, got = run(graph, inputs), run(out, inputs)
        cosines[seconds] = cosine(reference["embedding"], got["embedding"])
        shifts[seconds] = float(np.mean(np.abs(_softmax(reference["logits"]) - _softmax(got["logits"]))))
    cold, warm = (all_logits(out, inputs) for inputs in (material.cold, material.warm))
    trial = Trial(cosines, shifts, cold, warm, 0.0)
    return trial if before is None else replace(trial, loss_points=_loss_points(material.truth, before, trial))


def _loss_points(truth: NDArray[np.int64], before: Trial, after: Trial) -> float:
    """Return what is lost cold, or over cold and warm answers together, whichever is more."""
    cold = ua(truth, before.cold) - ua(truth, after.cold)
    both = ua(np.tile(truth, 2), before.both) - ua(np.tile(truth, 2), after.both)
    return 100.0 * max(cold, both)


def _softmax(logits: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    exponentials = np.exp(np.array(logits))
    shares: NDArray[np.float64] = exponentials / exponentials.sum(1, keepdims=True)
    return shares


def block_costs(graph: Path, blocks: dict[str, list[str]], ranges: Ranges, material: Material) -> list[dict[str, Any]]:
    """Return each block's harm when it alone is quantised, least harmful first."""
    inputs = [item for crops in material.lengths.values() for item in crops[:_CLIPS]]
    reference = run(graph, inputs)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "alone.onnx"
        for name, nodes in progress(list(blocks.items()), "block"):
            quantise(graph, alone, nodes, ranges, inputs[0])
            got = run(alone, inputs)
            rows.append(
                {
                    "name": name,
                    "cosine": round(min(cosine(reference[key], got[key]) for key in got), 6),
                    "sqnr_db": round(min(sqnr_db(reference[key], got[key]) for key in got), 2),
                    "precision": "int8",
                }
            )
    return sorted(rows, key=lambda row: -row["sqnr_db"])
