from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_ser.clips import repeat_pad, segments
from edge_ser.errors import AudioFormatError, ConfigError
from edge_ser.mfcc import deltas, mel_filters, mfcc39, power_frames


def noise(seconds: float, seed: int = 0) -> NDArray[np.float32]:
    wave = np.random.default_rng(seed).standard_normal(round(seconds * 16_000))
    return (0.1 * wave).astype(np.float32)


def test_hump_cat_check_01_repeat_padding() -> None:
    short = noise(3.0)
    padded = repeat_pad(short, 112_000)
    assert len(padded) == 112_000
    assert np.array_equal(padded, short[np.arange(112_000) % 48_000])
    full = noise(7.0)
    assert np.array_equal(repeat_pad(full, 112_000), full)
    pieces = segments(noise(15.0), 112_000)
    assert [len(piece) for piece in pieces] == [112_000, 112_000, 16_000]
    assert np.array_equal(np.concatenate(pieces), noise(15.0))


def test_a_remainder_under_a_second_is_dropped_only_beside_another_piece() -> None:
    assert [len(piece) for piece in segments(noise(7.9), 112_000)] == [112_000]
    assert [len(piece) for piece in segments(noise(0.4), 112_000)] == [6_400]


def test_no_samples_are_an_error() -> None:
    empty = np.zeros(0, np.float32)
    for use in (lambda: repeat_pad(empty, 10), lambda: segments(empty, 10), lambda: mfcc39(empty)):
        with pytest.raises(AudioFormatError, match="no samples"):
            use()
    with pytest.raises(ConfigError, match="length"):
        segments(noise(1.0), 0)


def test_seven_seconds_are_349_frames_for_either_window() -> None:
    for window_ms in (40, 30):
        features = mfcc39(noise(7.0), window_ms)
        assert features.shape == (349, 39) and features.dtype == np.float32
    with pytest.raises(ConfigError, match="window_ms"):
        mfcc39(noise(1.0), 25)


def test_less_than_a_window_is_one_frame() -> None:
    assert mfcc39(noise(0.01)).shape == (1, 39)


def test_hump_cat_check_04_delta_of_a_constant_and_of_a_ramp() -> None:
    assert np.all(deltas(np.full((9, 3), 2.5)) == 0)
    ramp = 0.7 * np.arange(12.0)[:, None] + np.array([[1.0, -3.0]])
    assert np.allclose(deltas(ramp)[2:-2], 0.7)


@pytest.mark.parametrize("gain", [0.01, 0.5, 3.0])
def test_hump_cat_check_04_gain_alters_nothing(gain: float) -> None:
    wave = noise(1.0)
    assert np.allclose(mfcc39((gain * wave).astype(np.float32)), mfcc39(wave), atol=1e-4)


def test_derivatives_are_those_of_the_coefficients() -> None:
    features = mfcc39(noise(1.0)).astype(np.float64)
    assert np.allclose(deltas(features[:, :13]), features[:, 13:26], atol=1e-4)
    assert np.allclose(deltas(features[:, 13:26]), features[:, 26:], atol=1e-4)


def test_features_follow_the_equations_bin_by_bin() -> None:
    wave = noise(0.2)
    x = wave.astype(np.float64) - wave.astype(np.float64).mean()
    x /= np.abs(x).max()
    frame = x[320 : 320 + 640]
    time = np.arange(640)
    for_bins = np.exp(-2j * np.pi * np.outer(np.arange(513), time) / 1024)
    power = np.abs(for_bins @ (frame * np.hamming(640))) ** 2 / 640
    mel = np.log10(mel_filters(1024, 26, 8000.0) @ power)
    m = np.arange(1, 27)
    coefficients = [(mel * np.cos(i * np.pi * (m - 0.5) / 26)).sum() for i in range(1, 13)]
    expected = [*coefficients, np.log10((frame**2).sum())]
    assert np.allclose(mfcc39(wave)[1, :13], expected, atol=1e-4)


def test_mel_filters_overlap_so_that_inner_bins_weigh_one_in_all() -> None:
    filters = mel_filters(1024, 26, 8000.0)
    assert filters.shape == (26, 513) and filters.min() >= 0 and filters.max() <= 1
    peaks = filters.argmax(axis=1)
    assert np.all(np.diff(peaks) > 0)
    assert np.all(filters.sum(axis=1) > 0)
    # Between the first and the last peak one triangle falls as the next rises, on a line in Hz.
    assert np.allclose(filters[:, peaks[0] + 1 : peaks[-1]].sum(axis=0), 1.0)


def test_silence_and_a_constant_are_finite_and_flat() -> None:
    for wave in (np.zeros(16_000, np.float32), np.full(16_000, 0.3, np.float32)):
        features = mfcc39(wave)
        assert np.isfinite(features).all()
        assert np.allclose(features[:, 13:], 0, atol=1e-6)
        assert np.allclose(features[:, 12], -10.0)


def test_a_tone_shows_up_in_its_own_bin() -> None:
    time_s = np.arange(16_000) / 16_000
    _, power = power_frames(np.sin(2 * np.pi * 1000 * time_s).astype(np.float32))
    assert np.all(power.argmax(axis=1) == 64)
