"""EMODB: wav/03a01Fa.wav is speaker 03, text a01, happiness (F), version a."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from train.corpora.finding import audio_named
from train.corpora.tables import corpus_table
from train.corpora.utterance import Utterance


def read(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of EMODB below a folder.

    Raises:
        ConfigError: None is there.
    """
    corpus = corpus_table("emodb")
    for path, code in audio_named(root, r"(?P<speaker>\d\d)(?P<text>[ab]\d\d)(?P<emotion>[WLEAFNT])[a-z]?", corpus):
        yield corpus.utterance(
            path,
            speaker=code["speaker"],
            gender=corpus.gender(code["speaker"]),
            emotion=corpus.emotions[code["emotion"]],
            transcript=corpus.sentences.get(code["text"], ""),
        )
