"""Batches for the first stage: a few speakers, four utterances each, and unlabelled sound; all of about one length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from train.augment import Augmenter
from train.students.bank import FRAME_SAMPLES, LONGEST_SILENCE_FRAMES, Bank, Item
from train.students.pooled_teacher import pooled_item
from train.students.run_settings import EncoderSettings

UTTERANCES = 4
"""Utterances of one speaker that stand together."""
_TYPICAL_S = 2.6
_SILENT_SHARE = 0.6
"""Of the batches: rows have silence before and after the utterance."""


@dataclass(frozen=True)
class EncoderBatch:
    """One step's rows: speakers x 4 utterances, then sound that is nobody's in particular."""

    audio: Tensor
    """Float32 (B, frames x 640)."""
    frames: Tensor
    """Float32 (B, frames, size): the teacher's, for the wave without noise."""
    mask: Tensor
    """Float32 (B, frames): 1 where the teacher has a say, which is not in silence around the recording."""
    spoken: Tensor
    """Float32 (B, frames): how much somebody speaks, in [0, 1]."""
    pooled: Tensor
    """Float32 (B, 2 size): mean and deviation of the teacher's frames of speech in the whole recording, however little
    of it the row holds."""


class EncoderRows(Dataset[EncoderBatch]):
    """The batch of a step is always the same, so that a resumed run is the same run."""

    def __init__(self, bank: Bank, augmenter: Augmenter, settings: EncoderSettings, first_step: int) -> None:
        self.bank, self.augmenter, self.settings, self.first_step = bank, augmenter, settings, first_step
        self.by_recording: dict[int, list[Item]] = {}
        for item in bank.items:
            self.by_recording.setdefault(item.recording, []).append(item)
        voiced = [n for n in self.by_recording if bank.recordings[n].speaker]
        self.others = [item for n, own in self.by_recording.items() if not bank.recordings[n].speaker for item in own]
        self.others += [item for n in voiced for item in self.by_recording[n] if item not in self._usable_variants(n)]
        self.speakers: dict[str, list[int]] = {}
        for n in voiced:
            self.speakers.setdefault(bank.recordings[n].speaker, []).append(n)
        # A changed voice with too few utterances to stand together is anybody's.
        few = [name for name, own in self.speakers.items() if len(own) < UTTERANCES]
        for name in (name for name in few if bank.recordings[self.speakers[name][0]].label < 0):
            self.others += [item for n in self.speakers.pop(name) for item in self._usable_variants(n)]
        sizes = [len(own) * bank.recordings[own[0]].repeat for own in self.speakers.values()]
        self.chances = np.array(sizes) / np.sum(sizes)

    def __len__(self) -> int:
        return self.settings.steps - self.first_step

    def __getitem__(self, index: int) -> EncoderBatch:
        """Return the batch of one step."""
        settings = self.settings
        rng = np.random.default_rng((settings.seed, self.first_step + index))
        items = self._utterances(rng)
        frames = int(np.median([item.frames for item in items]))
        if rng.random() < 0.2:
            frames = min(frames, int(rng.integers(10, 40)))
        silent = int(rng.integers(1, LONGEST_SILENCE_FRAMES + 1)) if rng.random() < _SILENT_SHARE else 0
        items += [self.others[int(place)] for place in rng.choice(len(self.others), settings.others)]
        rows = [self._row(item, frames, silent, rng) for item in items]
        return EncoderBatch(*(torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True)))

    def _utterances(self, rng: np.random.Generator) -> list[Item]:
        names = list(self.speakers)
        chosen = rng.choice(len(names), self.settings.speakers, replace=False, p=self.chances)
        wanted = float(np.exp(rng.normal(np.log(_TYPICAL_S), 0.3))) * 25.0
        items = []
        for place in chosen:
            own = self.speakers[names[int(place)]]
            pool = [self._variant(int(n), rng) for n in rng.choice(own, min(len(own), 12), replace=False)]
            pool.sort(key=lambda item: abs(item.frames - wanted))
            nearest = pool[:UTTERANCES]
            items += [nearest[int(n)] for n in rng.permutation(len(nearest))]
        return items

    def _variant(self, recording: int, rng: np.random.Generator) -> Item:
        own = self._usable_variants(recording)
        return own[int(rng.integers(len(own)))]

    def _usable_variants(self, recording: int) -> list[Item]:
        """Return the variants that sound as the recording was meant to, where that is known, or all."""
        labelled = self.bank.recordings[recording].label >= 0
        return [item for item in self.by_recording[recording] if item.label >= 0 or not labelled]

    def _row(self, item: Item, frames: int, silent: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], ...]:
        """Return a recording's first frames among `silent` ones of silence, some before and some after."""
        bank, taken, begin = self.bank, min(frames, item.frames), int(rng.integers(silent + 1))
        wave = np.zeros((frames + silent) * FRAME_SAMPLES, np.float32)
        target = np.zeros((frames + silent, bank.targets.shape[1]), np.float32)
        mask, spoken = np.zeros((2, frames + silent), np.float32)
        end = begin + taken
        # From its first sample on: what the teacher heard depends on where it began.
        wave[begin * FRAME_SAMPLES : end * FRAME_SAMPLES] = bank.wave(item, 0, taken)
        target[begin:end] = bank.frames(item, 0, taken)
        mask[begin:end] = 1.0
        spoken[begin:end] = bank.spoken(item, 0, taken)
        floor = np.float32(np.abs(wave).max() * 10.0 ** rng.uniform(-4.5, -2.5))
        wave += rng.standard_normal(len(wave)).astype(np.float32) * floor
        return self.augmenter(wave, rng), target, mask, spoken, pooled_item(bank, item)
