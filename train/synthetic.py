"""Synthetic utterances for tests: emotions that can be learned, in "languages" that sound and read differently."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_ser.corpus import FOUR_CLASSES
from train.examples import SEQUENCES, Example

SAMPLE_RATE_HZ = 16_000

_CONTOURS = {"angry": (1.35, -0.2), "happy": (1.3, 0.4), "neutral": (1.0, 0.0), "sad": (0.85, -0.25)}
"""Mean F0 relative to the speaker's, and its relative rise from the first to the last sample."""
_LEVELS = {"angry": 0.3, "happy": 0.2, "neutral": 0.1, "sad": 0.05}
"""Root mean square, full scale 1."""
_SYLLABLES_HZ = {"angry": 6.0, "happy": 5.0, "neutral": 4.0, "sad": 2.5}
_ATTRIBUTES = {
    "angry": (0.8, 0.2, 0.8),
    "happy": (0.7, 0.8, 0.6),
    "neutral": (0.4, 0.5, 0.5),
    "sad": (0.2, 0.25, 0.3),
}
"""Arousal, valence, dominance."""

_SHARED = 0.35
"""Share of an emotion's direction in feature space that languages have in common."""


def synthetic_examples(
    language: int,
    speakers: int,
    per_class: int,
    seed: int,
    widths: Mapping[str, int | tuple[int, ...]] | None = None,
    *,
    noise: float = 1.0,
) -> list[Example]:
    """Return `per_class` utterances of each of the four classes by each speaker, the same ones for the same arguments.

    An utterance's features are its class's direction, which another language turns partly elsewhere, plus what the
    language and the speaker add, plus noise. A system trained on language 0 is therefore above chance on language 1,
    and a few examples of language 1 help it.

    Args:
        language: Any number; 0 is the source by custom.
        speakers: How many; every second is female. No speaker is in two languages.
        per_class: Utterances of one class by one speaker.
        seed: Draws speakers, lengths and noise; classes and languages are the same for every seed.
        widths: Shape of each feature, without the time axis of a sequence; `{"speech": 16, "text": 12}` unless given.
            `audio` is a `synthetic_wave` whatever its width.
        noise: Deviation of the noise in a value; a class direction has length 1 in the mean of an utterance's values.
    """
    rng = np.random.default_rng([seed, language])
    shapes = {name: _shape(width) for name, width in (widths or {"speech": 16, "text": 12}).items()}
    examples = []
    for speaker in range(speakers):
        accents = {name: 0.3 * rng.standard_normal(shape) for name, shape in shapes.items()}
        for emotion, label in enumerate(FOUR_CLASSES):
            for take in range(per_class):
                features: dict[str, NDArray[np.floating]] = {}
                for name, shape in shapes.items():
                    if name == "audio":
                        features[name] = synthetic_wave(label, language, speaker, rng)
                    else:
                        middle = _middle(name, shape, emotion, language) + accents[name]
                        features[name] = _scatter(name, middle, noise, rng)
                examples.append(
                    Example(
                        path=Path(f"language{language}/speaker{speaker}/{label}-{take}.wav"),
                        speaker=f"{language}-{speaker}",
                        corpus=f"synthetic{language}",
                        features=features,
                        emotion=emotion,
                        gender=speaker % 2,
                        attributes=_attributes(label, rng),
                    )
                )
    return examples


def synthetic_wave(
    emotion: str, language: int, speaker: int, rng: np.random.Generator, duration_s: float = 1.0
) -> NDArray[np.float32]:
    """Return a voice-like sound: mono float32 in [-1, 1] at 16 kHz, shape (duration_s * 16,000,).

    The emotion, one of `FOUR_CLASSES`, sets height and rise of F0, level and syllable rate; the language the range of
    F0 and the formants; the speaker (female where even) the mean F0. `rng` jitters all of it and adds noise 30 dB
    below.
    """
    time = np.arange(int(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    height, rise = _CONTOURS[emotion]
    base_hz = (190.0 if speaker % 2 == 0 else 110.0) * (1.0 + 0.03 * (speaker // 2 % 5)) * (1.0 + 0.15 * (language % 3))
    f0 = base_hz * height * rng.normal(1.0, 0.03) * (1.0 + rise * (time / duration_s - 0.5))
    phase = 2.0 * np.pi * np.cumsum(f0) / SAMPLE_RATE_HZ
    formants_hz = np.array([500.0, 1500.0, 2500.0]) * (1.0 + 0.12 * (language % 3))
    sound = np.zeros_like(time)
    for harmonic in range(1, 21):
        distance = (harmonic * f0[:, None] - formants_hz) / 200.0
        sound += (1.0 / (1.0 + distance**2)).sum(1) / harmonic * np.sin(harmonic * phase)
    rate_hz = _SYLLABLES_HZ[emotion] * rng.normal(1.0, 0.05)
    sound *= 0.6 - 0.4 * np.cos(2.0 * np.pi * rate_hz * time)
    level = _LEVELS[emotion] * rng.normal(1.0, 0.05)
    sound *= level / np.sqrt(np.mean(sound**2))
    sound += rng.standard_normal(len(time)) * level * 10 ** (-30 / 20)
    return np.clip(sound, -1.0, 1.0).astype(np.float32)


def synthetic_sentence(emotion: str, language: int, rng: np.random.Generator, words: int = 6) -> str:
    """Return made-up words in the language's own vocabulary, every second one typical of the emotion on average."""
    typical = FOUR_CLASSES.index(emotion)
    kinds = np.where(rng.random(words) < 0.5, typical, len(FOUR_CLASSES))
    return " ".join(f"l{language}k{kind}w{rng.integers(8)}" for kind in kinds)


def _shape(width: int | tuple[int, ...]) -> tuple[int, ...]:
    return (width,) if isinstance(width, int) else tuple(width)


def _middle(name: str, shape: tuple[int, ...], emotion: int, language: int) -> NDArray[np.float64]:
    """Return the mean of a class's feature: its direction and the language's offset."""

    def direction(*place: int) -> NDArray[np.float64]:
        return np.random.default_rng([*name.encode(), *place]).standard_normal(shape)

    shared, own = direction(emotion), direction(emotion, 1 + language)
    offset = 0.3 * direction(len(FOUR_CLASSES), 1 + language)
    return np.sqrt(_SHARED) * shared + np.sqrt(1.0 - _SHARED) * own + offset


def _scatter(name: str, middle: NDArray[np.float64], noise: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a feature around its mean; a sequence has 6 to 14 frames."""
    shape = (int(rng.integers(6, 15)), *middle.shape) if name in SEQUENCES else middle.shape
    utterance = 0.5 * rng.standard_normal(middle.shape)
    return (middle + noise * (utterance + rng.standard_normal(shape))).astype(np.float32)


def _attributes(label: str, rng: np.random.Generator) -> tuple[float, float, float]:
    arousal, valence, dominance = np.clip(_ATTRIBUTES[label] + 0.1 * rng.standard_normal(3), 0.0, 1.0).tolist()
    return arousal, valence, dominance
