"""What is done to clips is what its name says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the workshop needs scipy: pip install -e '.[train]'")

from edge_ser.sources import read_samples
from train.hardships import (
    at_level,
    clipped,
    first_speech,
    hardships,
    in_silence,
    sounds_without_speech,
    speech_start,
    telephone_codec,
)


@pytest.fixture(scope="module")
def speech(root: Path) -> np.ndarray:
    return read_samples(root / "examples" / "conversation.flac")[: 4 * 16_000]


def test_level_and_clipping(speech: np.ndarray) -> None:
    quiet = at_level(speech, -60.0)
    assert 10 * np.log10(np.mean(quiet.astype(float) ** 2)) == pytest.approx(-60.0, abs=0.01)
    assert not at_level(np.zeros(10, np.float32), -60.0).any()
    loud = clipped(speech)
    assert np.abs(loud).max() == 1.0
    assert np.mean(np.abs(loud) >= 0.999) == pytest.approx(0.05, abs=0.005)


def test_silence_around_speech_is_quiet_and_leaves_speech_as_it_is(speech: np.ndarray) -> None:
    around = in_silence(speech, np.random.default_rng(0))
    assert around.size == speech.size + 32_000
    assert np.abs(around[:16_000]).max() < 0.01 * np.abs(speech).max()
    assert np.allclose(around[16_000:-16_000], speech, atol=0.01 * np.abs(speech).max())


def test_the_telephone_keeps_low_pitches_and_loses_high_ones() -> None:
    time_s = np.arange(16_000) / 16_000
    low, high = (np.sin(2 * np.pi * pitch_hz * time_s).astype(np.float32) for pitch_hz in (440.0, 6000.0))
    heard = telephone_codec(0.5 * low)
    assert len(heard) == len(low)
    assert np.corrcoef(heard, low)[0, 1] > 0.999
    assert np.abs(telephone_codec(low + high)[2000:-2000]).max() < 1.1 * np.abs(heard).max()


def test_a_cut_begins_where_speech_begins(speech: np.ndarray) -> None:
    start = speech_start(speech)
    later = np.concatenate([np.zeros(16_000, np.float32), speech])
    assert speech_start(later) - start == pytest.approx(16_000, abs=1_600)
    assert len(first_speech(later, 0.4)) == 6_400
    assert speech_start(np.zeros(8_000, np.float32)) == 0


def test_every_change_gives_sound_and_the_same_sound_again(miniature: Path, speech: np.ndarray) -> None:
    changes = hardships(miniature)
    assert {"noise at 10 dB", "room", "-60 dBFS", "telephone band"} <= set(changes)
    for change in changes.values():
        once, again = (change(speech, np.random.default_rng(3)) for _ in range(2))
        assert once.dtype == np.float32 and np.isfinite(once).all() and len(once) > 6_000
        assert np.array_equal(once, again)


def test_sounds_without_speech_come_by_kind(miniature: Path) -> None:
    sounds = sounds_without_speech(miniature)
    assert all(sounds.values())
    assert not sounds["silence"][0].any()
