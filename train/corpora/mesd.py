"""MESD: Anger_C_A_abajo.wav is anger by a child (F: a woman, M: a man), word list A, the word "abajo".

Names do not tell which of the eleven people spoke, so woman, man and child are the three speakers: no split that keeps
them apart can leak.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from train.corpora.finding import audio_named
from train.corpora.tables import corpus_table
from train.corpora.utterance import Utterance

_GENDER = {"F": "f", "M": "m", "C": ""}


def read(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of MESD below a folder.

    Raises:
        ConfigError: None is there.
    """
    corpus = corpus_table("mesd")
    codes = "|".join(corpus.emotions)
    for path, code in audio_named(root, rf"(?P<emotion>{codes})_(?P<voice>[FMC])_[AB]_(?P<word>.+)", corpus):
        yield corpus.utterance(
            path,
            speaker=code["voice"],
            gender=_GENDER[code["voice"]],
            emotion=corpus.emotions[code["emotion"]],
            transcript=code["word"].replace("_", " "),
        )
