"""Train a system on the speakers that its settings choose.

    python -m train.finetune train/configs/mdat.toml --data FOLDER --run runs/mdat

Stopped? The same command goes on where it was. FOLDER holds speech/manifest.csv, noise/noise.csv, rir/rir.csv and
text/goemotions.csv.gz. The run folder gets config.json, split.json, tokenizer.json, metrics.jsonl, last.safetensors (to go
on) and best.safetensors (the running average of weights, best on the validation speakers).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm import tqdm

from edge_ser.corpus import FOUR_CLASSES, Clip
from edge_ser.errors import EdgeSerError
from edge_ser.metrics import confusion_matrix, unweighted_accuracy
from train.audio_cache import AudioCache, clip_cache
from train.augment import Augmenter
from train.batches import Batch, BatchShape, BatchSource, EpochBatches, histories
from train.checkpoint import flatten_optimizer, read_checkpoint, restore_optimizer, save_checkpoint
from train.settings import Optimiser, Settings, data_folder, read_settings, read_sounds, read_split, with_epochs
from train.splits import Split
from train.systems.mdat import Mdat
from train.text import ConstructedPairs, read_sentences, train_tokenizer


class Trainer:
    """One run: model, running average, optimiser and where it stands."""

    def __init__(self, settings: Settings, run: Path) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.run = run
        self.model = Mdat(settings.model)
        self.average = AveragedModel(self.model, avg_fn=_running_average(settings.optimiser.average_decay), use_buffers=True)
        # Reads the embedding alone, so that the encoder learns before the fusion does; it is not kept.
        self.helper = nn.Linear(self.model.embedding_size, settings.model.classes)
        parameters = [*self.model.parameters(), *self.helper.parameters()]
        self.optimiser = torch.optim.AdamW(
            _decay_groups(parameters, settings.optimiser.weight_decay), lr=settings.optimiser.peak_learning_rate
        )
        self.epoch = 0
        self.best = 0.0

    def save(self) -> None:
        """Write last.safetensors: everything that the next epoch depends on."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"helper.{name}": value for name, value in self.helper.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        header = {"epoch": self.epoch, "best": self.best, "settings": asdict(self.settings)}
        save_checkpoint(self.run / "last.safetensors", tensors | flatten_optimizer(self.optimiser), header)

    def resume(self) -> None:
        """Go on from last.safetensors, if there is one."""
        path = self.run / "last.safetensors"
        if not path.is_file():
            return
        tensors, header = read_checkpoint(path)
        self.model.load_state_dict(_under("model.", tensors))
        self.average.load_state_dict(_under("average.", tensors))
        self.helper.load_state_dict(_under("helper.", tensors))
        restore_optimizer(self.optimiser, tensors)
        self.epoch, self.best = int(str(header["epoch"])), float(str(header["best"]))

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
        return float(np.mean(losses))

    def step(self, batch: Batch, shape: BatchShape) -> float:
        """Take one optimiser step and return the loss."""
        options = self.settings.optimiser
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.precision == "bfloat16"):
            loss = batch_loss(self.model, self.helper, batch, shape, options.label_smoothing)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), options.gradient_clip)
        self.optimiser.step()
        self.average.update_parameters(self.model)
        return float(loss.detach())

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


def batch_loss(model: Mdat, helper: nn.Module, batch: Batch, shape: BatchShape, label_smoothing: float) -> Tensor:
    """Return cross-entropy on speech, of fusion and helper, plus, for non-speech, against no preference at all."""
    speech = shape.speakers * shape.utterances
    frames, embedding = model.listen(batch.audio)
    known = embedding[:speech].detach().float().reshape(shape.speakers, shape.utterances, -1)
    voice = histories(known, batch.warm)
    fresh = torch.zeros(len(batch.audio) - speech, voice.shape[1])
    logits = model.judge(frames, batch.text_ids, batch.text_mask, torch.cat([voice, fresh])).float()
    loss = nn.functional.cross_entropy(logits[:speech], batch.labels, label_smoothing=label_smoothing)
    alone = helper(embedding[:speech]).float()
    loss = loss + 0.3 * nn.functional.cross_entropy(alone, batch.labels, label_smoothing=label_smoothing)
    if shape.non_speech:
        nobody = -nn.functional.log_softmax(logits[speech:], dim=-1).mean(-1)
        loss = loss + 0.2 * nobody.mean()
    return loss


@torch.no_grad()
def validation_ua(model: nn.Module, clips: list[Clip], audio: AudioCache) -> float:
    """Return UA over clips, each alone: no text, a fresh voice, whole utterances."""
    model.eval()
    nothing = torch.zeros(1, 1, dtype=torch.long)
    voice: Tensor | None = None
    predicted = []
    for clip in clips:
        if voice is None:
            voice = torch.zeros(1, 2 * getattr(model, "module", model).embedding_size + 1)
        logits, _ = model(torch.from_numpy(audio[clip.path]).unsqueeze(0), nothing, nothing, voice)
        predicted.append(int(logits.argmax()))
    truth = [FOUR_CLASSES.index(clip.emotion) for clip in clips]
    return unweighted_accuracy(confusion_matrix(truth, predicted, len(FOUR_CLASSES)))


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


def _tokenizer(run: Path, data: Path, settings: Settings) -> Tokenizer:
    path = run / "tokenizer.json"
    if not path.is_file():
        texts = [s.text for s in read_sentences(data / "text" / "goemotions.csv.gz") if s.split == "train"]
        train_tokenizer(texts, settings.model.vocabulary).save(str(path))
    return Tokenizer.from_file(str(path))


def _source(settings: Settings, split: Split, audio: AudioCache, data: Path, run: Path) -> BatchSource:
    augmenter = Augmenter(
        noises=read_sounds(data / "noise", "noise.csv", held_out=False),
        rooms=read_sounds(data / "rir", "rir.csv", held_out=False),
    )
    return BatchSource(
        clips=split.train,
        audio=audio,
        augmenter=augmenter,
        tokenizer=_tokenizer(run, data, settings),
        pairs=ConstructedPairs.of(read_sentences(data / "text" / "goemotions.csv.gz"), "train"),
        shape=BatchShape(),
        max_tokens=settings.model.max_tokens,
        seed=settings.seed,
        repeat=settings.repeat,
    )


def bill_of_materials(source: BatchSource) -> list[dict[str, object]]:
    """Return what the weights are learnt from: one row a corpus, sentences and noises included."""
    rows: list[dict[str, object]] = []
    for corpus in sorted({clip.corpus for clip in source.clips}):
        own = [clip for clip in source.clips if clip.corpus == corpus]
        speakers = len({clip.speaker for clip in own})
        rows.append({"corpus": corpus, "licence": own[0].licence, "utterances": len(own), "speakers": speakers})
    sentences = sum(len(texts) for texts in source.pairs.by_emotion)
    rows.append({"corpus": "GoEmotions (sentences)", "licence": "CC BY 4.0", "utterances": sentences, "speakers": 0})
    noises = len(source.augmenter.noises)
    rows.append({"corpus": "noise recordings", "licence": "CC0 or CC BY", "utterances": noises, "speakers": 0})
    rooms = len(source.augmenter.rooms)
    rows.append({"corpus": "room responses", "licence": "Apache-2.0 or MIT", "utterances": rooms, "speakers": 0})
    return rows


def train(settings: Settings, data: Path, run: Path) -> float:
    """Train to the last epoch and return the best validation UA."""
    run.mkdir(parents=True, exist_ok=True)
    split = read_split(settings, data)
    speakers = {side: sorted({c.speaker for c in getattr(split, side)}) for side in ("train", "validation", "test")}
    (run / "split.json").write_text(json.dumps(speakers, indent=1) + "\n", encoding="utf-8")
    (run / "config.json").write_text(json.dumps(asdict(settings), indent=1) + "\n", encoding="utf-8")
    audio = clip_cache(split.train + split.validation, run.parent / "cache")
    source = _source(settings, split, audio, data, run)
    trainer = Trainer(settings, run)
    trainer.resume()
    while trainer.epoch < settings.optimiser.epochs:
        loss = trainer.train_epoch(source)
        trainer.epoch += 1
        last = trainer.epoch == settings.optimiser.epochs
        ua = validation_ua(trainer.average, split.validation, audio) if trainer.epoch % 2 == 0 or last else 0.0
        if ua > trainer.best:
            trainer.best = ua
            header = {
                "epoch": trainer.epoch,
                "validation_ua": ua,
                "settings": asdict(settings),
                "speakers": speakers,
                "training_data": bill_of_materials(source),
            }
            half = {n: t.half() if t.is_floating_point() else t for n, t in trainer.average.module.state_dict().items()}
            save_checkpoint(run / "best.safetensors", half, header)
        trainer.save()
        record = {"epoch": trainer.epoch, "loss": round(loss, 4), "validation_ua": round(ua, 4)}
        with (run / "metrics.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record) + "\n")
        tqdm.write(f"epoch {trainer.epoch:3d}  loss {loss:.3f}  validation UA {ua:.3f}  best {trainer.best:.3f}")
    return trainer.best


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.finetune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", type=Path, help="TOML file, for example train/configs/mdat.toml")
    parser.add_argument("--data", type=Path, help="the corpora's folder (default: EDGE_SER_DATA)")
    parser.add_argument("--run", type=Path, help="the run's folder (default: runs/NAME)")
    parser.add_argument("--epochs", type=int, help="train for another number of epochs than the settings say")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    options = parser.parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        settings = with_epochs(read_settings(options.settings), options.epochs)
        best = train(settings, data_folder(options.data), options.run or Path("runs") / settings.name)
    except EdgeSerError as error:
        print(f"finetune: {error}", file=sys.stderr)
        return 1
    print(f"best validation UA {best:.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
