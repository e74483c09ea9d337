"""Training rows of the students: utterances of about one length with noise, words and a voice; sound beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset

from edge_ser.prosody import prosody
from train.augment import Augmenter, non_speech
from train.students.bank import FRAME_SAMPLES, LONGEST_SILENCE_FRAMES, Bank, Item
from train.students.histories import Histories
from train.text import ConstructedPairs, encode_batch

FEMALE, MALE, UNKNOWN = 0, 1, -1


@dataclass(frozen=True)
class RowShape:
    """How a batch is made up."""

    utterances: int = 32
    non_speech: int = 6
    """Rows of noise, tones and near-silence, whose right answer is no preference."""
    partial: float = 0.25
    """Share of batches cut to 0.4 to 2 s."""
    sentence: float = 0.3
    """Share of utterances that come with a constructed sentence of the same emotion."""
    transcript: float = 0.15
    """Share that come with their own words, which hold no emotion in acted corpora."""
    silent: float = 0.5
    """Share of batches with silence before and after the utterances, up to 1.6 s in all."""
    moved: float = 0.4
    """Share of utterances whose frames are moved towards another speaker's."""
    typical_s: float = 2.6
    """Lengths are log-normal around it."""


@dataclass(frozen=True)
class Labelled:
    """What is known of a recording beside its sound."""

    transcript: str
    gender: int
    """0 female, 1 male, -1 unknown."""


@dataclass(frozen=True)
class RowSource:
    """Everything that rows are drawn from, but voices."""

    bank: Bank
    taught: NDArray[np.float32]
    """The teacher's answers (items with a label, C), in the order of the bank."""
    about: Sequence[Labelled]
    """By recording, those with a label."""
    augmenter: Augmenter
    tokenizer: Tokenizer
    pairs: ConstructedPairs
    max_tokens: int


@dataclass(frozen=True)
class StudentBatch:
    """One step's rows: utterances, then sound that is nobody's speech."""

    told: dict[str, Tensor]
    """`audio` (B + M, samples), `text_ids` and `text_mask` (B + M, tokens), `prosody` (B + M, 103) where it is read,
    `voice` (B + M, 2 D + 1)."""
    labels: Tensor
    """Int64 (B,)."""
    gender: Tensor
    """Int64 (B,)."""
    taught: Tensor
    """Float32 (B, C): what the teacher makes of the whole recording and its speaker."""
    moved: Tensor
    """Float32 (B + M, D / 2): by how much frames and voice are moved towards another speaker's, mostly zero."""


class StudentRows(Dataset[StudentBatch]):
    """The batch of a step is always the same, so that a resumed run is the same run."""

    def __init__(
        self,
        source: RowSource,
        histories: Histories,
        shape: RowShape,
        *,
        with_prosody: bool,
        seed: int,
        steps: range,
    ) -> None:
        self.source, self.histories, self.shape = source, histories, shape
        self.with_prosody, self.seed, self.steps = with_prosody, seed, steps
        bank = source.bank
        labelled = [item for item in bank.items if item.label >= 0]
        self.taught = {item.start_sample: row for item, row in zip(labelled, source.taught, strict=True)}
        self.variants: dict[int, list[Item]] = {}
        for item in labelled:
            self.variants.setdefault(item.recording, []).append(item)
        self.recordings = [n for n in self.variants for _ in range(bank.recordings[n].repeat)]

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> StudentBatch:
        """Return the batch of one step."""
        shape = self.shape
        rng = np.random.default_rng((self.seed, self.steps[index]))
        items = self._items(rng)
        frames = int(np.median([item.frames for item in items]))
        if rng.random() < shape.partial:
            frames = min(frames, int(rng.integers(10, 50)))
        silent = int(rng.integers(1, LONGEST_SILENCE_FRAMES + 1)) if rng.random() < shape.silent else 0
        waves = [self._wave(item, frames, silent, rng) for item in items]
        samples = (frames + silent) * FRAME_SAMPLES
        waves += [non_speech(samples, self.source.augmenter, rng) for _ in range(shape.non_speech)]
        ids, mask = encode_batch(self.source.tokenizer, self._texts(items, rng), self.source.max_tokens)
        # Sound may come at any time: what of it passes for speech meets the voices of the first rows, too.
        met = [*items, *(items[place % len(items)] for place in range(shape.non_speech))]
        voices = [self.histories.draw(item.recording, rng) for item in met]
        told = {
            "audio": torch.from_numpy(np.stack(waves).astype(np.float32)),
            "text_ids": torch.from_numpy(ids),
            "text_mask": torch.from_numpy(mask),
            "voice": torch.from_numpy(np.stack(voices)),
        }
        if self.with_prosody:
            told["prosody"] = torch.from_numpy(np.stack([prosody(wave.astype(np.float32)) for wave in waves]))
        gender = [self.source.about[item.recording].gender for item in items]
        taught = torch.from_numpy(np.stack([self.taught[item.start_sample] for item in items]))
        moved = [self._towards_another(item.recording, rng) for item in items]
        moved += [np.zeros_like(moved[0])] * shape.non_speech
        labels = torch.tensor([item.label for item in items])
        return StudentBatch(told, labels, torch.tensor(gender), taught, torch.from_numpy(np.stack(moved)))

    def _towards_another(self, recording: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return what takes frames of a recording's speaker towards, or beyond, another speaker's."""
        distance = rng.uniform(0.5, 1.5) if rng.random() < self.shape.moved else 0.0
        return (self.histories.between(recording, rng) * distance).astype(np.float32)

    def _items(self, rng: np.random.Generator) -> list[Item]:
        """Return utterances of about one length, of any speaker."""
        wanted = float(np.exp(rng.normal(np.log(self.shape.typical_s), 0.35))) * 25.0
        pool = rng.choice(self.recordings, 5 * self.shape.utterances)
        drawn = [self.variants[int(n)][int(rng.integers(len(self.variants[int(n)])))] for n in pool]
        drawn.sort(key=lambda item: abs(item.frames - wanted))
        return drawn[: self.shape.utterances]

    def _wave(self, item: Item, frames: int, silent: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return a stretch of a recording among `silent` frames of silence, some before and some after."""
        taken = min(frames, item.frames)
        first = int(rng.integers(item.frames - taken + 1)) if rng.random() < 0.5 else 0
        place = int(rng.integers(silent + min(frames - taken, 10) + 1)) * FRAME_SAMPLES
        wave = np.zeros((frames + silent) * FRAME_SAMPLES, np.float32)
        wave[place : place + taken * FRAME_SAMPLES] = self.source.bank.wave(item, first, taken)
        floor = np.float32(np.abs(wave).max() * 10.0 ** rng.uniform(-4.5, -2.5))
        return self.source.augmenter(wave + rng.standard_normal(len(wave)).astype(np.float32) * floor, rng)

    def _texts(self, items: list[Item], rng: np.random.Generator) -> list[str]:
        shape, texts = self.shape, []
        for item in items:
            chance = rng.random()
            if chance < shape.sentence:
                texts.append(self.source.pairs.draw(item.label, rng))
            elif chance < shape.sentence + shape.transcript:
                texts.append(self.source.about[item.recording].transcript)
            else:
                texts.append("")
        return texts + [""] * shape.non_speech
