"""What a real microphone does to speech: noise, rooms, level, speed, bandwidth, clipping, coarse codecs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, sosfilt

Wave = NDArray[np.float32]
SAMPLE_RATE_HZ = 16_000


@dataclass(frozen=True)
class Chances:
    """Probability of each change for one clip."""

    speed: float = 0.3
    room: float = 0.15
    simulated: float = 0.0
    """Of the rooms: made up, not recorded."""
    noise: float = 0.35
    band: float = 0.15
    clip: float = 0.05
    coarse: float = 0.05
    pad: float = 0.3


@dataclass(frozen=True)
class Augmenter:
    """Applies random changes; the same generator state gives the same wave."""

    noises: Sequence[Wave]
    """Noise recordings at 16 kHz."""
    rooms: Sequence[Wave]
    """Impulse responses at 16 kHz."""
    chances: Chances = Chances()

    def __call__(self, wave: Wave, rng: np.random.Generator) -> Wave:
        """Return a changed copy of `wave`; its length may differ."""
        chances = self.chances
        if rng.random() < chances.speed:
            wave = change_speed(wave, float(rng.uniform(0.9, 1.1)))
        if rng.random() < chances.pad:
            wave = _pad(wave, rng)
        if self.has_rooms and rng.random() < chances.room:
            wave = add_room(wave, self.room(rng))
        if rng.random() < chances.noise:
            wave = add_noise(wave, self.noise(len(wave), rng), float(rng.uniform(0.0, 30.0)))
        if rng.random() < chances.band:
            wave = limit_band(wave, float(rng.uniform(60.0, 400.0)), float(rng.uniform(3000.0, 7000.0)))
        if rng.random() < chances.clip:
            wave = np.clip(wave * np.float32(rng.uniform(1.5, 5.0) / (np.abs(wave).max() + 1e-9)), -1.0, 1.0)
        if rng.random() < chances.coarse:
            wave = quantise(wave, float(rng.uniform(5e-4, 5e-3)))
        return wave.astype(np.float32)

    @property
    def has_rooms(self) -> bool:
        """Whether there is any room, recorded or made up."""
        return bool(self.rooms) or self.chances.simulated > 0.0

    def room(self, rng: np.random.Generator) -> Wave:
        """Return a room's impulse response, recorded or made up."""
        simulated = self.chances.simulated
        if simulated and (not self.rooms or rng.random() < simulated):
            return simulated_room(rng)
        return self.rooms[int(rng.integers(len(self.rooms)))]

    def noise(self, samples: int, rng: np.random.Generator) -> Wave:
        """Return a stretch of recorded (3 in 4) or coloured noise."""
        if self.noises and rng.random() < 0.75:
            return _stretch(self.noises[int(rng.integers(len(self.noises)))], samples, rng)
        return coloured_noise(samples, float(rng.uniform(0.0, 2.0)), rng)


def change_speed(wave: Wave, factor: float) -> Wave:
    """Return the wave `factor` times as fast, pitch moving along."""
    return np.asarray(soxr.resample(wave, SAMPLE_RATE_HZ * factor, SAMPLE_RATE_HZ, quality="MQ"), dtype=np.float32)


def add_room(wave: Wave, impulse: Wave) -> Wave:
    """Return the wave as heard in a room, aligned to the direct sound and of the same length."""
    direct = int(np.abs(impulse).argmax())
    wet = fftconvolve(wave, impulse[direct : direct + SAMPLE_RATE_HZ])[: len(wave)]
    return (wet * (_rms(wave) / (_rms(wet) + 1e-9))).astype(np.float32)


def simulated_room(rng: np.random.Generator) -> Wave:
    """Return a made-up impulse response of a second: the direct sound, then noise that decays (Polack 1988).

    Its reverberation time is 0.15 to 2 s; the direct sound is 3 dB below to 12 dB above the rest, whose high
    frequencies are weaker.
    """
    time_s = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    reverberation_s = float(np.exp(rng.uniform(np.log(0.15), np.log(2.0))))
    tail = rng.standard_normal(SAMPLE_RATE_HZ) * 10.0 ** (-3.0 * time_s / reverberation_s)
    dull = butter(1, float(rng.uniform(1500.0, 7500.0)), fs=SAMPLE_RATE_HZ, output="sos")
    tail = np.asarray(sosfilt(dull, tail))
    tail[: int(rng.integers(16, 160))] = 0.0
    tail *= 10.0 ** (-float(rng.uniform(-3.0, 12.0)) / 20.0) / np.sqrt(np.square(tail).sum())
    tail[0] = 1.0
    return tail.astype(np.float32)


def add_noise(wave: Wave, noise: Wave, snr_db: float) -> Wave:
    """Return the wave with noise at the given ratio of whole-clip powers."""
    gain = _rms(wave) / (_rms(noise) + 1e-9) * 10.0 ** (-snr_db / 20.0)
    return (wave + noise * np.float32(gain)).astype(np.float32)


def limit_band(wave: Wave, low_hz: float, high_hz: float) -> Wave:
    """Return the wave through a telephone-like band-pass of the second order."""
    band = butter(2, [low_hz, high_hz], btype="band", fs=SAMPLE_RATE_HZ, output="sos")
    return np.asarray(sosfilt(band, wave), dtype=np.float32)


def quantise(wave: Wave, step: float) -> Wave:
    """Return the wave rounded to steps of a share of its peak, as a very quiet recording is."""
    unit = np.float32(step * (np.abs(wave).max() + 1e-9))
    return (np.round(wave / unit) * unit).astype(np.float32)


def coloured_noise(samples: int, slope: float, rng: np.random.Generator) -> Wave:
    """Return Gaussian noise whose power falls with frequency to the power of `slope`: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency = np.maximum(np.fft.rfftfreq(samples), 1.0 / max(samples, 1))
    return _unit(np.fft.irfft(spectrum * frequency ** (-slope / 2.0), samples))


def non_speech(samples: int, augmenter: Augmenter, rng: np.random.Generator) -> Wave:
    """Return sound that is nobody's speech: noise, tones, chords, hum, clicks or near-silence."""
    kind = rng.random()
    if kind < 0.7:
        # Faster or slower: few barks and sneezes were recorded, and others of them have other pitches.
        factor = float(np.exp(rng.uniform(-0.4, 0.4)))
        return np.resize(change_speed(augmenter.noise(int(samples * factor) + 1, rng), factor), samples)
    if kind < 0.9:
        return _chords(samples, rng)
    clicks = (rng.random(samples) < rng.uniform(1e-4, 2e-3)).astype(np.float32)
    return (clicks + 1e-3 * coloured_noise(samples, 1.0, rng)).astype(np.float32)


def _chords(samples: int, rng: np.random.Generator) -> Wave:
    time_s = np.arange(samples) / SAMPLE_RATE_HZ
    note_s = float(rng.uniform(0.12, 1.5))
    notes = (time_s / note_s).astype(int)
    wave = np.zeros(samples)
    for _ in range(int(rng.integers(1, 5))):
        pitch_hz = (110.0 * 2.0 ** (rng.integers(0, 36, notes.max() + 1) / 12.0))[notes]
        phase = 2.0 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE_HZ
        for harmonic in range(1, int(rng.integers(2, 8))):
            wave += np.sin(phase * harmonic) / harmonic ** rng.uniform(0.8, 2.0)
    decay = np.exp(-(time_s % note_s) * rng.uniform(0.0, 6.0))
    return _unit(wave * decay + 0.01 * rng.standard_normal(samples))


def _stretch(noise: Wave, samples: int, rng: np.random.Generator) -> Wave:
    start = int(rng.integers(len(noise)))
    return np.take(noise, np.arange(start, start + samples), mode="wrap")


def _pad(wave: Wave, rng: np.random.Generator) -> Wave:
    before, after = (int(rng.uniform(0.0, 0.35) * SAMPLE_RATE_HZ) for _ in range(2))
    floor = np.float32(_rms(wave) * 10.0 ** rng.uniform(-4.0, -2.0))
    quiet = rng.standard_normal(before + after).astype(np.float32) * floor
    return np.concatenate([quiet[:before], wave, quiet[before:]])


def _unit(wave: NDArray[np.float64]) -> Wave:
    return (wave / (_rms(wave) + 1e-9) * 0.05).astype(np.float32)


def _rms(wave: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) if len(wave) else 0.0
