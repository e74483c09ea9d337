"""The device's clock: drift is followed for days, lost audio is found although nobody told."""

from __future__ import annotations

import numpy as np
import pytest

from edge_ser.device_clock import HOLD_S, DeviceClock

BLOCK_S = 0.02


def run(clock: DeviceClock, arrivals_s: np.ndarray, block_s: float = BLOCK_S) -> list[tuple[int, float]]:
    """Return where losses were found, and how long they are."""
    lost = ((index, clock.note(float(now_s), block_s)) for index, now_s in enumerate(arrivals_s))
    return [(index, seconds) for index, seconds in lost if seconds]


@pytest.mark.parametrize("parts_per_million", [-500, -20, 0, 100, 1_000])
def test_a_day_of_drift_is_followed_and_is_no_loss(parts_per_million: int) -> None:
    clock = DeviceClock()
    blocks = 24 * 3600
    arrivals_s = 7.0 + np.arange(1, blocks + 1) * (1 + parts_per_million * 1e-6)
    late_s = np.random.default_rng(0).exponential(0.01, blocks)

    assert run(clock, arrivals_s + late_s, block_s=1.0) == []
    assert clock.drift_s == pytest.approx(blocks * parts_per_million * 1e-6, abs=0.15)


def test_blocks_that_come_late_and_then_in_a_burst_are_no_loss() -> None:
    arrivals_s = np.arange(1, 1_000) * BLOCK_S
    arrivals_s[500:600] = arrivals_s[600]  # two seconds in one burst
    assert run(DeviceClock(), arrivals_s) == []


def test_audio_lost_without_a_word_is_found_once_and_estimated() -> None:
    arrivals_s = np.arange(1, 1_000) * BLOCK_S
    arrivals_s[500:] += 1.5
    clock = DeviceClock()

    (found,) = run(clock, arrivals_s)

    assert found == (500 + round(HOLD_S / BLOCK_S), pytest.approx(1.5, abs=0.001))
    assert clock.drift_s == pytest.approx(0.0, abs=0.001)


def test_a_loss_that_the_device_tells_itself_is_not_found_again() -> None:
    arrivals_s = np.arange(1, 1_000) * BLOCK_S
    clock = DeviceClock()
    assert run(clock, arrivals_s[:500]) == []
    clock.forgive(1.5)
    assert run(clock, arrivals_s[500:] + 1.5) == []
