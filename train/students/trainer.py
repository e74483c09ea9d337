"""One training run's state and steps: model, running average, optimiser."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm import tqdm

from edge_ser.errors import ConfigError
from train.checkpoint import flatten_optimizer, read_checkpoint, restore_optimizer, save_checkpoint
from train.students.batches import Batch, BatchShape, BatchSource, EpochBatches, histories
from train.students.mdat import Mdat
from train.students.settings import Optimiser, Settings


class Trainer:
    """One run: model, running average, optimiser and where it stands."""

    def __init__(self, settings: Settings, run: Path, teacher_size: int = 0) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.run = run
        self.model = Mdat(settings.model)
        self.average = AveragedModel(
            self.model, avg_fn=_running_average(settings.optimiser.average_decay), use_buffers=True
        )
        # Reads the embedding alone, so that the encoder learns before the fusion does; it is not kept.
        self.helper = nn.Linear(self.model.embedding_size, settings.model.classes)
        self.predictor = nn.Linear(self.model.embedding_size, teacher_size) if teacher_size else None
        parameters = [*self.model.parameters(), *self.helper.parameters()]
        parameters += self.predictor.parameters() if self.predictor else []
        self.optimiser = torch.optim.AdamW(
            _decay_groups(parameters, settings.optimiser.weight_decay), lr=settings.optimiser.peak_learning_rate
        )
        self.epoch = 0
        self.best = 0.0

    @property
    def kept(self) -> Mdat:
        """The running average of weights, which is what is validated and kept."""
        kept = self.average.module
        assert isinstance(kept, Mdat)
        return kept

    def save(self) -> None:
        """Write last.safetensors: everything that the next epoch depends on."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"helper.{name}": value for name, value in self.helper.state_dict().items()}
        if self.predictor:
            tensors |= {f"predictor.{name}": value for name, value in self.predictor.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        header = {"epoch": self.epoch, "best": self.best, "settings": asdict(self.settings)}
        save_checkpoint(self.run / "last.safetensors", tensors | flatten_optimizer(self.optimiser), header)

    def save_best(self, about: dict[str, object]) -> None:
        """Write best.safetensors: the running average in half precision, and what is to be known about it."""
        header = {"epoch": self.epoch, "settings": asdict(self.settings), **about}
        weights = self.kept.state_dict()
        half = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
        save_checkpoint(self.run / "best.safetensors", half, header)

    def start_from(self, checkpoint: Path, speakers: dict[str, list[str]]) -> None:
        """Begin with a checkpoint's weights.

        Raises:
            ConfigError: It was trained on another split, so a test speaker might have been heard.
        """
        tensors, header = read_checkpoint(checkpoint)
        if header.get("speakers") != speakers:
            raise ConfigError(f"{checkpoint} was trained on another split; need the same corpora, fractions and seed")
        self.model.load_state_dict(tensors)
        self.kept.load_state_dict(tensors)

    def resume(self) -> None:
        """Go on from last.safetensors, if there is one."""
        path = self.run / "last.safetensors"
        if not path.is_file():
            return
        tensors, header = read_checkpoint(path)
        self._check_same_run(header)
        self.model.load_state_dict(_under("model.", tensors))
        self.average.load_state_dict(_under("average.", tensors))
        self.helper.load_state_dict(_under("helper.", tensors))
        if self.predictor:
            self.predictor.load_state_dict(_under("predictor.", tensors))
        restore_optimizer(self.optimiser, tensors)
        self.epoch, self.best = int(str(header["epoch"])), float(str(header["best"]))

    def _check_same_run(self, header: dict[str, object]) -> None:
        stored = header["settings"]
        assert isinstance(stored, dict)
        current = json.loads(json.dumps(asdict(self.settings)))
        changed = sorted(name for name in current if name != "optimiser" and current[name] != stored.get(name))
        if changed:
            raise ConfigError(
                f"{self.run} was begun with another {', '.join(changed)}; need the same settings to go on, or speakers "
                "would change sides; choose another --run or remove that folder"
            )

    def train_epoch(self, source: BatchSource) -> float:
        """Run one epoch and return its mean loss; seeds come from the epoch, so resuming changes nothing."""
        torch.manual_seed(self.settings.seed * 100_003 + self.epoch)
        batches = EpochBatches(source, self.epoch)
        loader = DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=6)
        self.model.train()
        losses = []
        progress = tqdm(loader, desc=f"epoch {self.epoch + 1}", unit="batch", disable=not sys.stderr.isatty())
        for place, batch in enumerate(progress):
            self._set_rate((self.epoch * len(batches) + place) / (self.settings.optimiser.epochs * len(batches)))
            losses.append(self.step(batch, source.shape))
            progress.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}")
        self.epoch += 1
        return float(np.mean(losses))

    def step(self, batch: Batch, shape: BatchShape) -> float:
        """Take one optimiser step and return the loss."""
        options = self.settings.optimiser
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.precision == "bfloat16"):
            loss = self._loss(batch, shape)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), options.gradient_clip)
        self.optimiser.step()
        self.average.update_parameters(self.model)
        return float(loss.detach())

    def _loss(self, batch: Batch, shape: BatchShape) -> Tensor:
        frames, embedding = self.model.listen(batch.audio)
        smoothing = self.settings.optimiser.label_smoothing
        loss = emotion_loss(self.model, frames, embedding, batch, shape, smoothing)
        spoken = embedding[: len(batch.labels)]
        loss = loss + 0.3 * nn.functional.cross_entropy(
            self.helper(spoken).float(), batch.labels, label_smoothing=smoothing
        )
        if self.predictor is not None and batch.teacher is not None:
            closeness = nn.functional.cosine_similarity(self.predictor(spoken).float(), batch.teacher)
            loss = loss + self.settings.teacher_weight * (1.0 - closeness).mean()
        return loss

    def _set_rate(self, done: float) -> None:
        rate = learning_rate(done, self.settings.optimiser)
        for group in self.optimiser.param_groups:
            group["lr"] = rate


def learning_rate(done: float, options: Optimiser) -> float:
    """Return the rate after a share `done` of all steps: linear warm-up, then a half cosine to zero."""
    if done < options.warmup_fraction:
        return options.peak_learning_rate * (done / options.warmup_fraction)
    rest = (done - options.warmup_fraction) / (1.0 - options.warmup_fraction)
    return options.peak_learning_rate * 0.5 * (1.0 + math.cos(math.pi * rest))


def emotion_loss(
    model: Mdat, frames: Tensor, embedding: Tensor, batch: Batch, shape: BatchShape, label_smoothing: float
) -> Tensor:
    """Return cross-entropy on speech plus, for non-speech, cross-entropy against no preference at all."""
    speech = shape.speakers * shape.utterances
    known = embedding[:speech].detach().float().reshape(shape.speakers, shape.utterances, -1)
    voice = histories(known, batch.warm)
    fresh = torch.zeros(len(batch.audio) - speech, voice.shape[1])
    logits = model.judge(frames, batch.text_ids, batch.text_mask, torch.cat([voice, fresh])).float()
    loss = nn.functional.cross_entropy(logits[:speech], batch.labels, label_smoothing=label_smoothing)
    if shape.non_speech:
        nobody = -nn.functional.log_softmax(logits[speech:], dim=-1).mean(-1)
        loss = loss + 0.2 * nobody.mean()
    return loss


def _running_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    def blend(average: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
        # Early on the average must follow quickly, or it remembers the random start for ever.
        keep = min(decay, (1.0 + float(steps)) / (10.0 + float(steps)))
        return average * keep + current * (1.0 - keep)

    return blend


def _decay_groups(parameters: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
