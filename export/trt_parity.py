"""Whether an engine, or the graph it is built from, answers as the bundle's own graph does on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.backends import open_backend
from edge_ser.bundle import Bundle
from edge_ser.errors import ConfigError, EdgeSerError
from edge_ser.frontend import FrontEnd
from edge_ser.recognizer import EmotionRecognizer
from edge_ser.sources import read_samples
from edge_ser.voice import VoiceProfile

Inputs: TypeAlias = dict[str, NDArray[Any]]
Run: TypeAlias = Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[np.float32]]]

SOUND = Path(__file__).resolve().parent.parent / "examples" / "conversation.flac"
"""The stored sound that the inputs are made from."""
LENGTHS_S = (0.4, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds at which two forms of a model are compared."""
SENTENCES = (None, "I am so happy today.", "why did you do that, I told you not to go there again")
_CROPS = 4


@dataclass(frozen=True)
class Budget:
    """How far an engine's answers may be from the graph's."""

    cosine: float
    """Smallest cosine between embeddings, at any length."""
    shift: float
    """Largest mean change of a probability, at any length."""


BUDGETS = {"int8": Budget(0.99, 0.03), "fp16": Budget(0.999, 0.01), "fp32": Budget(0.9999, 0.002)}


@dataclass(frozen=True)
class Parity:
    """How near the answers are, by seconds of audio."""

    cosines: Mapping[float, float]
    """Smallest cosine between embeddings."""
    shifts: Mapping[float, float]
    """Mean change of a probability."""
    agreement: float
    """Share of inputs with the same most likely emotion."""

    def fits(self, budget: Budget) -> bool:
        """Return whether every length is within the budget; what is no number never is."""
        return all(value >= budget.cosine for value in self.cosines.values()) and all(
            value <= budget.shift for value in self.shifts.values()
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as a receipt holds it."""
        return {
            "cosine": {f"{seconds:g}": round(value, 6) for seconds, value in self.cosines.items()},
            "probability_shift": {f"{seconds:g}": round(value, 6) for seconds, value in self.shifts.items()},
            "agreement": round(self.agreement, 4),
        }

    def __str__(self) -> str:
        """Return it in a few words."""
        return (
            f"smallest cosine {min(self.cosines.values()):.5f}, largest shift of a probability "
            f"{max(self.shifts.values()):.5f}, same emotion in {self.agreement:.0%}"
        )


def stored_inputs(bundle: Bundle, sound: Path = SOUND) -> dict[float, list[Inputs]]:
    """Return inputs by seconds of audio: with and without words, with a fresh and a known voice.

    Raises:
        ConfigError: The sound is missing.
    """
    try:
        samples = read_samples(str(sound))
    except EdgeSerError as problem:
        raise ConfigError(f"the sound to compare with cannot be read: {problem}; use --sound FILE") from None
    manifest = bundle.manifest
    front_end, voice = FrontEnd(bundle), VoiceProfile()
    recognizer = EmotionRecognizer(bundle, open_backend(bundle, "cpu", threads=1))
    lengths = sorted({min(max(s, manifest.min_duration_s), manifest.max_duration_s) for s in LENGTHS_S})
    inputs: dict[float, list[Inputs]] = {}
    for seconds in lengths:
        size = int(np.ceil(seconds * SAMPLE_RATE_HZ))
        looped = np.resize(samples, max(samples.size, 2 * size))
        for crop, start in enumerate(np.linspace(0, looped.size - size, _CROPS).astype(int)):
            window = looped[start : start + size]
            known = voice if crop % 2 else None
            inputs.setdefault(seconds, []).append(front_end.inputs(window, SENTENCES[crop % len(SENTENCES)], known))
            recognizer.judge(window, voice=voice)
    return inputs


def compare(reference: Run, other: Run, inputs: Mapping[float, Sequence[Inputs]], times: int = 1) -> Parity:
    """Return how near `other` is to `reference`.

    Args:
        reference: What is right.
        other: What is compared with it.
        inputs: By seconds of audio.
        times: How often each input is run: at the third time an engine answers out of its recording.
    """
    cosines, shifts, same = {}, {}, []
    for seconds, items in inputs.items():
        pairs = [(expected, other(item)) for item in items for expected in [reference(item)] for _ in range(times)]
        cosines[seconds] = min(_cosine(_vector(e), _vector(g)) for e, g in pairs)
        changes = [np.abs(_probabilities(e["logits"]) - _probabilities(g["logits"])).mean() for e, g in pairs]
        shifts[seconds] = float(np.mean(changes))
        same += [int(e["logits"].argmax()) == int(g["logits"].argmax()) for e, g in pairs]
    return Parity(cosines, shifts, float(np.mean(same)))


def _vector(answer: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float64]:
    """Return the embedding, or the logits of a model that has none."""
    return np.asarray(answer.get("embedding", answer["logits"]), dtype=np.float64).reshape(-1)


def _cosine(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-30))


def _probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    exponentials = np.exp(np.asarray(logits[0], dtype=np.float64) - float(logits.max()))
    shares: NDArray[np.float64] = exponentials / exponentials.sum()
    return shares
