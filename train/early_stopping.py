"""When a run is over and when its learning rate falls: counting the epochs that brought nothing better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SMALLER_IS_BETTER = ("loss",)
"""Metrics that fall as a system learns; all others rise."""


class Patience:
    """The best value of a metric so far and how many epochs ago it was seen."""

    def __init__(self, metric: str, limit: int = 0) -> None:
        """Begin without a value.

        Args:
            metric: Its name, which says whether smaller or larger is better.
            limit: Flat epochs until patience ends; 0 is patience without end.
        """
        self.limit = limit
        self.sign = -1.0 if metric in SMALLER_IS_BETTER else 1.0
        self.best: float | None = None
        self.flat = 0

    def update(self, value: float) -> bool:
        """Take an epoch's value and return whether it is the best so far; a tie and a NaN are not."""
        if value == value and (self.best is None or self.sign * value > self.sign * self.best):
            self.best, self.flat = value, 0
            return True
        self.flat += 1
        return False

    @property
    def ended(self) -> bool:
        """Whether `limit` epochs in a row brought nothing better."""
        return 0 < self.limit <= self.flat

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, ready for JSON."""
        return {"best": self.best, "flat": self.flat}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` returned."""
        self.best, self.flat = state["best"], state["flat"]


class Plateau:
    """A learning rate that falls by a factor whenever patience ends."""

    def __init__(self, metric: str, limit: int, factor: float) -> None:
        self.patience = Patience(metric, limit)
        self.factor = factor

    def update(self, value: float) -> float:
        """Take an epoch's value and return what to multiply the learning rate with: 1 or the factor."""
        self.patience.update(value)
        if not self.patience.ended:
            return 1.0
        self.patience.flat = 0
        return self.factor
