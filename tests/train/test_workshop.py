"""The workshop end to end on a synthesised corpus: train, resume, evaluate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from train.checkpoint import read_checkpoint  # noqa: E402
from train.distill import main as distill  # noqa: E402
from train.evaluate import main as evaluate  # noqa: E402


def run(settings: Path, data: Path, folder: Path, *more: str) -> int:
    return distill([str(settings), "--data", str(data), "--run", str(folder), "--threads", "1", *more])


def test_a_run_leaves_what_is_needed_to_understand_and_repeat_it(finished_run: Path) -> None:
    speakers = json.loads((finished_run / "split.json").read_text())
    assert not set(speakers["train"]) & set(speakers["test"])
    records = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    _, header = read_checkpoint(finished_run / "best.safetensors")
    materials = header["training_data"]
    assert isinstance(materials, list)
    assert {row["corpus"] for row in materials} >= {"alpha", "beta"}


def test_resuming_ends_bit_identical_to_an_uninterrupted_run(
    finished_run: Path, miniature: Path, settings_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = tmp_path / "tiny"
    interrupted.mkdir()
    shutil.copy(finished_run / "tokenizer.json", interrupted)
    import train.distill

    save = train.distill.Trainer.save

    def save_and_stop(self: train.distill.Trainer) -> None:
        save(self)
        if self.epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(train.distill.Trainer, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run(settings_file, miniature, interrupted)
    assert run(settings_file, miniature, interrupted) == 0
    expected, _ = read_checkpoint(finished_run / "last.safetensors")
    got, _ = read_checkpoint(interrupted / "last.safetensors")
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_wrong_settings_are_one_line(miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('system = "mdat"\nname = "x"\ncolour = "red"\ncorpora = []\n')
    assert run(wrong, miniature, tmp_path / "run") == 1
    message = capsys.readouterr().err
    assert message.startswith("distill: ") and "colour" in message and message.count("\n") == 1


def test_evaluate_scores_only_speakers_that_were_never_heard(
    fp32_bundle: Path, finished_run: Path, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    code = evaluate(
        [str(fp32_bundle), "--data", str(miniature), "--corpora", "alpha", "--format", "json", "--out", str(out)]
    )
    assert code == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures == json.loads(out.read_text())
    unheard = [s for s in json.loads((finished_run / "split.json").read_text())["test"] if s.startswith("alpha")]
    cold = figures["corpora"]["alpha"]["cold"]
    assert (cold["speakers"], cold["clips"]) == (len(unheard), 8 * len(unheard))
    low, high = cold["ua_interval"]
    assert low <= cold["ua"] <= high


def test_an_unknown_corpus_is_one_line(fp32_bundle: Path, miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate([str(fp32_bundle), "--data", str(miniature), "--corpora", "gamma"]) == 1
    assert "gamma: no clip of an unseen speaker" in capsys.readouterr().err


def test_going_on_with_another_seed_is_refused(
    finished_run: Path, settings_file: Path, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved.toml"
    moved.write_text(settings_file.read_text().replace("seed = 3", "seed = 4"))
    begun = tmp_path / "tiny"
    shutil.copytree(finished_run, begun)
    assert run(moved, miniature, begun) == 1
    assert "was begun with another seed" in capsys.readouterr().err


def test_a_second_stage_learns_from_a_teacher_and_keeps_the_split(
    finished_run: Path, settings_file: Path, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers", reason="distillation needs the extra train")
    teacher = tmp_path / "encoder"
    shape = {"d_model": 16, "encoder_layers": 4, "encoder_attention_heads": 2, "encoder_ffn_dim": 16}
    config = transformers.WhisperConfig(**shape, num_mel_bins=80)
    transformers.models.whisper.modeling_whisper.WhisperEncoder(config).save_pretrained(teacher)
    transformers.WhisperFeatureExtractor(feature_size=80).save_pretrained(teacher)
    second = tmp_path / "second.toml"
    second.write_text(settings_file.read_text().replace("seed = 3", "seed = 3\nteacher_weight = 1.0"))
    best = str(finished_run / "best.safetensors")
    stage = ("--start", best, "--teacher", str(teacher), "--epochs", "1")
    assert run(second, miniature, tmp_path / "run", *stage) == 0
    _, header = read_checkpoint(tmp_path / "run" / "best.safetensors")
    materials, speakers = header["training_data"], header["speakers"]
    assert isinstance(materials, list) and any("teacher" in row["corpus"] for row in materials)
    assert speakers == json.loads((finished_run / "split.json").read_text())
    assert run(second, miniature, tmp_path / "without", "--start", best) == 1
    assert "--teacher belong together" in capsys.readouterr().err


def test_a_start_from_another_split_is_refused(
    finished_run: Path, settings_file: Path, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved.toml"
    moved.write_text(settings_file.read_text().replace("seed = 3", "seed = 4"))
    code = run(moved, miniature, tmp_path / "run", "--start", str(finished_run / "best.safetensors"))
    assert code == 1 and "another split" in capsys.readouterr().err
