"""The 39 mel-frequency cepstral features of a clip: 12 coefficients and the energy, with two derivatives."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edge_ser.clips import repeat_pad
from edge_ser.errors import ConfigError

SAMPLE_RATE_HZ = 16_000
HOP = 320
"""Samples between frames: 20 ms."""
WIDTH = 39
FFT_SIZE = 1024
_MELS = 26
_COEFFICIENTS = 12
_TOP_HZ = 8000.0
_FLOOR = 1e-10


def mfcc39(samples: NDArray[np.float32], window_ms: int = 40, hop_ms: int = 20) -> NDArray[np.float32]:
    """Return [c1..c12, log energy], their first and their second derivatives; the recording's level does not matter.

    Args:
        samples: Mono float32, shape (n,), at 16 kHz; shorter than one window, they repeat themselves.
        window_ms: Length of a frame and of its Hamming window, 40 or 30.
        hop_ms: Time between the starts of frames, 20 or 10.

    Returns:
        float32, shape (floor((n - window) / hop) + 1, 39): 349 frames every 20 ms for 7 s.

    Raises:
        AudioFormatError: There is no sample.
        ConfigError: `window_ms` is neither 40 nor 30, or `hop_ms` neither 20 nor 10.
    """
    framed, power = power_frames(samples, window_ms, hop_ms)
    mel = np.log10(np.maximum(power @ mel_filters(FFT_SIZE, _MELS, _TOP_HZ).T, _FLOOR))
    energy = np.log10(np.maximum((framed**2).sum(axis=1, keepdims=True), _FLOOR))
    static = np.concatenate([mel @ _cosines().T, energy], axis=1)
    first = deltas(static)
    return np.concatenate([static, first, deltas(first)], axis=1).astype(np.float32)


def power_frames(
    samples: NDArray[np.float32], window_ms: int = 40, hop_ms: int = 20
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return frames of the normalised wave (T, window) and their power spectra (T, 513), |FFT|^2 / window.

    Raises:
        AudioFormatError: There is no sample.
        ConfigError: `window_ms` is neither 40 nor 30, or `hop_ms` neither 20 nor 10.
    """
    if window_ms not in (30, 40):
        raise ConfigError(f"window_ms is {window_ms}; need 40 or 30")
    if hop_ms not in (10, 20):
        raise ConfigError(f"hop_ms is {hop_ms}; need 20 or 10")
    window = window_ms * SAMPLE_RATE_HZ // 1000
    wave = centred(repeat_pad(samples, max(len(samples), window)))
    framed = np.lib.stride_tricks.sliding_window_view(wave, window)[:: hop_ms * SAMPLE_RATE_HZ // 1000]
    spectrum = np.fft.rfft(framed * np.hamming(window), FFT_SIZE)
    return framed, (spectrum.real**2 + spectrum.imag**2) / window


def centred(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the wave in float64 without its mean, its largest magnitude 1; silence stays zero."""
    wave = samples.astype(np.float64)
    if not len(wave):
        return wave
    wave -= wave.mean()
    peak = float(np.abs(wave).max())
    # Below one step of 24 bits there is only rounding, which must not be raised to full scale.
    return wave / peak if peak > 2.0**-24 else np.zeros_like(wave)


def deltas(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the slope over five frames, edges replicated: sum over n = 1, 2 of n (f[t+n] - f[t-n]) / 10."""
    padded = np.pad(frames, ((2, 2), (0, 0)), mode="edge")
    one = padded[3:-1] - padded[1:-3]
    two = padded[4:] - padded[:-4]
    slope: NDArray[np.float64] = (one + 2.0 * two) / 10.0
    return slope


@lru_cache
def mel_filters(fft_size: int, count: int, top_hz: float) -> NDArray[np.float64]:
    """Return triangles of height 1, evenly spaced on the mel scale 2595 log10(1 + f / 700) from 0 to `top_hz`.

    Returns:
        float64, shape (count, fft_size / 2 + 1).
    """
    top_mel = 2595.0 * np.log10(1.0 + top_hz / 700.0)
    edges_hz = 700.0 * (10.0 ** (np.linspace(0.0, top_mel, count + 2) / 2595.0) - 1.0)
    bins_hz = np.arange(fft_size // 2 + 1) * SAMPLE_RATE_HZ / fft_size
    low, mid, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rise, fall = (bins_hz - low) / (mid - low), (high - bins_hz) / (high - mid)
    filters: NDArray[np.float64] = np.maximum(0.0, np.minimum(rise, fall))
    filters.flags.writeable = False
    return filters


@lru_cache
def _cosines() -> NDArray[np.float64]:
    # DCT-II: row i - 1 is cos(i pi (m - 1/2) / M) for m = 1..M.
    order = np.arange(1, _COEFFICIENTS + 1)[:, None]
    cosines: NDArray[np.float64] = np.cos(order * np.pi * (np.arange(_MELS) + 0.5) / _MELS)
    cosines.flags.writeable = False
    return cosines
