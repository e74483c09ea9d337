"""One device while it records: PortAudio calls back, 16 kHz audio goes into the queue."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.capture_queue import CaptureQueue
from edge_ser.device_clock import DeviceClock
from edge_ser.devices import LIST_THEM, PORTAUDIO, Device, first_line, import_sounddevice, quiet_stderr
from edge_ser.errors import AudioDeviceError
from edge_ser.events import Overflow

_OTHER_RATES_HZ = (48_000, 44_100, 32_000, 96_000, 8_000)
_PA_DEVICE_UNAVAILABLE = -9985
_PA_INVALID_DEVICE = -9996


class Capture:
    """Records one device at one rate, until it is closed or ends by itself."""

    def __init__(
        self,
        device: Device,
        rate_hz: int,
        queue: CaptureQueue,
        clock: Callable[[], float],
        on_first_audio: Callable[[Capture, float], None],
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            device: What to record.
            rate_hz: Hertz; audio of another rate than 16 kHz is resampled.
            queue: Takes the audio.
            clock: Monotonic seconds.
            on_first_audio: Called on PortAudio's thread before the first audio goes into the queue, with this capture
                and the seconds, on `clock`, when that audio began.
        """
        self.device = device
        self.rate_hz = rate_hz
        self.device_clock = DeviceClock()
        self.started_s = clock()
        self.last_audio_s: float | None = None
        self._queue = queue
        self._clock = clock
        self._on_first_audio = on_first_audio
        self._resampler = _Resampler(rate_hz)
        self._next_adc_s: float | None = None
        self._stream: Any = None
        self._ended = False
        self._is_detached = False
        self._lock = threading.Lock()

    @property
    def ended(self) -> bool:
        """True if PortAudio calls back no more."""
        return self._ended

    def start(self, channels: int, chunk_ms: int) -> None:
        """Start recording in chunks of `chunk_ms` milliseconds; more channels than one are averaged.

        Raises:
            sounddevice.PortAudioError: The device refuses.
        """
        stream = import_sounddevice().InputStream(
            device=self.device.index,
            samplerate=self.rate_hz,
            channels=channels,
            blocksize=round(chunk_ms * self.rate_hz / 1000),
            dtype="float32",
            callback=self._on_audio,
            finished_callback=self._on_end,
        )
        try:
            stream.start()
        except BaseException:
            stream.close(ignore_errors=True)
            raise
        self._stream = stream

    def silent_s(self) -> float:
        """Return the seconds since the last audio, or since the start."""
        return self._clock() - (self.started_s if self.last_audio_s is None else self.last_audio_s)

    def detach(self) -> NDArray[np.float32]:
        """Return what the resampler still holds; nothing more goes into the queue. Later calls return nothing."""
        with self._lock:
            self._is_detached = True
            return self._resampler.flush()

    def close(self) -> None:
        """Give the device back. Closing twice is fine."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with PORTAUDIO:
                # Not stop(): PortAudio would wait for a device that delivers nothing any more.
                stream.abort(ignore_errors=True)
                stream.close(ignore_errors=True)

    def _on_end(self) -> None:
        self._ended = True
        self._queue.disturb()

    def _on_audio(self, indata: NDArray[np.float32], frames: int, moment: Any, status: Any) -> None:
        # PortAudio's thread; indata is its buffer and is only valid here.
        with self._lock:
            if self._is_detached or self._queue.closed:
                return
            now_s = self._clock()
            if self.last_audio_s is None:
                self._on_first_audio(self, now_s - frames / self.rate_hz)
            self.last_audio_s = now_s
            self._note_losses(now_s, frames, float(moment.inputBufferAdcTime), bool(status.input_overflow))
            mono = indata[:, 0].copy() if indata.shape[1] == 1 else indata.mean(axis=1, dtype=np.float32)
            if np.isfinite(mono).all():
                self._put(self._resampler.push(mono))
            else:
                self._put(self._resampler.flush())
                self._queue.put(Overflow(0.0, round(frames * SAMPLE_RATE_HZ / self.rate_hz)))

    def _note_losses(self, now_s: float, frames: int, adc_s: float, overflowed: bool) -> None:
        block_s = frames / self.rate_hz
        told_s = 0.0
        if overflowed:
            told_s = 0.0 if self._next_adc_s is None else max(0.0, adc_s - self._next_adc_s)
            self.device_clock.forgive(told_s)
        self._next_adc_s = adc_s + block_s
        lost_s = told_s + self.device_clock.note(now_s, block_s)
        if overflowed or lost_s > 0:
            self._put(self._resampler.flush())
            self._queue.put(Overflow(0.0, 0, round(lost_s, 3)))

    def _put(self, samples: NDArray[np.float32]) -> None:
        if len(samples):
            self._queue.put(samples)


def open_capture(
    device: Device,
    queue: CaptureQueue,
    *,
    chunk_ms: int,
    clock: Callable[[], float],
    on_first_audio: Callable[[Capture, float], None],
) -> Capture:
    """Return a capture of `device` that has started, at the first rate and number of channels it accepts.

    Args:
        device: What to record.
        queue: Takes the audio.
        chunk_ms: Milliseconds of audio in a block.
        clock: Monotonic seconds.
        on_first_audio: As `Capture` calls it.

    Raises:
        AudioDeviceError: The device is gone, in use, or accepts nothing.
    """
    sounddevice = import_sounddevice()
    reason: Exception | None = None
    for rate_hz in dict.fromkeys((SAMPLE_RATE_HZ, device.sample_rate_hz, *_OTHER_RATES_HZ)):
        for channels in sorted({1, min(2, device.channels), device.channels}):
            capture = Capture(device, rate_hz, queue, clock, on_first_audio)
            try:
                with PORTAUDIO, quiet_stderr():
                    capture.start(channels, chunk_ms)
                return capture
            except sounddevice.PortAudioError as error:
                reason = error
                if _PA_DEVICE_UNAVAILABLE in error.args:
                    raise AudioDeviceError(
                        f"{device.name} is in use by another program. Close it, or choose another: edge-ser devices"
                    ) from error
                if _PA_INVALID_DEVICE in error.args:
                    raise AudioDeviceError(f"{device.name} is not there any more. {LIST_THEM}") from error
    raise AudioDeviceError(f"{device.name} cannot be opened ({first_line(reason)}). {LIST_THEM}") from reason


class _Resampler:
    """From the device's rate to 16 kHz; a flush starts it anew, since the audio is not continuous there."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._stream: Any = None

    def push(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._rate_hz == SAMPLE_RATE_HZ:
            return np.clip(block, -1.0, 1.0)
        if self._stream is None:
            import soxr

            self._stream = soxr.ResampleStream(self._rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
        return self._resampled(block)

    def flush(self) -> NDArray[np.float32]:
        if self._stream is None:
            return np.zeros(0, np.float32)
        rest = self._resampled(np.zeros(0, np.float32), last=True)
        self._stream = None
        return rest

    def _resampled(self, block: NDArray[np.float32], last: bool = False) -> NDArray[np.float32]:
        at_16_khz: NDArray[np.float32] = self._stream.resample_chunk(block, last=last)
        return np.clip(at_16_khz, -1.0, 1.0)
