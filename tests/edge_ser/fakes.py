"""A scripted detector, a recognizer without a model, streams of both, and sound that detectors take for a voice."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from edge_ser.events import Event
from edge_ser.hearing import Heard
from edge_ser.judgement import Judgement
from edge_ser.segmenter_options import SegmenterOptions
from edge_ser.stream import Stream
from edge_ser.voice import VoiceProfile

RATE_HZ = 16_000


class ScriptedDetector:
    """Takes what is loud for speech, so that a test writes its script into the audio."""

    def __init__(self, frame_samples: int = 512) -> None:
        self.frame_samples = frame_samples
        self.resets = 0
        self.frames = 0

    def __call__(self, frame: NDArray[np.float32]) -> float:
        assert frame.shape == (self.frame_samples,)
        self.frames += 1
        return float(np.clip(2 * np.abs(frame).mean(), 0.0, 1.0))

    def reset(self) -> None:
        self.resets += 1


@dataclass
class FakeRecognizer:
    """Judges by the mean of the samples and keeps what it heard."""

    model: str = "fake"
    min_duration_s: float = 0.0
    max_duration_s: float = 8.0
    rejection: str | None = None
    uncertain: bool = False
    error: BaseException | None = None
    heard: list[NDArray[np.float32]] = field(default_factory=list)
    risks: list[float | None] = field(default_factory=list)

    def listen(
        self,
        samples: NDArray[np.float32],
        *,
        voice: VoiceProfile | None = None,
        risk: float | None = None,
        update_voice: bool = True,
    ) -> tuple[Judgement, Heard]:
        self.heard.append(samples.copy())
        self.risks.append(risk)
        if self.error is not None:
            raise self.error
        assert voice is not None
        happy = float(np.clip(0.5 + samples.mean(dtype=np.float64), 0.0, 1.0))
        judgement = self._judgement(happy, voice.utterances, text_used=False)
        if self.rejection is None and update_voice:
            voice.update(np.array([happy, 1.0]), "fake")
        frames = np.full((1, 1, 1), happy, np.float32)
        heard = Heard({}, ({"frames": frames},), text_used=False, voice_utterances=judgement.voice_utterances)
        return judgement, heard

    def judge_again(
        self,
        heard: Heard,
        *,
        transcript: str | None = None,
        voice: VoiceProfile | None = None,
        risk: float | None = None,
    ) -> tuple[Judgement, Heard]:
        text_used = heard.text_used if transcript is None else bool(transcript.strip())
        utterances = heard.voice_utterances if voice is None else voice.utterances
        again = replace(heard, text_used=text_used, voice_utterances=utterances)
        return self._judgement(float(heard.windows[0]["frames"][0, 0, 0]), utterances, text_used), again

    def check_voice(self, voice: VoiceProfile) -> None:
        voice.as_input(2, "fake")

    def _judgement(self, happy: float, voice_utterances: int, text_used: bool) -> Judgement:
        return Judgement(
            emotion="happy" if happy >= 0.5 else "sad",
            confidence=max(happy, 1 - happy),
            probabilities={"happy": happy, "sad": 1 - happy},
            uncertain=self.uncertain,
            candidates=("happy" if happy >= 0.5 else "sad",),
            attributes=None,
            text_used=text_used,
            voice_utterances=voice_utterances,
            latency_ms=float(len(self.heard)),
            rejection=self.rejection,
        )


def without_latency(events: list[object]) -> list[object]:
    """Return the events with the only field that may differ between two runs blanked."""
    return [replace(event, latency_ms=0.0) if hasattr(event, "latency_ms") else event for event in events]


def scripted_audio(script: list[tuple[bool, float]], seed: int = 0) -> NDArray[np.float32]:
    """Return audio that `ScriptedDetector` hears as written: (is speech, seconds) after one another."""
    rng = np.random.default_rng(seed)
    ranges = [((0.4, 0.8) if is_speech else (0.0, 0.02), round(seconds * RATE_HZ)) for is_speech, seconds in script]
    parts = [rng.uniform(low, high, samples) for (low, high), samples in ranges]
    return np.concatenate([np.empty(0), *parts]).astype(np.float32)


def voice_like(seconds: float, rms_dbfs: float = -25.0, seed: int = 0) -> NDArray[np.float32]:
    """Return syllables: a buzzing source with a moving pitch through three moving formants."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    pitch_hz = 130 + 25 * np.sin(2 * np.pi * 0.6 * time_s) + 6 * np.sin(2 * np.pi * 5 * time_s)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
    syllable = 2 * np.pi * 4 * time_s
    formants_hz = (
        500 + 200 * np.sin(syllable / 2),
        1500 + 500 * np.sin(syllable / 3 + 1),
        2500 + 200 * np.sin(syllable / 5),
    )
    sound = np.zeros_like(time_s)
    for harmonic in range(1, 28):
        hz = harmonic * pitch_hz
        gain = sum(
            np.exp(-0.5 * ((hz - formant) / (80 + 40 * i)) ** 2) / (1 + i) for i, formant in enumerate(formants_hz)
        )
        sound += (gain + 0.02) / harmonic**0.3 * np.sin(harmonic * phase)
    sound *= np.clip(0.5 + 0.7 * np.sin(syllable), 0.03, 1.0)
    sound += 0.01 * rng.standard_normal(sound.size)
    return (sound / sound.std() * 10 ** (rms_dbfs / 20)).clip(-1, 1).astype(np.float32)


SMALL = SegmenterOptions(max_utterance_s=2.0, cut_search_s=0.8)


def new_stream(recognizer: FakeRecognizer | None = None, **settings) -> Stream:
    settings = {"detector": ScriptedDetector(), "options": SMALL, **settings}
    return Stream(recognizer or FakeRecognizer(), **settings)


def whole(stream: Stream, samples: np.ndarray) -> list[Event]:
    return stream.push(samples) + stream.finish()


def of_type(events: list[Event], *types: type) -> list[Event]:
    return [event for event in events if isinstance(event, types)]
