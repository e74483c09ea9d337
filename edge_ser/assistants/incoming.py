"""Audio as assistants send it, turned into what a stream takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ser.audio import MAX_RATE_HZ, MIN_RATE_HZ, SAMPLE_RATE_HZ
from edge_ser.errors import AudioFormatError

MAX_CHANNELS = 8
WIDTHS = (2, 3, 4)
"""Bytes of a sample."""


class IncomingAudio:
    """Decodes one stream of raw little-endian PCM that comes in pieces of any size.

    The pieces never change the samples: together they are what decoding and resampling all of it at once gives.
    """

    def __init__(self, rate_hz: int = SAMPLE_RATE_HZ, width: int = 2, channels: int = 1) -> None:
        """Prepare for one form of audio.

        Args:
            rate_hz: Hertz, from 4000 to 384000.
            width: Bytes of a signed sample: 2, 3 or 4.
            channels: Interleaved channels, 1 to 8; they are averaged.

        Raises:
            AudioFormatError: No such audio can be taken.
        """
        _check(rate_hz, width, channels)
        self._width = width
        self._channels = channels
        self._rest = b""
        self._resampler = None
        if rate_hz != SAMPLE_RATE_HZ:
            import soxr

            self._resampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")

    def decode(self, data: bytes) -> NDArray[np.float32]:
        """Return the samples that a piece completes; a part of a sample waits for the next piece.

        Args:
            data: Interleaved little-endian PCM, any number of bytes.

        Returns:
            Mono float32 in [-1, 1], shape (n,), at 16 kHz; n may be 0.
        """
        data = self._rest + data
        whole = len(data) - len(data) % (self._width * self._channels)
        self._rest = data[whole:]
        return self._at_16_khz(self._mono(data[:whole]))

    def flush(self) -> NDArray[np.float32]:
        """Return the samples that the resampler still holds, and be ready for audio that follows a gap.

        Returns:
            Mono float32 in [-1, 1], shape (n,), at 16 kHz; a part of a sample at the end is left out.
        """
        self._rest = b""
        if self._resampler is None:
            return np.zeros(0, np.float32)
        tail = self._at_16_khz(np.zeros(0, np.float32), last=True)
        self._resampler.clear()
        return tail

    def _mono(self, data: bytes) -> NDArray[np.float32]:
        samples: NDArray[np.float32]
        if self._width == 2:
            samples = np.frombuffer(data, "<i2").astype(np.float32) / np.float32(1 << 15)
        else:
            samples = (self._as_int32(data) / float(1 << 31)).astype(np.float32)
        if self._channels == 1:
            return samples
        mono: NDArray[np.float32] = samples.reshape(-1, self._channels).mean(axis=1, dtype=np.float32)
        return mono

    def _as_int32(self, data: bytes) -> NDArray[np.int32]:
        if self._width == 4:
            return np.frombuffer(data, "<i4")
        # The three bytes become the upper ones of four: a sample of the same loudness.
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        filled: NDArray[np.int32] = wide.view("<i4")[:, 0]
        return filled

    def _at_16_khz(self, samples: NDArray[np.float32], last: bool = False) -> NDArray[np.float32]:
        if self._resampler is None:
            return samples
        # The filter of the resampler can overshoot full scale.
        resampled: NDArray[np.float32] = self._resampler.resample_chunk(samples, last=last)
        return np.clip(resampled, -1.0, 1.0)


def _check(rate_hz: int, width: int, channels: int) -> None:
    if isinstance(rate_hz, bool) or not isinstance(rate_hz, int) or not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise AudioFormatError(
            f"got a sample rate of {rate_hz} Hz; need a whole number from {MIN_RATE_HZ} to {MAX_RATE_HZ}; "
            "send audio at 16000 Hz"
        )
    if width not in WIDTHS:
        raise AudioFormatError(f"got samples of {width} bytes; need 2, 3 or 4; send 16-bit audio")
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioFormatError(f"got {channels} channels; need 1 to {MAX_CHANNELS}; send mono audio")
