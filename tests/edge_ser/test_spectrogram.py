"""The picture of a clip: its size, its scale, and what the two units and the two kinds show."""

import numpy as np
import pytest

from edge_ser.errors import ConfigError
from edge_ser.spectrogram import (
    SpectrogramSettings,
    _slaney_filters,
    decibels,
    fit_clip,
    power_spectrum,
    resize,
    spectrogram_image,
)

RATE_HZ = 16_000


def tone(hz: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE_HZ)) / RATE_HZ).astype(np.float32)


@pytest.mark.parametrize("spec", ["log_stft200", "logmel128"])
@pytest.mark.parametrize("unit", ["ms", "samples"])
@pytest.mark.parametrize("seconds", [0.3, 2.0, 7.0])
def test_every_clip_gives_a_picture_of_one_size(spec: str, unit: str, seconds: float) -> None:
    image = spectrogram_image(tone(440, seconds), SpectrogramSettings(spec, unit, clip_s=2.0, size=64))
    assert image.shape == (1, 64, 64)
    assert image.dtype == np.float32
    assert np.isfinite(image).all()


@pytest.mark.parametrize(
    ("spec", "unit", "shape"),
    [
        ("log_stft200", "ms", (200, 501)),
        ("logmel128", "ms", (128, 501)),
        ("log_stft200", "samples", (200, 8001)),
    ],
)
def test_rows_are_frequencies_and_columns_hops(spec: str, unit: str, shape: tuple[int, int]) -> None:
    assert decibels(tone(440), SpectrogramSettings(spec, unit, clip_s=5.0)).shape == shape


def test_a_tone_stands_in_its_bin_at_its_level() -> None:
    level = decibels(tone(1000), SpectrogramSettings(clip_s=1.0))
    assert level[:, 50].argmax() == 50  # 20 Hz a bin
    assert level[50, 50] == pytest.approx(20 * np.log10(0.5), abs=0.1)


def test_a_window_of_forty_samples_cannot_tell_tones_apart_that_milliseconds_can() -> None:
    both = (tone(1000) + tone(1200)) / 2
    fine = decibels(both, SpectrogramSettings(clip_s=1.0))[:, 50]
    coarse = decibels(both, SpectrogramSettings(unit="samples", clip_s=1.0))
    power = (10 ** (coarse / 10)).mean(axis=1)
    assert fine[55] < fine[50] - 20
    assert power[55] > 0.9 * power[50]


def test_silence_after_the_clip_lies_at_the_floor() -> None:
    level = decibels(tone(1000), SpectrogramSettings(clip_s=2.0))
    assert np.allclose(level[:, 110:], level.max() - 80)
    assert np.array_equal(level[:, :95], decibels(tone(1000), SpectrogramSettings(clip_s=1.0))[:, :95])


def test_pure_silence_is_one_finite_level() -> None:
    assert np.allclose(spectrogram_image(np.zeros(100, np.float32)), -100.0)
    assert np.allclose(spectrogram_image(np.zeros(0, np.float32)), -100.0)


def test_a_clip_is_cut_in_the_middle_or_padded_at_the_end() -> None:
    wave = np.arange(1, 3 * RATE_HZ + 1, dtype=np.float32)
    assert np.array_equal(fit_clip(wave, 1.0), wave[RATE_HZ : 2 * RATE_HZ])
    longer = fit_clip(wave, 4.0)
    assert np.array_equal(longer[: 3 * RATE_HZ], wave)
    assert len(longer) == 4 * RATE_HZ and not longer[3 * RATE_HZ :].any()


@pytest.mark.parametrize("size", [(7, 5), (40, 60), (12, 30)])
def test_resizing_is_the_bilinear_resizing_of_image_libraries(size: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")
    image = np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None, None], size=size, mode="bilinear", antialias=True
    )[0, 0]
    assert np.allclose(resize(image, *size), expected.numpy(), atol=1e-5)


def test_standardising_and_resizing_change_places() -> None:
    image = np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)
    assert np.allclose(resize((image - 3) / 2, 9, 11), (resize(image, 9, 11) - 3) / 2, atol=1e-5)


def test_every_mel_band_hears_something() -> None:
    assert (_slaney_filters().sum(0) > 0).all()


def test_chunks_of_frames_join_without_a_seam() -> None:
    wave = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    power = power_spectrum(wave, 40, 10, 800, 200)
    assert power.shape == (5001, 200)
    assert np.allclose(power[4100:4200], power_spectrum(wave[41_000 - 400 :], 40, 10, 800, 200)[40:140], rtol=1e-5)


@pytest.mark.parametrize("bad", [{"spec": "cqt"}, {"unit": "s"}, {"clip_s": 0.0}, {"size": 0}])
def test_settings_that_do_not_fit_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="need"):
        SpectrogramSettings(**bad)  # type: ignore[arg-type]


def test_the_name_says_everything_that_sets_the_values() -> None:
    assert SpectrogramSettings("logmel128", "samples", 30.0, 64).name == "spectrogram-logmel128-samples-30s-64"
