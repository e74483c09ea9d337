"""The microphone, as an iterator of chunks: it fills a bounded queue, the owner of the loop empties it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType

import numpy as np

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.capture import Capture
from edge_ser.capture_queue import Captured, CaptureQueue
from edge_ser.device_keeper import DeviceKeeper, Patience
from edge_ser.events import Overflow

_PATIENCE = Patience()


class Microphone:
    """Records while it is open; iterate over it for chunks of mono float32 in [-1, 1], shape (n,), at 16 kHz.

    Between the chunks come, each in the place where audio is missing:

    - `Overflow`: audio that waited longer than `queue_s` was dropped, the oldest first, counted by sample; or the
      device lost some itself, which can only be estimated.
    - `DeviceLost`: the device went away, stopped to deliver, or another one became the default. It is opened again as
      soon as it is back or free; the loop just waits. A device that cannot be opened at first is an error.
    - `DeviceRestored`: it delivers again. `gap_s` runs from the last sample to the first, on this machine's clock.

    All other times count samples, on the device's clock: `drift_s` tells how far the two are apart. Example::

        with edge_ser.Microphone() as microphone:
            for event in stream.listen(microphone):
                print(event)
    """

    def __init__(self, device: str | int | None = None, *, chunk_ms: int = 20, queue_s: float = 5.0) -> None:
        """Prepare a microphone; nothing is opened yet.

        Args:
            device: Index, or part of a name in any case; None is the system's default, whichever that is.
            chunk_ms: Milliseconds of audio in a chunk.
            queue_s: Seconds of audio that may wait for a slow consumer.
        """
        self._wanted = device
        self._chunk_ms = chunk_ms
        self._queue_s = queue_s
        self._queue = self._new_queue()
        self._keeper: DeviceKeeper | None = None
        self._is_open = False
        self._samples = 0

    @property
    def name(self) -> str:
        """The name of the device that records, or last did; empty before the first was opened."""
        return self._capture.device.name if self._capture is not None else ""

    @property
    def rate_hz(self) -> int:
        """Hertz; the rate the device was opened with."""
        return self._capture.rate_hz if self._capture is not None else SAMPLE_RATE_HZ

    @property
    def drift_s(self) -> float:
        """Seconds that the device's clock is behind this machine's since it was last opened; negative if ahead."""
        return self._capture.device_clock.drift_s if self._capture is not None else 0.0

    def open(self) -> Microphone:
        """Start recording; return this microphone.

        Raises:
            AudioDeviceError: PortAudio or the device is missing, or the device is in use.
        """
        if not self._is_open and not self._queue.closed:
            self._samples = 0
            self._keeper = DeviceKeeper(self._wanted, self._queue, chunk_ms=self._chunk_ms, patience=_PATIENCE)
            self._is_open = True
            try:
                self._keeper.start()
            except BaseException:
                self.close()
                raise
        return self

    def stop(self) -> None:
        """Record no more; iterating still yields what was captured, then ends. Safe in a signal handler."""
        self._queue.close()

    def close(self) -> None:
        """Stop and give the device back. Closing twice is fine; `open` then starts anew."""
        self.stop()
        if self._is_open and self._keeper is not None:
            self._keeper.join()
        self._is_open = False
        self._queue = self._new_queue()

    def __enter__(self) -> Microphone:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Captured]:
        self.open()
        queue = self._queue
        while (item := queue.take()) is not None:
            yield self._placed(item)
        if self._capture is not None and len(rest := self._capture.detach()):
            yield self._placed(rest)

    def _placed(self, item: Captured) -> Captured:
        at_s = round(self._samples / SAMPLE_RATE_HZ, 3)
        if isinstance(item, np.ndarray):
            self._samples += len(item)
            return item
        if isinstance(item, Overflow):
            self._samples += item.dropped_samples
        return replace(item, at_s=at_s)

    @property
    def _capture(self) -> Capture | None:
        return self._keeper.capture if self._keeper is not None else None

    def _new_queue(self) -> CaptureQueue:
        return CaptureQueue(round(self._queue_s * SAMPLE_RATE_HZ))
