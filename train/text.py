"""Sentences with emotions, their tokenizer, and constructed pairs of a clip and a sentence."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from edge_ser.corpus import FOUR_CLASSES


@dataclass(frozen=True)
class Sentence:
    """A written sentence and what its readers felt in it."""

    text: str
    """The words."""
    emotion: str
    """One of the four classes, or empty."""
    split: str
    """`train`, `dev` or `test`."""


def read_sentences(path: Path) -> list[Sentence]:
    """Return the sentences of a gzipped CSV with the columns split, text and emotion4."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        return [Sentence(row["text"], row["emotion4"], row["split"]) for row in csv.DictReader(lines)]


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Return a lower-casing byte-level BPE tokenizer; bytes make every script readable without unknown tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@dataclass(frozen=True)
class ConstructedPairs:
    """Gives a clip a written sentence of the same emotion; the pair was never spoken, hence constructed."""

    by_emotion: tuple[tuple[str, ...], ...]
    """Sentences by class index."""

    @classmethod
    def of(cls, sentences: Iterable[Sentence], split: str) -> ConstructedPairs:
        """Return the pairs that one split of the sentences allows."""
        chosen = [sentence for sentence in sentences if sentence.split == split]
        return cls(tuple(tuple(s.text for s in chosen if s.emotion == name) for name in FOUR_CLASSES))

    def draw(self, emotion: int, rng: np.random.Generator) -> str:
        """Return one sentence for a class index."""
        sentences = self.by_emotion[emotion]
        return sentences[rng.integers(len(sentences))]


def encode_batch(
    tokenizer: Tokenizer, texts: list[str], max_tokens: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and mask, shape (B, tokens), tokens >= 1; an empty text has an all-zero mask."""
    rows = [tokenizer.encode(text).ids[:max_tokens] if text else [] for text in texts]
    longest = max(1, max(len(row) for row in rows))
    ids = np.zeros((len(rows), longest), np.int64)
    mask = np.zeros((len(rows), longest), np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return ids, mask
