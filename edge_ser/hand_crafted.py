"""Features that are computed outside of a graph, from what a bundle's manifest says about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ser.clips import at_length
from edge_ser.mfcc import mfcc39
from edge_ser.mfcc40 import mfcc40
from edge_ser.spectrogram import SpectrogramSettings, spectrogram_image


def coefficients(samples: NDArray[np.float32], parameters: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return cepstral coefficients of an utterance, (frames, 39 or 40).

    Args:
        samples: Mono float32 in [-1, 1], shape (n,), at 16 kHz.
        parameters: Those of an input of kind `mfcc`.
    """
    clip = at_length(samples, parameters["length"], parameters["seconds"])
    if parameters["recipe"] == "mfcc40":
        return mfcc40(clip)
    return mfcc39(clip, int(parameters.get("window_ms", 40)), int(parameters.get("hop_ms", 20)))


def picture(samples: NDArray[np.float32], parameters: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return the spectrogram of an utterance as a picture, (1, size, size), in decibels.

    Args:
        samples: Mono float32 in [-1, 1], shape (n,), at 16 kHz.
        parameters: Those of an input of kind `spectrogram`.
    """
    settings = SpectrogramSettings(
        str(parameters["spec"]), str(parameters["unit"]), float(parameters["clip_s"]), int(parameters["size"])
    )
    return spectrogram_image(samples, settings)
