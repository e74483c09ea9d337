"""A made-up corpus on disk, for a first run without any recording."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import soundfile

from edge_ser.corpus import FOUR_CLASSES
from train.corpora.utterance import Utterance, write_manifest
from train.synthetic import SAMPLE_RATE_HZ, synthetic_examples, synthetic_sentence

_SENTENCES = 40


def write_synthetic_corpus(
    folder: Path, *, speakers: int = 10, per_class: int = 3, languages: int = 1, seed: int = 0
) -> None:
    """Write a data folder: speech/manifest.csv with voice-like sounds and text/goemotions.csv.gz with made-up words.

    Args:
        folder: Made where it is not; what has been written is left as it is.
        speakers: Speakers of each language; every second is female.
        per_class: Utterances of each of the four classes by each speaker.
        languages: How many corpora, named synthetic0, synthetic1, ...
        seed: Of everything that is drawn.
    """
    manifest = folder / "speech" / "manifest.csv"
    if manifest.is_file():
        return
    rng = np.random.default_rng(seed)
    utterances = []
    for language in range(languages):
        for example in synthetic_examples(language, speakers, per_class, seed, {"audio": 1}):
            path = folder / "speech" / example.path
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, example.features["audio"], SAMPLE_RATE_HZ)
            label = FOUR_CLASSES[example.emotion]
            arousal, valence, dominance = example.attributes or (None, None, None)
            utterances.append(
                Utterance(
                    path=path,
                    speaker=example.speaker,
                    gender="fm"[example.gender],
                    corpus=example.corpus,
                    emotion=label,
                    emotion4=label,
                    arousal=arousal,
                    valence=valence,
                    dominance=dominance,
                    transcript=synthetic_sentence(label, language, rng),
                    duration_s=len(example.features["audio"]) / SAMPLE_RATE_HZ,
                    licence="none: synthetic",
                )
            )
    (folder / "text").mkdir(exist_ok=True)
    with gzip.open(folder / "text" / "goemotions.csv.gz", "wt", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(["split", "text", "emotion4"])
        for split in ("train", "dev", "test"):
            for label in FOUR_CLASSES:
                for number in range(_SENTENCES):
                    writer.writerow([split, f"{synthetic_sentence(label, 0, rng)} {split}{number}", label])
    # Last, since its presence says that the folder is whole.
    write_manifest(manifest, utterances)
