"""TESS: OAF_angry/OAF_back_angry.wav is the older woman (YAF: the younger) saying "Say the word back", angry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from train.corpora.finding import audio_named
from train.corpora.tables import corpus_table
from train.corpora.utterance import Utterance


def read(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of TESS below a folder.

    Raises:
        ConfigError: None is there.
    """
    corpus = corpus_table("tess")
    codes = "|".join(corpus.emotions)
    # One file of the distribution is called OA_bite_neutral.
    for path, code in audio_named(root, rf"(?P<speaker>[OY]A)F?_(?P<word>\w+)_(?P<emotion>{codes})", corpus):
        yield corpus.utterance(
            path,
            speaker=code["speaker"] + "F",
            gender="f",
            emotion=corpus.emotions[code["emotion"]],
            transcript=f"Say the word {code['word']}.",
        )
