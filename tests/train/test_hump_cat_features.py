from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from edge_ser.clips import repeat_pad
from edge_ser.prosody import prosody
from train.feature_kinds import hand_crafted
from train.hump_cat_features import log_power, lpcc
from train.settings import FeatureSettings


def voice(seconds: float) -> NDArray[np.float32]:
    count = round(seconds * 16_000)
    phase = 130.0 * np.arange(count) / 16_000
    noise = 0.01 * np.random.default_rng(0).standard_normal(count)
    return (0.3 * (2.0 * (phase % 1.0) - 1.0) + noise).astype(np.float32)


def test_hump_cat_check_02_features_of_seven_seconds() -> None:
    shapes = {"mfcc39": (349, 39), "prosody": (103,), "lpcc": (349, 36), "log_power": (85, 513)}
    for seconds in (0.5, 7.0):
        for kind, shape in shapes.items():
            array = hand_crafted(FeatureSettings(kind=kind, length="repeat", seconds=7.0))(voice(seconds))
            assert array.shape == shape
            assert array.dtype == np.float32 and np.isfinite(array).all()


def test_prosody_hears_the_clip_as_recorded_unless_it_is_to_repeat_itself() -> None:
    piece = voice(2.0)
    assert np.array_equal(hand_crafted(FeatureSettings(kind="prosody"))(piece), prosody(piece))
    repeated = hand_crafted(FeatureSettings(kind="prosody", length="repeat", seconds=7.0))(piece)
    assert np.array_equal(repeated, prosody(repeat_pad(piece, 112_000)))


def test_linear_prediction_solves_its_normal_equations() -> None:
    wave = voice(0.1)
    cepstrum = lpcc(wave)[1, :12]
    x = wave.astype(np.float64) - wave.astype(np.float64).mean()
    frame = (x / np.abs(x).max())[320:960] * np.hamming(640)
    r = np.array([frame[lag:] @ frame[: len(frame) - lag] for lag in range(13)])
    a = np.linalg.solve(r[np.abs(np.subtract.outer(range(12), range(12)))] + 1e-9 * r[0] * np.eye(12), r[1:])
    # The cepstrum of 1 / A is the logarithm of its spectrum, transformed back.
    spectrum = np.fft.fft(np.concatenate([[1.0], -a]), 65_536)
    expected = np.fft.ifft(-2.0 * np.log(np.abs(spectrum))).real[1:13]
    assert np.allclose(cepstrum, expected, atol=1e-3)


def test_comparison_features_are_finite_for_silence() -> None:
    silence = np.zeros(16_000, np.float32)
    assert np.allclose(lpcc(silence), 0)
    assert np.allclose(log_power(silence), -10)
