"""From one utterance to one calibrated emotion."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_ser.audio import SAMPLE_RATE_HZ, as_samples, mixed_to_mono, resampled
from edge_ser.backends import Backend, open_backend
from edge_ser.bundle import Bundle, find_bundle
from edge_ser.errors import AudioFormatError, BundleError
from edge_ser.events import Emotion
from edge_ser.frontend import FrontEnd
from edge_ser.voice import VoiceProfile

if TYPE_CHECKING:
    from edge_ser.stream import Stream

_QUIET_DBFS = -75.0
_CLIPPED_LEVEL = 0.999
_CLIPPED_SHARE = 0.2
_MIN_SPEECH_S = 0.09
"""Three of the detector's frames: a short word, and more than a click."""

_log = logging.getLogger("edge_ser")


def load(
    model: str | os.PathLike[str] = "mdat-int8", *, provider: str = "auto", threads: int | None = None
) -> EmotionRecognizer:
    """Return a recognizer for a bundle.

    Args:
        model: A bundled name, or a bundle's folder.
        provider: `auto` or `cpu`.
        threads: Threads for one utterance; None takes two, or one where the machine has one core.

    Raises:
        BundleError: There is no such bundle, or it does not open.
        BackendUnavailableError: The provider cannot run here.
        ConfigError: No such provider, or fewer than one thread.
    """
    bundle = find_bundle(model)
    backend = open_backend(bundle, provider, threads)
    why = "the only provider of this release" if provider == "auto" else f"asked for: {provider}"
    _log.info("%s from %s on %s, %s (%s)", bundle.manifest.name, bundle.folder, backend.name, backend.provider, why)
    return EmotionRecognizer(bundle, backend)


@dataclass(frozen=True)
class Judgement:
    """How one utterance was said, before it has a place in a stream."""

    emotion: str
    """The likeliest label."""
    confidence: float
    """Calibrated probability of `emotion`, in [0, 1]."""
    probabilities: Mapping[str, float]
    """Calibrated probability of every label; they sum to 1."""
    uncertain: bool
    """True if the answer should not be acted on at the chosen risk."""
    candidates: tuple[str, ...]
    """The labels that cannot be ruled out at the chosen risk, likeliest first."""
    attributes: Mapping[str, float] | None
    """Each in [0, 1], or None where the model has none."""
    text_used: bool
    """True if a transcript was fused in."""
    voice_utterances: int
    """How many earlier utterances of this voice were used."""
    latency_ms: float
    """Milliseconds from samples to answer."""
    rejection: str | None
    """`too_short`, `too_quiet`, `clipped`, or None for an utterance that can be judged."""


@dataclass(frozen=True)
class _Answer:
    outputs: dict[str, NDArray[np.float64]]
    text_used: bool


class EmotionRecognizer:
    """Judges utterances with one bundle. It keeps nothing between them, so threads may share it."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        """Judge with `backend`, which runs the graph of `bundle`; `edge_ser.load` is the short way."""
        self._bundle = bundle
        self._backend = backend
        self._front_end = FrontEnd(bundle)

    def __repr__(self) -> str:
        """Return the contract of the model: what goes in, what comes out."""
        manifest = self._bundle.manifest
        inputs = [f"  in   {item.name}: {item.dtype} {_shape(item.shape)}, {item.kind}" for item in manifest.inputs]
        outputs = [f"  out  {item.name}: {item.dtype} {_shape(item.shape)}" for item in manifest.outputs]
        head = f"EmotionRecognizer {manifest.name} ({manifest.system}, {manifest.precision}) on {self._backend.name}"
        limits = f"  utterances of {manifest.min_duration_s:g} to {manifest.max_duration_s:g} s at {SAMPLE_RATE_HZ} Hz"
        return "\n".join([head, limits, *inputs, *outputs, f"  labels: {', '.join(manifest.labels)}"])

    @property
    def bundle(self) -> Bundle:
        """The bundle that answers."""
        return self._bundle

    @property
    def model(self) -> str:
        """Name of the bundle."""
        return self._bundle.manifest.name

    @property
    def labels(self) -> tuple[str, ...]:
        """Emotions, in the order of the logits."""
        return self._bundle.manifest.labels

    @property
    def min_duration_s(self) -> float:
        """Seconds; shorter utterances are rejected."""
        return self._bundle.manifest.min_duration_s

    @property
    def max_duration_s(self) -> float:
        """Seconds; longer utterances are judged in windows whose logits are averaged."""
        return self._bundle.manifest.max_duration_s

    def recognize(
        self,
        samples: ArrayLike,
        sample_rate_hz: float = SAMPLE_RATE_HZ,
        transcript: str | None = None,
        voice: VoiceProfile | None = None,
    ) -> Emotion:
        """Return how one utterance was said; what a stream would reject or not even hear comes back uncertain.

        Args:
            samples: Float32 or float64 in [-1, 1], or int16, shape (n,) or (n, channels).
            sample_rate_hz: Hertz, from 4000 to 384000.
            transcript: What was said, if known.
            voice: What is known of the speaker; it is used, then it learns from this utterance.

        Raises:
            AudioFormatError: The samples are empty, not finite, of another type, or the rate is out of range.
            ConfigError: The voice belongs to another model.
        """
        mono = resampled(mixed_to_mono(samples), sample_rate_hz)
        if mono.size == 0:
            raise AudioFormatError("got no samples; need at least one; check that the recording is not empty")
        spoken = _holds_speech(mono)
        judgement = self.judge(mono, transcript=transcript, voice=voice, update_voice=spoken)
        by_probability = sorted(judgement.probabilities, key=lambda label: -judgement.probabilities[label])
        return Emotion(
            utterance=1,
            start_s=0.0,
            end_s=mono.size / SAMPLE_RATE_HZ,
            emotion=judgement.emotion,
            confidence=judgement.confidence,
            probabilities=judgement.probabilities,
            uncertain=judgement.uncertain or not spoken,
            candidates=judgement.candidates if spoken else tuple(by_probability),
            attributes=judgement.attributes,
            model=self.model,
            latency_ms=judgement.latency_ms,
            text_used=judgement.text_used,
            voice_utterances=judgement.voice_utterances,
        )

    def judge(
        self,
        samples: ArrayLike,
        *,
        transcript: str | None = None,
        voice: VoiceProfile | None = None,
        risk: float | None = None,
        update_voice: bool = True,
    ) -> Judgement:
        """Return how one utterance was said, and why it cannot be judged where that is so.

        Args:
            samples: Mono float32 in [-1, 1], shape (n,), at 16 kHz.
            transcript: What was said, if known.
            voice: What is known of the speaker.
            risk: Share of wrong answers to accept, in (0, 1); None takes the model's default.
            update_voice: Whether `voice` learns from this utterance; a rejected one never teaches.

        Raises:
            AudioFormatError: The samples are not finite, or of another type or shape.
            ConfigError: The risk is outside (0, 1), or the voice belongs to another model.
        """
        started_s = time.perf_counter()
        calibration = self._bundle.manifest.calibration
        utterance = as_samples(samples)
        rejection = self._rejection(utterance)
        answer = self._answer(utterance, transcript, voice)
        probabilities = calibration.probabilities(answer.outputs["logits"])
        uncertain, kept = calibration.decide(probabilities, risk)
        if rejection is not None:
            uncertain, kept = True, tuple(int(index) for index in np.argsort(-probabilities, kind="stable"))
        heard = self._heard(voice)
        if voice is not None and update_voice and rejection is None:
            self._teach(voice, answer.outputs)
        return Judgement(
            emotion=self.labels[kept[0]],
            confidence=float(probabilities[kept[0]]),
            probabilities=dict(zip(self.labels, probabilities.tolist(), strict=True)),
            uncertain=uncertain,
            candidates=tuple(self.labels[index] for index in kept),
            attributes=self._attributes(answer.outputs),
            text_used=answer.text_used,
            voice_utterances=heard,
            latency_ms=1000 * (time.perf_counter() - started_s),
            rejection=rejection,
        )

    def stream(self, *, voice: VoiceProfile | None = None, risk: float | None = None, vad: str = "silero") -> Stream:
        """Return a stream that cuts audio into utterances and judges each.

        Args:
            voice: What is known of the speaker; None starts afresh. The stream goes on learning it.
            risk: Share of wrong answers to accept, in (0, 1); None takes the model's default.
            vad: `silero`, or `webrtc`, which costs less and hears less well.

        Raises:
            ConfigError: The risk is outside (0, 1), or there is no such detector.
        """
        # Late, so that judging single utterances needs no speech detection.
        from edge_ser.stream import Stream
        from edge_ser.vad import open_detector

        self._bundle.manifest.calibration.row(risk)
        return Stream(self, voice=voice, risk=risk, detector=open_detector(vad))

    def _rejection(self, utterance: NDArray[np.float32]) -> str | None:
        if utterance.size < self.min_duration_s * SAMPLE_RATE_HZ:
            return "too_short"
        power = float(np.mean(np.square(utterance, dtype=np.float64)))
        if power < 10 ** (_QUIET_DBFS / 10):
            return "too_quiet"
        if float(np.mean(np.abs(utterance) >= _CLIPPED_LEVEL)) > _CLIPPED_SHARE:
            return "clipped"
        return None

    def _answer(self, utterance: NDArray[np.float32], transcript: str | None, voice: VoiceProfile | None) -> _Answer:
        windows = self._windows(utterance)
        prepared = [self._front_end.inputs(window, transcript, voice) for window in windows]
        answers = [self._backend.run(inputs) for inputs in prepared]
        outputs = {
            name: np.mean([np.asarray(answer[name], dtype=np.float64)[0] for answer in answers], axis=0)
            for name in answers[0]
        }
        if not all(np.isfinite(values).all() for values in outputs.values()):
            raise BundleError(
                f"{self._bundle.folder} answered with NaN or infinity; need finite numbers; "
                "check the model: python export/check_parity.py --help"
            )
        return _Answer(outputs, self._front_end.uses_text(prepared[0]))

    def _windows(self, utterance: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        shortest = math.ceil(self.min_duration_s * SAMPLE_RATE_HZ)
        longest = max(shortest, int(self.max_duration_s * SAMPLE_RATE_HZ))
        count = max(1, math.ceil(utterance.size / longest))
        return [np.pad(window, (0, max(0, shortest - window.size))) for window in np.array_split(utterance, count)]

    def _heard(self, voice: VoiceProfile | None) -> int:
        if voice is None or self._bundle.manifest.input_of("voice") is None:
            return 0
        return voice.utterances

    def _teach(self, voice: VoiceProfile, outputs: Mapping[str, NDArray[np.float64]]) -> None:
        item = self._bundle.manifest.input_of("voice")
        if item is not None:
            voice.update(outputs["embedding"], item.space)

    def _attributes(self, outputs: Mapping[str, NDArray[np.float64]]) -> dict[str, float] | None:
        names = self._bundle.manifest.attributes
        if not names:
            return None
        return dict(zip(names, np.clip(outputs["attributes"], 0.0, 1.0).tolist(), strict=True))


def _holds_speech(samples: NDArray[np.float32]) -> bool:
    # Late, so that judging what a stream has found already needs no speech detection.
    from edge_ser.vad import open_detector, speech_s

    return speech_s(samples, open_detector("silero")) >= _MIN_SPEECH_S


def _shape(sizes: tuple[int | str, ...]) -> str:
    return f"({', '.join(str(size) for size in sizes)})"
