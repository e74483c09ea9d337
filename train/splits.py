"""Speaker-disjoint splits, the same on every machine."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from edge_ser.corpus import Clip
from edge_ser.errors import ConfigError


@dataclass(frozen=True)
class Split:
    """Three sets of clips that share no speaker."""

    train: list[Clip]
    """Clips a model learns from."""
    validation: list[Clip]
    """Clips that choose checkpoints, temperature and thresholds."""
    test: list[Clip]
    """Clips nobody looks at before the end."""


def split_by_speaker(
    clips: Sequence[Clip], *, validation_fraction: float, test_fraction: float, seed: int = 0
) -> Split:
    """Return a split in which each corpus gives the same share of its speakers, genders alternating.

    The order of speakers is a hash of seed and speaker id, so neither the order of `clips` nor new speakers of
    another corpus move anybody.

    Raises:
        ConfigError: A corpus has too few speakers to give one to each side.
    """
    parts: dict[str, list[Clip]] = {"train": [], "validation": [], "test": []}
    for corpus in sorted({clip.corpus for clip in clips}):
        own = [clip for clip in clips if clip.corpus == corpus]
        side = _sides(own, corpus, validation_fraction, test_fraction, seed)
        for clip in own:
            parts[side[clip.speaker]].append(clip)
    split = Split(parts["train"], parts["validation"], parts["test"])
    check_disjoint(split)
    return split


def check_disjoint(split: Split) -> None:
    """Raise ConfigError if a speaker or a file stands on two sides."""
    sides = {"train": split.train, "validation": split.validation, "test": split.test}
    for what in ("speaker", "path"):
        owner: dict[object, str] = {}
        for side, clips in sides.items():
            for value in sorted({str(getattr(clip, what)) for clip in clips}):
                if value in owner:
                    raise ConfigError(f"{what} {value} is in {owner[value]} and in {side}; need it on one side")
                owner[value] = side


def _sides(
    clips: Sequence[Clip], corpus: str, validation_fraction: float, test_fraction: float, seed: int
) -> dict[str, str]:
    speakers = _alternating(clips, seed)
    test_count = round(len(speakers) * test_fraction)
    validation_count = max(1, round(len(speakers) * validation_fraction))
    if test_fraction > 0:
        test_count = max(1, test_count)
    if len(speakers) <= test_count + validation_count:
        raise ConfigError(f"{corpus} has {len(speakers)} speaker(s); need more than {test_count + validation_count}")
    sides = ["test"] * test_count + ["validation"] * validation_count
    sides += ["train"] * (len(speakers) - len(sides))
    return dict(zip(speakers, sides, strict=True))


def _alternating(clips: Sequence[Clip], seed: int) -> list[str]:
    by_gender: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        by_gender[clip.gender].add(clip.speaker)
    queues = [sorted(by_gender[gender], key=lambda speaker: _rank(speaker, seed)) for gender in sorted(by_gender)]
    longest = max(len(queue) for queue in queues)
    return [queue[place] for place in range(longest) for queue in queues if place < len(queue)]


def _rank(speaker: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{speaker}".encode()).hexdigest()
