from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from edge_ser.clips import repeat_pad
from edge_ser.errors import AudioFormatError, ConfigError
from edge_ser.mfcc import mfcc39
from edge_ser.prosody import prosody
from train.corpora.utterance import Utterance
from train.examples import Example
from train.hump_cat_features import (
    ClipSettings,
    clip_examples,
    clip_features,
    log_power,
    lpcc,
    transfer_split,
    utterance_logits,
)

ALL = ("mfcc", "prosody", "lpcc", "log_power")


def voice(seconds: float) -> NDArray[np.float32]:
    count = round(seconds * 16_000)
    phase = 130.0 * np.arange(count) / 16_000
    noise = 0.01 * np.random.default_rng(0).standard_normal(count)
    return (0.3 * (2.0 * (phase % 1.0) - 1.0) + noise).astype(np.float32)


def utterance(name: str) -> Example:
    return Example(Path(name), "speaker", "corpus", {"text": np.zeros((1, 2))}, emotion=2, gender=1)


def test_hump_cat_check_02_features_of_seven_seconds() -> None:
    for seconds in (0.5, 7.0):
        features = clip_features(voice(seconds), ClipSettings(features=ALL))
        shapes = {name: array.shape for name, array in features.items()}
        assert shapes == {"mfcc": (349, 39), "prosody": (103,), "lpcc": (349, 36), "log_power": (85, 513)}
        assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in features.values())


def test_prosody_hears_the_piece_and_mfcc_the_clip_unless_told_otherwise() -> None:
    piece = voice(2.0)
    padded = repeat_pad(piece, 112_000)
    raw = clip_features(piece, ClipSettings())
    assert np.array_equal(raw["prosody"], prosody(piece))
    assert np.array_equal(raw["mfcc"], mfcc39(padded))
    assert np.array_equal(clip_features(piece, ClipSettings(prosody_on="padded"))["prosody"], prosody(padded))
    narrow = clip_features(piece, ClipSettings(mfcc_window_ms=30))
    assert np.array_equal(narrow["mfcc"], mfcc39(padded, 30))


def test_a_switch_or_feature_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="prosody_on"):
        clip_features(voice(1.0), ClipSettings(prosody_on="both"))
    with pytest.raises(ConfigError, match="chroma"):
        clip_features(voice(1.0), ClipSettings(features=("chroma",)))
    with pytest.raises(AudioFormatError):
        clip_examples(utterance("a.wav"), np.zeros(0, np.float32), ClipSettings())


def test_an_utterance_becomes_clips_with_its_labels() -> None:
    heard: list[int] = []

    def encode(padded: NDArray[np.float32]) -> NDArray[np.float32]:
        heard.append(len(padded))
        return np.zeros((349, 2, 8), np.float32)

    clips = clip_examples(utterance("a.wav"), voice(15.0), ClipSettings(features=("mfcc",)), encode)
    assert len(clips) == 3 and heard == [112_000] * 3
    assert {(clip.path, clip.emotion, clip.gender) for clip in clips} == {(Path("a.wav"), 2, 1)}
    assert all(set(clip.features) == {"mfcc", "speech"} for clip in clips)
    assert [clip.features["mfcc"].shape for clip in clips] == [(349, 39)] * 3


def test_an_utterance_scores_the_mean_of_its_clips() -> None:
    examples = [utterance(name) for name in ("b.wav", "a.wav", "b.wav")]
    paths, means = utterance_logits(examples, np.array([[1.0, 0.0], [5.0, 6.0], [3.0, 4.0]]))
    assert paths == [Path("b.wav"), Path("a.wav")]
    assert means.tolist() == [[2.0, 2.0], [5.0, 6.0]]
    assert utterance_logits([], np.zeros((0, 2)))[1].shape == (0, 2)


def test_linear_prediction_solves_its_normal_equations() -> None:
    wave = voice(0.1)
    cepstrum = lpcc(wave)[1, :12]
    x = wave.astype(np.float64) - wave.astype(np.float64).mean()
    frame = (x / np.abs(x).max())[320:960] * np.hamming(640)
    r = np.array([frame[lag:] @ frame[: len(frame) - lag] for lag in range(13)])
    a = np.linalg.solve(r[np.abs(np.subtract.outer(range(12), range(12)))] + 1e-9 * r[0] * np.eye(12), r[1:])
    # The cepstrum of 1 / A is the logarithm of its spectrum, transformed back.
    spectrum = np.fft.fft(np.concatenate([[1.0], -a]), 65_536)
    expected = np.fft.ifft(-2.0 * np.log(np.abs(spectrum))).real[1:13]
    assert np.allclose(cepstrum, expected, atol=1e-3)


def test_comparison_features_are_finite_for_silence() -> None:
    silence = np.zeros(16_000, np.float32)
    assert np.allclose(lpcc(silence), 0)
    assert np.allclose(log_power(silence), -10)


def corpus(speakers: int, takes: int = 10) -> list[Any]:
    return [
        Utterance(Path(f"{speaker}-{emotion}-{take}.wav"), speaker=f"s{speaker}", corpus="emodb", emotion=emotion)
        for speaker in range(speakers)
        for emotion in ("angry", "happy", "neutral", "sad")
        for take in range(takes)
    ]


@pytest.mark.parametrize(("speakers", "fraction"), [(10, 0.2), (6, 1 / 3)])
def test_two_speakers_adapt_and_the_others_test(speakers: int, fraction: float) -> None:
    finetune, test = transfer_split(corpus(speakers), "speaker", fraction, 0)
    chosen, held = ({item.speaker for item in side} for side in (finetune, test))
    assert len(chosen) == 2 and not chosen & held
    assert len(finetune) + len(test) == len(corpus(speakers))


def test_a_tenth_of_each_class_adapts_and_the_rest_tests() -> None:
    finetune, test = transfer_split(corpus(3), "utterance", 0.1, 0)
    counts = {emotion: sum(item.emotion == emotion for item in finetune) for emotion in ("angry", "happy", "sad")}
    assert counts == {"angry": 3, "happy": 3, "sad": 3} and len(finetune) == 12
    assert not {item.path for item in finetune} & {item.path for item in test}


@pytest.mark.parametrize("unit", ["speaker", "utterance"])
def test_the_seed_chooses_and_repeats_itself(unit: str) -> None:
    items = corpus(6)
    draws = [tuple(item.path for item in transfer_split(items, unit, 0.34, seed)[0]) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_a_share_that_leaves_nothing_is_refused() -> None:
    for unit, fraction in (("speaker", 1.0), ("speaker", 0.0), ("corpus", 0.5)):
        with pytest.raises(ConfigError):
            transfer_split(corpus(2), unit, fraction, 0)
