"""What a bundle's graph says to an utterance of any length, and to the same utterance with other words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.backends import Backend
from edge_ser.bundle import Bundle
from edge_ser.errors import BundleError
from edge_ser.frontend import FrontEnd
from edge_ser.graph_io import FRAMES_NAME
from edge_ser.voice import VoiceProfile


@dataclass(frozen=True, eq=False)
class Heard:
    """What the graph made of one utterance, and what it takes to ask it again without the audio."""

    outputs: Mapping[str, NDArray[np.float64]]
    """The graph's outputs by name, shape (size,) each, without `frames`."""
    windows: tuple[Mapping[str, NDArray[Any]], ...]
    """By window, `frames` and what the graph was told besides the audio; empty where the model gives no frames."""
    text_used: bool
    """True if a transcript was fused in."""
    voice_utterances: int
    """How many earlier utterances of the voice were used."""


class Hearing:
    """Runs one bundle's graph over utterances; it keeps nothing between them, so threads may share it."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        """Hear with `backend`, which runs the graph of `bundle`."""
        self._bundle = bundle
        self._backend = backend
        self._front_end = FrontEnd(bundle)

    def hear(self, samples: NDArray[np.float32], transcript: str | None, voice: VoiceProfile | None) -> Heard:
        """Return what the graph makes of an utterance; one longer than the model takes is heard in windows.

        Args:
            samples: Mono float32 in [-1, 1], shape (n,), at 16 kHz.
            transcript: What was said; None or blank is no text.
            voice: What is known of the speaker; None is a fresh profile.

        Raises:
            BundleError: The graph answers with what is no number, or the tokenizer does not open.
            ConfigError: The voice belongs to another model.
        """
        prepared = [self._front_end.inputs(window, transcript, voice) for window in self._windows(samples)]
        answers = [self._backend.run(inputs) for inputs in prepared]
        audio = {item.name for item in self._bundle.manifest.inputs if item.kind == "audio"}
        windows = tuple(
            {FRAMES_NAME: answer[FRAMES_NAME], **{name: inputs[name] for name in inputs if name not in audio}}
            for answer, inputs in zip(answers, prepared, strict=True)
            if FRAMES_NAME in answer
        )
        return self._heard(answers, windows, prepared[0])

    def hear_again(self, heard: Heard, transcript: str | None, voice: VoiceProfile | None) -> Heard:
        """Return what the graph makes of the same sound with other words or for another voice.

        Args:
            heard: What it made of it before; returned as it is where the model gives no frames.
            transcript: What was said; None leaves the words as they were, blank takes them away.
            voice: Whose voice it was; None leaves it as it was.

        Raises:
            BundleError: The graph has changed since it was opened, or answers with what is no number.
            ConfigError: The voice belongs to another model.
        """
        if not heard.windows:
            return heard
        told = {} if transcript is None else self._front_end.text_inputs(transcript)
        if voice is not None:
            told |= self._front_end.voice_inputs(voice)
        windows = tuple({**window, **told} for window in heard.windows)
        again = self._heard([self._backend.fuse(window) for window in windows], windows, windows[0])
        # What does not depend on words and voice may be no part of the answer; it is as it was.
        return replace(again, outputs={**heard.outputs, **again.outputs})

    def check_voice(self, voice: VoiceProfile) -> None:
        """Refuse a voice of another model.

        Raises:
            ConfigError: The voice belongs to another model.
        """
        self._front_end.voice_inputs(voice)

    def _heard(
        self,
        answers: Sequence[Mapping[str, NDArray[np.float32]]],
        windows: tuple[dict[str, NDArray[Any]], ...],
        told: dict[str, NDArray[Any]],
    ) -> Heard:
        outputs = {
            name: np.mean([np.asarray(answer[name], dtype=np.float64)[0] for answer in answers], axis=0)
            for name in answers[0]
            if name != FRAMES_NAME
        }
        if not all(np.isfinite(values).all() for values in outputs.values()):
            raise BundleError(
                f"{self._bundle.folder} answered with NaN or infinity; need finite numbers; "
                "check the model: python export/check_parity.py --help"
            )
        voice = self._bundle.manifest.input_of("voice")
        utterances = 0 if voice is None else int(told[voice.name][0, 0])
        return Heard(outputs, windows, self._front_end.uses_text(told), utterances)

    def _windows(self, samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        manifest = self._bundle.manifest
        shortest = math.ceil(manifest.min_duration_s * SAMPLE_RATE_HZ)
        longest = max(shortest, int(manifest.max_duration_s * SAMPLE_RATE_HZ))
        count = max(1, math.ceil(samples.size / longest))
        return [np.pad(window, (0, max(0, shortest - window.size))) for window in np.array_split(samples, count)]
