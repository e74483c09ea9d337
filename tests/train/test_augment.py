from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from train.augment import (
    Augmenter,
    Chances,
    add_noise,
    add_room,
    change_speed,
    coloured_noise,
    limit_band,
    non_speech,
    simulated_room,
)

RATE_HZ = 16_000
ALWAYS = Chances(speed=1.0, room=1.0, noise=1.0, band=1.0, clip=1.0, coarse=1.0, pad=1.0)


def tone(pitch_hz: float, seconds: float = 1.0) -> NDArray[np.float32]:
    return (0.3 * np.sin(2 * np.pi * pitch_hz * np.arange(int(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def rms(wave: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


@pytest.fixture(scope="module")
def augmenter() -> Augmenter:
    rng = np.random.default_rng(0)
    room = rng.standard_normal(4000).astype(np.float32) * np.exp(-np.arange(4000) / 800).astype(np.float32)
    return Augmenter([coloured_noise(8000, 1.0, rng)], [room], ALWAYS)


@given(st.integers(0, 200), st.floats(0.3, 2.0))
def test_the_same_seed_gives_the_same_finite_wave(augmenter: Augmenter, seed: int, seconds: float) -> None:
    first, second = (augmenter(tone(300.0, seconds), np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.dtype == np.float32 and np.isfinite(first).all() and rms(first) > 0
    assert 0.8 * seconds * RATE_HZ < len(first) < (1.25 * seconds + 0.8) * RATE_HZ


def test_nothing_is_changed_where_the_chance_is_nought() -> None:
    never = Augmenter([], [], Chances(speed=0, room=0, noise=0, band=0, clip=0, coarse=0, pad=0))
    assert np.array_equal(never(tone(300.0), np.random.default_rng(0)), tone(300.0))


@given(st.floats(-5.0, 30.0))
def test_noise_comes_at_the_wanted_ratio(snr_db: float) -> None:
    clean, noise = tone(300.0), coloured_noise(RATE_HZ, 1.0, np.random.default_rng(0))
    added = add_noise(clean, noise, snr_db) - clean
    assert 20 * np.log10(rms(clean) / rms(added)) == pytest.approx(snr_db, abs=0.1)


def test_faster_is_shorter_and_higher() -> None:
    fast = change_speed(tone(400.0), 1.25)
    assert len(fast) == pytest.approx(RATE_HZ / 1.25, rel=0.01)
    assert np.abs(np.fft.rfft(fast)).argmax() * RATE_HZ / len(fast) == pytest.approx(500.0, rel=0.01)


def test_a_room_keeps_length_level_and_place() -> None:
    click = np.zeros(RATE_HZ, np.float32)
    click[5000] = 0.5
    impulse = np.concatenate([np.zeros(300), [1.0], 0.2 * np.exp(-np.arange(2000) / 300)]).astype(np.float32)
    wet = add_room(click, impulse)
    assert len(wet) == len(click) and rms(wet) == pytest.approx(rms(click), rel=1e-3)
    assert np.abs(wet).argmax() == 5000


@given(st.integers(0, 500))
def test_a_simulated_room_is_the_direct_sound_and_then_dies_away(seed: int) -> None:
    impulse = simulated_room(np.random.default_rng(seed))
    tail = np.square(impulse[1:], dtype=np.float64)
    assert np.abs(impulse).argmax() == 0 and impulse[0] == 1.0 and len(impulse) == RATE_HZ
    assert not impulse[1:16].any()
    assert -12.1 < 10 * np.log10(tail.sum()) < 3.1
    # The slowest reverberation loses 22 dB between these stretches, 0.75 s apart.
    assert tail[160:4000].sum() > 100 * tail[-3840:].sum()
    power = np.square(np.abs(np.fft.rfft(impulse[1:])))
    assert power[:2000].sum() > power[-2000:].sum()


def test_rooms_are_simulated_as_often_as_was_asked() -> None:
    recorded = np.array([0.0, 1.0], np.float32)
    chances = Chances(speed=0, room=1, simulated=0.5, noise=0, band=0, clip=0, coarse=0, pad=0)
    augmenter, rng = Augmenter([], [recorded], chances), np.random.default_rng(0)
    simulated = [augmenter.room(rng) is not recorded for _ in range(300)]
    assert 110 < sum(simulated) < 190
    assert all(Augmenter([], [recorded]).room(rng) is recorded for _ in range(20))
    wave = tone(300.0)
    assert not np.array_equal(Augmenter([], [], chances)(wave, rng), wave)


def test_a_band_keeps_its_middle_and_loses_what_is_outside() -> None:
    assert rms(limit_band(tone(1000.0), 300.0, 3400.0)) > 0.8 * rms(tone(1000.0))
    assert rms(limit_band(tone(60.0), 300.0, 3400.0)) < 0.1 * rms(tone(60.0))


def test_brown_noise_is_darker_than_white() -> None:
    def share_below_500_hz(slope: float) -> float:
        power = np.abs(np.fft.rfft(coloured_noise(RATE_HZ, slope, np.random.default_rng(1)))) ** 2
        return float(power[:500].sum() / power.sum())

    assert share_below_500_hz(2.0) > 0.9 > 0.1 > share_below_500_hz(0.0)


@given(st.integers(0, 60))
def test_what_is_not_speech_has_the_wanted_length_and_is_finite(augmenter: Augmenter, seed: int) -> None:
    sound = non_speech(9000, augmenter, np.random.default_rng(seed))
    assert sound.shape == (9000,) and sound.dtype == np.float32 and np.isfinite(sound).all()
