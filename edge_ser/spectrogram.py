"""A clip as a picture: a decibel spectrogram of fixed size, whatever the length of the clip."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edge_ser.errors import ConfigError

SAMPLE_RATE_HZ = 16_000
FFT_SAMPLES = 800
LINEAR_BINS = 200
"""Lowest bins kept: 20 Hz each, up to 4 kHz."""
MEL_BANDS = 128
FLOOR_POWER = 1e-10
RANGE_DB = 80.0
"""What lies further below the loudest point is lifted to it, so that digital silence and a noise floor look alike."""
GEOMETRY = {"ms": (640, 160), "samples": (40, 10)}
"""Window and hop in samples, by what the published numbers 40 and 10 are taken to be: milliseconds, or samples."""
SPECS = ("log_stft200", "logmel128")

_CHUNK_FRAMES = 4096


@dataclass(frozen=True)
class SpectrogramSettings:
    """How the picture is made."""

    spec: str = "log_stft200"
    """`log_stft200`: the lowest 200 linear bins; `logmel128`: 128 mel bands up to 8 kHz."""
    unit: str = "ms"
    """`ms`: windows of 40 ms every 10 ms; `samples`: windows of 40 samples every 10, as the released code has it."""
    clip_s: float = 5.0
    """Seconds that the picture shows: a shorter clip is followed by silence, of a longer one its middle is taken."""
    size: int = 224
    """Pixels, high and wide."""

    def __post_init__(self) -> None:
        """Refuse what no picture can be made of.

        Raises:
            ConfigError: A setting that does not fit.
        """
        if self.spec not in SPECS:
            raise ConfigError(f"spec is {self.spec!r}; need one of {', '.join(SPECS)}")
        if self.unit not in GEOMETRY:
            raise ConfigError(f"spec_unit is {self.unit!r}; need one of {', '.join(GEOMETRY)}")
        if self.clip_s <= 0 or self.size < 1:
            raise ConfigError(f"clip_s is {self.clip_s}, size {self.size}; need more than 0 seconds and pixels")

    @property
    def name(self) -> str:
        """Everything that sets the values, in one word."""
        return f"spectrogram-{self.spec}-{self.unit}-{self.clip_s:g}s-{self.size}"


def spectrogram_image(samples: NDArray[np.float32], settings: SpectrogramSettings | None = None) -> NDArray[np.float32]:
    """Return the picture of a clip: float32, shape (1, size, size), in decibels, low frequencies first, time across.

    It is not standardised: one mean and one deviation over a training set do that, and because resizing only averages,
    it makes no difference whether they are applied before it or after.

    Args:
        samples: Mono float32 in [-1, 1], shape (n,), at 16 kHz.
        settings: How the picture is made; None is the default.
    """
    settings = settings or SpectrogramSettings()
    level = decibels(samples, settings)
    return resize(level, settings.size, settings.size)[np.newaxis]


def decibels(samples: NDArray[np.float32], settings: SpectrogramSettings) -> NDArray[np.float32]:
    """Return the spectrogram before it is resized: float32, shape (200 or 128, 1 + samples of clip_s // hop), in dB.

    A clip's level is relative to a constant of 1; the range is 80 dB.
    """
    wave = fit_clip(samples, settings.clip_s)
    window, hop = GEOMETRY[settings.unit]
    if settings.spec == "log_stft200":
        power = power_spectrum(wave, window, hop, FFT_SAMPLES, LINEAR_BINS)
    else:
        power = power_spectrum(wave, window, hop, FFT_SAMPLES) @ _slaney_filters()
    level = 10.0 * np.log10(np.maximum(power.T, FLOOR_POWER))
    floored: NDArray[np.float32] = np.maximum(level, level.max() - RANGE_DB).astype(np.float32)
    return floored


def centre_crop(samples: NDArray[np.float32], clip_s: float) -> NDArray[np.float32]:
    """Return at most `clip_s` seconds from the middle of samples at 16 kHz, shape (<= n,)."""
    wanted = round(clip_s * SAMPLE_RATE_HZ)
    start = max(0, (len(samples) - wanted) // 2)
    return samples[start : start + wanted]


def fit_clip(samples: NDArray[np.float32], clip_s: float) -> NDArray[np.float32]:
    """Return exactly `clip_s` seconds: the middle of a longer clip, a shorter one with zeros at its end."""
    cropped = centre_crop(samples, clip_s)
    return np.pad(cropped, (0, round(clip_s * SAMPLE_RATE_HZ) - len(cropped)))


def power_spectrum(
    samples: NDArray[np.float32], window: int, hop: int, fft: int, bins: int | None = None
) -> NDArray[np.float32]:
    """Return Hamming-windowed power: float32, shape (1 + n // hop, bins), relative to a constant of 1.

    Frame t is centred on sample t * hop, with zeros beyond both ends: silence appended to a clip changes no earlier
    frame.
    """
    half = window // 2
    padded = np.pad(samples.astype(np.float32, copy=False), (half, window - half))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][: 1 + len(samples) // hop]
    weights = 0.54 - 0.46 * np.cos(2.0 * np.pi * np.arange(window) / window)
    weights /= weights.sum()
    kept = fft // 2 + 1 if bins is None else bins
    power = np.empty((len(frames), kept), dtype=np.float32)
    for start in range(0, len(frames), _CHUNK_FRAMES):
        spectrum = np.fft.rfft(frames[start : start + _CHUNK_FRAMES] * weights, fft)[:, :kept]
        power[start : start + _CHUNK_FRAMES] = spectrum.real**2 + spectrum.imag**2
    return power


def triangles(edges_hz: NDArray[np.float64], fft: int) -> NDArray[np.float32]:
    """Return triangular filters of height 1 between neighbouring edges: float32, shape (fft // 2 + 1, edges - 2)."""
    bins_hz = np.arange(fft // 2 + 1)[:, np.newaxis] * SAMPLE_RATE_HZ / fft
    left, centre, right = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising = (bins_hz - left) / (centre - left)
    falling = (right - bins_hz) / (right - centre)
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


@lru_cache(maxsize=1)
def _slaney_filters() -> NDArray[np.float32]:
    # Linear up to 1 kHz. On the logarithmic (HTK) scale the lowest of 128 bands would lie between two 20 Hz bins and
    # stay empty.
    top = 15.0 + 27.0 * np.log(SAMPLE_RATE_HZ / 2 / 1000.0) / np.log(6.4)
    mels = np.linspace(0.0, top, MEL_BANDS + 2)
    edges_hz = np.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * 6.4 ** ((mels - 15.0) / 27.0))
    return triangles(edges_hz, FFT_SAMPLES)


def resize(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Return a picture (h, w) at another size, float32 (height, width), bilinear.

    Where it shrinks, the triangle is widened to average every pixel (as image libraries do): plain interpolation would
    look at 2 of each 13 frames of a 30 s clip.
    """
    rows, columns = _weights(image.shape[0], height), _weights(image.shape[1], width)
    resized: NDArray[np.float32] = (rows @ image @ columns.T).astype(np.float32)
    return resized


@lru_cache(maxsize=8)
def _weights(old: int, new: int) -> NDArray[np.float32]:
    scale = old / new
    centre = (np.arange(new)[:, np.newaxis] + 0.5) * scale - 0.5
    distance = np.abs(np.arange(old) - centre) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distance)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32)
