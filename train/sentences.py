"""The words that go with a clip: its transcript, or written sentences that stand in for one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_ser.corpus import FOUR_CLASSES
from edge_ser.errors import ConfigError
from train.corpora.utterance import Utterance
from train.text import ConstructedPairs, Sentence, read_sentences

SIDES = ("train", "validation", "test")
"""The sides of a split, in the order in which a sentence belongs to the first that has it."""

_SPLITS = {"train": "train", "validation": "dev", "test": "test"}
_UNINFORMATIVE = "neutral"


class SentenceDrawer:
    """Draws each clip a sentence by its file's name, so that neither order nor machine matters.

    A sentence that a dataset has on two sides counts for the first alone: what is learnt from is never read again. Case
    and spaces do not make another sentence; punctuation does.
    """

    def __init__(self, table: Path, seed: int) -> None:
        """Read the sentences.

        Args:
            table: A gzipped CSV with the columns split (train, dev, test), text and emotion4.
            seed: Of the draw.

        Raises:
            ConfigError: No such file.
        """
        if not table.is_file():
            raise ConfigError(f"no sentences at {table}; need split,text,emotion4 for constructed text; see --data")
        self.seed = seed
        sentences = _on_one_side(read_sentences(table))
        self.pairs = {side: ConstructedPairs.of(sentences, split) for side, split in _SPLITS.items()}

    def draw(self, clip: Utterance, emotion: str, side: str) -> str:
        """Return a sentence of an emotion from the sentences of a side."""
        if emotion not in FOUR_CLASSES:
            raise ConfigError(f"no written sentences for {emotion!r}; need class_map = 'four' with constructed text")
        if not self.pairs[side].by_emotion[FOUR_CLASSES.index(emotion)]:
            raise ConfigError(f"no sentence of {emotion!r} in {_SPLITS[side]}; need some of every class on every side")
        name = f"{self.seed}|{clip.corpus}|{clip.path.name}|{clip.start_s}".encode()
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name).digest()[:8], "big"))
        return self.pairs[side].draw(FOUR_CLASSES.index(emotion), rng)


def sentence_of(clip: Utterance, kind: str, emotion: str, drawer: SentenceDrawer | None, side: str | None) -> str:
    """Return the words of a clip, empty where it has none.

    Args:
        clip: The clip.
        kind: `transcript`, `constructed`, `uninformative` or `none`.
        emotion: Name of its class.
        drawer: Draws sentences where kind needs it.
        side: `train`, `validation` or `test`, from whose sentences is drawn.

    Raises:
        ConfigError: A sentence is to be drawn and nobody says for which side.
    """
    if kind == "transcript":
        return clip.transcript.strip()
    if kind == "none":
        return ""
    if side not in SIDES or drawer is None:
        raise ConfigError(f"sentences are {kind!r} and side is {side!r}; need {', '.join(SIDES)}, or text would leak")
    return drawer.draw(clip, _UNINFORMATIVE if kind == "uninformative" else emotion, side)


def _on_one_side(sentences: Sequence[Sentence]) -> list[Sentence]:
    order = {split: place for place, split in enumerate(_SPLITS.values())}
    first: dict[str, str] = {}
    for sentence in sorted(sentences, key=lambda s: order.get(s.split, len(order))):
        first.setdefault(_plain(sentence.text), sentence.split)
    return [sentence for sentence in sentences if first[_plain(sentence.text)] == sentence.split]


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
