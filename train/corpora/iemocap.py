"""IEMOCAP: labels in Session1/dialog/EmoEvaluation/*.txt, one clip a turn in Session1/sentences/wav.

A line of labels is `[6.2901 - 8.2357] Ses01F_impro01_F000 neu [2.5000, 2.5000, 2.5000]` with tabs between: the turn's
place in the dialogue, its name (which ends in the speaker, F or M, and a number), its label, and valence, activation
and dominance.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from train.corpora.finding import as_it_is, wrong_folder
from train.corpora.tables import corpus_table
from train.corpora.utterance import Utterance

_LABEL = re.compile(
    r"^\[[\d.]+ - [\d.]+\]\s+(?P<turn>(?P<session>Ses\d\d)\w+_(?P<gender>[FM])\w*\d+)\s+(?P<emotion>[a-z]{3})\s+"
    r"\[(?P<valence>[\d.]+), (?P<arousal>[\d.]+), (?P<dominance>[\d.]+)\]",
    re.MULTILINE,
)
_SAID = re.compile(r"^(?P<turn>Ses\d\d\w+) \[[\d.]+\s*-\s*[\d.]+\]:\s*(?P<said>.*)$", re.MULTILINE)


def read(root: Path) -> Iterator[Utterance]:
    """Yield the turns of IEMOCAP, from a folder that holds Session1 to Session5 or is above it.

    Raises:
        ConfigError: No label file is there.
    """
    corpus = corpus_table("iemocap")
    pattern = "Session*/dialog/EmoEvaluation/Ses*.txt"
    # Not by a search of everything below: there are videos and motion capture too.
    labels = sorted(root.glob(pattern)) or sorted(root.glob(f"*/{pattern}"))
    if not labels:
        raise wrong_folder(root, corpus)
    for evaluation in labels:
        session = evaluation.parents[2]
        dialogue = evaluation.stem
        said = _said(session / "dialog" / "transcriptions" / evaluation.name)
        for found in _LABEL.finditer(evaluation.read_text(encoding="latin-1")):
            yield corpus.utterance(
                as_it_is(session / "sentences" / "wav" / dialogue / f"{found['turn']}.wav"),
                speaker=found["session"] + found["gender"],
                gender=found["gender"].lower(),
                emotion=corpus.emotions.get(found["emotion"], found["emotion"]),
                session=found["session"],
                transcript=said.get(found["turn"], ""),
                arousal=corpus.attribute(found["arousal"]),
                valence=corpus.attribute(found["valence"]),
                dominance=corpus.attribute(found["dominance"]),
            )


def _said(transcription: Path) -> dict[str, str]:
    if not transcription.is_file():
        return {}
    text = transcription.read_text(encoding="latin-1")
    return {found["turn"]: found["said"].strip() for found in _SAID.finditer(text)}
