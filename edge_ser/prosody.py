"""103 numbers about how something is said: pitch, energy of voiced and unvoiced stretches, durations and pauses.

The set is the static prosody of DisVoice (Vasquez-Correa et al. 2018), in the order of its documentation:
30 of pitch, 24 of energy where there is voice, 24 where there is none, 25 of durations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_ser.mfcc import SAMPLE_RATE_HZ, centred
from edge_ser.pitch import STEP, f0_track

WIDTH = 103
STEP_S = STEP / SAMPLE_RATE_HZ
LONGEST_UNVOICED = 14
"""Frames of 10 ms; a longer stretch without voice is a pause."""

_FLOOR = 1e-10
_FLAT = 1e-12
_FOUR = ("avg", "std", "skew", "kurt")
_SIX = ("avg", "std", "max", "min", "skew", "kurt")

Array = NDArray[np.float64]


def _names() -> tuple[str, ...]:
    names = [f"f0_{what}_{s}" for what in ("all", "tilt", "mse", "first", "last") for s in _SIX]
    for kind in ("voiced", "unvoiced"):
        names += [f"energy_{kind}_{what}_{s}" for what in ("contour", "tilt", "mse") for s in _FOUR]
        names += [f"energy_{kind}_{what}_{s}" for what in ("first", "last") for s in _SIX]
    names += ["voiced_rate"]
    names += [f"duration_{kind}_{s}" for kind in ("voiced", "unvoiced", "pause") for s in _SIX]
    names += [f"ratio_{ratio}" for ratio in ("p_vu", "p_u", "u_vu", "v_vu", "v_p", "u_p")]
    return tuple(names)


FEATURE_NAMES = _names()
"""Name of each of the 103 numbers, in order."""


def prosody(samples: NDArray[np.float32], *, compat_drop_last: bool = False) -> NDArray[np.float32]:
    """Return the 103 numbers, always finite; the recording's level does not matter.

    Where something is undefined (no voice, too few stretches) its numbers are 0. The ratios compare mean durations and
    are 0 unless there is voice, an unvoiced stretch and a pause.

    Args:
        samples: Mono float32, shape (n,), at 16 kHz, as recorded: a clip that repeats itself would invent a last
            stretch and change every rate.
        compat_drop_last: Leave out the last voiced and the last voiceless stretch, as the original does.

    Returns:
        float32, shape (103,), in the order of `FEATURE_NAMES`: Hz, dB, seconds and their rates.
    """
    contour = f0_track(samples)
    energy = _log_energy(centred(samples))
    voiced, silent = _runs(contour > 0.0), _runs(contour == 0.0)
    if compat_drop_last:
        voiced, silent = voiced[:-1], silent[:-1]
    unvoiced = [run for run in silent if len(run) <= LONGEST_UNVOICED]
    pauses = [run for run in silent if len(run) > LONGEST_UNVOICED]
    parts = [
        _pitch(contour, voiced),
        _energy(energy, voiced),
        _energy(energy, unvoiced),
        _durations((voiced, unvoiced, pauses), len(samples) / SAMPLE_RATE_HZ),
    ]
    return np.concatenate(parts).astype(np.float32)


def _runs(where: NDArray[np.bool_]) -> list[range]:
    edges = np.flatnonzero(np.diff(np.pad(where.astype(np.int8), 1)))
    return [range(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _log_energy(wave: Array) -> Array:
    # 20 ms every 10 ms, dB. The floor: digital silence would give -inf and spoil every statistic.
    squares = (wave[: len(wave) // STEP * STEP] ** 2).reshape(-1, STEP).mean(axis=1)
    power = 0.5 * (squares[1:] + squares[:-1])
    energy: Array = 10.0 * np.log10(np.maximum(power, _FLOOR))
    return energy


def _pitch(contour: Array, runs: Sequence[range]) -> Array:
    if not runs:
        # Without a run left there may still be voiced frames, but no stretch to describe.
        return np.concatenate([_six(contour[contour > 0.0]), np.zeros(24)])
    pieces = [contour[run.start : run.stop] for run in runs]
    fits = np.array([_fit(piece) for piece in pieces])
    every = contour[contour > 0.0]
    return np.concatenate([_six(values) for values in (every, fits[:, 0], fits[:, 1], pieces[0], pieces[-1])])


def _energy(energy: Array, runs: Sequence[range]) -> Array:
    if len(runs) < 2:
        return np.zeros(24)
    # The frames of 20 ms that lie inside a stretch: one fewer than its steps of 10 ms.
    pieces = [energy[run.start : run.stop - 1] for run in runs]
    long = [piece for piece in pieces if len(piece) >= 2]
    fits = np.array([_fit(piece) for piece in long]).reshape(-1, 2)
    contours = np.mean([_four(piece) for piece in long], axis=0) if long else np.zeros(4)
    return np.concatenate([contours, _four(fits[:, 0]), _four(fits[:, 1]), _six(pieces[0]), _six(pieces[-1])])


def _durations(kinds: Sequence[Sequence[range]], clip_s: float) -> Array:
    rate = len(kinds[0]) / clip_s if clip_s > 0.0 else 0.0
    seconds = [np.array([len(run) * STEP_S for run in runs]) for runs in kinds]
    each = [_six(values) if len(values) > 1 else np.zeros(6) for values in seconds]
    means = [float(values.mean()) if len(values) else 0.0 for values in seconds]
    return np.concatenate([[rate], *each, _ratios(means)])


def _ratios(means: Sequence[float]) -> Array:
    if min(means) <= 0.0:
        return np.zeros(6)
    v, u, p = means
    return np.array([p / (v + u), p / u, u / (v + u), v / (v + u), v / p, u / p])


def _fit(values: Array) -> tuple[float, float]:
    # Slope per second and mean square of what a straight line leaves over.
    if len(values) < 2:
        return 0.0, 0.0
    time_s = (np.arange(len(values)) - 0.5 * (len(values) - 1)) * STEP_S
    rest = values - values.mean()
    slope = float(time_s @ rest / (time_s @ time_s))
    return slope, float(np.mean((rest - slope * time_s) ** 2))


def _six(values: Array) -> Array:
    if not len(values):
        return np.zeros(6)
    avg, std, skew, kurt = _four(values)
    return np.array([avg, std, values.max(), values.min(), skew, kurt])


def _four(values: Array) -> Array:
    if not len(values):
        return np.zeros(4)
    rest = values - values.mean()
    variance = float(np.mean(rest**2))
    if variance < _FLAT:
        return np.array([values.mean(), np.sqrt(variance), 0.0, 0.0])
    return np.array(
        [values.mean(), np.sqrt(variance), np.mean(rest**3) / variance**1.5, np.mean(rest**4) / variance**2 - 3.0]
    )
