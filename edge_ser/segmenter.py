"""Cuts a stream of frames into utterances and silence, so that every sample ends in exactly one of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.segmenter_options import SegmenterOptions
from edge_ser.vad import SpeechDetector, surest_mean

_QUIET_WINDOW_SAMPLES = 512  # 32 ms: about the shortest pause between two words
_QUIET_HOP_SAMPLES = 64


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
    doubtful: bool = False
    """True if the detector was nowhere sure that it is speech."""
    clear: bool = True
    """False if it was nowhere sure enough for a certain answer, though this may be speech."""

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
    probability: float
    is_speech: bool


class Segmenter:
    """Turns frames and their speech probabilities into utterances and silence, in order and without a gap.

    Frames that are not decided yet are held: at most `longest_pre_roll_s` in silence, and at most `max_utterance_s`
    plus `hangover_s` in speech, however long the stream is.
    """

    def __init__(self, options: SegmenterOptions | None = None) -> None:
        """Start at sample 0, in silence."""
        options = options or SegmenterOptions()
        self._threshold = options.threshold
        self._release_threshold = options.release_threshold
        self._pre_roll = _samples(options.pre_roll_s)
        self._longest_pre_roll = _samples(options.longest_pre_roll_s)
        self._hint_probability = options.hint_probability
        self._hangover = _samples(options.hangover_s)
        self._post_roll = _samples(options.post_roll_s)
        self._min_speech = _samples(options.min_speech_s)
        self._sure_probability = options.sure_probability
        self._certain_probability = options.certain_probability
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

    @property
    def speech_samples(self) -> int:
        """Samples of speech among those held: the speech of the open utterance so far."""
        return _speech_samples(self._held)

    def may_end_within(self, samples: int) -> bool:
        """Return whether an utterance can end within the next so many samples, whatever they hold."""
        if not self._is_open:
            return samples >= self._hangover
        return (
            self._silent_samples + samples >= self._hangover or self.undecided_samples + samples > self._max_utterance
        )

    def so_far(self) -> Utterance:
        """Return the open utterance as far as it was heard; nothing is decided by that."""
        return self._utterance(self._start, self._held)

    def push(self, frame: NDArray[np.float32], probability: float) -> list[Decision]:
        """Take the next frame and return what it decides.

        Args:
            frame: Mono float32 in [-1, 1], shape (n,), at 16 kHz; follows the frame before it. It is kept, not copied.
            probability: Probability that the frame holds speech, in [0, 1].
        """
        self._is_speaking = probability >= (self._release_threshold if self._is_speaking else self._threshold)
        self._held.append(_Frame(frame, probability, self._is_speaking))
        if self._is_speaking:
            return self._continue_speech()
        if not self._is_open:
            return self._settle_silence(keep_samples=self._wanted_pre_roll())
        self._silent_samples += frame.size
        if self._silent_samples < self._hangover:
            return []
        return [self._close(), *self._settle_silence(keep_samples=self._wanted_pre_roll())]

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

    def _wanted_pre_roll(self) -> int:
        """Return how much to keep in silence: `pre_roll_s` before the first hint of speech, as far as it may reach."""
        wanted, age = self._pre_roll, 0
        for frame in reversed(self._held):
            age += frame.samples.size
            if frame.probability >= self._hint_probability:
                wanted = age + self._pre_roll
        return min(wanted, self._longest_pre_roll)

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
        return self._utterance(self._start, self._take(samples))

    def _utterance(self, start: int, frames: Collection[_Frame]) -> Utterance:
        speech_samples = _speech_samples(frames)
        is_long = speech_samples >= self._min_speech
        surest = self._surest(frames)
        return Utterance(
            start_sample=start,
            samples=np.concatenate([frame.samples for frame in frames]),
            speech_samples=speech_samples,
            # What follows a cut is the end of long speech, however little of it is left.
            too_short=speech_samples < self._min_speech and not self._is_continued,
            # The little that is left after a cut tells nothing: it is not lost, and not certain.
            doubtful=is_long and surest < self._sure_probability,
            clear=is_long and surest >= self._certain_probability,
        )

    def _surest(self, frames: Collection[_Frame]) -> float:
        """Return the mean probability of the surest frames, as many as make the least speech."""
        largest = max(frame.samples.size for frame in frames)
        return surest_mean([frame.probability for frame in frames], self._min_speech // largest)

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
                self._held.appendleft(replace(frame, samples=frame.samples[samples:]))
                frame = replace(frame, samples=frame.samples[:samples])
            taken.append(frame)
            samples -= frame.samples.size
        return taken


def utterances_in(samples: NDArray[np.float32], detector: SpeechDetector) -> list[Utterance]:
    """Return what a stream would judge in a whole recording.

    Args:
        samples: Mono float32 in [-1, 1], shape (n,), at 16 kHz.
        detector: A fresh detector; it is used up.
    """
    segmenter, size = Segmenter(), detector.frame_samples
    found: list[Decision] = []
    for start in range(0, samples.size, size):
        frame = samples[start : start + size]
        decisions = segmenter.push(frame, detector(np.pad(frame, (0, size - frame.size))))
        if not segmenter.is_open and any(isinstance(decision, Utterance) for decision in decisions):
            detector.reset()  # as a stream does
        found += decisions
    found += segmenter.finish()
    return [decision for decision in found if isinstance(decision, Utterance) and not decision.too_short]


def _speech_samples(frames: Collection[_Frame]) -> int:
    return sum(frame.samples.size for frame in frames if frame.is_speech)


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE_HZ)
