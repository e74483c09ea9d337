"""The second stage: the fusions of the students learn side by side over one frozen small encoder.

All of them see the same rows, and the encoder runs once a step. Their embedding is the encoder's, so a voice that one
model has learnt serves the others of its tier.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from edge_ser.corpus import FOUR_CLASSES
from edge_ser.errors import ConfigError
from edge_ser.prosody import prosody
from train.augment import Chances
from train.checkpoint import flatten_optimizer, read_checkpoint, restore_optimizer, save_checkpoint
from train.splits import Split
from train.spoken import read_spoken
from train.students.bank import Bank, open_bank
from train.students.config import StudentConfig
from train.students.embeddings import embeddings_of
from train.students.examiner import Examiner
from train.students.familiarity import Familiarity
from train.students.first_opinion import first_opinion
from train.students.fusion import Heard
from train.students.fusions.camulenet import CamulenetFusion
from train.students.fusions.hump_cat import HumpCatFusion
from train.students.histories import Histories
from train.students.keep import save_student
from train.students.material import Source, augmenter_of, recordings_of, sentences_row, speakers_of
from train.students.pooled_teacher import PooledTeacher
from train.students.rows import Labelled, RowSource, StudentBatch, StudentRows
from train.students.run_settings import EncoderSettings, StudentSettings, read_split
from train.students.schedule import adamw, learning_rate, running_average, set_rate
from train.students.student import Student
from train.students.word_reader import read_first
from train.systems.hump_cat import am_logits
from train.teacher import FrameTeacher
from train.text import ConstructedPairs, read_sentences, train_tokenizer
from train.text_encoder import read_labelled

CHANCES = Chances(speed=0.0, room=0.45, simulated=0.5, noise=0.4, band=0.2, clip=0.06, coarse=0.08, pad=0.0)
NEUTRAL = FOUR_CLASSES.index("neutral")
_MARGIN = 1.6
"""Taken off the own class's logit by additive-margin softmax: 0.1 in cosine, times 16."""
_GENDERS = {"f": 0, "m": 1}
_ENCODER = ("speech.", "module.speech.")


class StudentRun:
    """The students of one run, their running averages and their optimiser."""

    def __init__(self, settings: StudentSettings, encoder: Path) -> None:
        torch.manual_seed(settings.seed)
        weights, header = read_checkpoint(encoder)
        opinion = weights.pop("opinion.weight").float(), weights.pop("opinion.bias").float()
        raw: Any = header["settings"]
        self.about: dict[str, Any] = dict(header)
        self.encoder = EncoderSettings(**{**raw, "corpora": tuple(raw["corpora"])})
        self.settings = settings
        self.students = {name: self._student(name, weights, opinion) for name in settings.systems}
        blend = running_average(settings.average_decay)
        self.averages = {
            name: AveragedModel(student, avg_fn=blend, use_buffers=True) for name, student in self.students.items()
        }
        learnt = [parameter for student in self.students.values() for parameter in student.parameters()]
        self.optimiser = adamw(learnt, settings.peak_learning_rate, settings.weight_decay)
        self.step_number = 0

    def _student(self, system: str, weights: dict[str, Tensor], opinion: tuple[Tensor, Tensor]) -> Student:
        about = self.encoder
        config = StudentConfig(
            system=system,
            mels=about.mels,
            speech_width=about.width,
            speech_blocks=about.blocks,
            speech_layers=about.layers,
            speech_passes=about.passes,
            **self.settings.model,
        )
        student = Student(config)
        student.speech.load_state_dict(weights)
        student.speech.requires_grad_(False)
        student.voice.take_opinion(*opinion)
        return student

    @property
    def first(self) -> Student:
        """Any of them: their encoders are one and the same."""
        return next(iter(self.students.values()))

    def kept(self, name: str) -> Student:
        """Return the running average of a student, which is what is validated and kept."""
        student = self.averages[name].module
        assert isinstance(student, Student)
        return student

    def everyone(self) -> list[Student]:
        """Return all students and their averages."""
        return [*self.students.values(), *(self.kept(name) for name in self.students)]

    def step(self, batch: StudentBatch) -> dict[str, float]:
        """Take one step and return each student's loss."""
        settings = self.settings
        torch.manual_seed(settings.seed * 1_000_003 + self.step_number)
        steps, warmup, peak = settings.steps, settings.warmup_steps, settings.peak_learning_rate
        set_rate(self.optimiser, learning_rate(self.step_number, steps=steps, warmup=warmup, peak=peak))
        self._train_fusions()
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bfloat16"):
            with torch.no_grad():
                mel, early, frames, embedding = self.first.listen(batch.told["audio"])
            losses = {}
            for name, student in self.students.items():
                told, *opinion = _sensed(student, frames, embedding, batch)
                losses[name] = loss_of(student, Heard(mel, early, frames, embedding, told, *opinion), batch, settings)
        self.optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        for student in self.students.values():
            nn.utils.clip_grad_norm_([p for p in student.parameters() if p.requires_grad], 1.0)
        self.optimiser.step()
        for name, average in self.averages.items():
            average.update_parameters(self.students[name])
        self.step_number += 1
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on, but the encoder."""
        tensors: dict[str, Tensor] = {}
        for name in self.students:
            for kind, module in (("student", self.students[name]), ("average", self.averages[name])):
                own = {key: value for key, value in module.state_dict().items() if not key.startswith(_ENCODER)}
                tensors |= {f"{kind}.{name}.{key}": value for key, value in own.items()}
        header = {"step": self.step_number, "settings": asdict(self.settings), "encoder": self.about}
        save_checkpoint(path, tensors | flatten_optimizer(self.optimiser), header)

    def resume(self, path: Path) -> None:
        """Go on from what `save` wrote, if it is there.

        Raises:
            ConfigError: It was begun with other settings or over another encoder.
        """
        if not path.is_file():
            return
        tensors, header = read_checkpoint(path)
        current = json.loads(json.dumps({"settings": asdict(self.settings), "encoder": self.about}))
        if any(header[key] != current[key] for key in current):
            raise ConfigError(
                f"{path.parent} was begun with other settings or another encoder; need the same to go on; "
                "choose another --run or remove that folder"
            )
        for name in self.students:
            for kind, module in (("student", self.students[name]), ("average", self.averages[name])):
                prefix = f"{kind}.{name}."
                own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
                lacking = [key for key in module.load_state_dict(own, strict=False)[0] if not key.startswith(_ENCODER)]
                if lacking:
                    raise ConfigError(
                        f"{path} lacks {lacking[0]}: another version began it; need one of this version to go on; "
                        "choose another --run or remove that folder"
                    )
        restore_optimizer(self.optimiser, tensors)
        self.step_number = int(str(header["step"]))

    def _train_fusions(self) -> None:
        for student in self.students.values():
            student.train()
            student.speech.eval()  # frozen: it neither drops out nor hides anything


def _sensed(student: Student, frames: Tensor, embedding: Tensor, batch: StudentBatch) -> list[Tensor]:
    """Return what the voice's part gives, the frames of some rows moved towards another speaker's, opinions never."""
    voice, moved = batch.told["voice"], batch.moved
    nothing = torch.zeros_like(moved)
    moved_voice = voice + torch.cat([nothing[:, :1], moved, nothing, nothing, nothing], dim=1)
    moved_embedding = embedding + torch.cat([moved, nothing], dim=1)
    told = student.voice(frames + moved.unsqueeze(1), moved_embedding, moved_voice)[0]
    return [told, *student.voice(frames, embedding, voice)[1:]]


def loss_of(student: Student, heard: Heard, batch: StudentBatch, settings: StudentSettings) -> Tensor:
    """Return one student's loss: the emotion, no preference for sound, and what its paper adds."""
    spoken = len(batch.labels)
    extra = torch.zeros(())
    if isinstance(student.fusion, CamulenetFusion):
        added, gender = student.fusion.with_gender(heard)
        known = (batch.gender >= 0).float()
        wanted = batch.gender.clamp(min=0).float()
        each = nn.functional.binary_cross_entropy_with_logits(gender[:spoken].float(), wanted, reduction="none")
        extra = settings.gender_weight * (each * known).sum() / known.sum().clamp(min=1.0)
    else:
        added = student.fusion(heard, batch.told)
    logits = (heard.opinion + added).float()
    said = logits[:spoken]
    if isinstance(student.fusion, HumpCatFusion):
        said = am_logits(said, batch.labels, _MARGIN)
    loss = (1.0 - settings.taught) * nn.functional.cross_entropy(
        said, batch.labels, label_smoothing=settings.label_smoothing
    ) + settings.taught * nn.functional.cross_entropy(logits[:spoken], batch.taught)
    nobody = -nn.functional.log_softmax(logits[spoken:], dim=-1).mean()
    # Without words the first opinion is hard to better on strangers, and easy to better on clips learnt by heart.
    silent = 1.0 - batch.told["text_mask"][:spoken].amax(dim=1).to(logits.dtype)
    centred = added[:spoken].float() - added[:spoken].float().mean(1, keepdim=True)
    moderation = (centred.square().mean(1) * silent).mean()
    return loss + settings.non_speech_weight * nobody + settings.moderation * moderation + extra


def train_students(settings: StudentSettings, source: Source, encoder: Path, run: Path) -> None:
    """Train to the last step and keep every student; a run that was stopped goes on.

    Args:
        settings: What to train.
        source: As in the first stage, whose bank of recordings is used again.
        encoder: Folder of the first stage's run.
        run: The run's folder.
    """
    run.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(encoder / "encoder.safetensors", run / "encoder.safetensors")
    state = StudentRun(settings, run / "encoder.safetensors")
    data, about = source.data, state.encoder
    split = read_split(about, data)
    recordings = recordings_of(split, data, about, source.spoken)
    cache = run.parent / "cache"
    bank = open_bank(recordings, FrameTeacher(source.teacher), cache, seed=about.seed)
    tokenizer = _tokenizer(run, data, state.first.config.vocabulary)
    _teach_to_read(state, run / "reader.safetensors", tokenizer, data)
    rows = _rows(state, split, bank, data, tokenizer)
    state.resume(run / "last.safetensors")
    rows.steps = range(state.step_number, settings.steps)
    examiner = Examiner(split.validation, data, tokenizer, state.first.eval())
    sums: dict[str, list[float]] = {}
    began_s = time.monotonic()
    for batch in DataLoader(rows, batch_size=None, num_workers=1, prefetch_factor=6):
        for name, loss in state.step(batch).items():
            sums.setdefault(name, []).append(loss)
        if state.step_number % settings.validate_every == 0 or state.step_number == settings.steps:
            figures = {name: examiner(state.kept(name)) for name in state.students}
            _report(state, run, sums, figures, time.monotonic() - began_s)
            _keep(state, run, split, data, figures)
            state.save(run / "last.safetensors")
            sums.clear()


def _teach_to_read(state: StudentRun, kept: Path, tokenizer: Tokenizer, data: Path) -> None:
    """Give every student that reads a text encoder that can; `kept` holds it for the next time."""
    readers = [student for student in state.everyone() if "text_ids" in student.fusion.reads]
    if not readers:
        return
    if not kept.is_file():
        settings = state.settings
        sentences = [s for s in read_labelled(data / "text" / "goemotions.csv.gz") if s.split == "train"]
        reading = read_first(state.first.config, sentences, tokenizer, settings.reading_steps, settings.seed)
        about = {"steps": settings.reading_steps, "seed": settings.seed}
        save_checkpoint(kept, dict(reading.text.state_dict()), about)
    for student in readers:
        text = student.fusion.get_submodule("text")
        text.load_state_dict(read_checkpoint(kept)[0])
        # Of the few sentences that come with clips it would learn each by heart.
        text.requires_grad_(False)


def _pairs(data: Path) -> ConstructedPairs:
    return ConstructedPairs.of(read_sentences(data / "text" / "goemotions.csv.gz"), "train")


def _rows(state: StudentRun, split: Split, bank: Bank, data: Path, tokenizer: Tokenizer) -> StudentRows:
    settings, augmenter = state.settings, augmenter_of(data, CHANCES)
    found = embeddings_of(state.first, bank, augmenter, settings)
    opinion = first_opinion(bank.recordings, found)
    embeddings = [rows for n, rows in found.items() if bank.recordings[n].label >= 0]
    everybody = torch.from_numpy(np.concatenate(embeddings))
    labelled = [bank.recordings[n] for n in found if bank.recordings[n].label >= 0]
    often = [rows for rows, about in zip(embeddings, labelled, strict=True) for _ in range(about.repeat)]
    reads_prosody = [student for student in state.everyone() if isinstance(student.fusion, HumpCatFusion)]
    numbers = [prosody(read_spoken(clip.path)) for clip in split.train[::4]] if reads_prosody else []
    familiarity = Familiarity(everybody.shape[1])
    familiarity.learn(torch.from_numpy(np.concatenate(often)))
    for student in state.everyone():
        student.voice.learn_everybody(everybody)
        student.voice.take_opinion(*opinion)
        student.familiarity.load_state_dict(familiarity.state_dict())
    for student in reads_prosody:
        assert isinstance(student.fusion, HumpCatFusion)
        student.fusion.learn_prosody(torch.from_numpy(np.stack(numbers)))
    labels = [FOUR_CLASSES.index(clip.emotion) for clip in split.train]
    speakers = [clip.speaker for clip in split.train]
    source = RowSource(
        bank,
        PooledTeacher(bank.targets.shape[1], len(FOUR_CLASSES)).learn(bank),
        [Labelled(clip.transcript, _GENDERS.get(clip.gender, -1)) for clip in split.train],
        augmenter,
        tokenizer,
        _pairs(data),
        state.first.config.max_tokens,
    )
    return StudentRows(
        source,
        Histories(embeddings, speakers, labels, neutral=NEUTRAL, shares=settings.histories),
        settings.shape,
        with_prosody=bool(reads_prosody),
        seed=settings.seed,
        steps=range(settings.steps),
    )


def _report(
    state: StudentRun, run: Path, sums: dict[str, list[float]], figures: dict[str, dict[str, float]], seconds: float
) -> None:
    losses = {name: round(float(np.mean(values)), 4) for name, values in sums.items()}
    record = {"step": state.step_number, "seconds": round(seconds, 1), "loss": losses, "validation_ua": figures}
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(record) + "\n")
    print(json.dumps(record), flush=True)


def _keep(state: StudentRun, run: Path, split: Split, data: Path, figures: dict[str, dict[str, float]]) -> None:
    for name in state.students:
        student = state.kept(name)
        materials = list(state.about["training_data"])
        materials += [sentences_row(data)] if "text_ids" in student.fusion.reads else []
        header = {
            "name": f"{name}{state.settings.suffix}",
            "tier": state.encoder.tier,
            "licence": state.encoder.licence,
            "step": state.step_number,
            "settings": {
                "model": asdict(student.config),
                "training": asdict(state.settings),
                "encoder": asdict(state.encoder),
                "encoder_steps": state.about["step"],
            },
            "speakers": speakers_of(split),
            "training_data": materials,
            "validation": figures[name],
        }
        save_student(run / f"{name}.safetensors", student, run / "encoder.safetensors", header)


def _tokenizer(run: Path, data: Path, vocabulary: int) -> Tokenizer:
    path = run / "tokenizer.json"
    if not path.is_file():
        texts = [s.text for s in read_sentences(data / "text" / "goemotions.csv.gz") if s.split == "train"]
        train_tokenizer(texts, vocabulary).save(str(path))
    return Tokenizer.from_file(str(path))
