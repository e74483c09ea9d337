"""The microphone, as an iterator of chunks: PortAudio fills a bounded queue, the owner of the loop empties it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.devices import LIST_THEM, Device, find_device, first_line, import_sounddevice, quiet_stderr
from edge_ser.errors import AudioDeviceError
from edge_ser.events import Overflow

STALL_S = 5.0
_LOST_WAKE_UP_S = 0.2
_PA_DEVICE_UNAVAILABLE = -9985


@dataclass(frozen=True)
class _Gap:
    dropped_frames: int = 0
    estimated_s: float = 0.0

    def __add__(self, other: _Gap) -> _Gap:
        return _Gap(self.dropped_frames + other.dropped_frames, self.estimated_s + other.estimated_s)


class _CaptureQueue:
    """Blocks in order, at most `capacity_frames`; when it is full the oldest go and leave a gap at the head."""

    def __init__(self, capacity_frames: int) -> None:
        self._capacity_frames = capacity_frames
        self._items: deque[NDArray[np.float32] | _Gap] = deque()
        self._frames = 0
        self._head_gap: _Gap | None = None
        self._closed = False
        # Reentrant, because a signal handler may close the queue while its own thread is inside `take`.
        self._changed = threading.Condition(threading.RLock())

    def put(self, item: NDArray[np.float32] | _Gap) -> None:
        with self._changed:
            if self._closed:
                return
            self._items.append(item)
            if isinstance(item, np.ndarray):
                self._frames += len(item)
            while self._frames > self._capacity_frames and len(self._items) > 1:
                self._drop_oldest()
            self._changed.notify()

    def _drop_oldest(self) -> None:
        oldest = self._items.popleft()
        self._head_gap = (self._head_gap or _Gap()) + _gap_left_by(oldest)
        if isinstance(oldest, np.ndarray):
            self._frames -= len(oldest)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def take(self, timeout_s: float) -> NDArray[np.float32] | _Gap | None:
        """Return the next item, or None when the queue is closed and empty; raise TimeoutError."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while not self._items and self._head_gap is None:
                if self._closed:
                    return None
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError
                # In short pieces: a signal handler that closes the queue just before the wait wakes nobody.
                self._changed.wait(min(left_s, _LOST_WAKE_UP_S))
            if self._head_gap is not None:
                gap, self._head_gap = self._head_gap, None
                return gap
            item = self._items.popleft()
            if isinstance(item, np.ndarray):
                self._frames -= len(item)
            return item


def _gap_left_by(item: NDArray[np.float32] | _Gap) -> _Gap:
    return _Gap(dropped_frames=len(item)) if isinstance(item, np.ndarray) else item


class Microphone:
    """Records while it is open; iterate over it for chunks of mono float32 in [-1, 1], shape (n,), at 16 kHz.

    Audio that waits longer than `queue_s` is dropped, the oldest first, and reported by an `Overflow` in the place
    where it is missing::

        with edge_ser.Microphone() as microphone:
            for event in stream.listen(microphone):
                print(event)
    """

    def __init__(self, device: str | int | None = None, *, chunk_ms: int = 20, queue_s: float = 5.0) -> None:
        """Prepare a microphone; nothing is opened yet.

        Args:
            device: Index, or part of a name in any case; None is the system's default.
            chunk_ms: Milliseconds of audio in a chunk.
            queue_s: Seconds of audio that may wait for a slow consumer.
        """
        self._wanted = device
        self._chunk_ms = chunk_ms
        self._queue_s = queue_s
        self._name = ""
        self._stream: Any = None
        self._stopping = False
        self._rate_hz = SAMPLE_RATE_HZ
        self._next_adc_s: float | None = None
        self._clock_frames = 0
        self._dropped_frames = 0
        self._queue = _CaptureQueue(0)

    @property
    def name(self) -> str:
        """The name of the device; empty before it was opened."""
        return self._name

    @property
    def rate_hz(self) -> int:
        """Hertz; the rate the device was opened with."""
        return self._rate_hz

    def open(self) -> Microphone:
        """Start recording; return this microphone.

        Raises:
            AudioDeviceError: PortAudio or the device is missing, or the device is in use.
        """
        if self._stream is None:
            sounddevice = import_sounddevice()
            device = find_device(self._wanted)
            self._stream = self._open_stream(sounddevice, device)
            self._name = device.name
        return self

    def stop(self) -> None:
        """Record no more; iterating still yields what was captured, then ends. Safe in a signal handler."""
        self._stopping = True
        self._queue.close()

    def close(self) -> None:
        """Stop and give the device back. Closing twice is fine."""
        self.stop()
        stream, self._stream = self._stream, None
        if stream is not None:
            # Not stop(): PortAudio would wait for a device that delivers nothing any more.
            stream.abort(ignore_errors=True)
            stream.close(ignore_errors=True)

    def __enter__(self) -> Microphone:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[NDArray[np.float32] | Overflow]:
        self.open()
        resampler = _Resampler(self._rate_hz)
        while (item := self._take()) is not None:
            if isinstance(item, _Gap):
                yield from resampler.flush()
                yield self._overflow(item)
            else:
                self._clock_frames += len(item)
                yield from resampler.push(item)
        yield from resampler.flush()
        if not self._stopping:
            raise AudioDeviceError(f"the microphone went away while it was recording. {LIST_THEM}")

    def _take(self) -> NDArray[np.float32] | _Gap | None:
        try:
            return self._queue.take(STALL_S)
        except TimeoutError:
            raise AudioDeviceError(
                f"the microphone has delivered nothing for {STALL_S:.0f} s. Plug it in again, or {LIST_THEM.lower()}"
            ) from None

    def _overflow(self, gap: _Gap) -> Overflow:
        at_s = self._clock_frames / self._rate_hz
        before = round(self._dropped_frames * SAMPLE_RATE_HZ / self._rate_hz)
        self._dropped_frames += gap.dropped_frames
        self._clock_frames += gap.dropped_frames
        after = round(self._dropped_frames * SAMPLE_RATE_HZ / self._rate_hz)
        return Overflow(at_s=round(at_s, 3), dropped_samples=after - before, estimated_s=round(gap.estimated_s, 3))

    def _open_stream(self, sounddevice: Any, device: Device) -> Any:
        reason: Exception | None = None
        for rate_hz in dict.fromkeys((SAMPLE_RATE_HZ, device.sample_rate_hz)):
            for channels in dict.fromkeys((1, device.channels)):
                try:
                    return self._start(sounddevice, device, rate_hz, channels)
                except sounddevice.PortAudioError as error:
                    reason = error
                    if _PA_DEVICE_UNAVAILABLE in error.args:
                        raise AudioDeviceError(
                            f"{device.name} is in use by another program. Close it, or choose another: edge-ser devices"
                        ) from error
        raise AudioDeviceError(f"{device.name} cannot be opened ({first_line(reason)}). {LIST_THEM}") from reason

    def _start(self, sounddevice: Any, device: Device, rate_hz: int, channels: int) -> Any:
        self._rate_hz = rate_hz
        self._queue = _CaptureQueue(round(self._queue_s * rate_hz))
        with quiet_stderr():
            stream = sounddevice.InputStream(
                device=device.index,
                samplerate=rate_hz,
                channels=channels,
                blocksize=round(self._chunk_ms * rate_hz / 1000),
                dtype="float32",
                callback=self._on_audio,
                finished_callback=self._queue.close,
            )
            try:
                stream.start()
            except BaseException:
                stream.close(ignore_errors=True)
                raise
        return stream

    def _on_audio(self, indata: NDArray[np.float32], frames: int, time: Any, status: Any) -> None:
        # PortAudio's thread; indata is its buffer and is only valid here.
        adc_s = float(time.inputBufferAdcTime)
        if status.input_overflow:
            lost_s = 0.0 if self._next_adc_s is None else max(0.0, adc_s - self._next_adc_s)
            self._queue.put(_Gap(estimated_s=lost_s))
        self._next_adc_s = adc_s + frames / self._rate_hz
        self._queue.put(indata[:, 0].copy() if indata.shape[1] == 1 else indata.mean(axis=1, dtype=np.float32))


class _Resampler:
    """From the device's rate to 16 kHz; each gap starts it anew, since the audio is not continuous there."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._stream: Any = None

    def push(self, block: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        if self._rate_hz == SAMPLE_RATE_HZ:
            yield np.clip(block, -1.0, 1.0)
            return
        if self._stream is None:
            import soxr

            self._stream = soxr.ResampleStream(self._rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
        yield from self._kept(self._stream.resample_chunk(block))

    def flush(self) -> Iterator[NDArray[np.float32]]:
        stream, self._stream = self._stream, None
        if stream is not None:
            yield from self._kept(stream.resample_chunk(np.zeros(0, np.float32), last=True))

    def _kept(self, samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        if len(samples):
            yield np.clip(samples, -1.0, 1.0)
