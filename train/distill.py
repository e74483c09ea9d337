"""Train a student, with a teacher or without, on the speakers that its settings choose.

    python -m train.distill train/configs/mdat.toml --data FOLDER --run runs/mdat

Stopped? The same command goes on where it was. FOLDER holds speech/manifest.csv, noise/noise.csv, rir/rir.csv and
text/goemotions.csv.gz. The run folder gets config.json, split.json, tokenizer.json, metrics.jsonl, last.safetensors
(to go on) and best.safetensors (the running average of weights, best on the validation speakers).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tqdm import tqdm

from edge_ser.corpus import FOUR_CLASSES, Clip
from edge_ser.errors import ConfigError, EdgeSerError
from edge_ser.metrics import confusion_matrix, unweighted_accuracy
from train.audio_cache import AudioCache, clip_cache
from train.augment import Augmenter
from train.data import data_folder, file_sha256, read_sounds
from train.splits import Split
from train.students.batches import BatchSource
from train.students.mdat import Mdat
from train.students.settings import Settings, read_settings, read_split, with_epochs
from train.students.trainer import Trainer
from train.text import ConstructedPairs, read_sentences, train_tokenizer

VALIDATE_EVERY = 2
"""Epochs."""


@torch.no_grad()
def validation_ua(model: Mdat, clips: Sequence[Clip], audio: AudioCache) -> float:
    """Return UA over clips, each alone: no text, a fresh voice, whole utterances."""
    model.eval()
    nothing = torch.zeros(1, 1, dtype=torch.long)
    fresh = torch.zeros(1, 2 * model.embedding_size + 1)
    predicted = []
    for clip in clips:
        logits, _ = model(torch.from_numpy(audio[clip.path]).unsqueeze(0), nothing, nothing, fresh)
        predicted.append(int(logits.argmax()))
    truth = [FOUR_CLASSES.index(clip.emotion) for clip in clips]
    return unweighted_accuracy(confusion_matrix(truth, predicted, len(FOUR_CLASSES)))


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
        shape=settings.batch,
        max_tokens=settings.model.max_tokens,
        seed=settings.seed,
        repeat=settings.repeat,
    )


def bill_of_materials(source: BatchSource, settings: Settings) -> list[dict[str, object]]:
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
    if source.teacher is not None:
        name = f"{settings.teacher_name} (teacher)"
        clips = len(source.teacher)
        rows.append({"corpus": name, "licence": settings.teacher_licence, "utterances": clips, "speakers": 0})
    return rows


def train(settings: Settings, data: Path, run: Path, start: Path | None = None, teacher: Path | None = None) -> float:
    """Train to the last epoch and return the best validation UA.

    Args:
        settings: What to train.
        data: The corpora's folder.
        run: The run's folder; a run that stopped there goes on.
        start: A checkpoint to begin with, trained on the same split.
        teacher: Folder of the pretrained encoder whose vectors are to be predicted.

    Raises:
        ConfigError: Settings and options do not fit each other or the run.
    """
    if (settings.teacher_weight > 0) != (teacher is not None):
        raise ConfigError("teacher_weight and --teacher belong together; give both or neither")
    run.mkdir(parents=True, exist_ok=True)
    split = read_split(settings, data)
    speakers = {side: sorted({c.speaker for c in getattr(split, side)}) for side in ("train", "validation", "test")}
    (run / "split.json").write_text(json.dumps(speakers, indent=1) + "\n", encoding="utf-8")
    (run / "config.json").write_text(json.dumps(asdict(settings), indent=1) + "\n", encoding="utf-8")
    audio = clip_cache(split.train + split.validation, run.parent / "cache")
    source = _source(settings, split, audio, data, run)
    if teacher is not None:
        from train.teacher import teacher_vectors  # late: only distillation needs transformers

        paths = [clip.path for clip in split.train]
        source = replace(source, teacher=teacher_vectors(teacher, paths, audio, run.parent / "cache"))
    trainer = Trainer(settings, run, source.teacher_size)
    if start is not None:
        trainer.start_from(start, speakers)
    trainer.resume()
    about: dict[str, object] = {
        "speakers": speakers,
        "training_data": bill_of_materials(source, settings),
        "started_from": file_sha256(start) if start else None,
    }
    while trainer.epoch < settings.optimiser.epochs:
        loss = trainer.train_epoch(source)
        _validate_and_keep(trainer, split.validation, audio, loss, about)
    return trainer.best


def _validate_and_keep(
    trainer: Trainer, clips: Sequence[Clip], audio: AudioCache, loss: float, about: dict[str, object]
) -> None:
    record: dict[str, float] = {"epoch": trainer.epoch, "loss": round(loss, 4)}
    if trainer.epoch % VALIDATE_EVERY == 0 or trainer.epoch == trainer.settings.optimiser.epochs:
        ua = validation_ua(trainer.kept, clips, audio)
        record["validation_ua"] = round(ua, 4)
        if ua > trainer.best:
            trainer.best = ua
            trainer.save_best({"validation_ua": ua, **about})
    trainer.save()
    with (trainer.run / "metrics.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(record) + "\n")
    tqdm.write("  ".join(f"{name} {value}" for name, value in record.items()))


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.distill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", type=Path, help="TOML file, for example train/configs/mdat.toml")
    parser.add_argument("--data", type=Path, help="the corpora's folder (default: EDGE_SER_DATA)")
    parser.add_argument("--run", type=Path, help="the run's folder (default: runs/NAME)")
    parser.add_argument("--epochs", type=int, help="train for another number of epochs than the settings say")
    parser.add_argument("--start", type=Path, metavar="CHECKPOINT", help="begin with these weights, not random ones")
    parser.add_argument("--teacher", type=Path, metavar="FOLDER", help="a Whisper encoder to learn from")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    options = parser.parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        settings = with_epochs(read_settings(options.settings), options.epochs)
        run = options.run or Path("runs") / settings.name
        best = train(settings, data_folder(options.data), run, options.start, options.teacher)
    except EdgeSerError as error:
        print(f"distill: {error}", file=sys.stderr)
        return 1
    print(f"best validation UA {best:.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
