"""Fixtures that more than one shelf needs."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import settings

# The same examples in every run: a failure seen once can be seen again.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parent.parent
EMOTIONS = ("angry", "happy", "neutral", "sad")
PITCH = {"angry": 1.5, "happy": 1.9, "neutral": 1.0, "sad": 0.8}
RATE_HZ = {"angry": 6.0, "happy": 5.0, "neutral": 3.5, "sad": 2.0}


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def corpora() -> Path:
    """The real corpora; tests that need them say so where there are none."""
    folder = os.environ.get("EDGE_SER_DATA")
    if not folder:
        pytest.skip("EDGE_SER_DATA is not set: set it to the folder that holds speech/manifest.csv")
    return Path(folder)


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole data folder, synthesised: 16 speakers of two corpora, noise, a room and sentences."""
    folder = tmp_path_factory.mktemp("miniature")
    rng = np.random.default_rng(0)
    (folder / "speech").mkdir()
    rows = [
        _write_clip(folder / "speech", corpus, speaker, emotion, take, rng)
        for corpus, speakers in (("alpha", 12), ("beta", 4))
        for speaker in range(speakers)
        for emotion in EMOTIONS
        for take in range(2)
    ]
    _write_csv(folder / "speech" / "manifest.csv", rows)
    for name, sounds in (("noise", 5), ("rir", 5)):
        (folder / name).mkdir()
        listed = []
        for place in range(sounds):
            length = 16_000 if name == "noise" else 1_600
            wave = (
                rng.standard_normal(length) * 0.05 * np.exp(-np.arange(length) / (length if name == "noise" else 200))
            )
            soundfile.write(folder / name / f"{place}.wav", wave, 16_000)
            listed.append({"path": f"{place}.wav"})
        _write_csv(folder / name / f"{name}.csv", listed)
    (folder / "text").mkdir()
    words = {"angry": "hate this", "happy": "love it", "neutral": "the table", "sad": "miss you"}
    sentences = [
        {"split": split, "text": f"{words[emotion]} number {place}", "emotions": emotion, "emotion4": emotion}
        for split in ("train", "dev", "test")
        for emotion in EMOTIONS
        for place in range(10)
    ]
    with gzip.open(folder / "text" / "goemotions.csv.gz", "wt", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["split", "text", "emotions", "emotion4"])
        writer.writeheader()
        writer.writerows(sentences)
    return folder


def _write_clip(
    folder: Path, corpus: str, speaker: int, emotion: str, take: int, rng: np.random.Generator
) -> dict[str, object]:
    name = f"{corpus}_{speaker:02d}_{emotion}_{take}.wav"
    duration_s = float(rng.uniform(0.7, 1.1))
    time_s = np.arange(int(duration_s * 16_000)) / 16_000
    pitch_hz = (110.0 + 8.0 * speaker) * PITCH[emotion]
    phase = 2.0 * np.pi * np.cumsum(pitch_hz * (1.0 + 0.05 * np.sin(2 * np.pi * 3 * time_s))) / 16_000
    voice = sum(np.sin(phase * harmonic) / harmonic for harmonic in range(1, 8))
    syllables = 0.5 - 0.5 * np.cos(2.0 * np.pi * RATE_HZ[emotion] * time_s)
    soundfile.write(folder / name, 0.1 * voice * syllables + 0.001 * rng.standard_normal(len(time_s)), 16_000)
    return {
        "path": name,
        "corpus": corpus,
        "language": "xx",
        "speaker": f"{corpus}_{speaker:02d}",
        "gender": "fm"[speaker % 2],
        "emotion4": emotion,
        "transcript": "the table number one",
        "duration_s": f"{duration_s:.3f}",
        "licence": "none",
    }


def _write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


ENCODER = """
stage = "encoder"
name = "tiny"
tier = "clean"
corpora = ["alpha", "beta"]
licence = "none"
validation_fraction = 0.2
test_fraction = 0.2
seed = 3
variants = 2
width = 16
mels = 16
blocks = 1
layers = 1
passes = 2
steps = 6
precision = "float32"
speakers = 4
others = 2
warmup_steps = 2
save_every = 3
"""

STUDENTS = """
stage = "students"
steps = 6
reading_steps = 20
precision = "float32"
validate_every = 3
peak_learning_rate = 3e-3

[shape]
utterances = 8
non_speech = 2

[model]
told_width = 12
vocabulary = 300
text_width = 16
unit = 8
feed_forward = 16
"""


@pytest.fixture(scope="session")
def student_settings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Settings of both stages of a distillation that takes seconds."""
    folder = tmp_path_factory.mktemp("settings")
    for name, text in (("encoder.toml", ENCODER), ("students.toml", STUDENTS)):
        (folder / name).write_text(text, encoding="utf-8")
    return folder / "encoder.toml", folder / "students.toml"


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper encoder with random weights."""
    transformers = pytest.importorskip("transformers", reason="distillation needs the extra train")
    torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(0)
    shape = {"d_model": 16, "encoder_layers": 4, "encoder_attention_heads": 2, "encoder_ffn_dim": 16}
    config = transformers.WhisperConfig(**shape, num_mel_bins=80)
    transformers.models.whisper.modeling_whisper.WhisperEncoder(config).save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def encoder_run(
    miniature: Path,
    student_settings: tuple[Path, Path],
    tiny_teacher: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a finished first stage."""
    from train.distill import main

    run = tmp_path_factory.mktemp("runs") / "encoder"
    words = [str(student_settings[0]), "--data", str(miniature), "--teacher", str(tiny_teacher), "--run", str(run)]
    assert main(words) == 0
    return run


@pytest.fixture(scope="session")
def students_run(miniature: Path, student_settings: tuple[Path, Path], tiny_teacher: Path, encoder_run: Path) -> Path:
    """The folder of a finished second stage: all five students."""
    from train.distill import main

    run = encoder_run.parent / "students"
    words = [str(student_settings[1]), "--data", str(miniature), "--teacher", str(tiny_teacher)]
    assert main([*words, "--encoder", str(encoder_run), "--run", str(run)]) == 0
    return run


@pytest.fixture(scope="session")
def checkpoints(students_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the students are kept."""
    from train.keep import keep

    return keep(students_run, tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def fp32_bundle(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student as an fp32 bundle."""
    pytest.importorskip("onnx", reason="the press needs onnx: pip install -e '.[export]'")
    from export.to_onnx import main

    out = tmp_path_factory.mktemp("bundles") / "mdat"
    assert main([str(checkpoints / "mdat.safetensors"), "--out", str(out)]) == 0
    return out
