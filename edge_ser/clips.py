"""Clips of one length: long utterances are cut, short ones repeat themselves, so that nothing needs a mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ser.errors import AudioFormatError, ConfigError
from edge_ser.spectrogram import centre_crop

SAMPLE_RATE_HZ = 16_000
LENGTHS = ("as_is", "crop", "centre", "repeat", "zeros")
"""What can be done to a clip; see `at_length`."""
SHORTEST_REMAINDER = SAMPLE_RATE_HZ
"""Samples; what is left after the last full clip and shorter than this is dropped."""


def repeat_pad(samples: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Return `length` samples: y[n] = x[n mod len(x)], or the first `length` where there are more.

    Args:
        samples: Mono float32, shape (n,), n > 0.
        length: Samples wanted.

    Raises:
        AudioFormatError: There is no sample to repeat.
    """
    if not len(samples):
        raise AudioFormatError("got no samples; need at least one; leave empty recordings out")
    if len(samples) >= length:
        return samples[:length]
    return np.resize(samples, length)  # numpy's resize repeats


def at_length(samples: NDArray[np.float32], length: str, seconds: float) -> NDArray[np.float32]:
    """Return samples brought to a length.

    Args:
        samples: Mono float32, shape (n,), n > 0, at 16 kHz.
        length: `as_is`; `crop` or `centre` keep the beginning or the middle of what is longer; `repeat` and `zeros`
            keep the beginning, and what is shorter repeats itself or is followed by silence.
        seconds: The length.

    Raises:
        AudioFormatError: There is no sample to repeat.
    """
    wanted = round(seconds * SAMPLE_RATE_HZ)
    if length == "as_is":
        return samples
    if length == "centre":
        return centre_crop(samples, seconds)
    if length == "repeat":
        return repeat_pad(samples, wanted)
    if length == "zeros" and len(samples) < wanted:
        return np.pad(samples, (0, wanted - len(samples)))
    return samples[:wanted]


def segments(samples: NDArray[np.float32], length: int) -> list[NDArray[np.float32]]:
    """Return an utterance's consecutive pieces of `length` samples; the last one is as long as it is.

    A remainder under one second is dropped where another piece exists; nothing is repeated yet.

    Args:
        samples: Mono float32, shape (n,), n > 0, at 16 kHz.
        length: Samples of a full piece, above 0.

    Raises:
        AudioFormatError: There is no sample.
        ConfigError: `length` is not above 0.
    """
    if length <= 0:
        raise ConfigError(f"length is {length} samples; need more than 0")
    if not len(samples):
        raise AudioFormatError("got no samples; need at least one; leave empty recordings out")
    pieces = [samples[start : start + length] for start in range(0, len(samples), length)]
    if len(pieces) > 1 and len(pieces[-1]) < min(SHORTEST_REMAINDER, length):
        pieces.pop()
    return pieces
