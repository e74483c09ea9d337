from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_ser.pitch import f0_track
from edge_ser.prosody import FEATURE_NAMES, prosody

Wave = NDArray[np.float32]
RATE = 16_000


def sawtooth(pitch_hz: float | NDArray[np.float64], seconds: float) -> Wave:
    count = round(seconds * RATE)
    phase = np.cumsum(np.broadcast_to(pitch_hz, count)) / RATE
    return (0.5 * (2.0 * (phase % 1.0) - 1.0)).astype(np.float32)


def bursts(times: int = 6) -> Wave:
    tone = 0.5 * np.sin(2 * np.pi * 150 * np.arange(RATE // 2) / RATE)
    return np.tile(np.concatenate([tone, np.zeros(3 * RATE // 10)]), times).astype(np.float32)


def talk(seconds: float = 3.0, seed: int = 0) -> Wave:
    # Voiced stretches, hiss between them and two pauses.
    rng = np.random.default_rng(seed)
    parts: list[NDArray[np.floating]] = []
    for place in range(8):
        parts.append(sawtooth(120.0 + 10 * place + np.linspace(0, 20, 3200), 0.2))
        parts.append(0.05 * rng.standard_normal(1280))
        if place in (2, 5):
            parts.append(1e-4 * rng.standard_normal(4800))
    return np.concatenate(parts)[: round(seconds * RATE)].astype(np.float32)


def named(wave: Wave, **switches: bool) -> dict[str, float]:
    return dict(zip(FEATURE_NAMES, prosody(wave, **switches).tolist(), strict=True))


def test_there_are_103_names_in_the_order_of_the_table() -> None:
    assert len(FEATURE_NAMES) == len(set(FEATURE_NAMES)) == 103
    numbers = {1: "f0_all_avg", 7: "f0_tilt_avg", 13: "f0_mse_avg", 25: "f0_last_avg", 31: "energy_voiced_contour_avg"}
    numbers |= {49: "energy_voiced_last_avg", 55: "energy_unvoiced_contour_avg", 78: "energy_unvoiced_last_kurt"}
    numbers |= {79: "voiced_rate", 86: "duration_unvoiced_avg", 98: "ratio_p_vu", 103: "ratio_u_p"}
    assert all(FEATURE_NAMES[number - 1] == name for number, name in numbers.items())


@pytest.mark.parametrize(
    "wave",
    [
        talk(),
        np.zeros(RATE, np.float32),
        np.random.default_rng(0).standard_normal(RATE).astype(np.float32),
        sawtooth(150.0, 0.2),
        np.clip(8 * talk(), -1, 1),
        np.full(RATE, 0.25, np.float32),
        np.zeros(0, np.float32),
        np.ones(3, np.float32),
    ],
    ids=["speech", "silence", "noise", "0.2 s", "clipping", "constant", "nothing", "3 samples"],
)
def test_hump_cat_check_03_prosody_is_103_finite_values(wave: Wave) -> None:
    for drop in (False, True):
        values = prosody(wave, compat_drop_last=drop)
        assert values.shape == (103,) and values.dtype == np.float32
        assert np.isfinite(values).all()


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6_000), st.sampled_from([0.0, 1e-6, 1e-3, 1.0]))
def test_any_wave_gives_finite_values(seed: int, length: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    wave = level * rng.standard_normal(length) * (rng.random(length) > 0.5)
    assert np.isfinite(prosody(wave.astype(np.float32))).all()


@pytest.mark.parametrize("gain", [0.01, 0.3, 4.0])
def test_hump_cat_check_03_gain_changes_nothing(gain: float) -> None:
    plain, scaled = prosody(talk()), prosody((gain * talk()).astype(np.float32))
    assert np.allclose(plain, scaled, rtol=1e-3, atol=1e-3)


def test_hump_cat_check_03_a_sawtooth_of_120_hz() -> None:
    values = prosody(sawtooth(120.0, 1.0))
    assert values[0] == pytest.approx(120.0, rel=0.02)
    assert values[1] == pytest.approx(0.0, abs=0.5)
    assert values[6] == pytest.approx(0.0, abs=0.5)


def test_hump_cat_check_03_a_glide_of_100_hz_in_a_second() -> None:
    values = prosody(sawtooth(np.linspace(100.0, 200.0, RATE), 1.0))
    assert values[6] == pytest.approx(100.0, rel=0.1)


def test_hump_cat_check_03_tones_and_pauses() -> None:
    values = named(bursts())
    assert values["duration_pause_avg"] == pytest.approx(0.3, abs=0.05)
    assert values["voiced_rate"] == pytest.approx(1.25, rel=0.1)
    assert values["duration_voiced_avg"] == pytest.approx(0.5, abs=0.05)
    # No unvoiced stretch: nothing to compare.
    assert all(values[name] == 0 for name in FEATURE_NAMES[97:])


@pytest.mark.parametrize("pitch_hz", [62.0, 70.0, 123.7, 200.0, 316.8, 340.0])
def test_pitch_is_exact_over_its_range(pitch_hz: float) -> None:
    track = f0_track(sawtooth(pitch_hz, 1.0))
    assert len(track) == 100
    assert np.all(track[3:-3] > 0)
    assert np.allclose(track[3:-3], pitch_hz, rtol=0.02)


def test_pitch_is_heard_through_noise_and_not_in_noise() -> None:
    rng = np.random.default_rng(0)
    assert not f0_track(rng.standard_normal(3 * RATE).astype(np.float32)).any()
    noisy = sawtooth(180.0, 1.0) + 0.05 * rng.standard_normal(RATE)
    track = f0_track(noisy.astype(np.float32))
    assert np.mean(np.abs(track - 180.0) < 4.0) > 0.95


def test_a_tone_50_db_below_the_loudest_is_no_voice() -> None:
    quiet = 10 ** (-56 / 20) * sawtooth(150.0, 1.0)
    track = f0_track(np.concatenate([sawtooth(150.0, 1.0), quiet]))
    assert np.all(track[5:95] > 0)
    assert not track[105:].any()


def test_ratios_compare_mean_durations() -> None:
    values = named(talk())
    v, u, p = (values[f"duration_{kind}_avg"] for kind in ("voiced", "unvoiced", "pause"))
    assert min(v, u, p) > 0
    expected = [p / (v + u), p / u, u / (v + u), v / (v + u), v / p, u / p]
    assert np.allclose([values[name] for name in FEATURE_NAMES[97:]], expected, rtol=1e-4)


def test_one_stretch_of_a_kind_leaves_its_energy_and_durations_at_zero() -> None:
    values = prosody(sawtooth(120.0, 1.0))
    assert not values[30:78].any() and not values[79:].any()
    assert values[78] == pytest.approx(1.0)


def test_dropping_the_last_stretches_leaves_what_came_before() -> None:
    full, dropped = named(bursts(6)), named(bursts(6), compat_drop_last=True)
    assert dropped["voiced_rate"] == pytest.approx(full["voiced_rate"] * 5 / 6)
    assert dropped["f0_first_avg"] == full["f0_first_avg"]
    assert dropped["f0_all_avg"] == full["f0_all_avg"]


def test_statistics_are_those_of_the_definition() -> None:
    track = f0_track(talk())
    voiced = track[track > 0]
    rest = voiced - voiced.mean()
    m2, m3, m4 = (np.mean(rest**power) for power in (2, 3, 4))
    expected = [voiced.mean(), np.sqrt(m2), voiced.max(), voiced.min(), m3 / m2**1.5, m4 / m2**2 - 3]
    assert np.allclose(prosody(talk())[:6], expected, rtol=1e-4)


def test_a_second_takes_milliseconds() -> None:
    wave = talk()
    prosody(wave)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        prosody(wave)
        times.append(time.perf_counter() - start)
    # About 2 ms per second of audio on one core; the bound leaves room for a busy machine.
    assert min(times) < 0.03 * len(wave) / RATE
