"""From one utterance to one calibrated emotion."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_ser.audio import SAMPLE_RATE_HZ, as_samples, mixed_to_mono, resampled
from edge_ser.backends import Backend, open_backend
from edge_ser.bundle import Bundle, find_bundle
from edge_ser.errors import AudioFormatError
from edge_ser.events import Emotion
from edge_ser.hearing import Heard, Hearing
from edge_ser.judgement import Judgement, Span
from edge_ser.quality import Speech, rejection, spoken_part
from edge_ser.voice import VoiceProfile

if TYPE_CHECKING:
    from edge_ser.stream import Stream

__all__ = ["EmotionRecognizer", "Judgement", "load"]


def load(
    model: str | os.PathLike[str] = "mdat-int8",
    *,
    provider: str = "auto",
    threads: int | None = None,
    engine_dir: str | os.PathLike[str] | None = None,
) -> EmotionRecognizer:
    """Return a recognizer for a bundle.

    Args:
        model: A bundled name, or a bundle's folder.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`. `auto` takes an engine built for this GPU, else CUDA for a
            model of floats, else the CPU; the log of `edge_ser` says in one line which and why.
        threads: Threads for one utterance; None takes two, or one where the machine has one core.
        engine_dir: Where TensorRT engines lie; None takes the user's cache.

    Raises:
        BundleError: There is no such bundle, or it does not open.
        BackendUnavailableError: The provider cannot run here.
        ConfigError: No such provider, fewer than one thread, or engines that others could have written.
        EngineMismatchError: The engine was built for another GPU, TensorRT or graph.
    """
    bundle = find_bundle(model)
    return EmotionRecognizer(bundle, open_backend(bundle, provider, threads, engine_dir))


class EmotionRecognizer:
    """Judges utterances with one bundle. It keeps nothing between them, so threads may share it."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        """Judge with `backend`, which runs the graph of `bundle`; `edge_ser.load` is the short way."""
        self._bundle = bundle
        self._backend = backend
        self._hearing = Hearing(bundle, backend)

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
    def runs_on(self) -> str:
        """What runs the graph and where, such as `onnxruntime 1.31.1, CPU, 2 threads`."""
        return f"{self._backend.name}, {self._backend.provider}"

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
        risk: float | None = None,
    ) -> Emotion:
        """Return how one utterance was said; what a stream would reject or not even hear comes back uncertain.

        Silence before and after speech is cut off first, as a stream would; pauses inside stay, so talk of many
        sentences is better given to a stream. The event's times are those of the samples.

        Args:
            samples: Float32 or float64 in [-1, 1], or int16, shape (n,) or (n, channels).
            sample_rate_hz: Hertz, from 4000 to 384000.
            transcript: What was said, if known.
            voice: What is known of the speaker; it is used, then it learns from this utterance.
            risk: Share of wrong answers to accept, in (0, 1); None takes the model's default.

        Raises:
            AudioFormatError: The samples are empty, not finite, of another type, or the rate is out of range.
            ConfigError: The risk is outside (0, 1), or the voice belongs to another model.
        """
        mono = resampled(mixed_to_mono(samples), sample_rate_hz)
        if mono.size == 0:
            raise AudioFormatError("got no samples; need at least one; check that the recording is not empty")
        speech, part = spoken_part(mono)
        spoken = speech is not Speech.NONE
        judgement = self.judge(part, transcript=transcript, voice=voice, risk=risk, update_voice=spoken)
        if speech is not Speech.CLEAR:
            judgement = judgement.doubted(everything_possible=not spoken)
        return judgement.event(Span(1, 0.0, mono.size / SAMPLE_RATE_HZ), self.model)

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
        return self.listen(samples, transcript=transcript, voice=voice, risk=risk, update_voice=update_voice)[0]

    def listen(
        self,
        samples: ArrayLike,
        *,
        transcript: str | None = None,
        voice: VoiceProfile | None = None,
        risk: float | None = None,
        update_voice: bool = True,
    ) -> tuple[Judgement, Heard]:
        """Return what `judge` returns, and what `judge_again` needs.

        Raises:
            AudioFormatError: The samples are not finite, or of another type or shape.
            ConfigError: The risk is outside (0, 1), or the voice belongs to another model.
        """
        started_s = time.perf_counter()
        utterance = as_samples(samples)
        reason = rejection(utterance, self.min_duration_s)
        heard = self._hearing.hear(utterance, transcript, voice)
        judgement = self._judgement(heard, risk, reason, started_s)
        if voice is not None and update_voice and reason is None:
            self._teach(voice, heard)
        return judgement, heard

    def judge_again(
        self,
        heard: Heard,
        *,
        transcript: str | None = None,
        voice: VoiceProfile | None = None,
        risk: float | None = None,
    ) -> tuple[Judgement, Heard]:
        """Return how an utterance was said, now that more is known of it; no voice learns from it.

        A model that cannot be asked again without the audio gives its answer once more.

        Args:
            heard: What `listen` made of the utterance.
            transcript: What was said; None leaves the words as they were, blank takes them away.
            voice: Whose voice it was; None leaves it as it was.
            risk: Share of wrong answers to accept, in (0, 1); None takes the model's default.

        Raises:
            BundleError: The bundle has changed since it was opened.
            ConfigError: The risk is outside (0, 1), or the voice belongs to another model.
        """
        started_s = time.perf_counter()
        again = self._hearing.hear_again(heard, transcript, voice)
        return self._judgement(again, risk, None, started_s), again

    def check_voice(self, voice: VoiceProfile) -> None:
        """Refuse a voice that was learnt with another model.

        Raises:
            ConfigError: The voice belongs to another model.
        """
        self._hearing.check_voice(voice)

    def stream(
        self,
        *,
        voice: VoiceProfile | None = None,
        partials: bool = False,
        risk: float | None = None,
        vad: str = "silero",
    ) -> Stream:
        """Return a stream that cuts audio into utterances and judges each.

        Args:
            voice: What is known of the speaker; None starts afresh. The stream goes on learning it.
            partials: Whether to answer while the speaker still talks, too.
            risk: Share of wrong answers to accept, in (0, 1); None takes the model's default.
            vad: `silero`, or `webrtc`, which costs less and hears less well.

        Raises:
            ConfigError: The risk is outside (0, 1), the voice belongs to another model, or there is no such detector.
        """
        # Late, so that judging single utterances needs no speech detection.
        from edge_ser.stream import Stream
        from edge_ser.vad import open_detector

        self._bundle.manifest.calibration.row(risk)
        return Stream(self, voice=voice, partials=partials, risk=risk, detector=open_detector(vad))

    def _judgement(self, heard: Heard, risk: float | None, reason: str | None, started_s: float) -> Judgement:
        calibration = self._bundle.manifest.calibration
        probabilities = calibration.probabilities(heard.outputs["logits"])
        uncertain, kept = calibration.decide(probabilities, risk)
        if reason is not None:
            uncertain, kept = True, tuple(int(index) for index in np.argsort(-probabilities, kind="stable"))
        return Judgement(
            emotion=self.labels[kept[0]],
            confidence=float(probabilities[kept[0]]),
            probabilities=dict(zip(self.labels, probabilities.tolist(), strict=True)),
            uncertain=uncertain,
            candidates=tuple(self.labels[index] for index in kept),
            attributes=self._attributes(heard.outputs),
            text_used=heard.text_used,
            voice_utterances=heard.voice_utterances,
            latency_ms=1000 * (time.perf_counter() - started_s),
            rejection=reason,
        )

    def _teach(self, voice: VoiceProfile, heard: Heard) -> None:
        item = self._bundle.manifest.input_of("voice")
        if item is not None:
            voice.update(heard.outputs["embedding"], item.space)

    def _attributes(self, outputs: Mapping[str, NDArray[np.float64]]) -> dict[str, float] | None:
        names = self._bundle.manifest.attributes
        if not names:
            return None
        return dict(zip(names, np.clip(outputs["attributes"], 0.0, 1.0).tolist(), strict=True))


def _shape(sizes: tuple[int | str, ...]) -> str:
    return f"({', '.join(str(size) for size in sizes)})"
