"""The measure of segmentation measures what it says, and first syllables are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.segmentation import Piece, Talk, false_alarms, join, judge, main, trimmed, with_noise
from tests.edge_ser.fakes import RATE_HZ, voice_like

SPOKEN = [(16_000, 48_000), (64_000, 96_000)]


def piece(start: int, end: int, continues: bool = False, rejected: str | None = None) -> Piece:
    return Piece(start, end, end + 4_800, continues, rejected)


def test_two_utterances_heard_whole_have_nothing_to_report() -> None:
    first, second = judge(SPOKEN, [piece(12_000, 50_000), piece(60_000, 99_000)], 112_000)
    assert (first.late_s, first.lost_s, first.pieces, first.joined, first.rejected) == (0, 0, 1, False, False)
    assert first.pause_s == 1.0
    assert first.wait_s == pytest.approx((50_000 + 4_800 - 48_000) / RATE_HZ)
    assert second.pause_s is None


def test_a_late_start_a_cut_and_a_join_are_told_apart() -> None:
    late, _ = judge(SPOKEN, [piece(17_600, 50_000), piece(60_000, 99_000)], 112_000)
    assert late.late_s == pytest.approx(0.1)
    apart, _ = judge(SPOKEN, [piece(12_000, 30_000), piece(32_000, 50_000), piece(60_000, 99_000)], 112_000)
    assert (apart.pieces, apart.lost_s) == (2, pytest.approx(0.125))
    grown, _ = judge(SPOKEN, [piece(12_000, 30_000), piece(30_000, 50_000, continues=True)], 112_000)
    assert grown.pieces == 1
    joined, _ = judge(SPOKEN, [piece(12_000, 99_000)], 112_000)
    assert joined.joined
    missed, _ = judge(SPOKEN, [piece(60_000, 99_000)], 112_000)
    assert (missed.pieces, missed.late_s, missed.lost_s) == (0, pytest.approx(0.3), 2.0)


def test_only_answers_are_false_alarms() -> None:
    assert false_alarms(SPOKEN, [piece(0, 8_000), piece(100_000, 108_000, rejected="too_short")]) == 1


def test_a_clip_is_trimmed_to_its_speech_whatever_hums_or_clicks() -> None:
    rng = np.random.default_rng(0)
    clip = rng.standard_normal(3 * RATE_HZ) * 1e-3
    clip += 0.05 * np.sin(2 * np.pi * 50 * np.arange(clip.size) / RATE_HZ)
    clip[RATE_HZ : 2 * RATE_HZ] += voice_like(1.0)
    clip[4_000:4_160] += 0.5
    kept = trimmed(clip.astype(np.float32))
    assert kept is not None
    start = int(np.flatnonzero(clip.astype(np.float32) == kept[0])[0])
    assert abs(start - RATE_HZ) <= 0.03 * RATE_HZ
    assert abs(start + kept.size - 2 * RATE_HZ) <= 0.1 * RATE_HZ
    assert trimmed(rng.standard_normal(RATE_HZ).astype(np.float32)) is None


@pytest.mark.parametrize("equal_level", [False, True])
def test_clips_lie_where_the_talk_says(equal_level: bool) -> None:
    waves = [voice_like(1.0, -20.0), voice_like(0.7, -40.0)]
    talk = join("cremad", waves, equal_level)
    levels = []
    for (start, end), wave in zip(talk.spoken, waves, strict=True):
        assert end - start == wave.size
        assert np.corrcoef(talk.samples[start:end], wave)[0, 1] > 0.95
        levels.append(20 * np.log10(np.sqrt(np.mean(talk.samples[start:end] ** 2))))
    assert levels[0] - levels[1] == pytest.approx(0.0 if equal_level else 20.0, abs=0.2)


def test_noise_lies_10_db_under_the_speech() -> None:
    samples = np.zeros(3 * RATE_HZ, np.float32)
    samples[RATE_HZ : 2 * RATE_HZ] = voice_like(1.0)
    talk = Talk("cremad", samples, [(RATE_HZ, 2 * RATE_HZ)])
    noise = np.random.default_rng(0).standard_normal(RATE_HZ).astype(np.float32)
    added = with_noise(talk, [noise], np.random.default_rng(0)).samples - samples
    rms = np.sqrt(np.mean(samples[RATE_HZ : 2 * RATE_HZ] ** 2))
    assert 20 * np.log10(rms / np.sqrt(np.mean(added**2))) == pytest.approx(10.0, abs=0.1)


@pytest.mark.slow
@pytest.mark.corpora
def test_first_syllables_are_kept(corpora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--speakers", "6"])
    print(capsys.readouterr().out)
    assert status == 0
