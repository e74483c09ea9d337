from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edge_ser.errors import ConfigError
from train.folds import (
    Fold,
    check_folds,
    leave_one_session_out,
    leave_one_speaker_out,
    session_partner_folds,
    shuffled_folds,
    source_fold,
    speaker_folds,
    split_fold,
    split_speakers,
)
from train.supports import draw_fractions, draw_shots, nested_subsets


@dataclass(frozen=True)
class Clip:
    path: Path
    speaker: str
    corpus: str = "alpha"
    gender: str = ""
    session: str = ""
    label: int = 0
    sha256: str = ""


def made(speakers: int, each: int = 8, sessions: bool = False, corpus: str = "alpha") -> list[Clip]:
    """Speakers with 4 classes each; later ones have more clips."""
    return [
        Clip(
            Path(f"{corpus}/{corpus}{speaker:02d}_{take}.wav"),
            f"{corpus}{speaker:02d}",
            corpus,
            "fm"[speaker % 2],
            f"S{speaker // 2}" if sessions else "",
            take % 4,
        )
        for speaker in range(speakers)
        for take in range(each + 4 * (speaker % 3))
    ]


def names(clips: list[Clip], places: tuple[int, ...]) -> set[str]:
    return {clips[place].path.name for place in places}


def labels(clips: list[Clip]) -> list[int]:
    return [clip.label for clip in clips]


def assert_folds_are_sound(clips: list[Clip], folds: list[Fold]) -> None:
    judged = Counter(place for fold in folds for place in fold.test)
    assert judged == Counter(range(len(clips)))
    for fold in folds:
        assert set(fold.train) | set(fold.validation) | set(fold.test) == set(range(len(clips)))
        speakers = [{clips[p].speaker for p in side} for side in (fold.train, fold.validation, fold.test)]
        assert all(speakers)
        assert len(set.union(*speakers)) == sum(map(len, speakers))


@pytest.mark.parametrize("validation", [0.0, 0.1])
def test_speaker_folds_keep_speakers_apart_cover_everything_and_are_balanced(validation: float) -> None:
    clips = made(23)
    folds = speaker_folds(clips, 10, seed=3, validation_fraction=validation)
    assert len(folds) == 10
    assert_folds_are_sound(clips, folds)
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) - min(sizes) <= 16


def test_fewer_speakers_than_folds_make_as_many_folds_as_speakers() -> None:
    assert len(speaker_folds(made(4), 10)) == 4


def test_the_next_fold_chooses_the_weights() -> None:
    folds = speaker_folds(made(12), 4)
    for fold, following in zip(folds, folds[1:] + folds[:1], strict=True):
        assert fold.validation == following.test


def test_folds_depend_on_the_seed_and_not_on_the_order_of_clips() -> None:
    clips = made(12, 8)
    backwards = clips[::-1]
    for divide in (
        lambda c, seed: speaker_folds(c, 5, seed=seed, validation_fraction=0.2),
        lambda c, seed: leave_one_speaker_out(c, seed=seed),
        lambda c, seed: shuffled_folds(c, 5, seed=seed),
    ):
        first, same, other = divide(clips, 1), divide(backwards, 1), divide(clips, 2)
        sides = [[names(clips, side) for side in (f.train, f.validation, f.test)] for f in first]
        assert sides == [[names(backwards, side) for side in (f.train, f.validation, f.test)] for f in same]
        assert first != other
        assert first == divide(clips, 1)


def test_one_speaker_left_out() -> None:
    clips = made(6)
    folds = leave_one_speaker_out(clips)
    assert_folds_are_sound(clips, folds)
    assert [{clips[p].speaker for p in fold.test} for fold in folds] == [{f"alpha{n:02d}"} for n in range(6)]


def test_one_session_left_out() -> None:
    clips = made(10, sessions=True)
    folds = leave_one_session_out(clips)
    assert_folds_are_sound(clips, folds)
    assert [len({clips[p].session for p in fold.test}) for fold in folds] == [1] * 5


def test_the_partner_in_the_session_chooses_and_eight_speakers_remain_four_of_either_gender() -> None:
    clips = made(10, sessions=True)
    folds = session_partner_folds(clips)
    assert_folds_are_sound(clips, folds)
    assert len(folds) == 10
    for fold in folds:
        held = {clips[p].session for p in fold.test} | {clips[p].session for p in fold.validation}
        assert len(held) == 1
        learnt = {(clips[p].speaker, clips[p].gender) for p in fold.train}
        assert Counter(gender for _, gender in learnt) == {"f": 4, "m": 4}


def test_shuffled_folds_hold_every_clip_out_once_and_share_speakers() -> None:
    clips = made(6, 20)
    folds = shuffled_folds(clips, 5, seed=1)
    held = Counter(place for fold in folds for place in (*fold.test, *fold.validation))
    assert held == Counter(range(len(clips)))
    for fold in folds:
        assert not set(fold.train) & {*fold.validation, *fold.test}
        assert abs(len(fold.train) / len(clips) - 0.8) < 0.02
        assert abs(len(fold.test) - len(fold.validation)) <= 1
    assert {clips[p].speaker for p in folds[0].train} & {clips[p].speaker for p in folds[0].test}


def test_a_source_gives_a_share_of_each_corpus_speakers_to_validation() -> None:
    clips = made(10) + made(20, corpus="beta")
    fold = source_fold(clips, validation_fraction=0.1, seed=1)
    chosen = Counter(speaker[:-2] for speaker in {clips[p].speaker for p in fold.validation})
    assert chosen == {"alpha": 1, "beta": 2}
    assert not fold.test
    assert len(fold.train) + len(fold.validation) == len(clips)


def test_a_split_keeps_three_groups_of_speakers() -> None:
    clips = made(10) + made(10, corpus="beta")
    fold = split_fold(clips, validation_fraction=0.2, test_fraction=0.3, seed=1)
    speakers = [{clips[p].speaker for p in side} for side in (fold.train, fold.validation, fold.test)]
    assert [len(side) for side in speakers] == [10, 4, 6]
    assert len(set.union(*speakers)) == 20


def test_one_seed_gives_one_split_whoever_asks() -> None:
    clips = made(10) + made(9, corpus="beta")
    fold = split_fold(clips, validation_fraction=0.2, test_fraction=0.3, seed=1)
    validation, test = split_speakers(clips, validation_fraction=0.2, test_fraction=0.3, seed=1)
    assert {clips[place].speaker for place in fold.validation} == validation
    assert {clips[place].speaker for place in fold.test} == test
    assert split_speakers(made(10), validation_fraction=0.2, test_fraction=0.3, seed=1)[1] < test
    assert split_speakers(clips, validation_fraction=0.2, test_fraction=0.0, seed=1)[1] == set()


def test_a_copy_under_another_name_is_found() -> None:
    clips = [Clip(Path(f"{n}.wav"), f"s{n}", sha256="same" if n != 1 else "other") for n in range(3)]
    with pytest.raises(ConfigError, match="content same is in train and in test"):
        check_folds(clips, [Fold("f", (0,), (1,), (2,))], covers=False)


def test_no_shots_leave_the_whole_corpus_to_the_query() -> None:
    clips = made(4)
    support = draw_shots(clips, labels(clips), (0,), seed=1)
    assert len(support.query) == len(support.unheard) == len(clips)


def test_a_speaker_on_two_sides_is_found() -> None:
    clips = made(3)
    half = len(clips) // 2
    leaky = Fold("0", tuple(range(half)), (half,), tuple(range(half + 1, len(clips))))
    with pytest.raises(ConfigError, match="speaker alpha01 is in train and in"):
        check_folds(clips, [leaky], covers=False)


def test_a_file_on_two_sides_is_found_even_where_speakers_may_be() -> None:
    clips = made(3)
    twice = [*clips, replace(clips[0], label=1)]
    last = len(twice) - 1
    leaky = Fold("0", tuple(range(10)), tuple(range(10, last)), (last,))
    with pytest.raises(ConfigError, match=r"file .* is in train and in test"):
        check_folds(twice, [leaky], speaker_independent=False, covers=False)


def test_folds_that_leave_a_clip_out_are_found() -> None:
    clips = made(4)
    folds = speaker_folds(clips, 4)
    with pytest.raises(ConfigError, match="once"):
        check_folds(clips, folds[:-1])


@pytest.mark.parametrize(
    "divide",
    [
        lambda: speaker_folds(made(2), 5),
        lambda: leave_one_speaker_out(made(2)),
        lambda: leave_one_session_out(made(4)),
        lambda: session_partner_folds(made(3, sessions=True)),
        lambda: source_fold(made(1), validation_fraction=0.1),
    ],
)
def test_too_few_speakers_or_sessions_are_said(divide: object) -> None:
    with pytest.raises(ConfigError, match="need"):
        divide()  # type: ignore[operator]


@pytest.mark.parametrize("per", ["class", "total"])
@pytest.mark.parametrize("pool", ["half", "few", "all"])
def test_supports_are_nested_and_apart_from_the_query(per: str, pool: str) -> None:
    clips = made(6, 24)
    support = draw_shots(clips, labels(clips), (0, 5, 10, 15), seed=1, per=per, pool=pool)
    five, ten, fifteen = (set(support.nested[k]) for k in (5, 10, 15))
    assert five < ten < fifteen
    assert [len(five), len(ten), len(fifteen)] == ([20, 40, 60] if per == "class" else [5, 10, 15])
    assert set(support.query) == set(range(len(clips))) - fifteen
    heard = {clips[p].speaker for p in fifteen}
    assert not heard & {clips[p].speaker for p in support.unheard}
    assert set(support.unheard) <= set(support.query)
    counts = Counter(clips[p].label for p in ten)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_at_least_half_of_the_speakers_are_left_for_the_query() -> None:
    for speakers in (4, 5, 17):
        clips = made(speakers, 56)
        for seed in range(5):
            support = draw_shots(clips, labels(clips), (5, 15), seed=seed)
            heard = {clips[p].speaker for p in support.largest}
            assert len(heard) <= speakers / 2
            assert {clips[p].label for p in support.unheard} == {0, 1, 2, 3}


def test_few_speakers_are_as_few_as_can_give_so_many() -> None:
    clips = made(20, 16)
    support = draw_shots(clips, labels(clips), (15,), seed=1, pool="few")
    assert len({clips[p].speaker for p in support.largest}) <= 5


def test_speakers_of_one_emotion_each_still_leave_every_emotion_in_the_query() -> None:
    clips = [
        Clip(Path(f"u/{speaker}_{take}.wav"), f"s{speaker:02d}", label=speaker % 4)
        for speaker in range(16)
        for take in range(10)
    ]
    for seed in range(5):
        support = draw_shots(clips, labels(clips), (5, 10), seed=seed)
        assert {clips[p].label for p in support.unheard} == {0, 1, 2, 3}


def test_supports_depend_on_the_seed_and_not_on_the_order_of_clips() -> None:
    clips = made(6, 24)
    backwards = clips[::-1]
    one = draw_shots(clips, labels(clips), (5, 15), seed=1)
    same = draw_shots(backwards, labels(backwards), (5, 15), seed=1)
    other = draw_shots(clips, labels(clips), (5, 15), seed=2)
    assert names(clips, one.nested[5]) == names(backwards, same.nested[5])
    assert one.nested[5] != other.nested[5]


def test_a_target_that_is_too_small_is_said() -> None:
    clips = made(4, 8)
    with pytest.raises(ConfigError, match="need 15"):
        draw_shots(clips, labels(clips), (15,), seed=1)
    with pytest.raises(ConfigError, match="one corpus"):
        both = made(4, 30) + made(4, 30, corpus="beta")
        draw_shots(both, labels(both), (5,), seed=1)


def test_fractions_of_speakers_are_nested_and_nobody_learnt_from_is_judged() -> None:
    clips = made(10)
    support = draw_fractions(clips, labels(clips), (0.2, 0.1, 0.34), unit="speaker", draw=0)
    heard = [{clips[p].speaker for p in support.nested[share]} for share in (0.1, 0.2, 0.34)]
    assert [len(speakers) for speakers in heard] == [1, 2, 3]
    assert heard[0] < heard[1] < heard[2]
    assert support.query == support.unheard
    assert not heard[2] & {clips[p].speaker for p in support.query}


def test_draws_of_speakers_go_through_every_set_before_one_comes_again() -> None:
    clips = made(6)
    sets = {
        frozenset(
            clips[p].speaker for p in draw_fractions(clips, labels(clips), (1 / 3,), unit="speaker", draw=n).largest
        )
        for n in range(15)
    }
    assert len(sets) == 15


def test_fractions_of_clips_are_stratified_nested_and_share_speakers() -> None:
    clips = made(5, 40)
    support = draw_fractions(clips, labels(clips), (0.1, 0.2), unit="utterance", draw=1)
    assert set(support.nested[0.1]) < set(support.nested[0.2])
    counts = Counter(clips[p].label for p in support.nested[0.1])
    assert max(counts.values()) - min(counts.values()) <= 1
    assert abs(len(support.nested[0.1]) - 0.1 * len(clips)) <= 4
    assert not set(support.query) & set(support.nested[0.2])


def test_subsets_are_nested_and_a_size_above_all_takes_all() -> None:
    clips = made(5)
    subsets = nested_subsets(clips, (5, 20, 1000), seed=1)
    assert set(subsets[5]) < set(subsets[20]) < set(subsets[1000]) == set(range(len(clips)))


def test_wrong_switches_are_said() -> None:
    clips = made(4, 20)
    for call in (
        lambda: draw_shots(clips, labels(clips), (5,), seed=1, per="clip"),
        lambda: draw_shots(clips, labels(clips), (), seed=1),
        lambda: draw_fractions(clips, labels(clips), (0.1,), unit="file", draw=0),
        lambda: draw_fractions(clips, labels(clips), (1.0,), unit="speaker", draw=0),
        lambda: nested_subsets(clips, (), seed=1),
    ):
        with pytest.raises(ConfigError, match="need"):
            call()
