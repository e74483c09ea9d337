"""Forty cepstral coefficients: their number, their definition, and what does not change them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ser.mfcc40 import COEFFICIENTS, FLOOR_POWER, mfcc40

RATE_HZ = 16_000


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(samples) * 0.1).astype(np.float32)


@pytest.mark.parametrize(("seconds", "frames"), [(5, 501), (30, 3001), (10, 1001)])
def test_a_hundred_frames_a_second_and_one_more(seconds: int, frames: int) -> None:
    coefficients = mfcc40(noise(seconds * RATE_HZ))
    assert coefficients.shape == (frames, 40)
    assert coefficients.dtype == np.float32


def test_one_frame_by_the_definition() -> None:
    wave = noise(RATE_HZ)
    place = 50 * 160
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = np.abs(np.fft.rfft(wave[place - 200 : place + 200] * window / window.sum(), 512)) ** 2
    mels = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 42)
    edges = 700 * (10 ** (mels / 2595) - 1)
    bands = [
        sum(p * max(0, min((f - lo) / (mid - lo), (hi - f) / (hi - mid))) for p, f in zip(power, hz, strict=True))
        for lo, mid, hi in zip(edges, edges[1:], edges[2:], strict=False)
        for hz in [np.arange(257) * 31.25]
    ]
    logs = np.log(bands)
    for k in (0, 1, 7, 39):
        scale = np.sqrt((1 if k == 0 else 2) / 40)
        expected = scale * sum(logs[n] * np.cos(np.pi * k * (2 * n + 1) / 80) for n in range(40))
        assert mfcc40(wave)[50, k] == pytest.approx(expected, abs=1e-3)


@given(samples=st.integers(0, 4000), extra=st.integers(0, 4000))
def test_zeros_appended_change_no_frame_that_was_there(samples: int, extra: int) -> None:
    wave = noise(samples)
    alone, padded = mfcc40(wave), mfcc40(np.pad(wave, (0, extra)))
    assert np.allclose(alone, padded[: len(alone)], atol=1e-3)


def test_silence_is_finite_and_flat() -> None:
    coefficients = mfcc40(np.zeros(RATE_HZ, np.float32))
    assert np.allclose(coefficients[:, 0], np.log(FLOOR_POWER) * np.sqrt(COEFFICIENTS), rtol=1e-5)
    assert np.abs(coefficients[:, 1:]).max() < 1e-3


def test_loudness_moves_the_first_coefficient_only() -> None:
    wave = noise(RATE_HZ)
    moved = mfcc40(wave * np.float32(0.5)) - mfcc40(wave)
    assert np.allclose(moved[:, 0], 2 * np.log(0.5) * np.sqrt(40), atol=1e-2)
    assert np.abs(moved[:, 1:]).max() < 1e-2


def test_every_band_hears_something() -> None:
    from edge_ser.mfcc40 import _htk_filters

    assert (_htk_filters().sum(0) > 0).all()


def test_a_long_clip_gives_its_middle() -> None:
    wave = noise(3 * RATE_HZ)
    assert np.array_equal(mfcc40(wave, clip_s=1.0), mfcc40(wave[RATE_HZ : 2 * RATE_HZ]))
    assert np.array_equal(mfcc40(wave, clip_s=5.0), mfcc40(wave))
