"""CREMA-D: AudioWAV/1001_DFA_ANG_XX.wav is speaker 1001, sentence DFA, anger, level unspecified."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from train.corpora.finding import audio_named
from train.corpora.tables import corpus_table
from train.corpora.utterance import Utterance


def read(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of CREMA-D below a folder: those of AudioWAV where it is there, for AudioMP3 repeats them.

    Raises:
        ConfigError: None is there.
    """
    corpus = corpus_table("cremad")
    folder = root / "AudioWAV" if (root / "AudioWAV").is_dir() else root
    codes = "|".join(corpus.emotions)
    pattern = rf"(?P<speaker>1\d{{3}})_(?P<text>[A-Z]{{3}})_(?P<emotion>{codes})_(?:LO|MD|HI|XX?)"
    for path, code in audio_named(folder, pattern, corpus):
        yield corpus.utterance(
            path,
            speaker=code["speaker"],
            gender=corpus.gender(code["speaker"]),
            emotion=corpus.emotions[code["emotion"]],
            transcript=corpus.sentences.get(code["text"], ""),
        )
