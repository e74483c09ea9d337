"""Pictures of an evaluation: all there, the same every time, and honest about what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install -e '.[train]'")

from tests.train.canned_evaluation import evaluation
from train.report import main

PNG = b"\x89PNG"


def write(folder: Path, figures: dict[str, object]) -> Path:
    path = folder / f"{figures['model']}.json"
    path.write_text(json.dumps(figures), encoding="utf-8")
    return path


def test_a_model_gets_five_pictures_several_are_compared_and_the_same_figures_give_the_same_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = (str(write(tmp_path, evaluation(name))) for name in ("one", "two"))
    assert main([one, "--out", str(tmp_path / "alone")]) == 0
    printed = capsys.readouterr().out.splitlines()
    alone = sorted((tmp_path / "alone" / "one").iterdir())
    assert [path.stem for path in alone] == [
        *("cold-to-warm", "reliability", "risk-coverage", "seconds-heard", "utterances-heard"),
    ]
    assert {str(path) for path in alone} == set(printed)
    assert main([one, two, "--out", str(tmp_path / "both")]) == 0
    for path in alone:
        assert path.read_bytes()[:4] == PNG
        assert path.read_bytes() == (tmp_path / "both" / "one" / path.name).read_bytes()
    assert (tmp_path / "both" / "models.png").read_bytes()[:4] == PNG
    assert (tmp_path / "both" / "two" / "reliability.png").is_file()


def test_without_known_voices_and_sure_answers_the_rest_is_drawn(tmp_path: Path) -> None:
    figures = evaluation()
    for corpus in figures["corpora"].values():
        corpus["warm"] = None
        corpus.pop("utterances_heard", None)
    for voices in figures["pooled"].values():
        voices.pop("warm")
        voices["cold"].update(certain_share=0.0, certain_accuracy=None)
    assert main([str(write(tmp_path, figures)), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out" / "tiny").iterdir())) == 4


def test_a_file_that_is_no_evaluation_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"model": "tiny"}')
    assert main([str(wrong), "--out", str(tmp_path / "out")]) == 1
    message = capsys.readouterr().err
    assert "need the JSON of python -m train.evaluate" in message and message.count("\n") == 1
