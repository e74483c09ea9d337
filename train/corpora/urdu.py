"""URDU: Angry/SM1_F1_A01.wav is anger (A) of man 1, the file F1 of that speaker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from train.corpora.finding import audio_named
from train.corpora.tables import corpus_table
from train.corpora.utterance import Utterance


def read(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of URDU below a folder.

    Raises:
        ConfigError: None is there.
    """
    corpus = corpus_table("urdu")
    for path, code in audio_named(root, r"(?P<speaker>S(?P<gender>[FM])\d+)_F\d+_(?P<emotion>[AHNS])\d+", corpus):
        yield corpus.utterance(
            path,
            speaker=code["speaker"],
            gender=code["gender"].lower(),
            emotion=corpus.emotions[code["emotion"]],
        )
