"""MSP-Podcast: Labels/labels_consensus.csv and Audios/*.wav, official partitions, attributes from 1 to 7."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from train.corpora.podcasts import read_podcasts
from train.corpora.tables import corpus_table
from train.corpora.utterance import Utterance


def read(root: Path) -> Iterator[Utterance]:
    """Yield the speaking turns of MSP-Podcast.

    Raises:
        ConfigError: No label file is there, or it lacks a column.
    """
    return read_podcasts(root, corpus_table("msp-podcast"))
