from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from train.checkpoint import read_checkpoint, save_checkpoint  # noqa: E402
from train.examples import Example  # noqa: E402
from train.experiment import Experiment  # noqa: E402
from train.finetune import main, parser  # noqa: E402
from train.run_folder import RunFolder, stored_state  # noqa: E402
from train.systems import Inputs, Output, System  # noqa: E402

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "train" / "configs" / "smoke"
QUICK = """
system = "bilstm"
name = "quick"
preset = "tiny"
validation_fraction = 0.2
test_fraction = 0.2

[features.speech]
kind = "mfcc40"

[fit]
epochs = 2
learning_rate = 1e-2
device = "cpu"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose made-up corpus and features the runs in it share."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def settings(place: Path) -> Path:
    path = place / "quick.toml"
    # The BiLSTM over MFCCs needs no encoder, and so no second for loading one.
    path.write_text(QUICK + "\n[model]\nspeech_width = 40\nmodalities = 'speech'\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(place: Path, settings: Path) -> Path:
    assert main([str(settings), "--synthetic", "--run", str(place / "first")]) == 0
    return place / "first"


def test_a_run_leaves_everything_that_one_wants_to_know(run: Path) -> None:
    left = {path.name for path in run.iterdir()}
    files = "config.json split.json metrics.jsonl last.safetensors best.safetensors report.json"
    assert {*files.split(), "confusion.png", "curves.png"} == left
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert config["fit"]["seed"] == config["seed"] == 1
    assert config["versions"]["torch"] == torch.__version__
    split = json.loads((run / "split.json").read_text(encoding="utf-8"))
    assert {len(split[side]) for side in split} == {6, 2}
    assert len((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_the_report_has_every_figure_with_its_interval(run: Path) -> None:
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    for side in ("validation", "test"):
        for figure in ("ua", "wa", "wf1", "uwf1"):
            value = report[side][figure]
            assert 0.0 <= value["low"] <= value["value"] <= value["high"] <= 1.0
        assert 0.0 <= report[side]["ece"] <= 1.0
        assert report[side]["speakers"] == 2
        assert sum(map(sum, report[side]["confusion"])) == report[side]["utterances"] == 24
    assert report["classes"] == ["angry", "happy", "neutral", "sad"]


def test_the_same_command_again_trains_nothing(run: Path, settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "last.safetensors").stat().st_mtime_ns
    assert main([str(settings), "--synthetic", "--run", str(run)]) == 0
    assert (run / "last.safetensors").stat().st_mtime_ns == before
    assert "test UA" in capsys.readouterr().out


def test_another_experiment_does_not_go_on_in_the_same_folder(
    run: Path, place: Path, settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "config.json").read_bytes()
    other = place / "other.toml"
    other.write_text(settings.read_text(encoding="utf-8") + "dropout = 0.5\n", encoding="utf-8")
    assert main([str(other), "--synthetic", "--run", str(run)]) == 1
    assert "another model" in capsys.readouterr().err
    assert (run / "config.json").read_bytes() == before


def test_the_test_side_is_not_read_before_training_has_ended(
    place: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import train.finetune as module

    order: list[str] = []
    examples, fit = module.Workbench.examples, module.fit

    def reading(self: object, clips: object, side: str | None = None) -> object:
        order.append(str(side))
        return examples(self, clips, side)  # type: ignore[arg-type]

    def fitting(*given: object) -> object:
        order.append("fit")
        return fit(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(module.Workbench, "examples", reading)
    monkeypatch.setattr(module, "fit", fitting)
    assert main([str(settings), "--synthetic", "--run", str(place / "order")]) == 0
    assert order == ["train", "validation", "fit", "test"]


def test_a_temperature_is_fitted_on_whole_utterances_and_calibrates_the_report(tmp_path: Path) -> None:
    from train.experiment import Sides
    from train.finetune import _judge, _store_temperature
    from train.fit import FitResult

    class Sure(System):
        """Says the right class in three of four utterances, and is very sure each time."""

        reads = ("speech",)

        def __init__(self) -> None:
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor(30.0))
            self.register_buffer("temperature", torch.ones(()))
            self.seen: list[int] = []

        def forward(self, inputs: Inputs) -> Output:
            said = inputs["speech"].mean(1)
            return Output(self.gain * said, said)

        def fit_temperature(self, logits: torch.Tensor, emotion: torch.Tensor) -> float:
            self.seen.append(len(emotion))
            self.temperature.fill_(12.0)
            return 12.0

    # Two pieces of each utterance.
    examples = [
        Example(
            Path(f"{place // 2}.wav"),
            f"s{place // 4}",
            "made",
            {"speech": np.eye(4, dtype=np.float32)[[(place // 2 + (place % 8 > 5)) % 4]]},
            emotion=place // 2 % 4,
        )
        for place in range(32)
    ]
    system = Sure()
    RunFolder(tmp_path).save_best(stored_state(system), {"epoch": 1})
    split = Sides([], [], [])
    bench = SimpleNamespace(experiment=Experiment("mdat", "x"), classes=tuple("abcd"))
    raw = _judge(bench, system, split, examples, FitResult(1, 0.5, []), tmp_path)  # type: ignore[arg-type]
    _store_temperature(system, examples, tmp_path)
    cooled = _judge(bench, system, split, examples, FitResult(1, 0.5, []), tmp_path)  # type: ignore[arg-type]
    assert system.seen == [16] and cooled["temperature"] == 12.0 and "temperature" not in raw
    assert read_checkpoint(tmp_path / "best.safetensors")[1]["temperature"] == 12.0
    before, after = raw["validation"], cooled["validation"]
    assert before["ece"] == pytest.approx(0.25, abs=0.01) and after["ece"] < 0.1
    assert all(before[name] == after[name] for name in ("ua", "wa", "confusion"))


def test_a_run_may_begin_with_anothers_weights_but_not_with_ears_for_the_test(
    run: Path, place: Path, settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["--start", str(run / "best.safetensors")]
    assert main([str(settings), "--synthetic", "--run", str(place / "on"), "--epochs", "0", *start]) == 0
    first, again = (json.loads((folder / "report.json").read_text()) for folder in (run, place / "on"))
    assert again["test"] == first["test"]
    # Who was heard is in the file itself: neither a copy nor a run in between forgets it.
    copied = place / "copy" / "model.safetensors"
    copied.parent.mkdir()
    shutil.copy(run / "best.safetensors", copied)
    for checkpoint in (run / "best.safetensors", copied):
        begin = ["--seed", "9", "--start", str(checkpoint)]
        assert main([str(settings), "--synthetic", "--run", str(place / "leak"), *begin]) == 1
        assert "now to be tested" in capsys.readouterr().err
    tensors, header = read_checkpoint(copied)
    save_checkpoint(copied, tensors, {name: value for name, value in header.items() if name != "heard"})
    begin = ["--start", str(copied)]
    assert main([str(settings), "--synthetic", "--run", str(place / "silent"), *begin]) == 1
    assert "does not say who was heard" in capsys.readouterr().err


def test_a_checkpoint_of_another_system_is_refused(
    run: Path, place: Path, settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wider = place / "wider.toml"
    wider.write_text(settings.read_text(encoding="utf-8") + "hidden = 5\n", encoding="utf-8")
    begin = ["--start", str(run / "best.safetensors")]
    assert main([str(wider), "--synthetic", "--run", str(place / "wide"), *begin]) == 1
    assert "another system" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.toml"], "no settings at absent.toml"),
        ([str(SMOKE / "mdat.toml")], "pass --data FOLDER"),
        ([str(SMOKE / "mdat.toml"), "--encoder", "speech"], "need FEATURE=FOLDER"),
        ([str(SMOKE / "mdat.toml"), "--synthetic", "--threads", "0"], "--threads is 0"),
        ([str(SMOKE / "mdat.toml"), "--synthetic", "--seed", "-4"], "seed is -4"),
        ([str(SMOKE / "mdat.toml"), "--synthetic", "--encoder", "speech=tiny:wav3"], "tiny:wav3"),
        ([str(SMOKE / "mdat.toml"), "--data", "nowhere"], "no manifest at nowhere"),
    ],
)
def test_what_a_newcomer_types_wrong_is_said_in_one_line(
    arguments: list[str],
    message: str,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("EDGE_SER_DATA", raising=False)
    assert main([*arguments, "--run", str(place / "wrong")]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1] and lines[-1].startswith("finetune: ")


def test_help_tells_a_stranger_what_to_type() -> None:
    text = parser().format_help()
    examples = [line.strip() for line in text.splitlines() if line.strip().startswith(("python -m", "accelerate"))]
    assert len(examples) >= 4
    for word in ("--synthetic", "--data", "--encoder speech=", "accelerate launch"):
        assert word in text
    for line in examples:
        settings = next(word for word in line.split() if word.endswith(".toml"))
        assert (ROOT / settings).is_file()


def test_the_weights_on_disk_are_those_that_were_judged(run: Path) -> None:
    tensors, header = read_checkpoint(run / "best.safetensors")
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert header["epoch"] == report["best_epoch"]
    assert sum(t.numel() for t in tensors.values()) == sum(report["parameters"].values())


def test_smoke_of_a_system_that_trains_its_encoder_and_then_a_language(place: Path) -> None:
    first, second = place / "lora-en", place / "lora-zh"
    assert main([str(SMOKE / "lora.toml"), "--synthetic", "--run", str(first), "--epochs", "1"]) == 0
    stage = place / "stage2.toml"
    text = (SMOKE / "lora.toml").read_text(encoding="utf-8")
    stage.write_text(text.replace("seed = 1", 'stage = "zh"\nseed = 1'), encoding="utf-8")
    begin = ["--start", str(first / "best.safetensors"), "--epochs", "1"]
    assert main([str(stage), "--synthetic", "--run", str(second), *begin]) == 0
    stored, _ = read_checkpoint(second / "best.safetensors")
    assert any("lora_b" in name for name in stored)
    # The encoder rests in this stage: only what was learnt is kept.
    assert (second / "best.safetensors").stat().st_size < (first / "best.safetensors").stat().st_size
    assert (second / "pack-zh.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mdat", "bilstm", "hump-cat", "camulenet", "mha", "mdre", "lora"])
def test_every_smoke_file_runs_and_learns_something(name: str, place: Path) -> None:
    assert main([str(SMOKE / f"{name}.toml"), "--synthetic", "--run", str(place / name)]) == 0
    report = json.loads((place / name / "report.json").read_text(encoding="utf-8"))
    assert report["seconds"] < 60
    figure = report["validation"].get("ua", report["validation"].get("ccc"))["value"]
    assert figure > (0.05 if name == "lora" else 0.4)


@pytest.mark.slow
def test_two_processes_under_accelerate_come_to_the_same_metrics(place: Path, tmp_path: Path) -> None:
    settings = tmp_path / "still.toml"
    # Without dropout there is nothing that processes draw apart.
    settings.write_text(
        QUICK + "\n[model]\nspeech_width = 40\nmodalities = 'speech'\ndropout = 0.0\n", encoding="utf-8"
    )
    command = [str(settings), "--synthetic", "--cpu", "--epochs", "4"]
    assert main([*command, "--run", str(tmp_path / "one")]) == 0
    launch = [str(Path(sys.executable).with_name("accelerate")), "launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    if not shutil.which(launch[0]):
        pytest.skip("accelerate's command is not beside python")
    subprocess.run(
        [*launch, "-m", "train.finetune", *command, "--run", str(tmp_path / "two")],
        check=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    for alone, shared in zip(one, two, strict=True):
        assert shared["loss"] == pytest.approx(alone["loss"], abs=1e-3)
        assert shared["validation_ua"] == pytest.approx(alone["validation_ua"], abs=0.05)
    assert json.loads((tmp_path / "two" / "config.json").read_text())["processes"] == 2
