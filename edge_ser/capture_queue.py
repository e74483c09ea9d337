"""What a microphone delivers on its way to the owner of the loop: bounded, in order, the oldest audio goes first."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_ser.events import DeviceLost, DeviceRestored, Overflow

_LOST_WAKE_UP_S = 0.2

Captured: TypeAlias = "NDArray[np.float32] | Overflow | DeviceLost | DeviceRestored"
"""Mono float32 in [-1, 1], shape (n,), at 16 kHz; or what happened between two such blocks."""


class _Dropped:
    """What became of the items that were dropped: their samples are counted, nothing that happened is forgotten."""

    def __init__(self) -> None:
        self._overflow: Overflow | None = None
        self._lost: DeviceLost | None = None
        self._restored: DeviceRestored | None = None
        self._gap_s = 0.0

    def add(self, item: Captured) -> None:
        """Count an item; of several losses of the device one is left, as long as all of them."""
        if isinstance(item, DeviceRestored):
            self._restored = self.extended(item)
        elif isinstance(item, DeviceLost):
            if self._restored is None:
                self._lost = item
            else:
                self._gap_s, self._restored = self._restored.gap_s, None
        else:
            gap = item if isinstance(item, Overflow) else Overflow(0.0, len(item))
            before = self._overflow or Overflow(0.0, 0)
            samples = before.dropped_samples + gap.dropped_samples
            self._overflow = Overflow(0.0, samples, before.estimated_s + gap.estimated_s)

    def extended(self, restored: DeviceRestored) -> DeviceRestored:
        """Return the event, its gap longer by those of the losses that were merged with it."""
        gap_s, self._gap_s = self._gap_s, 0.0
        return replace(restored, gap_s=restored.gap_s + gap_s)

    def take(self) -> Captured | None:
        """Return what to say next, or None."""
        if self._overflow is not None:
            overflow, self._overflow = self._overflow, None
            return overflow
        if self._lost is not None:
            lost, self._lost = self._lost, None
            return lost
        restored, self._restored = self._restored, None
        return restored


class CaptureQueue:
    """Blocks and events in order; of more than `capacity_samples` the oldest are dropped and counted.

    One thread takes, any thread puts. `close` may be called from a signal handler.
    """

    def __init__(self, capacity_samples: int) -> None:
        """Wait for audio.

        Args:
            capacity_samples: Samples at 16 kHz that may wait; the newest block always may.
        """
        self._capacity_samples = capacity_samples
        self._items: deque[Captured] = deque()
        self._dropped = _Dropped()
        self._samples = 0
        self._closed = False
        self._error: BaseException | None = None
        # Reentrant, because a signal handler may close the queue while its own thread is inside `take`.
        lock = threading.RLock()
        self._filled = threading.Condition(lock)
        self._disturbed = threading.Condition(lock)

    @property
    def closed(self) -> bool:
        """True if nothing more is taken in."""
        return self._closed

    def put(self, item: Captured) -> None:
        """Append an item, unless the queue is closed."""
        with self._filled:
            if self._closed:
                return
            self._items.append(item)
            if isinstance(item, np.ndarray):
                self._samples += len(item)
            while self._samples > self._capacity_samples and len(self._items) > 1:
                self._dropped.add(self._pop())
            self._filled.notify()

    def close(self, error: BaseException | None = None) -> None:
        """Take nothing more in; what waits can still be taken, then `error` is raised, or the end is told."""
        with self._filled:
            if self._closed:
                return
            self._closed, self._error = True, error
            self._filled.notify_all()
            self._disturbed.notify_all()

    def take(self) -> Captured | None:
        """Return the next item, waiting for it; None at the end.

        Raises:
            BaseException: What the queue was closed with.
        """
        with self._filled:
            while True:
                if (item := self._dropped.take()) is not None:
                    return item
                if self._items:
                    item = self._pop()
                    return self._dropped.extended(item) if isinstance(item, DeviceRestored) else item
                if self._error is not None:
                    raise self._error
                if self._closed:
                    return None
                # In short pieces: a signal handler that closes the queue just before the wait wakes nobody.
                self._filled.wait(_LOST_WAKE_UP_S)

    def pause(self, timeout_s: float, until: Callable[[], bool] = lambda: False) -> None:
        """Wait until `timeout_s` seconds have passed, the queue is closed, or `until()` is true after a `disturb`."""
        with self._disturbed:
            self._disturbed.wait_for(lambda: self._closed or until(), timeout_s)

    def disturb(self) -> None:
        """Have those who pause look again."""
        with self._disturbed:
            self._disturbed.notify_all()

    def _pop(self) -> Captured:
        item = self._items.popleft()
        if isinstance(item, np.ndarray):
            self._samples -= len(item)
        return item
