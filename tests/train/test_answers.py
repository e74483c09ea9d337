"""Figures of answers: intervals that know which answers belong together, reliability, risk."""

from __future__ import annotations

import numpy as np
import pytest

from train.answers import Answers, Draws, brief, describe, difference, promises, reliability, risk_coverage

CLIPS = 120


def answers(right: np.ndarray, speakers: int = 12, confidence: float = 0.7) -> Answers:
    """Answers to clips of 4 classes in turn, each right or one class beside it."""
    truth = np.arange(len(right)) % 4
    shares = np.full((len(right), 4), (1 - confidence) / 3)
    shares[np.arange(len(right)), np.where(right, truth, (truth + 1) % 4)] = confidence
    names = np.array([f"speaker {place * speakers // len(right)}" for place in range(len(right))])
    return Answers(truth, shares, right.astype(bool), names, np.arange(len(right)), np.zeros(len(right), int))


def width(interval: list[float]) -> float:
    return interval[1] - interval[0]


def test_intervals_hold_the_value_and_grow_where_errors_come_by_speaker() -> None:
    scattered = answers(np.arange(CLIPS) % 3 > 0)
    by_speaker = answers(np.arange(CLIPS) // 10 % 3 > 0)
    narrow, wide = brief(scattered), brief(by_speaker)
    assert narrow["ua"] == pytest.approx(2 / 3, abs=0.01) == wide["ua"]
    for figures in (narrow, wide):
        assert figures["ua_interval"][0] < figures["ua"] < figures["ua_interval"][1]
    assert width(wide["ua_interval"]) > 3 * width(narrow["ua_interval"])


def test_hearing_the_same_clips_again_does_not_make_an_interval_narrower() -> None:
    once = answers(np.arange(CLIPS) % 3 > 0, speakers=2)
    thrice = Answers.joined([once, once, once])
    assert brief(thrice)["ua_interval"] == brief(once)["ua_interval"]
    assert brief(thrice)["clips"] == CLIPS


def test_a_difference_is_paired() -> None:
    before, after = answers(np.arange(CLIPS) % 3 > 0), answers(np.arange(CLIPS) % 3 > 0)
    assert difference(before, after) == {"difference": 0.0, "difference_interval": [0.0, 0.0]}
    better = difference(before, answers(np.ones(CLIPS)))
    assert better["difference"] == pytest.approx(1 / 3, abs=0.01)
    assert better["difference_interval"][0] > 0.2


def test_what_is_certain_is_counted_apart() -> None:
    right = np.arange(CLIPS) % 4 > 0
    figures = describe(answers(right))
    assert (figures["certain_share"], figures["certain_accuracy"]) == (0.75, 1.0)
    assert figures["recall"] == [0.0, 1.0, 1.0, 1.0]
    silent = answers(right)
    silent.certain[:] = False
    assert describe(silent)["certain_accuracy"] is None
    assert np.isnan(Draws(silent).accuracy(silent, silent.certain)).all()


def test_reliability_tells_confidence_from_accuracy() -> None:
    rows = reliability(answers(np.arange(CLIPS) % 2 > 0, confidence=0.9))
    assert rows == [{"up_to": 0.933, "answers": CLIPS, "confidence": 0.9, "right": 0.5}]


def test_the_most_confident_answers_come_first() -> None:
    sure, unsure = answers(np.ones(60), confidence=0.9), answers(np.zeros(60), confidence=0.4)
    both = Answers.joined([unsure, sure])
    curve = {row["coverage"]: row["risk"] for row in risk_coverage(both)}
    assert (curve[0.5], curve[1.0]) == (0.0, 0.5)
    rows = promises(both, (0.1, 0.2), lambda shares, risk: bool(shares.max() > 1.0 - risk - 0.01 * (risk > 0.1)))
    assert rows == [{"risk": 0.1, "coverage": 0.0, "wrong": None}, {"risk": 0.2, "coverage": 0.5, "wrong": 0.0}]
