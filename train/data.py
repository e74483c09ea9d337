"""Where the corpora are, and which of their clips and sounds are used."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_ser.corpus import FOUR_CLASSES, Clip, list_sounds
from edge_ser.errors import ConfigError
from edge_ser.sources import read_samples


def data_folder(given: Path | None) -> Path:
    """Return the corpora's folder: the option, or EDGE_SER_DATA.

    Raises:
        ConfigError: Neither is given.
    """
    folder = given or (Path(os.environ["EDGE_SER_DATA"]) if os.environ.get("EDGE_SER_DATA") else None)
    if folder is None:
        raise ConfigError("no data folder; need one with speech/manifest.csv: pass --data FOLDER or set EDGE_SER_DATA")
    return folder


def usable(clip: Clip, corpora: tuple[str, ...]) -> bool:
    """Return whether a clip belongs to these corpora and has one of the four emotions."""
    return clip.corpus in corpora and clip.emotion in FOUR_CLASSES


def read_sounds(folder: Path, table: str, *sides: str) -> list[NDArray[np.float32]]:
    """Return the sounds of a table that stand on these sides: `training`, `calibration`, `held_out`."""
    return [read_samples(path) for side in sides for path in list_sounds(folder / table, side)]


def file_sha256(path: Path) -> str:
    """Return the hash that tells which file it was."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
