"""The queue between PortAudio's thread and the owner of the loop: nothing goes uncounted, nothing grows."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ser.capture_queue import CaptureQueue
from edge_ser.events import DeviceLost, DeviceRestored, Overflow
from tests.edge_ser.fake_portaudio import chunk, content

LOST, BACK = DeviceLost(0.0, "mic"), DeviceRestored(0.0, "mic", gap_s=1.0)


def rest_of(queue: CaptureQueue) -> list[object]:
    queue.close()
    items = []
    while (item := queue.take()) is not None:
        items.append(item)
    return items


class Ledger:
    """Checks that what is taken continues what was put, in the order it was put."""

    def __init__(self, captured: np.ndarray) -> None:
        self._captured = captured
        self.samples = 0
        self.gap_s = 0.0
        self.is_lost = False

    def take(self, item: object) -> None:
        if isinstance(item, np.ndarray):
            np.testing.assert_array_equal(item, self._captured[self.samples : self.samples + len(item)])
            self.samples += len(item)
        elif isinstance(item, Overflow):
            self.samples += item.dropped_samples
        elif isinstance(item, DeviceLost):
            assert not self.is_lost
            self.is_lost = True
        elif isinstance(item, DeviceRestored):
            assert self.is_lost
            self.is_lost = False
            self.gap_s += item.gap_s


@given(steps=st.lists(st.one_of(st.sampled_from(["take", "lose"]), st.integers(1, 700)), max_size=60))
def test_every_sample_and_every_second_without_a_device_comes_out_or_is_counted(steps: list) -> None:
    queue = CaptureQueue(capacity_samples=1_000)
    captured = np.arange(700 * 60, dtype=np.float32)
    ledger = Ledger(captured)
    put, losses, is_lost = 0, 0, False
    for step in steps:
        if step == "lose" and not is_lost:
            queue.put(LOST)
            is_lost, losses = True, losses + 1
        elif isinstance(step, int):
            if is_lost:
                queue.put(BACK)
                is_lost = False
            queue.put(captured[put : put + step])
            put += step
        elif step == "take" and queue._items:
            ledger.take(queue.take())
    for item in rest_of(queue):
        ledger.take(item)

    assert ledger.samples == put
    assert ledger.is_lost == is_lost
    assert ledger.gap_s == pytest.approx(losses - is_lost)


def test_a_consumer_that_is_away_while_the_device_comes_and_goes_costs_no_memory() -> None:
    queue = CaptureQueue(capacity_samples=1_000)
    for _ in range(10_000):
        for item in (chunk(1), LOST, BACK):
            queue.put(item)
        assert len(queue._items) < 20
    first, *_ = rest_of(queue)
    assert first == Overflow(0.0, dropped_samples=320 * 10_000 - 960)


def test_an_overflow_that_nobody_could_count_is_not_dropped_without_a_trace() -> None:
    queue = CaptureQueue(capacity_samples=320)
    for item in (Overflow(0.0, 0, estimated_s=0.5), chunk(1), Overflow(0.0, 0), chunk(2)):
        queue.put(item)
    assert [content(item) for item in rest_of(queue)] == [Overflow(0.0, 320, estimated_s=0.5), Overflow(0.0, 0), 2]


def test_what_waits_comes_before_the_error() -> None:
    queue = CaptureQueue(capacity_samples=1_000)
    queue.put(chunk(1))
    queue.close(RuntimeError("broken"))
    assert content(queue.take()) == 1
    with pytest.raises(RuntimeError, match="broken"):
        queue.take()


class ClosesBeforeItWaits(threading.Condition):
    """A signal handler closes the queue when its own thread is about to wait, and so wakes nobody."""

    def wait(self, timeout: float | None = None) -> bool:
        self.queue.close()
        return super().wait(timeout)


def test_a_close_just_before_the_wait_is_not_lost() -> None:
    queue = CaptureQueue(capacity_samples=1_000)
    queue._filled = ClosesBeforeItWaits(threading.RLock())
    queue._filled.queue = queue
    queue._disturbed = threading.Condition(queue._filled._lock)
    began_s = time.monotonic()
    assert queue.take() is None
    assert time.monotonic() - began_s < 10
