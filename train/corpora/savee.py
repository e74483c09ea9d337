"""SAVEE: AudioData/DC/sa01.wav, or DC_sa01.wav in one folder, is sadness by man DC, sentence 01 of that emotion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from train.corpora.finding import audio_named, wrong_folder
from train.corpora.tables import corpus_table
from train.corpora.utterance import Utterance

SPEAKERS = ("DC", "JE", "JK", "KL")
"""The four men."""


def read(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of SAVEE below a folder.

    Raises:
        ConfigError: None is there.
    """
    corpus = corpus_table("savee")
    found = False
    pattern = rf"(?:(?P<speaker>{'|'.join(SPEAKERS)})_)?(?P<emotion>sa|su|[adfhn])\d\d"
    for path, code in audio_named(root, pattern, corpus):
        speaker = code["speaker"] or path.parent.name
        if speaker in SPEAKERS:
            found = True
            yield corpus.utterance(path, speaker=speaker, gender="m", emotion=corpus.emotions[code["emotion"]])
    if not found:
        raise wrong_folder(root, corpus)
