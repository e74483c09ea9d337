"""RAVDESS: Actor_01/03-01-05-01-02-01-01.wav is speech (01), angry (05), sentence 02, actor 01; songs are left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from train.corpora.finding import audio_named
from train.corpora.tables import corpus_table
from train.corpora.utterance import Utterance


def read(root: Path) -> Iterator[Utterance]:
    """Yield the spoken utterances of RAVDESS below a folder.

    Raises:
        ConfigError: None is there.
    """
    corpus = corpus_table("ravdess")
    pattern = r"03-01-(?P<emotion>0[1-8])-\d\d-(?P<text>\d\d)-\d\d-(?P<speaker>\d\d)"
    for path, code in audio_named(root, pattern, corpus):
        yield corpus.utterance(
            path,
            speaker=code["speaker"],
            gender="m" if int(code["speaker"]) % 2 else "f",
            emotion=corpus.emotions[code["emotion"]],
            transcript=corpus.sentences.get(code["text"], ""),
        )
