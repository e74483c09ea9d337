"""Training one system on one set of utterances, by Hugging Face accelerate: one process, several, or several machines.

    fit(system, train, validation, FitSettings(epochs=50, learning_rate=1e-4), run=Path("runs/mdat"))

Each effective batch is shared by all processes and its loss is taken over all of its outputs (see `gradients.py`), so
the number of processes and of micro-batches changes speed and memory and not what is learnt.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from edge_ser.errors import ConfigError
from train.checkpoint import flatten_optimizer, restore_optimizer
from train.early_stopping import Patience, Plateau
from train.examples import Example, batch_plan, collate, exchange
from train.gradients import EffectiveBatch, gather_outputs, in_float32, joined, on_device, targets_of
from train.run_folder import RunFolder, fingerprint, load_stored_state, package_versions, stored_state
from train.scores import scores
from train.systems import Output, System

METRICS = ("ua", "wa", "loss", "ccc")
"""What may choose the best epoch, on the validation utterances."""


@dataclass(frozen=True)
class FitSettings:
    """How a system is trained."""

    epochs: int = 50
    """At most this many."""
    learning_rate: float = 1e-4
    """Of all parameters that `rates` does not name."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Learning rate of the parameters whose name contains the key, such as `lora`; the first key that fits counts."""
    batch_size: int = 32
    """Utterances of an effective batch: one optimiser step, over all processes."""
    accumulation: int = 1
    """Micro-batches that each process makes of its share; more need less memory and give the same gradient."""
    optimiser: str = "adam"
    """`adam` (weight decay within the gradient) or `adamw` (apart from it)."""
    weight_decay: float = 0.0
    """Decay of all weights."""
    gradient_clip: float = 0.0
    """Largest norm of the gradient; 0 is off."""
    select: str = "ua"
    """Validation metric that chooses the best epoch: `ua`, `wa`, `loss` or `ccc`."""
    monitor: str = ""
    """Validation metric that patience and plateau watch; empty is the one that selects."""
    patience: int = 0
    """Epochs without a better `monitor` after which the run stops; 0 is never."""
    schedule: str = "constant"
    """`constant`, or `plateau`: the rate falls by a factor after flat epochs."""
    plateau_factor: float = 0.5
    """What the rate is multiplied with."""
    plateau_patience: int = 5
    """Flat epochs before it is."""
    stop_below: float = 0.0
    """Stop once an epoch's mean training loss is below this (few-shot adaptation has no validation); 0 is off."""
    exchange_text: str = ""
    """Whether training utterances exchange their text anew in each epoch: `emotion`, among those of one emotion (text
    that is constructed for the emotion), `all` (text that says nothing), or empty, never. Otherwise a system learns by
    heart which sentence stands beside which clip."""
    class_weights: bool = False
    """Whether classes weigh the same in the loss however often they occur."""
    precision: str = "no"
    """Autocast of the system: `no`, `bf16` or `fp16`; losses and metrics are in float32 always."""
    device: str = "auto"
    """`auto` (a GPU if there is one) or `cpu`."""
    statistics: bool = True
    """Whether a system that normalises its inputs takes mean and deviation from these utterances before it starts."""
    seed: int = 0
    """Of order, dropout and everything else that is drawn in training."""

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; need one of {', '.join(map(repr, allowed))}")
        for name in ("epochs", "batch_size", "accumulation", "plateau_patience"):
            if getattr(self, name) < (name != "epochs"):
                raise ConfigError(f"{name} is {getattr(self, name)}; need {int(name != 'epochs')} or more")
        for name in ("weight_decay", "gradient_clip", "patience", "stop_below", "seed"):
            # Not `< 0`: NaN is below nothing.
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}; need a number from 0")
        for name, rate in {"learning_rate": self.learning_rate, **self.rates}.items():
            if not (isinstance(rate, (int, float)) and 0 < rate < math.inf):
                raise ConfigError(f"{name} is {rate!r}; need a number above 0")
        if not 0 < self.plateau_factor <= 1:
            raise ConfigError(f"plateau_factor is {self.plateau_factor}; need a share above 0, at most 1")


_CHOICES = {
    "optimiser": ("adam", "adamw"),
    "select": METRICS,
    "monitor": ("", *METRICS),
    "schedule": ("constant", "plateau"),
    "precision": ("no", "bf16", "fp16"),
    "exchange_text": ("", "emotion", "all"),
    "device": ("auto", "cpu"),
}


@dataclass(frozen=True)
class FitResult:
    """How a run ended."""

    best_epoch: int
    """Epoch whose weights were kept, counted from 1; the last one where nothing validated; 0 where none ran."""
    best: float
    """Its validation metric; NaN where nothing validated."""
    history: list[dict[str, float]]
    """One entry an epoch: epoch, loss, learning_rate, seconds and, with a prefix `validation_`, the metrics."""


def fit(
    system: System,
    train: Sequence[Example],
    validation: Sequence[Example],
    settings: FitSettings,
    run: Path | None = None,
    heard: Sequence[str] = (),
) -> FitResult:
    """Train a system and leave its best weights in it, on the device that trained it.

    Args:
        system: Trained in place; parameters without `requires_grad` stay as they are.
        train: What it learns from.
        validation: What chooses the best epoch; empty keeps the last weights.
        settings: How it is trained.
        run: Folder for metrics.jsonl and checkpoints; a run that stopped there goes on and ends in the same weights.
        heard: Speakers that the system has learnt from before; checkpoints name them with those of this run.

    Raises:
        ConfigError: Nothing to train, a metric that the utterances have no labels for, a folder of another run, a loss
            that is not finite, or no epoch whose metric is a number.
    """
    trainer = Trainer(system, train, validation, settings, run, heard)
    trainer.resume()
    while not trainer.finished:
        trainer.epoch_once()
    return trainer.finish()


def on_cpu(settings: FitSettings) -> bool:
    """Return whether training uses CPUs alone; accelerate must be told, or several processes would never meet."""
    return settings.device == "cpu" or not torch.accelerator.is_available()


def train_parameters(system: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that training moves."""
    return [parameter for parameter in system.parameters() if parameter.requires_grad]


def predict(system: System, examples: Sequence[Example], batch_size: int = 64) -> NDArray[np.float32]:
    """Return logits or values, float32, shape (n, C), in the order of the examples."""
    return outputs_of(system, examples, batch_size).logits.cpu().numpy().astype(np.float32)


def embed(system: System, examples: Sequence[Example], batch_size: int = 64) -> NDArray[np.float32]:
    """Return what enters the classifier, float32, shape (n, E), in the order of the examples."""
    return outputs_of(system, examples, batch_size).embedding.cpu().numpy().astype(np.float32)


@torch.no_grad()
def outputs_of(system: System, examples: Sequence[Example], batch_size: int = 64) -> Output:
    """Return what a system in evaluation makes of the examples, in their order; its mode is left as it was.

    Raises:
        ConfigError: There is no example.
    """
    if not examples:
        raise ConfigError("got no utterance to evaluate; need at least one")
    device = next(system.parameters()).device
    training = system.training
    system.eval()
    # Utterances of about one length together, so that little is padded.
    order = sorted(range(len(examples)), key=lambda place: _frames(examples[place]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    outputs = joined(
        [in_float32(system(on_device(collate([examples[i] for i in places])[0], device))) for places in batches]
    )
    system.train(training)
    back = torch.empty(len(order), dtype=torch.long, device=device)
    back[torch.tensor(order, device=device)] = torch.arange(len(order), device=device)
    gender = None if outputs.gender is None else outputs.gender[back]
    return Output(outputs.logits[back], outputs.embedding[back], gender)


class Trainer:
    """One run: system, optimiser, and how far it is."""

    def __init__(
        self,
        system: System,
        train: Sequence[Example],
        validation: Sequence[Example],
        settings: FitSettings,
        run: Path | None = None,
        heard: Sequence[str] = (),
    ) -> None:
        _check_labels(train, validation, settings)
        # accelerate allows one precision per process for ever, but a protocol trains many systems.
        AcceleratorState._reset_state(reset_partial_state=False)
        self.accelerator = Accelerator(cpu=on_cpu(settings), mixed_precision=settings.precision)
        self.settings = settings
        self.train, self.validation = list(train), list(validation)
        self.heard = sorted({*heard, *(example.speaker for example in (*train, *validation))})
        self.system = system.to(self.accelerator.device)
        self.batches = EffectiveBatch(system, self._loss, self.accelerator)
        self.optimiser = _optimiser(system, settings)
        self.folder = RunFolder(run) if run else None
        watched = settings.monitor or settings.select
        self.selection = Patience(settings.select)
        self.stopping = Patience(watched, settings.patience)
        self.plateau = Plateau(watched, settings.plateau_patience, settings.plateau_factor)
        self.epoch, self.best_epoch = 0, 0
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done, patience has ended or the training loss is low enough."""
        loss = self.history[-1]["loss"] if self.history else float("inf")
        return self.epoch >= self.settings.epochs or self.stopping.ended or loss < self.settings.stop_below

    def resume(self) -> None:
        """Go on from the run folder, if a run stopped there; else begin.

        Raises:
            ConfigError: The folder is that of another run.
        """
        data = fingerprint(self.train, self.validation)
        stored = self.folder.read_last(asdict(self.settings), data) if self.folder else None
        if self.folder and stored:
            self._restore(*stored)
        else:
            prepare = getattr(self.system, "fit_statistics", None)
            if prepare is not None and self.settings.statistics:
                prepare(self.train)
            self._same_everywhere()
        self.accelerator.wait_for_everyone()
        if self.folder and self.accelerator.is_main_process:
            self.folder.cut(self.history)

    def epoch_once(self) -> None:
        """Train for one epoch, validate, and write down where the run is."""
        start = time.monotonic()
        # Seeds come from the epoch, so a run that was stopped draws what it would have drawn.
        torch.manual_seed(self.settings.seed * 100_003 + self.epoch + 1_000_003 * self.accelerator.process_index)
        rng = np.random.default_rng([self.settings.seed, self.epoch])
        within = self.settings.exchange_text
        train = exchange(self.train, "text", within, rng) if within else self.train
        plan = batch_plan(train, self.settings.batch_size, rng)
        # CCC and batch normalisation are undefined for a batch of one.
        plan = [places for places in plan if len(places) > 1] or plan
        self.system.train()
        weight, total = 0, 0.0
        title = f"epoch {self.epoch + 1}/{self.settings.epochs}"
        hidden = not (sys.stderr.isatty() and self.accelerator.is_local_main_process)
        for places in tqdm(plan, desc=title, unit="batch", disable=hidden, leave=False):
            total += self.step([train[place] for place in places]) * len(places)
            weight += len(places)
        self._average_running_statistics()
        self.epoch += 1
        loss = self._as_first_process({"loss": total / weight})["loss"]
        if not math.isfinite(loss):
            raise ConfigError(
                f"the loss of epoch {self.epoch} is {loss}; need a finite one; lower learning_rate or set gradient_clip"
            )
        line = {"epoch": float(self.epoch), "loss": loss, "learning_rate": self._rates()[0]}
        line |= self._validate()
        self.history.append({**line, "seconds": round(time.monotonic() - start, 3)})
        self._save()

    def step(self, batch: Sequence[Example]) -> float:
        """Take one optimiser step on an effective batch and return its loss."""
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.batches.backward(batch, self.settings.accumulation)
        scaler = self.accelerator.scaler
        if scaler is not None:
            scaler.unscale_(self.optimiser)
        if self.settings.gradient_clip > 0:
            nn.utils.clip_grad_norm_(train_parameters(self.system), self.settings.gradient_clip)
        if scaler is None:
            self.optimiser.step()
        else:
            scaler.step(self.optimiser)
            scaler.update()
        return loss

    def finish(self) -> FitResult:
        """Put the best weights into the system, in evaluation mode, and return how the run ended."""
        if self.validation and self.history and not self.best:
            name = self.settings.select
            raise ConfigError(
                f"no epoch has a validation {name} that is a number; need one to choose by; lower learning_rate, or "
                "select by another metric"
            )
        if self.best:
            load_stored_state(self.system, self.best, "the best epoch")
        self.system.eval()
        best = self.selection.best
        return FitResult(self.best_epoch, float("nan") if best is None else best, self.history)

    def _validate(self) -> dict[str, float]:
        if not self.validation:
            self.best_epoch = self.epoch
            return {}
        measured = self._measure()
        if self.selection.update(measured[self.settings.select]):
            self.best_epoch = self.epoch
            self.best = {name: tensor.detach().clone() for name, tensor in stored_state(self.system).items()}
        watched = measured[self.settings.monitor or self.settings.select]
        self.stopping.update(watched)
        if self.settings.schedule == "plateau":
            factor = self.plateau.update(watched)
            for group in self.optimiser.param_groups:
                group["lr"] *= factor
        return {f"validation_{name}": value for name, value in measured.items()}

    def _measure(self) -> dict[str, float]:
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        bounds = [len(self.validation) * place // processes for place in range(processes + 1)]
        sizes = [end - start for start, end in pairwise(bounds)]
        mine = self.validation[bounds[rank] : bounds[rank + 1]] or self.validation[:1]
        with self.accelerator.autocast():
            own = outputs_of(self.system, mine, _validation_batch(self.settings))
        output = gather_outputs(self.accelerator, own, sizes)
        self.system.eval()
        with torch.no_grad():
            loss = self._loss(output, on_device(targets_of(self.validation), self.accelerator.device))
        return self._as_first_process(
            {"loss": float(loss), **scores(output.logits.cpu().numpy(), self.validation)},
        )

    def _as_first_process(self, measured: dict[str, float]) -> dict[str, float]:
        """Return what the first process measured: a difference in a last bit would stop processes at other epochs."""
        if self.accelerator.num_processes == 1:
            return measured
        values = torch.tensor(list(measured.values()), dtype=torch.float64, device=self.accelerator.device)
        return dict(zip(measured, broadcast(values).tolist(), strict=True))

    def _loss(self, output: Output, targets: Mapping[str, Tensor]) -> Tensor:
        if not (self.settings.class_weights and self.system.training):
            return self.system.loss(output, targets)
        return class_weighted_loss(self.system, output, targets, _class_counts(self.train))

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.optimiser.param_groups]

    def _save(self) -> None:
        if not (self.folder and self.accelerator.is_main_process):
            return
        state = stored_state(self.system)
        header: dict[str, Any] = {
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "settings": asdict(self.settings),
            "data": fingerprint(self.train, self.validation),
            "heard": self.heard,
            "selection": self.selection.state(),
            "stopping": self.stopping.state(),
            "plateau": self.plateau.patience.state(),
            "rates": self._rates(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
            "versions": package_versions(),
        }
        # Best first: a run that is stopped between the two repeats this epoch and writes the same file again.
        if self.best_epoch == self.epoch:
            self.folder.save_best(state, header)
        self.folder.append(self.history[-1])
        self.folder.save_last({f"system.{n}": t for n, t in state.items()} | flatten_optimizer(self.optimiser), header)

    def _restore(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        assert self.folder
        own = {name.removeprefix("system."): t for name, t in tensors.items() if name.startswith("system.")}
        load_stored_state(self.system, own, self.folder.path / "last.safetensors")
        restore_optimizer(self.optimiser, tensors)
        for group, rate in zip(self.optimiser.param_groups, header["rates"], strict=True):
            group["lr"] = rate
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(header["scaler"])
        self.selection.restore(header["selection"])
        self.stopping.restore(header["stopping"])
        self.plateau.patience.restore(header["plateau"])
        self.epoch, self.best_epoch = int(header["epoch"]), int(header["best_epoch"])
        self.history = self.folder.history(self.epoch)
        if self.validation and self.best_epoch:
            self.best = on_device(self.folder.read_best()[0], self.accelerator.device)

    def _same_everywhere(self) -> None:
        if self.accelerator.num_processes > 1:
            for tensor in [*train_parameters(self.system), *self.system.buffers()]:
                tensor.data.copy_(broadcast(tensor.data.clone()))

    def _average_running_statistics(self) -> None:
        if self.accelerator.num_processes > 1:
            for buffer in self.system.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.accelerator.reduce(buffer.clone(), "mean"))


def class_weighted_loss(
    system: System, output: Output, targets: Mapping[str, Tensor], counts: NDArray[np.int64]
) -> Tensor:
    """Return the loss in which each class weighs n / (C n_c), for any loss that is a mean over utterances.

    Args:
        system: Whose loss it is.
        output: Outputs of a batch.
        targets: Its targets.
        counts: Training utterances of each class, shape (C,).
    """
    total = output.logits.new_zeros(())
    weights = 0.0
    for emotion in targets["emotion"].unique().tolist():
        chosen = targets["emotion"] == emotion
        gender = None if output.gender is None else output.gender[chosen]
        part = Output(output.logits[chosen], output.embedding[chosen], gender)
        weight = float(counts.sum() / (np.count_nonzero(counts) * counts[emotion])) * float(chosen.sum())
        total = total + weight * system.loss(part, {name: target[chosen] for name, target in targets.items()})
        weights += weight
    return total / weights


def _class_counts(examples: Sequence[Example]) -> NDArray[np.int64]:
    return np.bincount([example.emotion for example in examples]).astype(np.int64)


def _optimiser(system: System, settings: FitSettings) -> torch.optim.Optimizer:
    groups: dict[str, list[nn.Parameter]] = {key: [] for key in ("", *settings.rates)}
    for name, parameter in system.named_parameters():
        if parameter.requires_grad:
            groups[next((key for key in settings.rates if key in name), "")].append(parameter)
    unused = [key for key in settings.rates if not groups[key]]
    if unused:
        raise ConfigError(f"rates names {', '.join(unused)}; no parameter in training has such a name")
    if not any(groups.values()):
        raise ConfigError("the system has nothing to train; need a part that is not frozen")
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimiser]
    return kind(
        [
            {"params": parameters, "lr": settings.rates.get(key, settings.learning_rate)}
            for key, parameters in groups.items()
            if parameters
        ],
        weight_decay=settings.weight_decay,
        # One pass over memory instead of a dozen: several times as fast where a head is large.
        fused=True,
    )


def _check_labels(train: Sequence[Example], validation: Sequence[Example], settings: FitSettings) -> None:
    if not train:
        raise ConfigError("got no utterance to train on; need some: look at corpora, class_map and the split")
    rated = settings.select == "ccc" or settings.monitor == "ccc"
    for example in (*train, *validation):
        if rated and example.attributes is None:
            raise ConfigError(f"{example.path} has no attributes; need them for ccc")
        if not rated and settings.select != "loss" and example.emotion < 0:
            raise ConfigError(f"{example.path} has no emotion; need one for {settings.select}")
    if settings.class_weights and any(example.emotion < 0 for example in train):
        raise ConfigError("class_weights needs an emotion for every utterance")


def _validation_batch(settings: FitSettings) -> int:
    return max(1, settings.batch_size // settings.accumulation)


def _frames(example: Example) -> int:
    return max((len(array) for array in example.features.values()), default=0)
