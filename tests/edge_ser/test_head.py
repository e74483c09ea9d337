"""The adapted head: near its clips it says what they say, far from them what the base model says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ser.head import Head, VoicePrior, with_new_labels
from edge_ser.head_file import head_from_bytes, head_to_bytes
from edge_ser.head_fit import (
    FAR_AMPLITUDES,
    Examples,
    choose_far_amplitude,
    choose_first_trust,
    even_folds,
    expected_voice,
    fit_head,
    held_out_logits,
    voice_folds,
)

SIZE = 32
BASE_LABELS = 3


def examples(clips: int = 24, labels: int = BASE_LABELS, seed: int = 0, size: int = SIZE, voices: int = 1) -> Examples:
    """Clips whose labels lie apart in the embedding, and a base model that knows nothing of it."""
    rng = np.random.default_rng(seed)
    truth = np.arange(clips) % labels
    centres = 3 * np.random.default_rng(99).normal(size=(labels, size))
    logits = rng.normal(size=(clips, BASE_LABELS))
    return Examples(
        embeddings=centres[truth] + rng.normal(size=(clips, size)),
        base_logits=logits,
        cold_logits=logits,
        labels=truth,
        voices=np.arange(clips) // labels % voices,
        label_count=max(labels, BASE_LABELS),
        temperature=1.3,
    )


def say(head: Head, clips: Examples) -> np.ndarray:
    return head.logits(clips.base_logits, clips.embeddings, head.voice.mean)


@pytest.mark.parametrize("far", FAR_AMPLITUDES)
@pytest.mark.parametrize("labels", [2, 3, 4])
def test_it_recognises_clips_it_has_not_seen(far: float, labels: int) -> None:
    head = fit_head(examples(6 * labels, labels), far)
    fresh = examples(20 * labels, labels, seed=1)
    assert np.mean(say(head, fresh).argmax(1) == fresh.labels) > 0.9


def test_far_from_every_clip_the_base_model_answers() -> None:
    clips = examples()
    head = fit_head(clips, FAR_AMPLITUDES[-1])
    elsewhere = replace(clips, embeddings=clips.embeddings + 1000.0)
    base = with_new_labels(clips.base_logits / clips.temperature, BASE_LABELS)
    pulled = say(head, elsewhere) - head.sharpness * base
    assert np.abs(pulled).max() < 0.2
    assert np.abs(say(head, clips) - head.sharpness * base).max() > 1.0


def test_more_clips_pull_more() -> None:
    fresh = examples(60, seed=1)
    right = []
    for count in (3, 9, 30):
        logits = say(fit_head(examples(count), 16.0), fresh)
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        right.append(shares[np.arange(60), fresh.labels].mean())
    assert right[0] < right[1] < right[2]


def test_labels_without_a_clip_are_not_pulled() -> None:
    head = fit_head(examples(20, labels=2), 16.0)
    assert head.pull.shape == (20, BASE_LABELS)
    assert not head.pull[:, 2].any() and head.pull[:, :2].any()
    assert head.pull.sum(axis=1) == pytest.approx(0.0, abs=1e-3)


def test_the_fit_is_where_the_posterior_is_flat() -> None:
    clips = examples()
    head = fit_head(clips, 4.0)
    logits = say(head, clips)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    # At the maximum each clip pulls by what is still lacking.
    assert head.pull == pytest.approx(np.eye(BASE_LABELS)[clips.labels] - shares, abs=5e-3)


def test_a_clip_left_out_was_not_learnt_from() -> None:
    clips = examples()
    swapped = clips.labels.copy()
    swapped[5] = (swapped[5] + 1) % BASE_LABELS
    groups = even_folds(clips.labels, len(clips))
    logits = [held_out_logits(item, groups, 4.0)[5] for item in (clips, replace(clips, labels=swapped))]
    assert logits[0] == pytest.approx(logits[1])


def test_folds_part_voices_and_spread_labels() -> None:
    clips = examples(60, voices=7)
    groups = voice_folds(clips)
    assert all(len(set(groups[clips.voices == voice])) == 1 for voice in range(7))
    even = even_folds(clips.labels, 10)
    assert all(set(clips.labels[even == group]) == {0, 1, 2} for group in range(10))


def test_voices_that_agree_are_trusted_at_once_and_voices_that_do_not_are_not() -> None:
    agreeing = examples(48, voices=4)
    assert choose_first_trust(agreeing, choose_far_amplitude(agreeing)) == 1.0
    rng = np.random.default_rng(0)
    shuffled = {voice: rng.permutation(BASE_LABELS) for voice in range(4)}
    labels = np.array([shuffled[int(v)][label] for v, label in zip(agreeing.voices, agreeing.labels, strict=True)])
    assert choose_first_trust(replace(agreeing, labels=labels), 16.0) == 0.0
    assert choose_first_trust(examples(24), 16.0) == 1.0


def told(count: float, mean: float) -> np.ndarray:
    return np.concatenate([[count], np.full(SIZE, mean), np.full(SIZE, 0.5)])[np.newaxis]


def test_a_voice_that_is_heard_takes_the_place_of_the_expected_one() -> None:
    prior = VoicePrior(np.zeros(SIZE), np.ones(SIZE), heard=10.0, patience=3.0, first_trust=1.0)
    means = [prior.merged(told(count, 1.0))[0, 1] for count in (0, 1, 3, 1000)]
    assert means == pytest.approx([0.0, 0.25, 0.5, 1.0], abs=0.01)
    assert [prior.merged(told(count, 1.0))[0, 0] for count in (0, 5)] == [10.0, 15.0]


def test_without_trust_a_fresh_voice_is_told_as_fresh() -> None:
    prior = VoicePrior(np.ones(SIZE), np.ones(SIZE), heard=10.0, patience=3.0, first_trust=0.0)
    fresh = np.zeros((1, 2 * SIZE + 1))
    assert not prior.merged(fresh).any()
    assert [round(prior.trust(told(count, 1.0)), 2) for count in (0, 1, 3, 27)] == [0.0, 0.25, 0.5, 0.9]


def test_one_voice_is_expected_as_firmly_as_it_was_heard() -> None:
    assert expected_voice(examples(24)).heard == 24
    assert expected_voice(examples(24, voices=3)).heard == 10


def test_an_uneven_number_of_clips_does_not_shift_the_expected_voice() -> None:
    clips = examples(30)
    uneven = clips.keep((clips.labels != 0) | (np.arange(30) < 12))
    middle = np.mean([clips.embeddings[clips.labels == label].mean(axis=0) for label in range(3)], axis=0)
    plain = uneven.embeddings.mean(axis=0)
    assert np.linalg.norm(expected_voice(uneven).mean - middle) < np.linalg.norm(plain - middle)


@given(clips=st.integers(2, 12), same=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_any_clips_of_two_labels_give_a_finite_head(clips: int, same: bool, seed: int) -> None:
    few = examples(clips, labels=2, seed=seed, size=5)
    few = replace(few, embeddings=np.zeros((clips, 5)) if same else few.embeddings)
    head = fit_head(few, choose_far_amplitude(few))
    assert np.isfinite(say(head, few)).all() and head.whitening.scale > 0


def test_a_kept_head_says_the_same() -> None:
    clips = examples()
    head = fit_head(clips, 4.0)
    again = head_from_bytes(head_to_bytes(head), "here", SIZE, BASE_LABELS)
    assert say(again, clips) == pytest.approx(say(head, clips), abs=1e-4)
    assert head_to_bytes(again) == head_to_bytes(head)


def test_a_new_label_is_believed_little_before_any_clip() -> None:
    shares = np.exp(with_new_labels(np.array([[2.0, 0.0, 0.0], [900.0, 0.0, -900.0]]), 4))
    assert shares[:, 3] == pytest.approx(0.125)
    assert shares.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    assert shares.argmax(axis=1).tolist() == [0, 0]
