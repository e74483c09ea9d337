"""The workshop end to end on a synthesised corpus: distil, resume, keep, evaluate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

import train.students.encoder_distiller as encoder_distiller  # noqa: E402
import train.students.student_trainer as student_trainer  # noqa: E402
from train.checkpoint import read_checkpoint, save_checkpoint  # noqa: E402
from train.distill import main as distill  # noqa: E402
from train.evaluate import main as evaluate  # noqa: E402
from train.keep import keep  # noqa: E402
from train.students.keep import read_student  # noqa: E402


def run(settings: Path, data: Path, teacher: Path, folder: Path, *more: str) -> int:
    return distill([str(settings), "--data", str(data), "--teacher", str(teacher), "--run", str(folder), *more])


def same(first: Path, second: Path) -> bool:
    expected, got = read_checkpoint(first)[0], read_checkpoint(second)[0]
    return expected.keys() == got.keys() and all(torch.equal(expected[name], got[name]) for name in expected)


def test_a_run_leaves_what_is_needed_to_understand_and_repeat_it(encoder_run: Path, students_run: Path) -> None:
    _, header = read_checkpoint(encoder_run / "encoder.safetensors")
    speakers = json.loads(json.dumps(header["speakers"]))
    assert not set(speakers["train"]) & {*speakers["test"], *speakers["validation"]}
    assert {row["corpus"] for row in json.loads(json.dumps(header["training_data"]))} >= {"alpha", "beta"}
    records = [json.loads(line) for line in (students_run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [3, 6]
    assert set(records[-1]["validation_ua"]["mdat"]) == {"cold", "warm", "wrong", "text"}


def test_students_keep_an_opinion_of_their_own_and_know_what_is_familiar(students_run: Path) -> None:
    guessed = read_checkpoint(students_run / "encoder.safetensors")[0]["opinion.weight"]
    student, _ = read_student(students_run / "lora.safetensors")
    assert not torch.allclose(student.voice.alone.weight, guessed[: len(guessed) // 2].float(), atol=1e-3)
    assert student.familiarity.directions.abs().sum() > 0 and student.familiarity.typical < 1e4


@dataclass(frozen=True)
class Stage:
    """A stage whose run is finished, and how to run it again."""

    kind: type[encoder_distiller.EncoderRun | student_trainer.StudentRun]
    finished: Path
    run_in: Callable[[Path], int]


@pytest.fixture
def stages(
    encoder_run: Path, students_run: Path, miniature: Path, student_settings: tuple[Path, Path], tiny_teacher: Path
) -> tuple[Stage, Stage]:
    def again(settings: Path, *more: str) -> Callable[[Path], int]:
        return lambda folder: run(settings, miniature, tiny_teacher, folder, *more)

    return (
        Stage(encoder_distiller.EncoderRun, encoder_run, again(student_settings[0])),
        Stage(student_trainer.StudentRun, students_run, again(student_settings[1], "--encoder", str(encoder_run))),
    )


def test_both_stages_resume_bit_identical_to_an_uninterrupted_run(
    stages: tuple[Stage, Stage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in stages:
        interrupted = tmp_path / stage.finished.name
        save = stage.kind.save

        def save_and_stop(self: object, where: object, save: object = save) -> None:
            save(self, where)  # type: ignore[operator]
            if self.step_number == 3:  # type: ignore[attr-defined]
                raise KeyboardInterrupt

        monkeypatch.setattr(stage.kind, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            stage.run_in(interrupted)
        assert stage.run_in(interrupted) == 0
        assert same(stage.finished / "last.safetensors", interrupted / "last.safetensors")


def test_students_of_another_version_are_not_gone_on_with(
    stages: tuple[Stage, Stage], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    students = stages[1]
    shutil.copytree(students.finished, tmp_path / "students")
    last = tmp_path / "students" / "last.safetensors"
    tensors, header = read_checkpoint(last)
    save_checkpoint(last, {name: value for name, value in tensors.items() if not name.endswith("openness")}, header)
    assert students.run_in(tmp_path / "students") == 1
    assert "lacks voice.openness: another version began it" in capsys.readouterr().err


def test_wrong_settings_are_one_line(
    miniature: Path, tiny_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.toml"
    for text, word in (
        ('stage = "encoder"\nname = "x"\ntier = "clean"\ncolour = "red"\ncorpora = []\n', "colour"),
        ('stage = "third"\n', "third"),
        ("steps = 3\n", "stage"),
    ):
        wrong.write_text(text)
        assert run(wrong, miniature, tiny_teacher, tmp_path / "run") == 1
        message = capsys.readouterr().err
        assert message.startswith("distill: ") and word in message and message.count("\n") == 1


def test_going_on_with_other_settings_is_refused(
    encoder_run: Path,
    student_settings: tuple[Path, Path],
    miniature: Path,
    tiny_teacher: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    moved = tmp_path / "moved.toml"
    moved.write_text(student_settings[0].read_text().replace("seed = 3", "seed = 4"))
    begun = tmp_path / "encoder"
    shutil.copytree(encoder_run, begun)
    assert run(moved, miniature, tiny_teacher, begun) == 1
    assert "was begun with another seed" in capsys.readouterr().err


def test_beginning_with_an_encoder_that_heard_a_test_speaker_is_refused(
    encoder_run: Path,
    student_settings: tuple[Path, Path],
    miniature: Path,
    tiny_teacher: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    moved = tmp_path / "moved.toml"
    moved.write_text(student_settings[0].read_text().replace("seed = 3", "seed = 4"))
    assert run(moved, miniature, tiny_teacher, tmp_path / "run", "--start", str(encoder_run)) == 1
    assert "must be unheard here" in capsys.readouterr().err


def test_students_are_kept_with_their_encoder_and_only_with_it(students_run: Path, tmp_path: Path) -> None:
    from edge_ser.errors import ConfigError

    kept = keep(students_run, tmp_path)
    assert kept == tmp_path / "clean"
    student, header = read_student(kept / "camulenet.safetensors")
    assert header["name"] == "camulenet"
    assert not [name for name in read_checkpoint(kept / "camulenet.safetensors")[0] if "gender" in name]
    assert student(torch.randn(1, 16_000) * 0.1, torch.zeros(1, 65))[0].shape == (1, 4)
    tensors, about = read_checkpoint(kept / "encoder.safetensors")
    from train.checkpoint import save_checkpoint

    save_checkpoint(kept / "encoder.safetensors", tensors, about | {"step": -1})
    with pytest.raises(ConfigError, match="is not the encoder"):
        read_student(kept / "camulenet.safetensors")


def test_evaluate_scores_only_speakers_that_were_never_heard(
    fp32_bundle: Path, encoder_run: Path, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    code = evaluate(
        [str(fp32_bundle), "--data", str(miniature), "--corpora", "alpha", "--format", "json", "--out", str(out)]
    )
    assert code == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures == json.loads(out.read_text())
    _, header = read_checkpoint(encoder_run / "encoder.safetensors")
    unheard = [s for s in json.loads(json.dumps(header["speakers"]))["test"] if s.startswith("alpha")]
    cold = figures["corpora"]["alpha"]["cold"]
    assert (cold["speakers"], cold["clips"]) == (len(unheard), 8 * len(unheard))
    low, high = cold["ua_interval"]
    assert low <= cold["ua"] <= high


def test_an_unknown_corpus_is_one_line(fp32_bundle: Path, miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate([str(fp32_bundle), "--data", str(miniature), "--corpora", "gamma"]) == 1
    assert "gamma: no clip of an unseen speaker" in capsys.readouterr().err
