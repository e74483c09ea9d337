from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from edge_ser.corpus import FOUR_CLASSES
from train.examples import Example
from train.synthetic import synthetic_examples, synthetic_sentence, synthetic_wave


def means(examples: list[Example], name: str = "speech") -> tuple[np.ndarray, np.ndarray]:
    return np.stack([e.features[name].mean(0) for e in examples]), np.array([e.emotion for e in examples])


def centroid_accuracy(train: list[Example], test: list[Example]) -> float:
    x, y = means(train)
    centroids = np.stack([x[y == emotion].mean(0) for emotion in range(4)])
    u, v = means(test)
    distance = ((u[:, None] - centroids) ** 2).sum(-1)
    return float((distance.argmin(1) == v).mean())


def fundamental(sound: np.ndarray) -> float:
    """F0 in Hz of the middle tenth of a second: the first lag that correlates nearly as well as the best one."""
    middle = sound[len(sound) // 2 - 800 : len(sound) // 2 + 800].astype(np.float64)
    scores = np.array([np.corrcoef(middle[:-lag], middle[lag:])[0, 1] for lag in range(38, 228)])
    peaks = [k for k in range(1, len(scores) - 1) if scores[k] == scores[k - 1 : k + 2].max()]
    return 16_000 / (38 + next(k for k in peaks if scores[k] > scores.max() - 0.1))


def test_examples_are_what_was_asked_for_and_the_same_every_time() -> None:
    widths = {"speech": (2, 6), "text": 5, "prosody": 9, "spectrogram": (1, 8, 8), "mfcc": 39}
    first = synthetic_examples(1, 3, 2, 7, widths)
    again = synthetic_examples(1, 3, 2, 7, widths)
    assert len(first) == 3 * 2 * len(FOUR_CLASSES)
    assert {e.speaker for e in first} == {"1-0", "1-1", "1-2"}
    assert len({e.path for e in first}) == len(first)
    for one, two in zip(first, again, strict=True):
        assert one.features["speech"].shape[1:] == (2, 6)
        assert one.features["prosody"].shape == (9,)
        assert one.features["spectrogram"].shape == (1, 8, 8)
        assert one.attributes == two.attributes
        assert one.attributes is not None and all(0 <= value <= 1 for value in one.attributes)
        assert all(np.array_equal(one.features[name], two.features[name]) for name in widths)
        assert all(array.dtype == np.float32 for array in one.features.values())


def test_another_seed_gives_other_utterances_of_the_same_classes() -> None:
    first, second = synthetic_examples(0, 4, 8, 0), synthetic_examples(0, 4, 8, 1)
    assert not np.array_equal(first[0].features["speech"], second[0].features["speech"])
    assert centroid_accuracy(first, second) > 0.8


def test_another_language_is_shifted_but_above_chance() -> None:
    source = synthetic_examples(0, 4, 8, 0)
    target = synthetic_examples(1, 4, 8, 0)
    assert not {e.speaker for e in source} & {e.speaker for e in target}
    abroad, at_home = centroid_accuracy(source, target), centroid_accuracy(target, synthetic_examples(1, 4, 8, 1))
    assert 0.25 < abroad < at_home - 0.1


def test_a_wave_is_sound_and_its_emotion_sets_level_and_height() -> None:
    rng = np.random.default_rng(0)
    waves = {label: [synthetic_wave(label, 0, 0, rng) for _ in range(4)] for label in FOUR_CLASSES}
    for sounds in waves.values():
        assert all(s.dtype == np.float32 and s.shape == (16_000,) and np.abs(s).max() <= 1.0 for s in sounds)
    level = {label: np.mean([np.sqrt(np.mean(s**2)) for s in sounds]) for label, sounds in waves.items()}
    assert level["angry"] > level["happy"] > level["neutral"] > level["sad"]
    height = {label: np.median([fundamental(s) for s in sounds]) for label, sounds in waves.items()}
    assert min(height["angry"], height["happy"]) > height["neutral"] > height["sad"]


def test_speaker_and_language_set_the_range_of_a_wave() -> None:
    rng = np.random.default_rng(0)
    assert fundamental(synthetic_wave("neutral", 0, 0, rng)) > 1.4 * fundamental(synthetic_wave("neutral", 0, 1, rng))
    assert fundamental(synthetic_wave("neutral", 1, 0, rng)) > 1.05 * fundamental(synthetic_wave("neutral", 0, 0, rng))
    assert synthetic_wave("sad", 0, 0, rng, duration_s=0.5).shape == (8_000,)


def test_audio_as_a_feature_is_a_wave() -> None:
    (example, *_) = synthetic_examples(0, 1, 1, 0, {"audio": ()})
    assert example.features["audio"].shape == (16_000,)


def test_languages_share_no_word_and_emotions_have_their_own() -> None:
    rng = np.random.default_rng(0)
    words = {
        (emotion, language): set(" ".join(synthetic_sentence(emotion, language, rng) for _ in range(40)).split())
        for emotion in ("angry", "sad")
        for language in (0, 1)
    }
    assert not words["angry", 0] & words["angry", 1]
    assert words["angry", 0] - words["sad", 0]
    assert words["angry", 0] & words["sad", 0]
