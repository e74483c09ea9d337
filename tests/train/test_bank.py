from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_ser.segmenter import utterances_in
from edge_ser.sources import read_samples
from edge_ser.vad import open_detector

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from train.augment import Augmenter, Chances  # noqa: E402
from train.students.bank import FRAME_SAMPLES, Recording, open_bank  # noqa: E402
from train.students.encoder_rows import EncoderRows  # noqa: E402
from train.students.pooled_teacher import pooled_frames  # noqa: E402
from train.students.run_settings import EncoderSettings  # noqa: E402
from train.teacher import FrameTeacher, hidden_states  # noqa: E402

EXAMPLE = Path(__file__).parents[2] / "examples" / "conversation.flac"


@pytest.fixture
def recordings(tmp_path: Path) -> list[Recording]:
    rng = np.random.default_rng(0)
    made = []
    for place, (seconds, label) in enumerate([(1.3, 2), (9.0, 0), (2.0, -1)]):
        path = tmp_path / f"{place}.wav"
        soundfile.write(path, 1e-3 * rng.standard_normal(int(16_000 * seconds)), 16_000)
        made.append(Recording(path, f"s{place}" if label >= 0 else "", label))
    return made


def varied(recordings: list[Recording], variants: int) -> list[Recording]:
    return [replace(recording, variants=variants) for recording in recordings]


def test_the_teacher_hears_what_transformers_prepares(tiny_teacher: Path) -> None:
    from transformers import WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    wave = np.random.default_rng(0).standard_normal(32_000).astype(np.float32) * 0.05
    teacher = FrameTeacher(tiny_teacher, layers=(1, 2))
    features = WhisperFeatureExtractor.from_pretrained(tiny_teacher)
    mel = features(wave, sampling_rate=16_000, padding="do_not_pad", return_tensors="pt").input_features
    with torch.no_grad():
        states = hidden_states(WhisperEncoder.from_pretrained(tiny_teacher).float().eval(), mel)
    expected = torch.cat([states[1], states[2]], dim=-1)[0].reshape(50, 2, -1).mean(1)
    assert np.allclose(teacher(wave), expected.numpy(), atol=0.05)  # the teacher calculates in bfloat16


def test_a_bank_keeps_waves_beside_the_frames_of_just_these_waves(
    recordings: list[Recording], tiny_teacher: Path, tmp_path: Path
) -> None:
    teacher = FrameTeacher(tiny_teacher)
    bank = open_bank(varied(recordings, 3), teacher, tmp_path / "cache", seed=0)
    assert {item.recording for item in bank.items} == {0, 1, 2}
    assert max(item.samples for item in bank.items) <= 8 * 16_000
    everything = bank.targets.astype(np.float32)
    assert everything.shape == (sum(item.frames for item in bank.items), teacher.size)
    for item in bank.items[::3]:
        heard = teacher(bank.wave(item, 0, item.frames))
        kept = bank.frames(item, 0, item.frames)
        # Kept frames are standardised by channel over the bank, so each frame stands out from the next as before.
        changes, kept_changes = np.diff(heard, axis=0), np.diff(kept, axis=0)
        agreement = np.corrcoef(changes.ravel(), (kept_changes * changes.std(0)).ravel())[0, 1]
        late = np.corrcoef(changes[1:].ravel(), (kept_changes * changes.std(0))[:-1].ravel())[0, 1]
        assert agreement > 0.8 > 0.3 > late and item.samples == item.frames * FRAME_SAMPLES


def test_quiet_recordings_are_brought_to_one_level_and_reversed_ones_lose_their_label(
    recordings: list[Recording], tiny_teacher: Path, tmp_path: Path
) -> None:
    bank = open_bank(varied(recordings, 12), FrameTeacher(tiny_teacher), tmp_path / "cache", seed=0)
    levels = [float(np.sqrt(np.mean(bank.wave(item, 0, item.frames) ** 2))) for item in bank.items]
    assert min(levels) > 0.045 and max(levels) < 0.055
    labels = [item.label for item in bank.items if item.recording == 0]
    assert labels[0] == 2 and -1 in labels  # as recorded; too fast, too slow or reversed
    assert {item.label for item in bank.items if item.recording == 2} == {-1}


@pytest.fixture
def spoken(tmp_path: Path) -> Recording:
    """Return a second of silence, somebody speaking for some two, and a second and a half of silence."""
    talk = read_samples(EXAMPLE)
    utterance = utterances_in(talk, open_detector("silero"))[0].samples
    path = tmp_path / "spoken.wav"
    soundfile.write(path, np.pad(utterance, (16_000, 24_000)), 16_000)
    return Recording(path, "somebody", 1)


def test_recordings_are_kept_without_the_silence_around_speech(
    spoken: Recording, tiny_teacher: Path, tmp_path: Path
) -> None:
    bank = open_bank([spoken], FrameTeacher(tiny_teacher), tmp_path / "cache", seed=0)
    seconds = soundfile.info(spoken.path).duration
    [item] = bank.items
    assert item.samples / 16_000 == pytest.approx(seconds - 2.5, abs=0.6)
    assert bank.spoken(item, 0, item.frames).mean() > 0.5


def test_rows_have_silence_around_what_the_bank_holds(
    spoken: Recording, recordings: list[Recording], tiny_teacher: Path, tmp_path: Path
) -> None:
    spoken_by = [replace(spoken, speaker=name) for name in ("a", "b")]
    bank = open_bank([*spoken_by, recordings[2]], FrameTeacher(tiny_teacher), tmp_path / "cache", seed=0)
    settings = EncoderSettings("encoder", "clean", (), speakers=2, others=1, steps=12)
    nothing = Chances(speed=0.0, room=0.0, noise=0.0, band=0.0, clip=0.0, coarse=0.0, pad=0.0)
    rows = EncoderRows(bank, Augmenter([], [], nothing), settings, 0)
    batches = [rows[step] for step in range(len(rows))]
    silences = [1.0 - float(batch.mask[0].mean()) for batch in batches]
    assert min(silences) < 0.05 and max(silences) > 0.2
    for batch in batches:
        level = batch.audio.view(*batch.mask.shape, FRAME_SAMPLES).square().mean(-1).sqrt()
        assert torch.all(level[batch.mask == 0] < 0.01) and torch.all(batch.spoken[batch.mask == 0] == 0)
        assert torch.all(batch.frames[batch.mask == 0] == 0)
        # However much silence there is, and however little of the speech: what is asked for stays the same.
        assert torch.equal(batch.pooled[0], batches[0].pooled[0])


def test_a_voice_without_labels_stands_together_as_speakers_do(
    spoken: Recording, recordings: list[Recording], tiny_teacher: Path, tmp_path: Path
) -> None:
    voices = [replace(spoken, speaker=name, label=-1) for name in ("another voice",) * 4 + ("too few",)]
    bank = open_bank([spoken, *voices, recordings[2]], FrameTeacher(tiny_teacher), tmp_path / "cache", seed=0)
    rows = EncoderRows(bank, Augmenter([], []), EncoderSettings("encoder", "clean", (), speakers=2, others=1), 0)
    assert set(rows.speakers) == {"somebody", "another voice"}
    assert [bank.recordings[item.recording] for item in rows.others] == [recordings[2], voices[-1]]


def test_what_is_pooled_is_speech() -> None:
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((40, 6)).astype(np.float32)
    spoken = np.zeros(40, np.float32)
    spoken[10:30] = 1.0
    assert np.allclose(pooled_frames(frames, spoken)[:6], frames[10:30].mean(0), atol=1e-5)
    assert np.allclose(pooled_frames(frames, spoken)[6:], frames[10:30].std(0), atol=1e-3)
    assert np.allclose(pooled_frames(frames, 0.01 * spoken)[:6], frames.mean(0), atol=1e-5)  # nobody speaks


def test_a_bank_is_made_once(recordings: list[Recording], tiny_teacher: Path, tmp_path: Path) -> None:
    teacher = FrameTeacher(tiny_teacher)
    first = open_bank(varied(recordings, 2), teacher, tmp_path / "cache", seed=0)
    again = open_bank(varied(recordings, 2), SilentTeacher(teacher), tmp_path / "cache", seed=0)  # type: ignore[arg-type]
    assert first.items == again.items


def test_it_does_not_matter_how_many_processes_make_a_bank(
    recordings: list[Recording], tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [replace(recordings[n % 3], variants=2) for n in range(20)]
    alone = open_bank(many, FrameTeacher(tiny_teacher), tmp_path / "alone", seed=0)
    monkeypatch.setattr("train.students.bank.FEWEST_SHARED", 1)
    shared = open_bank(many, FrameTeacher(tiny_teacher), tmp_path / "shared", seed=0)
    assert alone.items == shared.items
    assert np.array_equal(alone.audio, shared.audio) and np.array_equal(alone.speech, shared.speech)
    assert np.allclose(alone.targets, shared.targets, atol=1e-2)


class SilentTeacher:
    """A teacher that can say who it is, and must not be asked anything else."""

    def __init__(self, teacher: FrameTeacher) -> None:
        self.digest, self.size = teacher.digest, teacher.size

    def __call__(self, wave: np.ndarray) -> np.ndarray:
        raise AssertionError("the bank was made already")
