"""The first stage: from random weights a small encoder learns to hear what a pretrained one hears.

Every step shows it speech with noise, rooms, other channels and coarse codecs, and asks for what the teacher made of
the clean wave: its frames, mean and deviation of those in which somebody speaks, and what of these tells emotions
apart. Silence of any length stands around the speech and changes nothing. It never sees a label, so there is none to
learn by heart, and the second stage finds clips that a voice still helps with.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from edge_ser.corpus import FOUR_CLASSES, Clip
from edge_ser.errors import ConfigError
from edge_ser.metrics import confusion_matrix, unweighted_accuracy
from train.augment import SAMPLE_RATE_HZ, Chances, Wave
from train.checkpoint import flatten_optimizer, read_checkpoint, restore_optimizer, save_checkpoint
from train.splits import Split
from train.spoken import read_spoken
from train.students.bank import Bank, open_bank
from train.students.beginning import read_beginning
from train.students.encoder_rows import UTTERANCES, EncoderBatch, EncoderRows
from train.students.fit_heads import fit_heads
from train.students.keep import OPINION
from train.students.material import Source, augmenter_of, bill_of_materials, recordings_of, speakers_of
from train.students.pooled_teacher import FEWEST_FRAMES, SOFTNESS, PooledTeacher
from train.students.run_settings import EncoderSettings, read_split
from train.students.schedule import adamw, learning_rate, running_average, set_rate
from train.students.small_encoders import SpeechEncoder
from train.teacher import FrameTeacher

CHANCES = Chances(speed=0.0, room=0.45, simulated=0.5, noise=0.45, band=0.2, clip=0.06, coarse=0.08, pad=0.0)
"""What a microphone does to a row; the bank has changed the speed already."""


class TrainingEncoder(nn.Module):
    """The speech encoder and the heads that only training needs."""

    def __init__(self, settings: EncoderSettings, teacher_size: int) -> None:
        super().__init__()
        self.speech = SpeechEncoder(
            width=settings.width,
            mels=settings.mels,
            blocks=settings.blocks,
            layers=settings.layers,
            passes=settings.passes,
            dropout=settings.dropout,
        )
        self.frames = nn.Linear(settings.width, teacher_size)
        self.vector = nn.Linear(2 * settings.width, 2 * teacher_size)
        self.emotion = nn.Linear(2 * settings.width, 2 * len(FOUR_CLASSES))
        self.pooled = PooledTeacher(teacher_size, len(FOUR_CLASSES))

    def embed(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return frames (B, T, D) and their mean and deviation (B, 2 D)."""
        frames = self.speech(audio)[2]
        return frames, self.speech.pooled(frames)

    def opinion(self) -> dict[str, Tensor]:
        """Return weights and biases of the emotions' logits for an embedding, alone and against the speaker's mean."""
        scale = 2.0 / SOFTNESS
        bias = self.emotion.bias.detach().clone()
        # A difference of two embeddings leaves nothing of the second half's bias.
        bias[len(bias) // 2 :] = 0.0
        weights = {"weight": self.emotion.weight.detach(), "bias": bias + self.pooled.offsets}
        return {f"{OPINION}{name}": value * scale for name, value in weights.items()}

    def losses(self, batch: EncoderBatch, speakers: int) -> dict[str, Tensor]:
        """Return the parts of one batch's loss, each about 1 for a guess that knows nothing.

        The whole utterance counts twice: as it is, and as it differs from the speaker's other utterances in the batch,
        which is what emotion is heard by and little of what utterances differ by.
        """
        frames, embedding = self.embed(batch.audio)
        guess, weight = self.frames(frames).float(), batch.mask.unsqueeze(-1)
        targets = self.pooled(batch.pooled)
        # A row in which nobody speaks has nothing to be pooled.
        said = (batch.spoken.sum(1, keepdim=True) >= FEWEST_FRAMES).float()
        vector = (self.vector(embedding).float() - targets.vector) * said
        emotion = (self.emotion(embedding).float() - targets.emotion) * said
        emotion = emotion / self.pooled.within[-emotion.shape[1] :]
        within = _within(vector, said, speakers) / self.pooled.within[: vector.shape[1]]
        presence = self.speech.presence(frames).float().squeeze(-1)
        return {
            "frame": (((guess - batch.frames) ** 2) * weight).sum() / (weight.sum() * guess.shape[-1]),
            "vector": nn.functional.smooth_l1_loss(vector, torch.zeros_like(vector)),
            "within": within.square().mean(),
            "emotion": nn.functional.smooth_l1_loss(emotion, torch.zeros_like(emotion)),
            "emotion_within": _within(emotion, said, speakers).square().mean(),
            "presence": nn.functional.binary_cross_entropy_with_logits(presence, batch.spoken),
        }


def _within(errors: Tensor, said: Tensor, speakers: int) -> Tensor:
    """Return errors (speakers x 4, K) of the speakers' utterances less each speaker's mean over those that were said.

    `said` (B, 1) is 0 where nobody speaks; such errors are zero, and stay so.
    """
    groups = errors[: speakers * UTTERANCES].view(speakers, UTTERANCES, -1)
    weights = said[: speakers * UTTERANCES].view(speakers, UTTERANCES, 1)
    mean = (groups * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=1.0)
    return (groups - mean) * weights * (UTTERANCES / (UTTERANCES - 1)) ** 0.5


class EncoderRun:
    """One run: encoder, running average, optimiser, and where it stands."""

    def __init__(self, settings: EncoderSettings, run: Path, teacher_size: int) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.run, self.step_number = settings, run, 0
        self.model = TrainingEncoder(settings, teacher_size)
        average = running_average(settings.average_decay)
        self.average = AveragedModel(self.model, avg_fn=average, use_buffers=True)
        self.optimiser = adamw(self.model.parameters(), settings.peak_learning_rate, settings.weight_decay)
        self.lacks_heads = False

    @property
    def kept(self) -> TrainingEncoder:
        """The running average, which is what is validated and kept."""
        kept = self.average.module
        assert isinstance(kept, TrainingEncoder)
        return kept

    def step(self, batch: EncoderBatch) -> dict[str, float]:
        """Take one step and return the parts of its loss."""
        settings = self.settings
        torch.manual_seed(settings.seed * 1_000_003 + self.step_number)
        steps, warmup, peak = settings.steps, settings.warmup_steps, settings.peak_learning_rate
        set_rate(self.optimiser, learning_rate(self.step_number, steps=steps, warmup=warmup, peak=peak))
        self.model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bfloat16"):
            parts = self.model.losses(batch, settings.speakers)
        self.optimiser.zero_grad()
        torch.stack([settings.weights[name] * part for name, part in parts.items()]).sum().backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.average.update_parameters(self.model)
        self.step_number += 1
        return {name: float(value.detach()) for name, value in parts.items()}

    def save(self, about: Mapping[str, object]) -> None:
        """Write last.safetensors (to go on) and encoder.safetensors (the average in half precision, to build on)."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        header = {"step": self.step_number, "settings": asdict(self.settings), **about}
        save_checkpoint(self.run / "last.safetensors", tensors | flatten_optimizer(self.optimiser), header)
        weights = self.kept.speech.state_dict() | self.kept.opinion()
        half = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
        save_checkpoint(self.run / "encoder.safetensors", half, header)

    def learn_targets(self, bank: Bank) -> None:
        """Fit what the teacher's frames are turned into, and heads where the encoder came without."""
        model = self.model
        model.pooled.learn(bank)
        if self.lacks_heads:
            heads = model.frames, model.vector, model.emotion
            fit_heads(model.speech, model.pooled, heads, bank, seed=self.settings.seed)
            self.kept.load_state_dict(model.state_dict())
        self.kept.pooled.load_state_dict(model.pooled.state_dict())

    def resume(self) -> bool:
        """Go on from last.safetensors; return whether there is one.

        Raises:
            ConfigError: The run was begun with other settings.
        """
        path = self.run / "last.safetensors"
        if not path.is_file():
            return False
        tensors, header = read_checkpoint(path)
        stored, current = header["settings"], json.loads(json.dumps(asdict(self.settings)))
        assert isinstance(stored, dict)
        stored = {"passes": 1, **stored}  # earlier versions knew of one alone
        changed = sorted(
            name for name in current if name not in ("steps", "licence") and current[name] != stored.get(name)
        )
        if changed:
            raise ConfigError(
                f"{self.run} was begun with another {', '.join(changed)}; need the same settings to go on; "
                "choose another --run or remove that folder"
            )
        self._take(tensors)
        restore_optimizer(self.optimiser, tensors)
        self.step_number = int(str(header["step"]))
        return True

    def start_from(self, folder: Path, speakers: Mapping[str, list[str]]) -> None:
        """Begin with the weights of another run, or with an encoder that was kept (train.students.beginning).

        Raises:
            ConfigError: They are not there or do not fit this run.
        """
        beginning = read_beginning(folder, self.settings, speakers)
        self.lacks_heads = beginning.lacks_heads
        own = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        own |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        self._take({name: value for name, value in own.items() if not beginning.gives(name)} | dict(beginning.tensors))

    def _take(self, tensors: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict({n.removeprefix("model."): v for n, v in tensors.items() if n.startswith("model.")})
        average = {n.removeprefix("average."): v for n, v in tensors.items() if n.startswith("average.")}
        self.average.load_state_dict(average)


def train_encoder(settings: EncoderSettings, source: Source, run: Path, start: Path | None) -> None:
    """Train to the last step; a run that was stopped goes on.

    Args:
        settings: What to train.
        source: The corpora, the teacher and speech without labels.
        run: The run's folder.
        start: Folder of a run whose weights to begin with, or of a kept encoder; None for random ones.

    Raises:
        ConfigError: Settings and run do not fit each other.
    """
    run.mkdir(parents=True, exist_ok=True)
    split, data, teacher = read_split(settings, source.data), source.data, FrameTeacher(source.teacher)
    state = EncoderRun(settings, run, teacher.size)
    goes_on = state.resume()
    if start is not None and not goes_on:
        state.start_from(start, speakers_of(split))
    recordings = recordings_of(split, data, settings, source.spoken)
    bank = open_bank(recordings, teacher, run.parent / "cache", seed=settings.seed)
    if not goes_on:
        state.learn_targets(bank)
    about = {"speakers": speakers_of(split), "training_data": bill_of_materials(settings, split, data, recordings)}
    rows = EncoderRows(bank, augmenter_of(data, CHANCES), settings, state.step_number)
    sums: dict[str, list[float]] = {}
    began_s = time.monotonic()
    for batch in DataLoader(rows, batch_size=None, num_workers=1, prefetch_factor=8):
        for name, value in state.step(batch).items():
            sums.setdefault(name, []).append(value)
        if state.step_number % settings.save_every == 0 or state.step_number == settings.steps:
            _report(state, split, sums, time.monotonic() - began_s)
            state.save(about)
            sums.clear()


def _report(state: EncoderRun, split: Split, sums: Mapping[str, list[float]], seconds: float) -> None:
    record: dict[str, float] = {"step": state.step_number, "seconds": round(seconds, 1)}
    record |= {name: round(float(np.mean(values)), 4) for name, values in sums.items()}
    record |= validate(state.kept, split.validation)
    with (state.run / "metrics.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(record) + "\n")
    print(json.dumps(record), flush=True)


@torch.no_grad()
def validate(model: TrainingEncoder, clips: list[Clip]) -> dict[str, float]:
    """Return UA of the guessed discriminants on the validation speakers.

    Alone, against a speaker's other clips, and alone with a second of silence before and after.
    """
    model.eval()
    truth, classes = [FOUR_CLASSES.index(clip.emotion) for clip in clips], len(FOUR_CLASSES)
    waves = [read_spoken(clip.path) for clip in clips]
    table = _guesses(model, waves)
    mean = torch.zeros_like(table)
    for speaker in {clip.speaker for clip in clips}:
        own = [n for n, clip in enumerate(clips) if clip.speaker == speaker]
        mean[own] = (table[own].sum(0) - table[own]) / max(len(own) - 1, 1)

    def score(logits: Tensor) -> float:
        return round(unweighted_accuracy(confusion_matrix(truth, logits.argmax(1).numpy(), classes)), 4)

    offsets = model.pooled.offsets
    alone, relative = table[:, :classes] + offsets[:classes], (table - mean)[:, classes:] + offsets[classes:]
    in_silence = _guesses(model, [np.pad(wave, SAMPLE_RATE_HZ) for wave in waves])[:, :classes] + offsets[:classes]
    return {"ua_alone": score(alone), "ua_relative": score(relative), "ua_in_silence": score(in_silence)}


def _guesses(model: TrainingEncoder, waves: list[Wave]) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return torch.stack([model.emotion(model.embed(torch.from_numpy(wave)[None])[1])[0] for wave in waves]).float()
