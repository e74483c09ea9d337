"""Audio comes in many forms and leaves in one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_ser.audio import SAMPLE_RATE_HZ, as_samples, mixed_to_mono, resampled
from edge_ser.errors import AudioFormatError

int16 = hnp.arrays(np.int16, st.integers(0, 50))
floats = hnp.arrays(np.float32, st.integers(0, 50), elements=st.floats(-4, 4, width=32))


@given(int16)
def test_int16_is_scaled_without_loss(samples: np.ndarray) -> None:
    result = as_samples(samples)
    assert result.dtype == np.float32
    assert np.array_equal(np.round(result * 32768).astype(np.int64), samples)
    assert np.abs(result).max(initial=0) <= 1


@given(floats)
def test_floats_in_range_stay_and_others_are_clipped(samples: np.ndarray) -> None:
    assert np.array_equal(as_samples(samples), np.clip(samples, -1, 1))
    assert np.array_equal(as_samples(samples.astype(np.float64)), as_samples(samples))


@given(floats)
def test_the_result_is_a_copy(samples: np.ndarray) -> None:
    kept = samples.copy()
    as_samples(samples)[:] = 7
    mixed_to_mono(samples)[:] = 7
    assert np.array_equal(samples, kept)


@given(floats, st.integers(1, 8))
def test_equal_channels_mix_to_themselves(samples: np.ndarray, channels: int) -> None:
    stacked = np.repeat(samples[:, np.newaxis], channels, axis=1)
    np.testing.assert_allclose(mixed_to_mono(stacked), as_samples(samples), atol=1e-6)


def test_channels_are_averaged() -> None:
    assert mixed_to_mono(np.array([[1.0, 0.0], [0.5, -0.5]])).tolist() == [0.5, 0.0]


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros(3, np.int32), "type int32"),
        (np.zeros(3, np.uint8), "type uint8"),
        (np.zeros(3, np.float16), "type float16"),
        (np.zeros(3, np.complex64), "type complex64"),
        (b"\0\0", "frombuffer"),
        ([[0.0], [0.0, 0.0]], "unequal length"),
        (np.array([0.0, np.nan]), "NaN or infinite"),
        (np.array([0.0, -np.inf], np.float32), "NaN or infinite"),
        (np.zeros((3, 2, 2)), r"shape \(3, 2, 2\)"),
        (np.zeros((2, 16000)), r"pass samples\.T"),
        (np.zeros((3, 0)), "channels"),
        (np.float32(0.5), r"shape \(\)"),
    ],
)
def test_what_is_no_audio_is_refused(samples: object, words: str) -> None:
    with pytest.raises(AudioFormatError, match=words):
        mixed_to_mono(samples)  # type: ignore[arg-type]


def test_two_axes_are_not_mono() -> None:
    with pytest.raises(AudioFormatError, match=r"samples\.mean\(axis=1\)"):
        as_samples(np.zeros((5, 2), np.float32))


@pytest.mark.parametrize("rate_hz", [4000, 8000, 11025, 44100, 48000, 384000])
def test_resampling_keeps_duration_and_tone(rate_hz: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz).astype(np.float32) * np.float32(0.5)
    result = resampled(tone, rate_hz)
    assert result.dtype == np.float32
    assert abs(result.size - SAMPLE_RATE_HZ) <= 1
    spectrum = np.abs(np.fft.rfft(result, SAMPLE_RATE_HZ))
    assert spectrum.argmax() == 440
    assert np.sqrt(np.mean(result**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)


def test_resampling_never_overshoots_full_scale() -> None:
    square = np.sign(np.sin(2 * np.pi * 300 * np.arange(48000) / 48000)).astype(np.float32)
    assert np.abs(resampled(square, 48000)).max() <= 1


@pytest.mark.parametrize("rate_hz", [0, -16000, 3999, 384001, float("nan"), float("inf")])
def test_a_rate_out_of_range_is_refused(rate_hz: float) -> None:
    with pytest.raises(AudioFormatError, match="4000 to 384000 Hz"):
        resampled(np.zeros(10, np.float32), rate_hz)
