"""Forty mel-frequency cepstral coefficients, a hundred times a second."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edge_ser.spectrogram import SAMPLE_RATE_HZ, centre_crop, power_spectrum, triangles

WINDOW_SAMPLES = 400
"""25 ms."""
HOP_SAMPLES = 160
"""10 ms."""
FFT_SAMPLES = 512
COEFFICIENTS = 40
"""As many as mel bands: nothing is thrown away but phase and detail below a band's width."""
FLOOR_POWER = 1e-10
"""Mel power below this (-100 dB) is lifted to it before the logarithm."""
NAME = "mfcc40"


def mfcc40(samples: NDArray[np.float32], clip_s: float | None = None) -> NDArray[np.float32]:
    """Return the coefficients of a clip: float32, shape (1 + n // 160, 40), frame t centred on sample 160 t.

    Hamming windows of 400 samples, FFT of 512, 40 bands of the HTK mel scale up to 8 kHz, natural logarithm,
    orthonormal DCT-II. They are not standardised.

    Args:
        samples: Mono float32 in [-1, 1], shape (n,), at 16 kHz.
        clip_s: Seconds to take at most, from the middle; None takes all.
    """
    wave = samples if clip_s is None else centre_crop(samples, clip_s)
    bands = power_spectrum(wave, WINDOW_SAMPLES, HOP_SAMPLES, FFT_SAMPLES) @ _htk_filters()
    coefficients: NDArray[np.float32] = np.log(np.maximum(bands, FLOOR_POWER)) @ _cosines()
    return coefficients


@lru_cache(maxsize=1)
def _htk_filters() -> NDArray[np.float32]:
    top = 2595.0 * np.log10(1.0 + SAMPLE_RATE_HZ / 2 / 700.0)
    mels = np.linspace(0.0, top, COEFFICIENTS + 2)
    return triangles(700.0 * (10.0 ** (mels / 2595.0) - 1.0), FFT_SAMPLES)


@lru_cache(maxsize=1)
def _cosines() -> NDArray[np.float32]:
    # (bands, coefficients): column k is the k-th basis function, all of length 1.
    band, coefficient = np.arange(COEFFICIENTS)[:, np.newaxis], np.arange(COEFFICIENTS)
    basis = np.cos(np.pi * coefficient * (2 * band + 1) / (2 * COEFFICIENTS)) * np.sqrt(2.0 / COEFFICIENTS)
    basis[:, 0] /= np.sqrt(2.0)
    cosines: NDArray[np.float32] = basis.astype(np.float32)
    return cosines
