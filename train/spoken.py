"""Clips as the runtime judges them: without the silence around their speech."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_ser.quality import spoken_part
from edge_ser.sources import read_samples


def read_spoken(path: Path) -> NDArray[np.float32]:
    """Return a recording from the beginning of its speech to the end, mono float32 (n,) at 16 kHz.

    Raises:
        AudioFormatError: The file cannot be read.
    """
    return _cut(path).copy()


@lru_cache(maxsize=1000)
def _cut(path: Path) -> NDArray[np.float32]:
    # A copy: a part would keep the whole recording.
    return spoken_part(read_samples(path))[1].copy()
