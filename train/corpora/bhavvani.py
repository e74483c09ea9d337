"""BhavVani: clips Data/train_*.wav (val_, test_), labels in final_annotation.csv, one row a clip.

The clips come as .mp4 too, by which names the labels may list them: the .wav beside them, or in Data, is read. Columns
are found by name in any case of letters: file, emotion, gender, speaker or character, transcript.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_ser.errors import ConfigError
from train.corpora.finding import audio_below, first_of
from train.corpora.tables import corpus_table
from train.corpora.utterance import Utterance

_COLUMNS = {
    "file": ("file", "filename", "file_name", "name", "clip", "path"),
    "emotion": ("emotion", "label"),
    "gender": ("gender", "sex"),
    "speaker": ("speaker", "speaker_id", "character", "actor"),
    "transcript": ("transcript", "text", "sentence"),
}


def read(root: Path) -> Iterator[Utterance]:
    """Yield the clips that the labels list.

    Where a speaker is not told, all such clips of one official partition count as one: no split can cut them.

    Raises:
        ConfigError: No label file is there, or it lacks the file or the emotion.
    """
    corpus = corpus_table("bhavvani")
    labels = first_of(root, ("final_annotation.csv", "annotations.csv"), corpus)
    clips = {path.stem: path for path in audio_below(labels.parent, corpus)}
    with labels.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines)
        columns = _columns(rows.fieldnames or (), labels)
        for row in rows:
            told = {what: (row[name] or "").strip() for what, name in columns.items()}
            stem = Path(told["file"]).stem
            partition = corpus.partitions.get(stem.partition("_")[0], "")
            emotion = told["emotion"].lower()
            yield corpus.utterance(
                clips.get(stem, labels.parent / "Data" / f"{stem}.wav"),
                speaker=told.get("speaker") or f"unknown-{partition or 'all'}",
                gender=told.get("gender", "").lower()[:1],
                emotion=corpus.emotions.get(emotion, emotion),
                transcript=told.get("transcript", ""),
                partition=partition,
            )


def _columns(names: Sequence[str], labels: Path) -> dict[str, str]:
    by_lower = {name.strip().lower(): name for name in names}
    found = {what: by_lower[name] for what, known in _COLUMNS.items() for name in reversed(known) if name in by_lower}
    if "file" not in found or "emotion" not in found:
        raise ConfigError(f"{labels} has the columns {', '.join(names) or 'none'}; need file and emotion")
    return found
