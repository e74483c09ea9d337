"""Frames that HuMP-CAT is compared with its MFCCs on: cepstra of linear prediction, and log power spectra.

The clips themselves, cut or repeated, are `train.feature_kinds`' affair, and prosody hears a clip as recorded unless
`length = "repeat"` stands in its `[features.prosody]`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ser.clips import SAMPLE_RATE_HZ, repeat_pad
from edge_ser.mfcc import HOP, deltas, power_frames

LPC_ORDER = 12
_BLOCK, _BLOCK_STRIDE = 10, 4
_FLOOR = 1e-10


def lpcc(samples: NDArray[np.float32], window_ms: int = 40) -> NDArray[np.float32]:
    """Return 12 cepstral coefficients of linear prediction of order 12, and two derivatives.

    The recursion is c[n] = a[n] + sum over k < n of (k / n) c[k] a[n - k] (Rabiner and Schafer).

    Returns:
        float32, shape (T, 36), on the frames of `mfcc39`.
    """
    framed, _ = power_frames(samples, window_ms)
    framed = framed * np.hamming(framed.shape[1])
    lags = [(framed[:, lag:] * framed[:, : framed.shape[1] - lag]).sum(axis=1) for lag in range(LPC_ORDER + 1)]
    predictor = _levinson(np.stack(lags, axis=1))
    cepstrum = np.zeros_like(predictor)
    for n in range(1, LPC_ORDER + 1):
        earlier = sum((k / n) * cepstrum[:, k - 1] * predictor[:, n - k - 1] for k in range(1, n))
        cepstrum[:, n - 1] = predictor[:, n - 1] + earlier
    first = deltas(cepstrum)
    return np.concatenate([cepstrum, first, deltas(first)], axis=1).astype(np.float32)


def log_power(samples: NDArray[np.float32], window_ms: int = 40) -> NDArray[np.float32]:
    """Return log10 power spectra, 10 frames of 20 ms averaged every 4.

    Returns:
        float32, shape (T', 513): 85 rows for 7 s.
    """
    shortest = window_ms * SAMPLE_RATE_HZ // 1000 + (_BLOCK - 1) * HOP
    _, power = power_frames(repeat_pad(samples, max(len(samples), shortest)), window_ms)
    log = np.log10(np.maximum(power, _FLOOR))
    blocks = np.lib.stride_tricks.sliding_window_view(log, _BLOCK, axis=0)[::_BLOCK_STRIDE]
    return blocks.mean(axis=-1).astype(np.float32)


def _levinson(r: NDArray[np.float64]) -> NDArray[np.float64]:
    # r (T, order + 1) -> predictor (T, order); a little white noise keeps silence and pure tones solvable.
    order = r.shape[1] - 1
    error = r[:, 0] * (1.0 + 1e-9) + _FLOOR
    predictor = np.zeros((len(r), order))
    for i in range(order):
        reached = (predictor[:, :i] * r[:, i:0:-1]).sum(axis=1) if i else 0.0
        reflection = (r[:, i + 1] - reached) / error
        predictor[:, :i] -= reflection[:, None] * predictor[:, :i][:, ::-1]
        predictor[:, i] = reflection
        error = np.maximum(error * (1.0 - reflection**2), _FLOOR**2)
    return predictor
