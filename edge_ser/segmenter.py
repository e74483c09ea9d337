"""Cuts a stream of frames into utterances and silence, so that every sample ends in exactly one of them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.errors import ConfigError

_QUIET_WINDOW_SAMPLES = 512  # 32 ms: about the shortest pause between two words
_QUIET_HOP_SAMPLES = 64


@dataclass(frozen=True)
class SegmenterOptions:
    """When an utterance begins, ends and is cut."""

    threshold: float = 0.5
    """Speech probability, in [0, 1], from which a frame starts speech."""
    release_threshold: float = 0.35
    """Speech probability, in [0, 1], from which a frame continues the speech of the frame before it."""
    pre_roll_s: float = 0.3
    """Seconds kept before the first speech frame: detectors answer late, and first syllables are soft."""
    hangover_s: float = 0.5
    """Seconds without speech that end an utterance; shorter pauses stay inside it."""
    post_roll_s: float = 0.2
    """Seconds kept after the last speech frame; the rest of the hangover is silence."""
    min_speech_s: float = 0.25
    """Seconds of speech frames below which an utterance is marked too short."""
    max_utterance_s: float = 8.0
    """Seconds after which speech that goes on is cut, pre-roll included."""
    cut_search_s: float = 2.0
    """Seconds before that limit in which the quietest moment is looked for."""

    def __post_init__(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            ConfigError: An option is out of range; the message names it.
        """
        rules = {
            "0 <= release_threshold <= threshold <= 1": 0 <= self.release_threshold <= self.threshold <= 1,
            "pre_roll_s >= 0": self.pre_roll_s >= 0,
            "0 <= post_roll_s <= hangover_s": 0 <= self.post_roll_s <= self.hangover_s,
            "min_speech_s >= 0": self.min_speech_s >= 0,
            "cut_search_s >= min_speech_s + 0.05": self.cut_search_s >= self.min_speech_s + 0.05,
            "max_utterance_s >= pre_roll_s + cut_search_s + 0.05": self.max_utterance_s
            >= self.pre_roll_s + self.cut_search_s + 0.05,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise ConfigError(f"{self} does not fit together. It needs {broken[0]}; change one of these options.")


@dataclass(frozen=True)
class SpeechOnset:
    """Speech was found; the `Utterance` that it opens follows later."""

    start_sample: int
    """Sample where the utterance starts, pre-roll included."""


@dataclass(frozen=True, eq=False)
class Utterance:
    """Sound that belongs together."""

    start_sample: int
    """Sample where it starts, pre-roll included."""
    samples: NDArray[np.float32]
    """Mono float32 in [-1, 1], shape (n,), at 16 kHz."""
    speech_samples: int
    """Samples in frames that were speech."""
    too_short: bool
    """True if there is too little speech in it to be judged."""

    @property
    def end_sample(self) -> int:
        """The first sample after it."""
        return self.start_sample + self.samples.size


@dataclass(frozen=True)
class Silence:
    """Samples that belong to no utterance."""

    start_sample: int
    """First sample."""
    end_sample: int
    """The first sample after it."""


Decision = SpeechOnset | Utterance | Silence


@dataclass(frozen=True, eq=False)
class _Frame:
    samples: NDArray[np.float32]
    is_speech: bool


class Segmenter:
    """Turns frames and their speech probabilities into utterances and silence, in order and without a gap.

    Frames that are not decided yet are held: at most `pre_roll_s` in silence, and at most `max_utterance_s` plus
    `hangover_s` in speech, however long the stream is.
    """

    def __init__(self, options: SegmenterOptions | None = None) -> None:
        """Start at sample 0, in silence."""
        options = options or SegmenterOptions()
        self._threshold = options.threshold
        self._release_threshold = options.release_threshold
        self._pre_roll = _samples(options.pre_roll_s)
        self._hangover = _samples(options.hangover_s)
        self._post_roll = _samples(options.post_roll_s)
        self._min_speech = _samples(options.min_speech_s)
        self._max_utterance = _samples(options.max_utterance_s)
        self._cut_search = _samples(options.cut_search_s)
        self._held: deque[_Frame] = deque()
        self._start = 0
        self._is_open = False
        self._is_speaking = False
        self._is_continued = False
        self._silent_samples = 0

    @property
    def undecided_samples(self) -> int:
        """Samples held because it is not known yet whether they are silence."""
        return sum(frame.samples.size for frame in self._held)

    @property
    def is_open(self) -> bool:
        """True while an utterance is open."""
        return self._is_open

    def push(self, frame: NDArray[np.float32], probability: float) -> list[Decision]:
        """Take the next frame and return what it decides.

        Args:
            frame: Mono float32 in [-1, 1], shape (n,), at 16 kHz; follows the frame before it. It is kept, not copied.
            probability: Probability that the frame holds speech, in [0, 1].
        """
        self._is_speaking = probability >= (self._release_threshold if self._is_speaking else self._threshold)
        self._held.append(_Frame(frame, self._is_speaking))
        if self._is_speaking:
            return self._continue_speech()
        if not self._is_open:
            return self._settle_silence(keep_samples=self._pre_roll)
        self._silent_samples += frame.size
        if self._silent_samples < self._hangover:
            return []
        return [self._close(), *self._settle_silence(keep_samples=self._pre_roll)]

    def finish(self) -> list[Decision]:
        """Decide about everything that is held; the next frame then starts afresh."""
        decisions: list[Decision] = [self._close()] if self._is_open else []
        self._is_speaking = False
        return decisions + self._settle_silence(keep_samples=0)

    def skip(self, samples: int) -> None:
        """Move the clock over samples that were lost; call `finish` first, since what follows is not contiguous."""
        self._start += samples

    def _continue_speech(self) -> list[Decision]:
        decisions: list[Decision] = []
        self._silent_samples = 0
        if not self._is_open:
            self._is_open = True
            decisions.append(SpeechOnset(self._start))
        while self.undecided_samples > self._max_utterance:
            decisions.append(self._take_utterance(self._quietest_sample()))
            self._is_continued = True
            decisions.append(SpeechOnset(self._start))
        return decisions

    def _close(self) -> Utterance:
        held = self.undecided_samples
        utterance = self._take_utterance(min(held - self._silent_samples + self._post_roll, held, self._max_utterance))
        self._is_open = self._is_continued = False
        return utterance

    def _quietest_sample(self) -> int:
        """Return where to cut: at least `min_speech_s` before the limit, so that what follows is worth an utterance."""
        first = self._max_utterance - self._cut_search
        held = np.concatenate([frame.samples for frame in self._held])
        searched = held[first : self._max_utterance - self._min_speech].astype(np.float64)
        energy = np.concatenate([[0.0], np.cumsum(searched**2)])
        windows = energy[_QUIET_WINDOW_SAMPLES::_QUIET_HOP_SAMPLES]
        windows = windows - energy[:-_QUIET_WINDOW_SAMPLES:_QUIET_HOP_SAMPLES]
        return first + int(np.argmin(windows)) * _QUIET_HOP_SAMPLES + _QUIET_WINDOW_SAMPLES // 2

    def _take_utterance(self, samples: int) -> Utterance:
        start = self._start
        frames = self._take(samples)
        speech_samples = sum(frame.samples.size for frame in frames if frame.is_speech)
        return Utterance(
            start_sample=start,
            samples=np.concatenate([frame.samples for frame in frames]),
            speech_samples=speech_samples,
            # What follows a cut is the end of long speech, however little of it is left.
            too_short=speech_samples < self._min_speech and not self._is_continued,
        )

    def _settle_silence(self, keep_samples: int) -> list[Decision]:
        excess = self.undecided_samples - keep_samples
        if excess <= 0:
            return []
        start = self._start
        self._take(excess)
        return [Silence(start, self._start)]

    def _take(self, samples: int) -> list[_Frame]:
        """Remove exactly the first `samples` held samples."""
        self._start += samples
        taken = []
        while samples > 0:
            frame = self._held.popleft()
            if frame.samples.size > samples:
                self._held.appendleft(_Frame(frame.samples[samples:], frame.is_speech))
                frame = _Frame(frame.samples[:samples], frame.is_speech)
            taken.append(frame)
            samples -= frame.samples.size
        return taken


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE_HZ)
