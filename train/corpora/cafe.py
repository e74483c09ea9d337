"""CaFE: Colère/Fort/01-C-2-1.wav is actor 01 (odd: a man), anger (C), strong (2), sentence 1; Neutre has no levels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from train.corpora.finding import audio_named
from train.corpora.tables import corpus_table
from train.corpora.utterance import Utterance


def read(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of CaFE below a folder.

    Raises:
        ConfigError: None is there.
    """
    corpus = corpus_table("cafe")
    for path, code in audio_named(root, r"(?P<speaker>\d\d)-(?P<emotion>[CDJNPST])-[12]-(?P<text>\d)", corpus):
        yield corpus.utterance(
            path,
            speaker=code["speaker"],
            gender="m" if int(code["speaker"]) % 2 else "f",
            emotion=corpus.emotions[code["emotion"]],
            transcript=corpus.sentences.get(code["text"], ""),
        )
