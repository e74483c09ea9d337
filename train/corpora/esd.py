"""ESD: 0001/Angry/train/0001_000351.wav, or without train; 0001/0001.txt says what is said.

Speakers 0001 to 0010 speak Mandarin and are the corpus `esd`; 0011 to 0020 speak English and are `esd-en`. The official
partitions share speakers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from train.corpora.finding import audio_named, wrong_folder
from train.corpora.tables import corpus_table
from train.corpora.utterance import Utterance

_LAST_MANDARIN = "0010"


def read(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of ESD below a folder.

    Raises:
        ConfigError: None is there.
    """
    mandarin, english = corpus_table("esd"), corpus_table("esd-en")
    sentences: dict[Path, dict[str, str]] = {}
    found = False
    for path, code in audio_named(root, r"(?P<speaker>00[01]\d|0020)_\d{6}", mandarin):
        folder = path.parent if path.parent.name in mandarin.emotions else path.parent.parent
        if folder.name not in mandarin.emotions:
            continue
        found = True
        speaker = code["speaker"]
        corpus = mandarin if speaker <= _LAST_MANDARIN else english
        table = folder.parent / f"{speaker}.txt"
        if table not in sentences:
            sentences[table] = _sentences(table, "gb18030" if corpus is mandarin else "cp1252")
        yield corpus.utterance(
            path,
            speaker=speaker,
            gender=corpus.gender(speaker),
            emotion=mandarin.emotions[folder.name],
            transcript=sentences[table].get(path.stem, ""),
            partition=mandarin.partitions.get(path.parent.name, ""),
        )
    if not found:
        raise wrong_folder(root, mandarin)


def _sentences(table: Path, fallback: str) -> dict[str, str]:
    """Return what is said by clip. The files were written in half a dozen encodings, some with lines run together."""
    if not table.is_file():
        return {}
    raw = table.read_bytes()
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = raw.decode("utf-16", errors="replace")
    else:
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = raw.decode(fallback, errors="replace")
    return {name: said.strip() for name, said in re.findall(r"(\d{4}_\d{6})\t([^\t\n]+)", text)}
