"""Speaker-disjoint splits of a corpus's clips into what learns, chooses and judges, the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_ser.corpus import Clip
from train.folds import check_apart, contents, split_speakers


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
    """Return the clips by side, as `train.folds.split_speakers` divides their speakers.

    Raises:
        ConfigError: A corpus has too few speakers to give one to each side.
    """
    validation, test = split_speakers(
        clips, validation_fraction=validation_fraction, test_fraction=test_fraction, seed=seed
    )
    # Corpus by corpus, whatever the order of the clips: the order in which they are learnt from.
    ordered = [clip for corpus in sorted({clip.corpus for clip in clips}) for clip in clips if clip.corpus == corpus]
    split = Split(
        [clip for clip in ordered if clip.speaker not in validation | test],
        [clip for clip in ordered if clip.speaker in validation],
        [clip for clip in ordered if clip.speaker in test],
    )
    check_disjoint(split)
    return split


def check_disjoint(split: Split) -> None:
    """Raise ConfigError if a speaker, a file or a copy of one stands on two sides."""
    sides = {"train": split.train, "validation": split.validation, "test": split.test}
    check_apart("speaker", {side: {clip.speaker for clip in clips} for side, clips in sides.items()})
    check_apart("file", {side: {clip.path for clip in clips} for side, clips in sides.items()})
    check_apart("content", {side: contents(clips) for side, clips in sides.items()})
