"""The pitch of a voice over time: normalised cross-correlation, in numpy.

For every 10 ms the 25 ms of signal that begin 20 ms before the frame's middle are compared with what follows them, at
every lag from 350 Hz to 60 Hz; the shortest lag that is nearly as good as the best one is the period.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ser.mfcc import SAMPLE_RATE_HZ, centred

STEP = 160
"""Samples between frames: 10 ms. Frame k covers samples k STEP to (k + 1) STEP."""
LOWEST_HZ, HIGHEST_HZ = 60.0, 350.0

_WINDOW = 400
_BEFORE = 320 - STEP // 2
_SHORTEST, _LONGEST = 46, 266
_SPAN = _WINDOW + _LONGEST + 1
# Long enough that the lags which wrap around are none of ours, and a product of small primes.
_FFT_SIZE = 720
_BLOCK = 256

_OCTAVE_GUARD = 0.9
_VOICED = 0.5
_QUIETEST = 10.0 ** (-50.0 / 10.0)
"""Power of a frame over that of the loudest one; below it nothing is voiced."""


def f0_track(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the pitch in Hz of every 10 ms, 0 where there is no voice; the recording's level does not matter.

    Args:
        samples: Mono float32, shape (n,), at 16 kHz.

    Returns:
        float64, shape (floor(n / 160),), 0 or between about 60 and 350.
    """
    wave = centred(samples)
    track = np.zeros(len(wave) // STEP)
    loud = np.flatnonzero(_loud(wave))
    if not len(loud):
        return track
    padded = np.pad(wave, (_BEFORE, _SPAN))
    spans = np.lib.stride_tricks.sliding_window_view(padded, _SPAN)[::STEP]
    energy = np.lib.stride_tricks.sliding_window_view(_window_energy(padded), _LONGEST + 2)[::STEP]
    for start in range(0, len(loud), _BLOCK):
        frames = loud[start : start + _BLOCK]
        track[frames] = _pick(_similarity(spans[frames], energy[frames]))
    return _smooth(track)


def _loud(wave: NDArray[np.float64]) -> NDArray[np.bool_]:
    # 20 ms around the middle of each frame: wider, and a voice would reach far into the silence beside it.
    squares = np.concatenate([[0.0], np.cumsum(np.pad(wave**2, STEP // 2))])
    starts = np.arange(len(wave) // STEP) * STEP
    power = squares[starts + 2 * STEP] - squares[starts]
    loudest = power.max(initial=0.0)
    loud: NDArray[np.bool_] = (power > _QUIETEST * loudest) & (loudest > 0.0)
    return loud


def _window_energy(padded: NDArray[np.float64]) -> NDArray[np.float64]:
    squares = np.concatenate([[0.0], np.cumsum(padded**2)])
    energy: NDArray[np.float64] = squares[_WINDOW:] - squares[:-_WINDOW]
    return energy


def _similarity(spans: NDArray[np.float64], energy: NDArray[np.float64]) -> NDArray[np.float64]:
    # (frames, lags from one below the shortest to one above the longest)
    reference = np.fft.rfft(spans[:, :_WINDOW], _FFT_SIZE)
    product = np.fft.irfft(reference.conj() * np.fft.rfft(spans, _FFT_SIZE), _FFT_SIZE)
    lags = slice(_SHORTEST - 1, _LONGEST + 2)
    scale = np.sqrt(np.maximum(energy[:, :1] * energy[:, lags], 1e-16))
    similarity: NDArray[np.float64] = product[:, lags] / scale
    return similarity


def _pick(similarity: NDArray[np.float64]) -> NDArray[np.float64]:
    before, here, after = similarity[:, :-2], similarity[:, 1:-1], similarity[:, 2:]
    peak = (here > before) & (here >= after)
    # The parabola through a peak and its neighbours: its top lies between lags.
    bend = np.where(peak, before - 2.0 * here + after, -1.0)
    shift = np.where(peak, 0.5 * (before - after) / bend, 0.0)
    height = np.where(peak, here - 0.25 * (before - after) * shift, -1.0)
    best = height.max(axis=1, keepdims=True)
    lag = np.argmax(height >= _OCTAVE_GUARD * best, axis=1)
    rows = np.arange(len(lag))
    period = _SHORTEST + lag + shift[rows, lag]
    return np.where(height[rows, lag] >= _VOICED, SAMPLE_RATE_HZ / period, 0.0)


def _smooth(track: NDArray[np.float64]) -> NDArray[np.float64]:
    padded = np.pad(track, 1, mode="edge")
    median = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    voiced = np.pad(median > 0.0, 1)
    lone = voiced[1:-1] & ~voiced[:-2] & ~voiced[2:]
    return np.where(lone, 0.0, median)
