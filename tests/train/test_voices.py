"""Other voices: what changes, what stays, and that nobody's who chooses or judges is made."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_ser.corpus import FOUR_CLASSES
from edge_ser.errors import ConfigError

torch = pytest.importorskip("torch")
from train import voices  # noqa: E402
from train.students.material import recordings_of  # noqa: E402
from train.students.run_settings import EncoderSettings, read_run, read_split  # noqa: E402
from train.voices import Parts, Voice, changed, lent, put_together, shuffled, take_apart  # noqa: E402

SAME = Voice(warp=np.ones(6), pitch_ratio=1.0, range_ratio=1.0, tempo_ratio=1.0, colour=np.zeros(4))


@pytest.fixture(autouse=True)
def nothing_taken_apart_before() -> None:
    voices._acted.cache_clear()


@pytest.fixture
def parts() -> Parts:
    """A second and a half of a voice around 150 Hz with a formant at 1500 Hz."""
    time = np.arange(300)
    pitch = np.where(time % 60 < 45, 150.0 * 2.0 ** (0.3 * np.sin(time / 20.0)), 0.0)
    bins = np.linspace(0.0, 8000.0, 513)
    loudness = np.sin(time / 30.0)[:, None]
    envelope = loudness + 3.0 * np.exp(-np.square((bins - 1500.0) / 300.0))
    return Parts(pitch, envelope, np.full((300, 513), 0.1))


def test_the_same_voice_changes_nothing(parts: Parts) -> None:
    again = changed(parts, SAME, 150.0)
    assert np.allclose(again.pitch_hz, parts.pitch_hz) and np.allclose(again.envelope, parts.envelope)


def test_a_voice_has_its_own_pitch_range_tempo_and_tract(parts: Parts) -> None:
    spoken = parts.pitch_hz > 0
    higher = changed(parts, replace(SAME, pitch_ratio=1.5), 150.0)
    assert np.allclose(higher.pitch_hz[spoken], 1.5 * parts.pitch_hz[spoken])
    flat = changed(parts, replace(SAME, range_ratio=0.0), 150.0)
    assert np.allclose(flat.pitch_hz[spoken], 150.0) and not flat.pitch_hz[~spoken].any()
    assert len(changed(parts, replace(SAME, tempo_ratio=1.25), 150.0).pitch_hz) == 240
    shorter = changed(parts, replace(SAME, warp=np.full(6, 1.2)), 150.0)
    assert np.linspace(0.0, 8000.0, 513)[shorter.envelope[100].argmax()] == pytest.approx(1800.0, abs=20.0)


def test_pieces_change_places_and_none_is_lost(parts: Parts) -> None:
    numbered = replace(parts, pitch_hz=np.arange(300.0))
    others = [shuffled(numbered, np.random.default_rng(seed)).pitch_hz for seed in range(8)]
    assert all(sorted(other) == list(range(300)) for other in others)
    assert any(not np.array_equal(other, np.arange(300.0)) for other in others)


def test_words_are_lent_melody_and_loudness(parts: Parts) -> None:
    words = Parts(np.full(200, 100.0), np.zeros((200, 513)), parts.aperiodicity[:200])
    acted = lent(words, parts, 150.0)
    assert len(acted.pitch_hz) == 200 and np.all(acted.pitch_hz > 120.0)
    theirs = parts.envelope.mean(1)[np.linspace(0, 299, 200).round().astype(int)]
    assert np.corrcoef(acted.envelope.mean(1), theirs)[0, 1] > 0.9


def test_voices_are_reasonable_and_drawn_again_alike() -> None:
    drawn = [Voice.draw(np.random.default_rng(seed)) for seed in range(200)]
    assert min(voice.pitch_ratio for voice in drawn) > 0.35 and max(voice.pitch_ratio for voice in drawn) < 2.8
    assert np.array_equal(drawn[3].warp, Voice.draw(np.random.default_rng(3)).warp)


def test_voices_are_made_of_training_speakers_alone_and_kept(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: Parts
) -> None:
    monkeypatch.setattr(voices, "take_apart", lambda wave: parts)
    monkeypatch.setattr(voices, "put_together", lambda made: np.zeros(len(made.pitch_hz) * 80, np.float32))
    settings = tmp_path / "encoder.toml"
    settings.write_text('stage = "encoder"\nname = "e"\ntier = "clean"\ncorpora = ["alpha"]\nrepeat = { alpha = 2 }\n')
    out = tmp_path / "spoken"
    out.mkdir()
    soundfile.write(out / "espeak-ng-0000.wav", np.zeros(16_000), 16_000)
    words = ["--data", str(miniature), "--settings", str(settings), "--out", str(out), "--utterances", "4"]
    assert voices.main(words) == 0
    split = read_split(read_run(settings), miniature)
    made = sorted(path.name for path in out.iterdir() if path.is_dir())
    speakers = {clip.speaker for clip in split.train}
    # Eight clips of each, twice in training, four in a voice.
    assert made == sorted(f"{name}-{kind}-{turn}" for name in speakers for kind in voices.KINDS for turn in range(4))
    assert {path.stem.partition("-")[2] for path in out.glob("*/*.wav")} <= set(FOUR_CLASSES)
    recordings = recordings_of(split, miniature, read_run(settings), out)
    changed = [recording for recording in recordings if recording.acted >= 0]
    assert {recording.speaker.rsplit("-", 2)[1] for recording in changed} == {"changed"}
    assert all(recording.label == -1 for recording in changed)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*.wav")}
    assert voices.main(words) == 0 and before == {path: path.stat().st_mtime_ns for path in out.glob("*/*.wav")}
    for stranger in (split.test[0].speaker, "another_corpus_01"):
        renamed = (out / made[0]).rename(out / f"{stranger}-changed-0")
        with pytest.raises(ConfigError, match=f"made of {stranger}, no training speaker"):
            recordings_of(split, miniature, read_run(settings), out)
        renamed.rename(out / made[0])


def test_a_voice_is_the_same_whoever_else_is_there(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: Parts
) -> None:
    taken = []
    monkeypatch.setattr(voices, "take_apart", lambda wave: taken.append(wave) or parts)
    monkeypatch.setattr(voices, "put_together", lambda made: made.pitch_hz.astype(np.float32) / 1000.0)
    settings = tmp_path / "encoder.toml"
    settings.write_text('stage = "encoder"\nname = "e"\ntier = "clean"\ncorpora = ["alpha"]\n')
    run = read_run(settings)
    assert isinstance(run, EncoderSettings)
    clips = read_split(run, miniature).train
    last = max(clip.speaker for clip in clips)
    heard = []
    for name, chosen in (("all", clips), ("one", [clip for clip in clips if clip.speaker == last])):
        out = tmp_path / name
        out.mkdir()
        soundfile.write(tmp_path / "words.wav", np.zeros(16_000), 16_000)
        voices._write_all(voices.Maker(out, [tmp_path / "words.wav"]), run, chosen, 4)
        heard.append({path.relative_to(out): path.read_bytes() for path in out.glob(f"{last}-*/*.wav")})
    assert heard[0] and heard[0] == heard[1]
    lent_ones = sum("-lent-" in path.parent.name for path in tmp_path.glob("*/*/*.wav"))
    assert len(taken) - lent_ones <= len(clips), "a clip is taken apart once for all voices that are made of it"


def test_each_clip_comes_in_other_voices_about_as_often_as_in_training(miniature: Path, tmp_path: Path) -> None:
    settings = tmp_path / "encoder.toml"
    settings.write_text('stage = "encoder"\nname = "e"\ntier = "clean"\ncorpora = ["alpha"]\nrepeat = { alpha = 2 }\n')
    run = read_run(settings)
    assert isinstance(run, EncoderSettings)
    clips = read_split(run, miniature).train[:1] * 26
    assert [voices.turns_of(clips[:n], run, 13) for n in (2, 13, 26)] == [2, 2, 4]
    assert voices.turns_of(clips * 9, run, 13) == 6


def test_too_few_utterances_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert voices.main(["--out", str(tmp_path), "--utterances", "3", "--data", str(tmp_path)]) == 1
    assert "need 4 or more" in capsys.readouterr().err


def test_without_pyworld_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyworld", None)
    with pytest.raises(ConfigError, match="pip install pyworld"):
        take_apart(np.zeros(16_000, np.float32))


def test_without_sentences_it_says_what_to_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "speech"
    empty.mkdir()
    (empty / "manifest.csv").write_text(
        "path,corpus,language,speaker,gender,emotion,emotion4,transcript,duration_s,licence,sha256\n", encoding="utf-8"
    )
    assert voices.main(["--data", str(tmp_path), "--out", str(tmp_path / "spoken")]) == 1
    assert "python -m train.speak" in capsys.readouterr().err


def test_a_wave_taken_apart_and_put_together_sounds_alike() -> None:
    pytest.importorskip("pyworld", reason="pyworld is not installed; pip install pyworld 'setuptools<81'")
    time = np.arange(16_000) / 16_000
    wave = sum(np.sin(2 * np.pi * 150 * n * time) / n for n in range(1, 20)).astype(np.float32) * 0.1
    taken = take_apart(wave)
    assert np.median(taken.pitch_hz[20:-20]) == pytest.approx(150.0, rel=0.01)
    again = take_apart(put_together(taken))
    assert np.median(again.pitch_hz[20:-20]) == pytest.approx(150.0, rel=0.01)
