"""Training batches: a few speakers, several utterances each, all of about one length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset

from edge_ser.corpus import FOUR_CLASSES, Clip
from train.audio_cache import AudioCache
from train.augment import SAMPLE_RATE_HZ, Augmenter, non_speech
from train.text import ConstructedPairs, encode_batch


@dataclass(frozen=True)
class BatchShape:
    """How a batch is made up."""

    speakers: int = 8
    """Speakers in a batch."""
    utterances: int = 4
    """Utterances of each, in a random order that stands for time."""
    non_speech: int = 4
    """Rows of noise, tones and silence, whose right answer is no answer."""
    partial: float = 0.15
    """Share of batches cut to 0.4 to 1.6 s."""
    cold: float = 0.5
    """Share of speakers whose voice is hidden from the model."""
    sentence: float = 0.3
    """Share of clips that come with a constructed sentence of the same emotion."""
    transcript: float = 0.2
    """Share of clips that come with their own words, which hold no emotion in acted corpora."""


@dataclass(frozen=True)
class Batch:
    """One step's data; rows are speakers x utterances, then non-speech."""

    audio: Tensor
    """Float32 (B + M, samples)."""
    labels: Tensor
    """Int64 (B,)."""
    text_ids: Tensor
    """Int64 (B + M, tokens)."""
    text_mask: Tensor
    """Int64 (B + M, tokens)."""
    warm: Tensor
    """Float32 (speakers,): 1 where the model may use the voice."""
    teacher: Tensor | None = None
    """Float32 (B, size): what the teacher makes of each clip as it was recorded, or None without a teacher."""


@dataclass(frozen=True)
class BatchSource:
    """Everything that batches are drawn from."""

    clips: Sequence[Clip]
    audio: AudioCache
    augmenter: Augmenter
    tokenizer: Tokenizer
    pairs: ConstructedPairs
    shape: BatchShape
    max_tokens: int
    seed: int
    repeat: dict[str, int]
    """How often a corpus's clips come in an epoch, by name; 1 if absent."""
    teacher: dict[Path, NDArray[np.float32]] | None = None
    """The teacher's vector of each clip, or None."""

    @property
    def teacher_size(self) -> int:
        """Numbers in a teacher's vector; 0 without a teacher."""
        return len(next(iter(self.teacher.values()))) if self.teacher else 0


class EpochBatches(Dataset[Batch]):
    """The batches of one epoch; batch `i` of epoch `e` is always the same."""

    def __init__(self, source: BatchSource, epoch: int) -> None:
        self.source = source
        self.epoch = epoch
        self.plan = list(_plan(source, np.random.default_rng((source.seed, epoch))))

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> Batch:
        """Return batch `index`, augmented."""
        source, shape = self.source, self.source.shape
        rng = np.random.default_rng((source.seed, self.epoch, index))
        clips = [source.clips[place] for place in self.plan[index]]
        waves = [source.augmenter(source.audio[clip.path], rng) for clip in clips]
        samples = int(np.median([len(wave) for wave in waves]))
        if rng.random() < shape.partial:
            samples = min(samples, int(rng.uniform(0.4, 1.6) * SAMPLE_RATE_HZ))
        rows = [_fit(wave, samples, rng) for wave in waves]
        rows += [non_speech(samples, source.augmenter, rng) for _ in range(shape.non_speech)]
        texts = [self._text(clip, rng) for clip in clips] + [""] * shape.non_speech
        ids, mask = encode_batch(source.tokenizer, texts, source.max_tokens)
        return Batch(
            audio=torch.from_numpy(np.stack(rows)),
            labels=torch.tensor([FOUR_CLASSES.index(clip.emotion) for clip in clips]),
            text_ids=torch.from_numpy(ids),
            text_mask=torch.from_numpy(mask),
            warm=torch.from_numpy((rng.random(shape.speakers) >= shape.cold).astype(np.float32)),
            teacher=self._teacher(clips),
        )

    def _teacher(self, clips: Sequence[Clip]) -> Tensor | None:
        vectors = self.source.teacher
        return None if vectors is None else torch.from_numpy(np.stack([vectors[clip.path] for clip in clips]))

    def _text(self, clip: Clip, rng: np.random.Generator) -> str:
        chance, shape = rng.random(), self.source.shape
        if chance < shape.sentence:
            return self.source.pairs.draw(FOUR_CLASSES.index(clip.emotion), rng)
        if chance < shape.sentence + shape.transcript:
            return clip.transcript
        return ""


def _plan(source: BatchSource, rng: np.random.Generator) -> Iterator[list[int]]:
    shape = source.shape
    groups: list[tuple[float, list[int]]] = []
    by_speaker: dict[str, list[int]] = {}
    for place, clip in enumerate(source.clips):
        by_speaker.setdefault(clip.speaker, []).append(place)
    for speaker in sorted(by_speaker):
        own = by_speaker[speaker]
        for _ in range(source.repeat.get(source.clips[own[0]].corpus, 1)):
            groups += _groups(source.clips, own, shape.utterances, rng)
    groups.sort(key=lambda group: group[0] * rng.uniform(0.9, 1.1))
    batches = [groups[start : start + shape.speakers] for start in range(0, len(groups), shape.speakers)]
    for place in rng.permutation(len(batches)):
        if len(batches[place]) == shape.speakers:
            yield [index for _, group in batches[place] for index in group]


def _groups(
    clips: Sequence[Clip], own: Sequence[int], size: int, rng: np.random.Generator
) -> Iterator[tuple[float, list[int]]]:
    ordered = sorted(own, key=lambda place: clips[place].duration_s * rng.uniform(0.85, 1.15))
    start = int(rng.integers(len(ordered) % size + 1))
    for begin in range(start, len(ordered) - size + 1, size):
        group = [int(place) for place in rng.permutation(ordered[begin : begin + size])]
        yield float(np.median([clips[place].duration_s for place in group])), group


def _fit(wave: NDArray[np.float32], samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    if len(wave) >= samples:
        start = int(rng.integers(len(wave) - samples + 1))
        return wave[start : start + samples]
    quiet = rng.standard_normal(samples).astype(np.float32) * np.float32(np.abs(wave).max() * 1e-3)
    start = int(rng.integers(samples - len(wave) + 1))
    quiet[start : start + len(wave)] = wave
    return quiet


def histories(embedding: Tensor, warm: Tensor) -> Tensor:
    """Return the voice each utterance meets: what came before it from the same speaker, zeros where cold.

    Args:
        embedding: (speakers, utterances, D), utterances in order of time.
        warm: (speakers,), 1 where the history may be used.

    Returns:
        (speakers * utterances, 2 D + 1): utterances heard, running mean, running population deviation.
    """
    speakers, utterances, width = embedding.shape
    heard = torch.arange(utterances, dtype=embedding.dtype)
    count = heard.clamp(min=1.0)[None, :, None]
    before = torch.tril(torch.ones(utterances, utterances, dtype=embedding.dtype), diagonal=-1)
    mean = torch.matmul(before, embedding) / count
    square = torch.matmul(before, embedding * embedding) / count
    deviation = torch.sqrt((square - mean * mean).clamp(min=0.0))
    known = heard[None, :, None].expand(speakers, -1, -1)
    voice = torch.cat([known, mean, deviation], dim=-1) * warm[:, None, None]
    return voice.reshape(speakers * utterances, 2 * width + 1)
