from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ser.corpus import Clip
from edge_ser.errors import ConfigError
from train.splits import Split, check_disjoint, split_by_speaker


def clip(corpus: str, speaker: int, take: int) -> Clip:
    name = f"{corpus}_{speaker}"
    return Clip(Path(f"{name}_{take}.wav"), corpus, name, "fm"[speaker % 2], "en", "sad", "", 1.0, "none")


def corpus_of(speakers: int, corpus: str = "a") -> list[Clip]:
    return [clip(corpus, speaker, take) for speaker in range(speakers) for take in range(3)]


@given(st.integers(4, 40), st.integers(0, 99), st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([0.1, 0.2]))
def test_no_speaker_is_on_two_sides_and_no_clip_is_lost(
    speakers: int, seed: int, test_fraction: float, validation_fraction: float
) -> None:
    clips = corpus_of(speakers)
    split = split_by_speaker(clips, validation_fraction=validation_fraction, test_fraction=test_fraction, seed=seed)
    sides = [{c.speaker for c in side} for side in (split.train, split.validation, split.test)]
    assert len(set.union(*sides)) == sum(len(side) for side in sides) == speakers
    assert sorted(c.path for c in split.train + split.validation + split.test) == sorted(c.path for c in clips)
    assert split.train and split.validation


def test_order_and_other_corpora_move_nobody() -> None:
    first = split_by_speaker(corpus_of(20), validation_fraction=0.1, test_fraction=0.2)
    second = split_by_speaker(corpus_of(9, "b") + corpus_of(20)[::-1], validation_fraction=0.1, test_fraction=0.2)
    assert {c.speaker for c in first.test} == {c.speaker for c in second.test if c.corpus == "a"}


def test_both_genders_are_tested() -> None:
    split = split_by_speaker(corpus_of(20), validation_fraction=0.1, test_fraction=0.2)
    assert {c.gender for c in split.test} == {"f", "m"}


def test_a_leak_is_found() -> None:
    leaking = Split([clip("a", 1, 0)], [], [clip("a", 1, 1)])
    with pytest.raises(ConfigError, match="a_1 is in train and in test"):
        check_disjoint(leaking)


def test_too_few_speakers_are_an_error() -> None:
    with pytest.raises(ConfigError, match="a has 2 speaker"):
        split_by_speaker(corpus_of(2), validation_fraction=0.1, test_fraction=0.2)
