"""MSP-Podcast and BIIC-Podcast, which share a layout: Labels/labels_consensus.csv, Audios/*.wav, Transcripts/*.txt.

Columns of the labels are FileName, EmoClass (a letter, or a word), EmoAct, EmoVal, EmoDom, SpkrID, Gender, Split_Set.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from edge_ser.errors import ConfigError
from train.corpora.finding import as_it_is, first_of
from train.corpora.tables import Corpus
from train.corpora.utterance import Utterance

# The second spelling is that of some releases.
_LABELS = tuple(
    f"{folder}{name}.csv" for folder in ("Labels/", "") for name in ("labels_consensus", "labels_concensus")
)
_NEEDED = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "Split_Set")
_OPTIONAL = ("SpkrID", "Speaker", "Gender")
_GENDER = {"male": "m", "m": "m", "female": "f", "f": "f"}


def read_podcasts(root: Path, corpus: Corpus) -> Iterator[Utterance]:
    """Yield the speaking turns that the labels of a podcast corpus list.

    A turn of an unknown speaker gets an id of its podcast, so that no other podcast's turns are taken for the same one.

    Raises:
        ConfigError: No label file is there, or it lacks a column.
    """
    labels = first_of(root, _LABELS, corpus)
    top = labels.parent.parent if labels.parent.name == "Labels" else labels.parent
    audio = next((top / name for name in ("Audios", "Audio") if (top / name).is_dir()), top / "Audios")
    with labels.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines)
        missing = [name for name in _NEEDED if name not in (rows.fieldnames or ())]
        if missing:
            raise ConfigError(f"{labels} lacks the column(s) {', '.join(missing)}; need {', '.join(_NEEDED)}")
        for row in rows:
            # A row that is cut short has None where columns are missing.
            told = {name: row[name] or "" for name in (*_NEEDED, *_OPTIONAL) if name in row}
            if not told["FileName"]:
                raise ConfigError(f"{labels}, line {rows.line_num}: no FileName; need one in every row")
            yield _turn(told, corpus, audio, top / "Transcripts")


def _turn(row: dict[str, str], corpus: Corpus, audio: Path, transcripts: Path) -> Utterance:
    stem = Path(row["FileName"]).stem
    podcast = re.sub(r"_[^_]*$", "", stem)
    speaker = (row.get("SpkrID") or row.get("Speaker") or "").strip()
    said = transcripts / f"{stem}.txt"
    label = row["EmoClass"].strip().lower()
    split = row["Split_Set"].strip().lower()
    return corpus.utterance(
        as_it_is(audio / row["FileName"]),
        speaker=f"unknown-{podcast}" if speaker.lower() in ("", "unknown", "nan") else speaker,
        gender=_GENDER.get((row.get("Gender") or "").strip().lower(), ""),
        emotion=corpus.emotions.get(label, _word(label, corpus)),
        session=podcast,
        partition=corpus.partitions.get(split, split),
        transcript=said.read_text(encoding="utf-8", errors="replace").strip() if said.is_file() else "",
        arousal=corpus.attribute(row["EmoAct"]),
        valence=corpus.attribute(row["EmoVal"]),
        dominance=corpus.attribute(row["EmoDom"]),
    )


def _word(label: str, corpus: Corpus) -> str:
    """Return the label whose first letters a word shares: angry for anger, happy for happiness, sad for sadness."""
    known = (name for name in corpus.emotions.values() if len(label) >= 3 and name[:3] == label[:3])
    return next(known, label)
