"""What the world does to speech before it is judged, and sound that is nobody's speech."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.vad import open_detector
from train.augment import add_noise, add_room, change_speed, coloured_noise, limit_band
from train.data import read_sounds

Wave = NDArray[np.float32]
Change = Callable[[Wave, np.random.Generator], Wave]

TELEPHONE_HZ = (300.0, 3400.0)
SHORT_CUTS_S = (0.4, 0.8)
"""Seconds of speech that are left."""
PRE_ROLL_S = 0.4
"""Seconds before speech that a stream keeps."""
_CLIPPED_SHARE = 0.05
_TELEPHONE_RATE_HZ = 8_000
_MU = 255.0
_SPEECH_PROBABILITY = 0.5
_COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}
_NOISE_S = 3.0


def hardships(data: Path) -> dict[str, Change]:
    """Return what is done to clips, by name; noises and rooms are those that no training has heard."""
    noises = read_sounds(data / "noise", "noise.csv", "held_out")
    rooms = read_sounds(data / "rir", "rir.csv", "held_out")

    def noisy(snr_db: float) -> Change:
        return lambda wave, rng: add_noise(wave, np.resize(noises[rng.integers(len(noises))], len(wave)), snr_db)

    def short(seconds: float) -> Change:
        return lambda wave, rng: first_speech(wave, seconds)

    return {
        "noise at 20 dB": noisy(20.0),
        "noise at 10 dB": noisy(10.0),
        "noise at 0 dB": noisy(0.0),
        "room": lambda wave, rng: add_room(wave, rooms[rng.integers(len(rooms))]),
        "-60 dBFS": lambda wave, rng: at_level(wave, -60.0),
        "clipped, 5 % of it": lambda wave, rng: clipped(wave),
        "telephone band": lambda wave, rng: limit_band(wave, *TELEPHONE_HZ),
        "telephone codec": lambda wave, rng: telephone_codec(wave),
        "10 % slower": lambda wave, rng: change_speed(wave, 0.9),
        "10 % faster": lambda wave, rng: change_speed(wave, 1.1),
        "1 s of silence around": in_silence,
        **{f"first {seconds:g} s of speech": short(seconds) for seconds in SHORT_CUTS_S},
    }


def at_level(wave: Wave, dbfs: float) -> Wave:
    """Return the wave with the given level, decibels of its mean power to full scale."""
    power = float(np.mean(np.square(wave, dtype=np.float64)))
    return (wave * np.float32(10 ** (dbfs / 20) / np.sqrt(max(power, 1e-20)))).astype(np.float32)


def clipped(wave: Wave) -> Wave:
    """Return the wave so loud that its loudest samples, one in twenty, are cut off at full scale."""
    edge = max(float(np.quantile(np.abs(wave), 1 - _CLIPPED_SHARE)), 1e-6)
    return np.clip(wave / np.float32(edge), -1.0, 1.0)


def in_silence(wave: Wave, rng: np.random.Generator) -> Wave:
    """Return the wave with a second of faint noise before and after it, 70 dB below its peak."""
    around = np.pad(wave, SAMPLE_RATE_HZ)
    floor = np.float32(np.abs(wave).max() * 10 ** (-70 / 20))
    return around + rng.standard_normal(around.size).astype(np.float32) * floor


def telephone_codec(wave: Wave) -> Wave:
    """Return the wave through a telephone's codec: G.711's mu-law, 8 bits at 8 kHz, the peak at half of full scale."""
    narrow = soxr.resample(wave * np.float32(0.5 / max(float(np.abs(wave).max()), 1e-6)), 16_000, _TELEPHONE_RATE_HZ)
    steps = np.round(np.sign(narrow) * np.log1p(_MU * np.abs(narrow)) / np.log1p(_MU) * 127.0) / 127.0
    decoded = np.sign(steps) * np.expm1(np.abs(steps) * np.log1p(_MU)) / _MU
    return np.asarray(soxr.resample(decoded.astype(np.float32), _TELEPHONE_RATE_HZ, 16_000), dtype=np.float32)


def speech_start(wave: Wave) -> int:
    """Return the sample at which a speech detector first hears speech, 0 where it hears none."""
    detector = open_detector("silero")
    size = detector.frame_samples
    for start in range(0, len(wave), size):
        frame = wave[start : start + size]
        if detector(np.pad(frame, (0, size - len(frame)))) >= _SPEECH_PROBABILITY:
            return start
    return 0


def first_speech(wave: Wave, seconds: float) -> Wave:
    """Return the first seconds of speech; fewer where there is less."""
    start = speech_start(wave)
    return wave[start : start + round(seconds * SAMPLE_RATE_HZ)]


def sounds_without_speech(data: Path) -> dict[str, list[Wave]]:
    """Return sound that is nobody's speech, by kind: recordings that no training has heard, noise, silence."""
    rng = np.random.default_rng(0)
    size = round(_NOISE_S * SAMPLE_RATE_HZ)
    coloured = [
        at_level(coloured_noise(size, slope, rng), level)
        for slope in _COLOURS.values()
        for level in (-60.0, -40.0, -20.0)
    ]
    quiet = [at_level(coloured_noise(size, 0.0, rng), level) for level in (-90.0, -80.0, -70.0)]
    return {
        "recordings": read_sounds(data / "noise", "noise.csv", "held_out"),
        "coloured noise": coloured,
        "silence": [np.zeros(size, np.float32), *quiet],
    }
