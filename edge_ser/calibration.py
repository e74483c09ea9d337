"""From logits to calibrated probabilities, and from those to an answer that knows its risk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ser.errors import ConfigError
from edge_ser.json_object import JsonObject


@dataclass(frozen=True)
class RiskRow:
    """What it takes to be wrong no more often than `risk`, measured on held-out speakers."""

    risk: float
    """Share of wrong answers, in (0, 1)."""
    min_confidence: float
    """Probability, in [0, 1]; an answer below it is uncertain."""
    min_probability: float
    """Probability, in [0, 1]; a label below it can be ruled out."""


@dataclass(frozen=True)
class Calibration:
    """Temperature and risk table of one model."""

    temperature: float
    """Logits are divided by it."""
    default_risk: float
    """Share of wrong answers, in (0, 1); used where the caller names none."""
    risks: tuple[RiskRow, ...]
    """Rows by rising risk."""

    @staticmethod
    def from_json(fields: JsonObject) -> Calibration:
        """Return the calibration that a manifest holds.

        Raises:
            EdgeSerError: The error of `fields`: a key is missing or holds what does not fit.
        """
        rows = [
            RiskRow(_share(row, "risk"), _probability(row, "min_confidence"), _probability(row, "min_probability"))
            for row in fields.objects("risks")
        ]
        if sorted({row.risk for row in rows}) != [row.risk for row in rows]:
            fields.fail("'risks' must be ordered by rising risk, each risk once")
        temperature = fields.number("temperature", lambda value: 1e-3 <= value <= 1e3, "a number from 0.001 to 1000")
        return Calibration(temperature, _share(fields, "default_risk"), tuple(rows))

    def to_dict(self) -> dict[str, object]:
        """Return plain data, ready for a manifest."""
        return {
            "temperature": self.temperature,
            "default_risk": self.default_risk,
            "risks": [asdict(row) for row in self.risks],
        }

    def probabilities(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return softmax(logits / temperature) over the last axis, float64, in the shape of `logits`."""
        scaled = np.asarray(logits, dtype=np.float64) / self.temperature
        # The largest becomes 0, so that no exponential overflows.
        exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        shares: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
        return shares

    def row(self, risk: float | None = None) -> RiskRow | None:
        """Return the row to apply at `risk`: its own or the next stricter one; None where no row is strict enough.

        Raises:
            ConfigError: The risk is outside (0, 1).
        """
        wanted = self.default_risk if risk is None else risk
        if not 0 < wanted < 1:
            raise ConfigError(f"got a risk of {wanted}; need a share of wrong answers between 0 and 1, such as 0.1")
        strict_enough = [row for row in self.risks if row.risk <= wanted]
        return strict_enough[-1] if strict_enough else None

    def decide(
        self, probabilities: Sequence[float] | NDArray[np.float64], risk: float | None = None
    ) -> tuple[bool, tuple[int, ...]]:
        """Return whether the likeliest label is uncertain, and the indices that cannot be ruled out, likeliest first.

        A risk stricter than every row of the table cannot be promised: all labels remain.

        Args:
            probabilities: Shape (labels,).
            risk: Share of wrong answers to accept, in (0, 1); None takes the model's default.

        Raises:
            ConfigError: The risk is outside (0, 1).
        """
        row = self.row(risk)
        shares = np.asarray(probabilities, dtype=np.float64)
        order = [int(index) for index in np.argsort(-shares, kind="stable")]
        if row is None:
            return True, tuple(order)
        if shares[order[0]] >= row.min_confidence:
            return False, (order[0],)
        return True, (order[0], *(index for index in order[1:] if shares[index] >= row.min_probability))


def _share(fields: JsonObject, key: str) -> float:
    return fields.number(key, lambda value: 0 < value < 1, "a number between 0 and 1")


def _probability(fields: JsonObject, key: str) -> float:
    return fields.number(key, lambda value: 0 <= value <= 1, "a number from 0 to 1")
