"""EMOVO: f1/dis-f1-b1.wav is disgust by woman 1, sentence b1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from train.corpora.finding import audio_named
from train.corpora.tables import corpus_table
from train.corpora.utterance import Utterance


def read(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of EMOVO below a folder.

    Raises:
        ConfigError: None is there.
    """
    corpus = corpus_table("emovo")
    codes = "|".join(corpus.emotions)
    for path, code in audio_named(root, rf"(?P<emotion>{codes})-(?P<speaker>[fm]\d)-(?P<text>[bdln]\d)", corpus):
        yield corpus.utterance(
            path,
            speaker=code["speaker"],
            gender=code["speaker"][0],
            emotion=corpus.emotions[code["emotion"]],
            transcript=corpus.sentences.get(code["text"], ""),
        )
