"""What cannot be judged, and why."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_ser.audio import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from edge_ser.segmenter_options import SegmenterOptions

_QUIET_DBFS = -75.0
_CLIPPED_LEVEL = 0.999
_CLIPPED_SHARE = 0.2
_SPEECH_PROBABILITY = 0.5
_MIN_SPEECH_S = 0.09
"""Three of the detector's frames: a short word, and more than a click."""
_SHORTEST_PART_S = 0.5
"""Of a recording that has as much: a word at its very edge is long enough to be judged."""


def rejection(utterance: NDArray[np.float32], min_duration_s: float) -> str | None:
    """Return `too_short`, `too_quiet`, `clipped`, or None for an utterance that can be judged.

    Args:
        utterance: Mono float32 in [-1, 1], shape (n,), at 16 kHz.
        min_duration_s: Seconds below which the model cannot judge.
    """
    if utterance.size < min_duration_s * SAMPLE_RATE_HZ:
        return "too_short"
    power = float(np.mean(np.square(utterance, dtype=np.float64)))
    if power < 10 ** (_QUIET_DBFS / 10):
        return "too_quiet"
    if float(np.mean(np.abs(utterance) >= _CLIPPED_LEVEL)) > _CLIPPED_SHARE:
        return "clipped"
    return None


class Speech(Enum):
    """What a speech detector makes of a recording."""

    NONE = 0
    """Not even a short word."""
    UNCLEAR = 1
    """Some, but nowhere sure enough for a certain answer."""
    CLEAR = 2
    """Enough for a certain answer."""


def speech_in(samples: NDArray[np.float32]) -> Speech:
    """Return whether a speech detector hears speech, by the bounds of a stream.

    Args:
        samples: Mono float32 in [-1, 1], shape (n,), at 16 kHz.
    """
    return spoken_part(samples)[0]


def spoken_part(samples: NDArray[np.float32]) -> tuple[Speech, NDArray[np.float32]]:
    """Return whether a speech detector hears speech, and the recording without the silence around its speech.

    The bounds are those of a stream: a recording is cut where a stream would begin and end its utterance, but that
    pauses stay inside, however long. Where no speech is heard the recording is whole.

    Args:
        samples: Mono float32 in [-1, 1], shape (n,), at 16 kHz.
    """
    # Late, so that judging what a stream has found already needs no speech detection.
    from edge_ser.segmenter_options import SegmenterOptions
    from edge_ser.vad import open_detector, speech_probabilities, surest_mean

    detector, options = open_detector("silero"), SegmenterOptions()
    frames_per_s = SAMPLE_RATE_HZ / detector.frame_samples
    probabilities = speech_probabilities(samples, detector)
    if sum(value >= _SPEECH_PROBABILITY for value in probabilities) < _MIN_SPEECH_S * frames_per_s:
        return Speech.NONE, samples
    sure = surest_mean(probabilities, int(options.min_speech_s * frames_per_s)) >= options.certain_probability
    edges = _edges(np.array(probabilities), options, frames_per_s)
    start, end = (max(0, round(edge * detector.frame_samples)) for edge in edges)
    shortest = round(_SHORTEST_PART_S * SAMPLE_RATE_HZ)
    end = min(max(end, start + shortest), samples.size)
    start = max(0, min(start, end - shortest))
    return Speech.CLEAR if sure else Speech.UNCLEAR, samples[start:end]


def _edges(probabilities: NDArray[np.float64], options: SegmenterOptions, frames_per_s: float) -> tuple[float, float]:
    """Return where an utterance begins and ends, in frames, which may lie outside of the recording."""
    begin, end = _speech(probabilities, options, frames_per_s)
    earliest = begin - options.longest_pre_roll_s * frames_per_s
    first = max(0, int(earliest))
    hint = first + int(np.argmax(probabilities[first:] >= options.hint_probability))
    start = max(hint - options.pre_roll_s * frames_per_s, earliest)
    return start, end + options.post_roll_s * frames_per_s


def _speech(probabilities: NDArray[np.float64], options: SegmenterOptions, frames_per_s: float) -> tuple[int, int]:
    """Return the first frame of speech and the one after the last, without scraps that a stream would reject."""
    is_speech, goes_on = probabilities >= options.threshold, False
    for place, probability in enumerate(probabilities):
        goes_on = is_speech[place] = is_speech[place] or (goes_on and bool(probability >= options.release_threshold))
    frames = np.flatnonzero(is_speech)
    runs = np.split(frames, np.flatnonzero(np.diff(frames) > options.hangover_s * frames_per_s) + 1)
    long = [run for run in runs if run.size >= int(options.min_speech_s * frames_per_s)] or runs
    return int(long[0][0]), int(long[-1][-1]) + 1
