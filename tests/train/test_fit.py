from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from accelerate import Accelerator  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from edge_ser.errors import ConfigError  # noqa: E402
from edge_ser.metrics import ccc  # noqa: E402
from train.checkpoint import read_checkpoint  # noqa: E402
from train.early_stopping import Patience, Plateau  # noqa: E402
from train.examples import Example, collate, exchange  # noqa: E402
from train.fit import (  # noqa: E402
    FitSettings,
    Trainer,
    class_weighted_loss,
    embed,
    fit,
    predict,
    train_parameters,
)
from train.gradients import EffectiveBatch  # noqa: E402
from train.layers import masked_mean  # noqa: E402
from train.run_folder import RunFolder, fingerprint  # noqa: E402
from train.systems import Inputs, Output, System, Targets  # noqa: E402

WIDTH = 8


class Pooled(System):
    """Mean over frames and two layers, with dropout, so that a repeated pass has something to repeat."""

    reads: ClassVar[tuple[str, ...]] = ("speech",)

    def __init__(self, classes: int = 4, rated: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rated = rated
        self.hidden = nn.Linear(WIDTH, 16)
        self.dropout = nn.Dropout(0.3)
        self.out = nn.Linear(16, classes)

    def forward(self, inputs: Inputs) -> Output:
        embedding = self.dropout(torch.relu(self.hidden(masked_mean(inputs["speech"], inputs["speech_mask"]))))
        return Output(self.out(embedding), embedding)

    def loss(self, output: Output, targets: Targets) -> Tensor:
        if not self.rated:
            return super().loss(output, targets)
        x, y = output.logits.float(), targets["attributes"]
        covariance = ((x - x.mean(0)) * (y - y.mean(0))).mean(0)
        spread = x.var(0, unbiased=False) + y.var(0, unbiased=False) + (x.mean(0) - y.mean(0)) ** 2
        return 1.0 - (2.0 * covariance / (spread + 1e-8)).mean()


def examples(count: int, seed: int = 0, *, rated: bool = False) -> list[Example]:
    """Utterances whose mean frame leans towards their class."""
    rng = np.random.default_rng(seed)
    made = []
    for place in range(count):
        emotion = place % 4
        frames = rng.standard_normal((rng.integers(3, 9), WIDTH)).astype(np.float16)
        frames[:, emotion] += 1.0
        made.append(
            Example(
                Path(f"{seed}-{place}.wav"),
                f"speaker-{place % 5}",
                "made",
                {"speech": frames},
                -1 if rated else emotion,
                place % 2,
                tuple(rng.uniform(size=3)) if rated else None,
            )
        )
    return made


QUICK = FitSettings(epochs=3, learning_rate=1e-2, batch_size=16, device="cpu", seed=5)


def gradient(system: System, batch: list[Example], parts: int) -> Tensor:
    system.zero_grad(set_to_none=True)
    EffectiveBatch(system, system.loss, Accelerator(cpu=True)).backward(batch, parts)
    return torch.cat([p.grad.flatten() for p in train_parameters(system) if p.grad is not None])


def plain_average(system: System, batch: list[Example], parts: int) -> Tensor:
    size = len(batch) // parts
    return torch.stack([gradient(system, batch[i : i + size], 1) for i in range(0, len(batch), size)]).mean(0)


@pytest.mark.parametrize("rated", [False, True], ids=["cross-entropy", "ccc"])
def test_micro_batches_give_the_gradient_of_the_whole_batch(rated: bool) -> None:
    system = Pooled(3 if rated else 4, rated).eval()
    batch = examples(32, rated=rated)
    whole = gradient(system, batch, 1)
    assert whole.abs().max() > 1e-3
    assert torch.allclose(gradient(system, batch, 4), whole, atol=1e-5)
    if rated:
        assert (plain_average(system, batch, 4) - whole).abs().max() > 1e-3


def test_the_second_pass_repeats_the_dropout_of_the_first() -> None:
    system = Pooled().train()
    batch = examples(32)
    torch.manual_seed(3)
    loss = EffectiveBatch(system, system.loss, Accelerator(cpu=True)).backward(batch, 4)
    replayed = torch.cat([p.grad.flatten() for p in system.parameters()])
    torch.manual_seed(3)
    system.zero_grad()
    parts = [system(collate(batch[start : start + 8])[0]).logits for start in range(0, 32, 8)]
    logits = torch.cat(parts)
    direct = system.loss(Output(logits, logits), collate(batch)[1])
    direct.backward()
    assert loss == pytest.approx(direct.item(), abs=1e-6)
    assert torch.allclose(replayed, torch.cat([p.grad.flatten() for p in system.parameters()]), atol=1e-6)


class Normalised(Pooled):
    """Has running statistics and a parameter that the loss alone reads."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(16)
        self.offset = nn.Parameter(torch.zeros(4))

    def forward(self, inputs: Inputs) -> Output:
        output = super().forward(inputs)
        return Output(self.out(self.norm(output.embedding)), output.embedding)

    def loss(self, output: Output, targets: Targets) -> Tensor:
        return nn.functional.cross_entropy(output.logits.float() + self.offset, targets["emotion"])


def test_running_statistics_count_each_micro_batch_once_and_the_loss_has_its_own_parameters() -> None:
    system = Normalised().train()
    gradient(system, examples(32), 4)
    assert int(system.norm.num_batches_tracked) == 4
    assert system.offset.grad is not None and system.offset.grad.abs().max() > 1e-3


def test_class_weights_make_rare_classes_count_as_much() -> None:
    system = Pooled().eval()
    batch = [e for e in examples(40) if e.emotion < 2][:20] + [e for e in examples(40, 9) if e.emotion == 2][:2]
    inputs, targets = collate(batch)
    output = system(inputs)
    counts = np.bincount([e.emotion for e in batch])
    ours = class_weighted_loss(system, output, targets, counts)
    weight = torch.tensor([len(batch) / float(n) for n in counts] + [0.0])
    reference = nn.functional.cross_entropy(output.logits, targets["emotion"], weight=weight)
    assert torch.allclose(ours, reference, atol=1e-6)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_fit_learns_and_keeps_the_best_epoch(accumulation: int) -> None:
    system, validation = Pooled(), examples(40, 1)
    result = fit(system, examples(80), validation, replace(QUICK, epochs=6, accumulation=accumulation))
    best = max(result.history, key=lambda line: (line["validation_ua"], -line["epoch"]))
    assert result.best == best["validation_ua"] > 0.5
    assert result.best_epoch == best["epoch"]
    assert not system.training
    truth = np.array([e.emotion for e in validation])
    assert np.mean(predict(system, validation).argmax(1) == truth) == pytest.approx(best["validation_wa"])


def test_micro_batches_change_nothing_that_is_learnt() -> None:
    whole, parts = Pooled(), Pooled()
    for system, accumulation in ((whole, 1), (parts, 4)):
        system.dropout.p = 0.0
        fit(system, examples(48), [], replace(QUICK, accumulation=accumulation))
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    weights = []
    for seed in (1, 1, 2):
        system = Pooled()
        fit(system, examples(48), examples(16, 1), replace(QUICK, seed=seed))
        weights.append(torch.cat([p.flatten() for p in system.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_ccc_is_selected_over_the_whole_validation_set() -> None:
    system, validation = Pooled(3, rated=True), examples(30, 1, rated=True)
    result = fit(system, examples(33, rated=True), validation, replace(QUICK, select="ccc", batch_size=16))
    values = predict(system, validation)
    truth = np.array([e.attributes for e in validation])
    expected = np.mean([ccc(truth[:, column], values[:, column]) for column in range(3)])
    assert result.best == pytest.approx(expected, abs=1e-6)
    # The last batch would have held one utterance, of which there is no CCC.
    assert all(np.isfinite(line["loss"]) for line in result.history)


def test_without_validation_the_last_weights_stay_and_a_low_loss_stops() -> None:
    result = fit(Pooled(), examples(16), [], replace(QUICK, epochs=300, learning_rate=0.05, stop_below=0.3))
    assert result.best_epoch == len(result.history) < 300
    assert np.isnan(result.best)
    assert result.history[-1]["loss"] < 0.3 <= result.history[-2]["loss"]


def test_no_epoch_leaves_the_weights_alone() -> None:
    system, fresh = Pooled(), Pooled()
    result = fit(system, examples(16), [], replace(QUICK, epochs=0))
    assert result.best_epoch == 0
    assert all(torch.equal(a, b) for a, b in zip(system.parameters(), fresh.parameters(), strict=True))


def test_patience_counts_flat_epochs_and_the_rate_falls_first() -> None:
    # As published for the attention fusion: a tenth after 5 flat epochs, the end after 10.
    stopping, plateau = Patience("loss", 10), Plateau("loss", 5, 0.1)
    rates, rate = [], 1e-4
    for value in [1.0] * 12:
        stopping.update(value)
        rate *= plateau.update(value)
        rates.append(rate)
        if stopping.ended:
            break
    assert len(rates) == 11
    assert rates[:5] == [1e-4] * 5
    assert rates[5:10] == pytest.approx([1e-5] * 5)


def test_patience_knows_which_way_is_better_and_ignores_nan() -> None:
    loss, ua = Patience("loss", 2), Patience("ua", 2)
    assert [loss.update(v) for v in (1.0, 0.5, float("nan"), 0.5)] == [True, True, False, False]
    assert [ua.update(v) for v in (0.5, 0.4, 0.6)] == [True, False, True]
    assert loss.ended and not ua.ended


def test_stopping_and_plateau_watch_the_monitor_and_selection_its_own_metric() -> None:
    frozen = replace(QUICK, epochs=50, learning_rate=1e-30, select="wa", monitor="loss", patience=4)
    settings = replace(frozen, schedule="plateau", plateau_patience=2, plateau_factor=0.1)
    result = fit(Pooled(), examples(16), examples(16, 1), settings)
    assert len(result.history) == 5
    assert result.history[-1]["learning_rate"] == pytest.approx(1e-31)


def test_rates_single_out_parameters_and_frozen_ones_stay() -> None:
    system = Pooled()
    system.hidden.weight.requires_grad_(False)
    trainer = Trainer(system, examples(16), [], replace(QUICK, rates={"out.": 5e-3}))
    assert sorted(group["lr"] for group in trainer.optimiser.param_groups) == [5e-3, 1e-2]
    before = system.hidden.weight.clone()
    trainer.epoch_once()
    assert torch.equal(system.hidden.weight, before)
    with pytest.raises(ConfigError, match="rates names lora"):
        Trainer(system, examples(16), [], replace(QUICK, rates={"lora": 1e-4}))


def test_predictions_keep_the_order_and_do_not_depend_on_the_batch() -> None:
    system, given = Pooled().train(), examples(23)
    together = predict(system, given, 64)
    assert system.training
    assert np.allclose(together, np.concatenate([predict(system, [e]) for e in given]), atol=1e-5)
    assert embed(system, given, 7).shape == (23, 16)


def test_bf16_trains_with_finite_losses() -> None:
    result = fit(Pooled(), examples(32), examples(16, 1), replace(QUICK, precision="bf16"))
    assert all(np.isfinite(line["loss"]) for line in result.history)


def test_statistics_are_taken_once_from_the_training_side_alone() -> None:
    class Standardised(Pooled):
        seen: ClassVar[list[int]] = []

        def fit_statistics(self, given: list[Example]) -> None:
            self.seen.append(len(given))

    fit(Standardised(), examples(16), examples(12, 1), replace(QUICK, epochs=1))
    fit(Standardised(), examples(16), [], replace(QUICK, epochs=1, statistics=False))
    assert Standardised.seen == [16]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"select": "uar"}, "select is 'uar'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"precision": "fp8"}, "precision"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"patience": -3}, "patience"),
        ({"plateau_factor": 0.0}, "plateau_factor"),
        ({"gradient_clip": -1.0}, "gradient_clip"),
        ({"rates": {"out": -1.0}}, "out is -1"),
        ({"seed": -4}, "seed is -4"),
    ],
)
def test_settings_that_do_not_fit_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(QUICK, **change)  # type: ignore[arg-type]


class Broken(Pooled):
    """Its loss, or only that of validation, is no number."""

    def __init__(self, always: bool) -> None:
        super().__init__()
        self.always = always

    def loss(self, output: Output, targets: Targets) -> Tensor:
        found = super().loss(output, targets)
        return found * float("nan") if self.always or not self.training else found


def test_a_run_that_diverges_says_so_and_so_does_its_repetition(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"loss of epoch 1 is nan; .* lower learning_rate"):
            fit(Broken(True), examples(16), examples(8, 1), QUICK, tmp_path / "always")
    for _ in range(2):
        with pytest.raises(ConfigError, match="no epoch has a validation loss that is a number"):
            fit(Broken(False), examples(16), examples(8, 1), replace(QUICK, select="loss"), tmp_path / "later")
    lines = (tmp_path / "later" / "metrics.jsonl").read_text(encoding="utf-8")
    assert "NaN" not in lines and "null" in lines


def test_checkpoints_say_who_was_heard_in_this_run_and_before(tmp_path: Path) -> None:
    fit(Pooled(), examples(16), examples(8, 1), QUICK, tmp_path, heard=["somebody"])
    header = RunFolder(tmp_path).read_best()[1]
    assert set(header["heard"]) == {"somebody", *(one.speaker for one in (*examples(16), *examples(8, 1)))}


def test_other_ratings_are_other_utterances() -> None:
    rated = examples(4, rated=True)
    other = [replace(one, attributes=(0.1, 0.2, 0.3)) for one in rated]
    assert fingerprint(rated, []) != fingerprint(other, [])


def test_missing_labels_and_nothing_to_train_are_named() -> None:
    with pytest.raises(ConfigError, match="no attributes"):
        fit(Pooled(), examples(8), [], replace(QUICK, select="ccc"))
    with pytest.raises(ConfigError, match="no emotion"):
        fit(Pooled(), examples(8, rated=True), [], QUICK)
    with pytest.raises(ConfigError, match="no utterance"):
        fit(Pooled(), [], [], QUICK)
    with pytest.raises(ConfigError, match="nothing to train"):
        fit(Pooled().requires_grad_(False), examples(8), [], QUICK)


# Run by a process of its own, which is killed: an epoch takes a moment so that the kill falls into the middle.
SLOW_RUN = """
import sys, time
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
from test_fit import LONG, Pooled, examples, fit
class Slow(Pooled):
    def forward(self, inputs):
        time.sleep(0.02)
        return super().forward(inputs)
fit(Slow(), examples(60), examples(20, 1), LONG, Path({run!r}))
"""
LONG = replace(QUICK, epochs=12, batch_size=8, patience=11, schedule="plateau", plateau_patience=2)


def test_a_run_that_was_killed_ends_bit_identical_to_one_that_was_not(root: Path, tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    code = SLOW_RUN.format(root=str(root), tests=str(Path(__file__).parent), run=str(killed))
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while not (killed / "last.safetensors").is_file() or len(lines_of(killed)) < 4:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(lines_of(killed)) < LONG.epochs
    # A kill may leave half a line behind, and lines of an epoch that no checkpoint has seen.
    with (killed / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"epoch": 99.0, "loss": 0.0}) + "\n{")
    resumed, uninterrupted = Pooled(), Pooled()
    torch.manual_seed(123)
    first = fit(resumed, examples(60), examples(20, 1), LONG, killed)
    second = fit(uninterrupted, examples(60), examples(20, 1), LONG, whole)
    assert (first.best_epoch, first.best) == (second.best_epoch, second.best)
    for one, other in zip(resumed.parameters(), uninterrupted.parameters(), strict=True):
        assert torch.equal(one, other)
    for name in ("last.safetensors", "best.safetensors"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert [without_time(line) for line in lines_of(killed)] == [without_time(line) for line in lines_of(whole)]


def test_a_finished_run_is_read_and_not_trained_again(tmp_path: Path) -> None:
    first = fit(Pooled(), examples(32), examples(16, 1), QUICK, tmp_path)
    before = (tmp_path / "last.safetensors").stat().st_mtime_ns
    system = Pooled()
    again = fit(system, examples(32), examples(16, 1), QUICK, tmp_path)
    assert again == first
    assert (tmp_path / "last.safetensors").stat().st_mtime_ns == before
    longer = fit(system, examples(32), examples(16, 1), replace(QUICK, epochs=5), tmp_path)
    assert len(longer.history) == 5


def test_a_run_goes_on_only_with_the_same_settings_data_and_system(tmp_path: Path) -> None:
    fit(Pooled(), examples(32), examples(16, 1), QUICK, tmp_path)
    with pytest.raises(ConfigError, match="another learning_rate"):
        fit(Pooled(), examples(32), examples(16, 1), replace(QUICK, learning_rate=1.0), tmp_path)
    with pytest.raises(ConfigError, match="choice of utterances"):
        fit(Pooled(), examples(32, 7), examples(16, 1), QUICK, tmp_path)
    with pytest.raises(ConfigError, match="another system"):
        fit(Pooled(5), examples(32), examples(16, 1), QUICK, tmp_path)


def test_a_frozen_encoder_is_not_stored(tmp_path: Path) -> None:
    class Encoder(nn.Module):
        layer_count = 1

        def __init__(self) -> None:
            super().__init__()
            self.base = nn.Linear(WIDTH, WIDTH)
            self.lora = nn.Linear(WIDTH, WIDTH)
            self.base.requires_grad_(False)

        def encode(self) -> None:
            """Makes it an encoder."""

    class WithEncoder(Pooled):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = Encoder()

        def forward(self, inputs: Inputs) -> Output:
            heard = self.encoder.lora(self.encoder.base(inputs["speech"]))
            return super().forward({**inputs, "speech": heard})

    system = WithEncoder()
    fit(system, examples(16), examples(8, 1), QUICK, tmp_path)
    stored, _ = read_checkpoint(tmp_path / "best.safetensors")
    assert {"encoder.lora.weight", "hidden.weight", "out.bias"} <= set(stored)
    assert not any(name.startswith("encoder.base") for name in stored)
    again = WithEncoder()
    again.encoder.base.load_state_dict(system.encoder.base.state_dict())
    fit(again, examples(16), examples(8, 1), QUICK, tmp_path)
    assert np.array_equal(predict(again, examples(8, 2)), predict(system, examples(8, 2)))


TWO = """
import json, sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
from test_fit import Pooled, QUICK, examples, fit, replace
system = Pooled(3, rated=True)
system.dropout.p = 0.0
settings = replace(QUICK, select="ccc", batch_size=10, accumulation=2)
fit(system, examples(45, rated=True), examples(15, 1, rated=True), settings, Path({run!r}))
"""


def test_two_processes_learn_what_one_does(root: Path, tmp_path: Path) -> None:
    code = TWO.format(root=str(root), tests=str(Path(__file__).parent), run=str(tmp_path / "two"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    # What `accelerate launch` sets for each process that it starts.
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(2)
    ]
    assert [process.wait(300) for process in processes] == [0, 0]
    system = Pooled(3, rated=True)
    system.dropout.p = 0.0
    settings = replace(QUICK, select="ccc", batch_size=10, accumulation=2)
    one = fit(system, examples(45, rated=True), examples(15, 1, rated=True), settings, tmp_path / "one")
    for alone, shared_line in zip(one.history, lines_of(tmp_path / "two"), strict=True):
        assert shared_line["loss"] == pytest.approx(alone["loss"], abs=1e-3)
        assert shared_line["validation_ccc"] == pytest.approx(alone["validation_ccc"], abs=1e-3)


@pytest.mark.slow
def test_a_head_only_epoch_over_4000_clips_takes_at_most_10_s() -> None:
    from train.systems.mdat import PRESETS, Mdat

    rng = np.random.default_rng(0)
    # 2 to 4 s each, 50 frames a second averaged in fours, and a sentence.
    clips = [
        Example(
            Path(f"{place}.wav"),
            "speaker",
            "made",
            {
                "speech": rng.standard_normal((int(rng.integers(25, 50)), 384)).astype(np.float16),
                "text": rng.standard_normal((int(rng.integers(6, 24)), 256)).astype(np.float16),
            },
            place % 4,
        )
        for place in range(4000)
    ]
    trainer = Trainer(Mdat(PRESETS["desk"]), clips, [], FitSettings(epochs=3, batch_size=32, device="cpu"))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(3):
            trainer.epoch_once()
    finally:
        torch.set_num_threads(threads)
    # The best of three: whatever else the machine does is not the epoch's.
    assert min(line["seconds"] for line in trainer.history) <= 10.0


def lines_of(run: Path) -> list[dict[str, float]]:
    text = (run / "metrics.jsonl").read_text(encoding="utf-8") if (run / "metrics.jsonl").is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def without_time(line: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in line.items() if name != "seconds"}


def test_exchanged_text_stays_within_its_emotion_or_goes_anywhere() -> None:
    def clip(place: int) -> Example:
        text = np.full((1, 2), place, np.float32)
        return Example(Path(f"{place}.wav"), "anna", "alpha", {"speech": text, "text": text}, emotion=place % 2)

    clips = [clip(place) for place in range(40)]
    silent = Example(Path("silent.wav"), "anna", "alpha", {"speech": np.zeros((1, 2), np.float32)}, emotion=0)
    within = exchange([*clips, silent], "text", "emotion", np.random.default_rng(0))
    anywhere = exchange(clips, "text", "all", np.random.default_rng(0))
    given = [int(example.features["text"][0, 0]) for example in within[:-1]]
    assert sorted(given) == list(range(40)) and given != list(range(40))
    assert all(place % 2 == giver % 2 for place, giver in enumerate(given))
    assert within[-1] == silent and [example.path for example in within[:-1]] == [example.path for example in clips]
    spoken = [int(example.features["speech"][0, 0]) for example in within[:-1]]
    assert spoken == list(range(40))
    assert any(int(example.features["text"][0, 0]) % 2 != place % 2 for place, example in enumerate(anywhere))
