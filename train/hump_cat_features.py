"""What HuMP-CAT reads of a recording: clips of one length and their features; and what it adapts to in a transfer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_ser.clips import SAMPLE_RATE_HZ, repeat_pad, segments
from edge_ser.errors import ConfigError
from edge_ser.mfcc import HOP, deltas, mfcc39, power_frames
from edge_ser.prosody import prosody
from train.examples import Example
from train.folds import Recording
from train.supports import draw_fractions

Encode = Callable[[NDArray[np.float32]], NDArray[np.floating]]
"""From a padded clip to frames of a speech encoder: (T, L, D), or (T, D) for one layer."""


class Labelled(Recording, Protocol):
    """What a transfer set is chosen by."""

    @property
    def emotion(self) -> str:
        """The corpus's label."""


Item = TypeVar("Item", bound=Labelled)

LPC_ORDER = 12
_BLOCK, _BLOCK_STRIDE = 10, 4
_FLOOR = 1e-10


@dataclass(frozen=True)
class ClipSettings:
    """How a recording becomes clips and features."""

    clip_s: float = 7.0
    """Seconds of a clip."""
    features: tuple[str, ...] = ("mfcc", "prosody")
    """Some of `mfcc`, `prosody`, `lpcc`, `log_power`."""
    prosody_on: str = "raw"
    """`raw`: prosody hears the clip as recorded; `padded`: as it repeats itself."""
    mfcc_window_ms: int = 40
    """40 or 30."""
    compat_drop_last: bool = False
    """Whether prosody leaves out the last stretch of each kind, as the original does."""

    @property
    def length(self) -> int:
        """Samples of a clip."""
        return round(self.clip_s * SAMPLE_RATE_HZ)


def clip_features(piece: NDArray[np.float32], settings: ClipSettings) -> dict[str, NDArray[np.float32]]:
    """Return the features of one piece of an utterance, of the same shapes for every piece.

    Args:
        piece: Mono float32, shape (n,), 0 < n <= settings.length, at 16 kHz, not yet repeated.
        settings: What to compute.

    Returns:
        For 7 s: `mfcc` (349, 39), `prosody` (103,), `lpcc` (349, 36), `log_power` (85, 513).

    Raises:
        ConfigError: A feature or a switch that does not exist.
    """
    if settings.prosody_on not in ("raw", "padded"):
        raise ConfigError(f"prosody_on is {settings.prosody_on!r}; need 'raw' or 'padded'")
    padded = repeat_pad(piece, settings.length)
    heard = piece if settings.prosody_on == "raw" else padded
    compute: dict[str, Callable[[], NDArray[np.float32]]] = {
        "mfcc": lambda: mfcc39(padded, settings.mfcc_window_ms),
        "prosody": lambda: prosody(heard, compat_drop_last=settings.compat_drop_last),
        "lpcc": lambda: lpcc(padded, settings.mfcc_window_ms),
        "log_power": lambda: log_power(padded, settings.mfcc_window_ms),
    }
    unknown = sorted(set(settings.features) - set(compute))
    if unknown:
        raise ConfigError(f"features are {', '.join(unknown)}; need some of {', '.join(compute)}")
    return {name: compute[name]() for name in settings.features}


def clip_examples(
    utterance: Example, samples: NDArray[np.float32], settings: ClipSettings, encode: Encode | None = None
) -> list[Example]:
    """Return one example for each clip of an utterance, all with its path and labels.

    Args:
        utterance: Path, speaker and labels; its own features are left behind.
        samples: Mono float32, shape (n,), n > 0, at 16 kHz.
        settings: What to compute.
        encode: Gives `speech`; without it there is none.

    Raises:
        AudioFormatError: There is no sample.
        ConfigError: A feature or a switch that does not exist.
    """
    examples = []
    for piece in segments(samples, settings.length):
        features: dict[str, NDArray[np.floating]] = dict(clip_features(piece, settings))
        if encode is not None:
            features["speech"] = encode(repeat_pad(piece, settings.length))
        examples.append(replace(utterance, features=features))
    return examples


def utterance_logits(
    examples: Sequence[Example], logits: NDArray[np.floating]
) -> tuple[list[Path], NDArray[np.float32]]:
    """Return each utterance's path, in order of appearance, and the mean of its clips' logits (n, C)."""
    rows: dict[Path, list[int]] = defaultdict(list)
    for row, example in enumerate(examples):
        rows[example.path].append(row)
    means = [logits[own].mean(axis=0, dtype=np.float64) for own in rows.values()]
    return list(rows), np.array(means, np.float32).reshape(len(rows), logits.shape[1])


def lpcc(samples: NDArray[np.float32], window_ms: int = 40) -> NDArray[np.float32]:
    """Return 12 cepstral coefficients of linear prediction of order 12, and two derivatives.

    The recursion is c[n] = a[n] + sum over k < n of (k / n) c[k] a[n - k] (Rabiner and Schafer).

    Returns:
        float32, shape (T, 36), on the frames of `mfcc39`.
    """
    framed, _ = power_frames(samples, window_ms)
    framed = framed * np.hamming(framed.shape[1])
    lags = [(framed[:, lag:] * framed[:, : framed.shape[1] - lag]).sum(axis=1) for lag in range(LPC_ORDER + 1)]
    predictor = _levinson(np.stack(lags, axis=1))
    cepstrum = np.zeros_like(predictor)
    for n in range(1, LPC_ORDER + 1):
        earlier = sum((k / n) * cepstrum[:, k - 1] * predictor[:, n - k - 1] for k in range(1, n))
        cepstrum[:, n - 1] = predictor[:, n - 1] + earlier
    first = deltas(cepstrum)
    return np.concatenate([cepstrum, first, deltas(first)], axis=1).astype(np.float32)


def log_power(samples: NDArray[np.float32], window_ms: int = 40) -> NDArray[np.float32]:
    """Return log10 power spectra, 10 frames of 20 ms averaged every 4.

    Returns:
        float32, shape (T', 513): 85 rows for 7 s.
    """
    shortest = window_ms * SAMPLE_RATE_HZ // 1000 + (_BLOCK - 1) * HOP
    _, power = power_frames(repeat_pad(samples, max(len(samples), shortest)), window_ms)
    log = np.log10(np.maximum(power, _FLOOR))
    blocks = np.lib.stride_tricks.sliding_window_view(log, _BLOCK, axis=0)[::_BLOCK_STRIDE]
    return blocks.mean(axis=-1).astype(np.float32)


def transfer_split(utterances: Sequence[Item], unit: str, fraction: float, seed: int) -> tuple[list[Item], list[Item]]:
    """Return the part of a target corpus that a source model adapts to, and all the rest, to test on.

    Args:
        utterances: The whole target corpus.
        unit: `speaker`: all clips of a share of the speakers; `utterance`: a share of each class, whoever speaks.
        fraction: Share in (0, 1): 0.2 of 10 speakers and 1/3 of 6 are two, 0.1 of the clips elsewhere.
        seed: Which draw.

    Raises:
        ConfigError: The share or the unit is wrong, or nothing is left to test on.
    """
    names = sorted({_label(item) for item in utterances})
    labels = [names.index(_label(item)) for item in utterances]
    support = draw_fractions(utterances, labels, (fraction,), unit=unit, draw=seed)
    return [utterances[place] for place in support.largest], [utterances[place] for place in support.query]


def _levinson(r: NDArray[np.float64]) -> NDArray[np.float64]:
    # r (T, order + 1) -> predictor (T, order); a little white noise keeps silence and pure tones solvable.
    order = r.shape[1] - 1
    error = r[:, 0] * (1.0 + 1e-9) + _FLOOR
    predictor = np.zeros((len(r), order))
    for i in range(order):
        reached = (predictor[:, :i] * r[:, i:0:-1]).sum(axis=1) if i else 0.0
        reflection = (r[:, i + 1] - reached) / error
        predictor[:, :i] -= reflection[:, None] * predictor[:, :i][:, ::-1]
        predictor[:, i] = reflection
        error = np.maximum(error * (1.0 - reflection**2), _FLOOR**2)
    return predictor


def _label(item: Labelled) -> str:
    # Corpora name their emotions differently; the class of four stands beside the name where there is one.
    return str(getattr(item, "emotion4", "") or item.emotion)
