"""Readers of the corpora, one file each, in the folder layouts in which they are distributed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from train.corpora import (
    bhavvani,
    biic_podcast,
    cafe,
    cremad,
    emodb,
    emovo,
    esd,
    iemocap,
    mesd,
    msp_podcast,
    ravdess,
    savee,
    tess,
    urdu,
)
from train.corpora.utterance import Utterance

READERS: dict[str, Callable[[Path], Iterator[Utterance]]] = {
    "iemocap": iemocap.read,
    "emodb": emodb.read,
    "emovo": emovo.read,
    "urdu": urdu.read,
    "ravdess": ravdess.read,
    "tess": tess.read,
    "savee": savee.read,
    "mesd": mesd.read,
    "esd": esd.read,
    "cremad": cremad.read,
    "cafe": cafe.read,
    "bhavvani": bhavvani.read,
    "msp-podcast": msp_podcast.read,
    "biic-podcast": biic_podcast.read,
}
"""Name of a corpus -> its reader: a folder in, utterances out, without a look at the audio."""
