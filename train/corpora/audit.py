"""What is really there of what a corpus lists: every file is read once, hashed and measured."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.errors import AudioFormatError
from edge_ser.sources import read_blocks
from train.corpora.finding import audio_below
from train.corpora.tables import corpus_table
from train.corpora.utterance import Utterance

_HASH_BYTES = 1 << 20


@dataclass
class Audit:
    """What was found of one corpus."""

    corpus: str
    """Its name."""
    kept: list[Utterance] = field(default_factory=list)
    """The utterances that can be used: readable, each content once, with hash and duration."""
    missing: list[Path] = field(default_factory=list)
    """Files that labels name and that do not exist."""
    duplicated: list[tuple[Path, Path, bool]] = field(default_factory=list)
    """A file that is left out, the kept one with the same content, and whether their labels agree."""
    unreadable: list[str] = field(default_factory=list)
    """What is wrong with each file that is no usable audio; it begins with the file."""
    unlisted: list[Path] = field(default_factory=list)
    """Audio files that lie below the corpus's folder and that no label or name makes an utterance."""
    silent: list[Path] = field(default_factory=list)
    """Kept files in which every sample is zero."""

    def differences(self) -> list[str]:
        """Return where the kept utterances differ from what has been published, as sentences."""
        about = corpus_table(self.corpus)
        expected = {"utterances": about.utterances} | ({"speakers": about.speakers} if about.speakers else {})
        found = {"utterances": len(self.kept), "speakers": len({clip.speaker for clip in self.kept})}
        labels = Counter(clip.emotion for clip in self.kept)
        partitions = Counter(clip.partition for clip in self.kept)
        rows = [(name, number, found[name]) for name, number in expected.items()]
        if about.classes:
            rows += [(name, about.classes.get(name, 0), labels[name]) for name in {**about.classes, **labels}]
        rows += [(name, number, partitions[name]) for name, number in about.partition_sizes.items()]
        return [f"{name}: {number} published, {here} here" for name, number, here in rows if number != here]

    def as_object(self) -> dict[str, object]:
        """Return everything as plain objects, for JSON."""
        return {
            "corpus": self.corpus,
            "utterances": len(self.kept),
            "speakers": len({clip.speaker for clip in self.kept}),
            "hours": round(sum(clip.duration_s for clip in self.kept) / 3600, 3),
            "classes": dict(Counter(clip.emotion for clip in self.kept).most_common()),
            "four": dict(sorted(Counter(clip.emotion4 for clip in self.kept if clip.emotion4).items())),
            "differences": self.differences(),
            "missing": [str(path) for path in self.missing],
            "duplicated": [
                {"path": str(path), "same_as": str(first), "labels_agree": agree}
                for path, first, agree in self.duplicated
            ],
            "unreadable": self.unreadable,
            "unlisted": [str(path) for path in self.unlisted],
            "silent": [str(path) for path in self.silent],
        }


@dataclass(frozen=True)
class _Measured:
    sha256: str
    duration_s: float
    silent: bool


def audit(utterances: Sequence[Utterance], jobs: int) -> list[Audit]:
    """Return what is there of each corpus, in the order in which they first occur.

    Args:
        utterances: As readers give them; files may be missing, broken or the same.
        jobs: How many files are read at once.
    """
    audits = {name: Audit(name) for name in dict.fromkeys(clip.corpus for clip in utterances)}
    first: dict[str, Utterance] = {}
    for clip, measured in zip(utterances, _measure_all(utterances, jobs), strict=True):
        here = audits[clip.corpus]
        if measured is None:
            here.missing.append(clip.path)
        elif isinstance(measured, AudioFormatError):
            here.unreadable.append(str(measured))
        elif measured.sha256 in first:
            other = first[measured.sha256]
            agree = (clip.emotion, clip.speaker) == (other.emotion, other.speaker)
            here.duplicated.append((clip.path, other.path, agree))
        else:
            first[measured.sha256] = clip
            here.kept.append(replace(clip, sha256=measured.sha256, duration_s=measured.duration_s))
            if measured.silent:
                here.silent.append(clip.path)
    return list(audits.values())


def unlisted(root: Path, utterances: Sequence[Utterance], corpus: str) -> list[Path]:
    """Return the audio files below a folder that are none of the utterances, in order of their paths."""
    listed = {clip.path.with_suffix("") for clip in utterances}
    return [path for path in audio_below(root, corpus_table(corpus)) if path.with_suffix("") not in listed]


def _measure_all(utterances: Sequence[Utterance], jobs: int) -> Iterator[_Measured | AudioFormatError | None]:
    with ThreadPoolExecutor(jobs) as pool:
        results = pool.map(_measure, (clip.path for clip in utterances))
        yield from tqdm(results, total=len(utterances), desc="reading", unit="clip", disable=not sys.stderr.isatty())


def _measure(path: Path) -> _Measured | AudioFormatError | None:
    if not path.exists():
        return None
    try:
        length, silent = 0, True
        for block in read_blocks(path):
            length += len(block)
            silent = silent and not block.any()
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while data := file.read(_HASH_BYTES):
                digest.update(data)
    except AudioFormatError as error:
        return error
    return _Measured(digest.hexdigest(), round(length / SAMPLE_RATE_HZ, 3), silent)
