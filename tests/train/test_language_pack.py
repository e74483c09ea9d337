"""A language pack is learnt from labelled clips over a student that stays as it is, or not at all."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")
pytest.importorskip("onnx", reason="the press needs onnx: pip install -e '.[export]'")

import edge_ser  # noqa: E402
import export.to_onnx  # noqa: E402
from edge_ser.bundle import Bundle  # noqa: E402
from edge_ser.corpus import FOUR_CLASSES, read_manifest  # noqa: E402
from edge_ser.errors import ConfigError  # noqa: E402
from edge_ser.language_pack import LanguagePack  # noqa: E402
from edge_ser.testing import write_tiny_bundle  # noqa: E402
from train.checkpoint import save_checkpoint  # noqa: E402
from train.language_pack import main  # noqa: E402
from train.spoken import read_spoken  # noqa: E402
from train.students import language_pack_trial  # noqa: E402
from train.students.config import StudentConfig  # noqa: E402
from train.students.keep import read_student, save_student  # noqa: E402
from train.students.language_pack import (  # noqa: E402
    FRESH,
    WARM,
    Listened,
    PackSettings,
    joined,
    learn_pack,
    listen,
    listen_to_noise,
    logits_of,
)
from train.students.language_pack_trial import Held, leave_speakers_out, speaker_groups  # noqa: E402
from train.students.student import Student  # noqa: E402

WIDTH = 16


@pytest.fixture(autouse=True)
def _few_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_pack_trial, "FOLDS", 2)


def tiny_student() -> Student:
    torch.manual_seed(0)
    sizes = {"mels": 16, "speech_width": WIDTH, "speech_blocks": 1, "speech_layers": 1, "told_width": 12}
    student = Student(StudentConfig("lora", **sizes, vocabulary=50, unit=8))
    student.voice.learn_everybody(torch.randn(20, 2 * WIDTH))
    return student.eval().requires_grad_(False)


@pytest.fixture
def student() -> Student:
    return tiny_student()


def made_up(student: Student, clips: int = 120, speakers: int = 6, strength: float = 1.5, seed: int = 0) -> Listened:
    """Clips of a language in which the first four numbers of what sets an utterance apart tell the emotion."""
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.integers(0, 4, clips))
    apart = torch.from_numpy(rng.standard_normal((clips, 5, 2 * WIDTH)).astype(np.float32))
    apart[:, :, :4] += strength * torch.nn.functional.one_hot(labels, 4).unsqueeze(1)
    hidden = torch.from_numpy(rng.standard_normal((clips, 5, student.fusion.hidden.out_features)).astype(np.float32))
    names = np.array([f"s{place % speakers}" for place in range(clips)])
    return Listened(names, labels, hidden, apart, torch.zeros(clips, 5, 4), torch.ones(clips, 5, 1))


def noise(student: Student) -> Listened:
    rng = np.random.default_rng(9)
    return listen_to_noise(student, [rng.normal(0, 0.1, 8000).astype(np.float32) for _ in range(8)])


def test_no_pack_and_a_pack_of_zeros_are_the_student_as_it_is(student: Student, miniature: Path) -> None:
    clips = read_manifest(miniature / "speech" / "manifest.csv")[:8]
    student.familiarity.directions = torch.zeros(2 * WIDTH, 4)
    student.familiarity.learn(torch.randn(40, 2 * WIDTH))  # everything is doubted, and not all alike
    heard = listen(student, clips, FOUR_CLASSES)
    zeros = {name: torch.zeros(1, *shape) for name, shape in student.fusion.pack_shapes.items()}
    nothing = LanguagePack(*(matrix[0].numpy() for matrix in zeros.values()))
    expected = []
    for clip in clips:
        audio, voice = torch.from_numpy(read_spoken(clip.path))[None], torch.zeros(1, 4 * WIDTH + 1)
        expected.append(student(audio, *zeros.values(), voice)[0][0].numpy())
    for pack in (None, nothing):
        assert np.allclose(logits_of(student, heard, pack, FRESH), expected, atol=1e-5)
    assert not np.allclose(logits_of(student, heard, None, WARM), expected, atol=1e-3)


def test_a_pack_learns_what_speakers_it_has_not_heard_share(student: Student) -> None:
    before = {name: value.clone() for name, value in student.state_dict().items()}
    held = leave_speakers_out(student, made_up(student), noise(student), PackSettings())
    figures = held.to_plain()
    assert figures["cold"][1] > figures["cold"][0] + 0.2 and figures["warm"][1] > figures["warm"][0] + 0.2
    assert held.gain == pytest.approx(np.mean([after - before for before, after in figures.values()]), abs=1e-3)
    assert len(held.truth) == 120
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_a_pack_finds_no_emotion_in_noise(student: Student) -> None:
    heard, sounds = made_up(student), noise(student)
    pack = learn_pack(student, joined(heard, sounds), PackSettings())
    shares, spoken = (
        torch.softmax(torch.from_numpy(logits_of(student, what, pack, FRESH)), -1) for what in (sounds, heard)
    )
    assert shares.max(1).values.mean() < spoken.max(1).values.mean()


def test_the_same_seed_gives_the_same_pack_and_decay_makes_it_smaller(student: Student) -> None:
    heard = made_up(student)
    packs = [learn_pack(student, heard, PackSettings(weight_decay=decay), seed=3) for decay in (0.1, 0.1, 30.0)]
    assert np.array_equal(packs[0].up, packs[1].up)
    assert np.abs(packs[2].up).sum() < np.abs(packs[0].up).sum()


def test_groups_share_no_speaker_and_one_speaker_is_refused(student: Student) -> None:
    heard = made_up(student, clips=40, speakers=7)
    groups = speaker_groups(heard, 4, seed=1)
    assert sorted(place for group in groups for place in group) == list(range(40))
    owners = [set(heard.speakers[group].tolist()) for group in groups]
    assert sum(map(len, owners)) == 7
    with pytest.raises(ConfigError, match="two or more"):
        speaker_groups(made_up(student, speakers=1), 4, seed=1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student with random weights, as `train.distill` would keep it."""
    folder, student = tmp_path_factory.mktemp("students"), tiny_student()
    save_checkpoint(folder / "encoder.safetensors", student.speech.state_dict(), {})
    nothing: dict[str, object] = {"licence": "none", "training_data": [], "validation": {}, "speakers": {}}
    header = {"name": "lora", "tier": "clean", "settings": {"model": asdict(student.config)}, **nothing}
    save_student(folder / "lora.safetensors", student, folder / "encoder.safetensors", header)
    return folder / "lora.safetensors"


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Path:
    assert export.to_onnx.main([str(checkpoint), "--out", str(checkpoint.parent / "lora")]) == 0
    return checkpoint.parent / "lora"


def words(checkpoint: Path, base: Path, miniature: Path, *more: str) -> list[str]:
    given = [str(checkpoint), "--base", str(base), "--data", str(miniature), "--seeds", "1", "--language", "xx"]
    return [*given, "--out", str(checkpoint.parent / "lora-xx"), *more]


def test_the_command_writes_a_bundle_that_answers_as_the_student_with_its_pack(
    bundle: Path, checkpoint: Path, miniature: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(checkpoint, bundle, miniature, "--corpus", "beta")) == 0
    assert "trial 1, UA of speakers left out: cold" in capsys.readouterr().out
    pack_bundle = Bundle.open(checkpoint.parent / "lora-xx")
    assert sum(path.stat().st_size for path in pack_bundle.folder.iterdir()) < 40_000
    assert pack_bundle.manifest.training_data[-1].speakers == 4
    assert "voice unknown" in pack_bundle.read("MODEL_CARD.md").decode()
    student, _ = read_student(checkpoint)
    clips = read_manifest(miniature / "speech" / "manifest.csv")[::43]
    pack = LanguagePack.from_bytes(pack_bundle.read("pack.npz"), "pack.npz")
    expected = pack_bundle.manifest.calibration.probabilities(
        logits_of(student, listen(student, clips, FOUR_CLASSES), pack, FRESH)
    )
    for model, is_same in ((pack_bundle.folder, True), (bundle, False)):
        recognizer = edge_ser.load(model)
        for clip, shares in zip(clips, expected, strict=True):
            got = recognizer.judge(read_spoken(clip.path)).probabilities
            assert np.allclose([got[label] for label in FOUR_CLASSES], shares, atol=1e-3) == is_same


def test_a_pack_that_does_not_help_is_not_written(
    bundle: Path, checkpoint: Path, miniature: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Held, "gain", -0.01)
    out = checkpoint.parent / "none"
    assert main([*words(checkpoint, bundle, miniature, "--corpus", "beta"), "--out", str(out)]) == 1
    assert "does not help speakers left out (-1.0 points of UA); nothing written" in capsys.readouterr().err
    assert not out.exists()


def test_what_does_not_fit_is_one_line(
    bundle: Path, checkpoint: Path, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = read_manifest(miniature / "speech" / "manifest.csv")[0].path
    (tmp_path / "bored.csv").write_text(f"path,label,speaker\n{clip},bored,anna\n")
    (tmp_path / "unnamed.csv").write_text(f"path,label\n{clip},happy\n")
    plain = write_tiny_bundle(tmp_path / "plain")
    other = write_tiny_bundle(tmp_path / "other", pack=True)
    for base, more, said in (
        (bundle, ["--corpus", "gamma"], "no clip of gamma"),
        (bundle, ["--corpus", "alpha", "--files", "*.opus"], "is called *.opus"),
        (bundle, ["--shots", str(tmp_path / "bored.csv")], "labelled bored"),
        (bundle, ["--shots", str(tmp_path / "unnamed.csv")], "without a speaker"),
        (plain, ["--corpus", "alpha"], "takes no language packs"),
        (other, ["--corpus", "alpha"], "exported from another checkpoint"),
    ):
        assert main([*words(checkpoint, base, miniature, *more), "--out", str(tmp_path / "none")]) == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
