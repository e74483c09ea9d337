"""The form of audio inside the runtime: mono float32 in [-1, 1] at 16 kHz."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_ser.errors import AudioFormatError

SAMPLE_RATE_HZ = 16_000
"""Hertz; the only rate inside the runtime."""

MIN_RATE_HZ = 4_000
"""Hertz; below it there is too little of a voice left."""
MAX_RATE_HZ = 384_000
"""Hertz; the highest rate sound cards offer."""

_MAX_CHANNELS = 64
_DTYPES = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int16))


def as_samples(samples: ArrayLike) -> NDArray[np.float32]:
    """Return a copy as mono float32 in [-1, 1], shape (n,).

    Args:
        samples: Shape (n,): float32 or float64 in [-1, 1], or int16. Floats beyond [-1, 1] are clipped.

    Raises:
        AudioFormatError: Another shape or type, or values that are NaN or infinite.
    """
    array = _as_array(samples)
    if array.ndim != 1:
        raise AudioFormatError(
            f"got samples of shape {array.shape}; need mono samples of shape (n,); pass samples.mean(axis=1)"
        )
    return _as_float(array)


def mixed_to_mono(samples: ArrayLike) -> NDArray[np.float32]:
    """Return the mean of the channels as mono float32 in [-1, 1], shape (n,).

    Args:
        samples: Shape (n,) or (n, channels), of a type that `as_samples` takes.

    Raises:
        AudioFormatError: Another shape or type, or values that are NaN or infinite.
    """
    array = _as_array(samples)
    if array.ndim == 1:
        return _as_float(array)
    if array.ndim != 2 or not 1 <= array.shape[1] <= _MAX_CHANNELS:
        raise AudioFormatError(
            f"got samples of shape {array.shape}; need (n,) or (n, channels) with 1 to {_MAX_CHANNELS} channels; "
            "pass samples.T if the channels come first"
        )
    mixed: NDArray[np.float32] = _as_float(array).mean(axis=1, dtype=np.float32)
    return mixed


def resampled(samples: NDArray[np.float32], sample_rate_hz: float) -> NDArray[np.float32]:
    """Return samples at 16 kHz, shape (m,).

    Args:
        samples: Mono float32 in [-1, 1], shape (n,), at `sample_rate_hz`.
        sample_rate_hz: Hertz, from 4000 to 384000.

    Raises:
        AudioFormatError: The rate is out of range.
    """
    if not MIN_RATE_HZ <= sample_rate_hz <= MAX_RATE_HZ:
        raise AudioFormatError(
            f"got a sample rate of {sample_rate_hz} Hz; need {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz; "
            "pass the rate the samples were recorded at"
        )
    if sample_rate_hz == SAMPLE_RATE_HZ:
        return samples
    import soxr

    # The filter of the resampler can overshoot full scale.
    at_16_khz: NDArray[np.float32] = soxr.resample(samples, sample_rate_hz, SAMPLE_RATE_HZ)
    return np.clip(at_16_khz, -1.0, 1.0)


def _as_array(samples: ArrayLike) -> NDArray[np.generic]:
    try:
        array: NDArray[np.generic] = np.asarray(samples)
    except ValueError:
        raise AudioFormatError(
            "got a sequence of sequences of unequal length; need one array of samples; pass a numpy array"
        ) from None
    if array.dtype not in _DTYPES:
        raise AudioFormatError(
            f"got samples of type {array.dtype}; need float32 in [-1, 1] or int16; "
            "pass numpy.frombuffer(data, dtype='int16') for raw 16-bit audio"
        )
    return array


def _as_float(array: NDArray[np.generic]) -> NDArray[np.float32]:
    if array.dtype == np.int16:
        scaled: NDArray[np.float32] = array.astype(np.float32) / np.float32(32768)
        return scaled
    floats = array.astype(np.float64, copy=False)
    if not np.isfinite(floats).all():
        raise AudioFormatError(
            "got samples that are NaN or infinite; need numbers in [-1, 1]; pass numpy.nan_to_num(samples) to mute them"
        )
    return np.clip(floats, -1.0, 1.0).astype(np.float32)
