"""The workshop end to end on a synthesised corpus: train, resume, evaluate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from train.checkpoint import read_checkpoint  # noqa: E402
from train.evaluate import main as evaluate  # noqa: E402
from train.finetune import main as finetune  # noqa: E402


def run(settings: Path, data: Path, folder: Path, *more: str) -> int:
    return finetune([str(settings), "--data", str(data), "--run", str(folder), "--threads", "1", *more])


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
    import train.finetune

    save = train.finetune.Trainer.save

    def save_and_stop(self: train.finetune.Trainer) -> None:
        save(self)
        if self.epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(train.finetune.Trainer, "save", save_and_stop)
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
    assert message.startswith("finetune: ") and "colour" in message and message.count("\n") == 1


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
