"""Features on disk, computed once: one file for a clip's content, an extractor, a layer and a pooling width.

Files are written beside their place and renamed, so a reader never sees half of one; several processes may fill one
cache, and a run that was killed goes on where it was. A file that does not read is computed anew.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from tqdm import tqdm

from edge_ser.errors import ConfigError
from edge_ser.sources import read_samples
from train.encoders.base import Encoder
from train.encoders.layer_choice import Layers, layer_numbers

_HALF_MAX = float(np.finfo(np.float16).max)


class Extractor(Protocol):
    """Anything that makes a feature array of a clip's samples."""

    @property
    def name(self) -> str:
        """What identifies everything that sets the values: kind, settings, version, weights."""
        ...

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the features of mono float32 samples in [-1, 1], shape (n,), at 16 kHz."""
        ...


@dataclass(frozen=True)
class _Shelf:
    """One kind of feature: a folder with a file for each content."""

    folder: Path
    dtype: np.dtype[Any]

    def place(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"

    def read(self, key: str) -> NDArray[Any] | None:
        """Return the array, None where there is none or it does not read."""
        try:
            array = np.load(self.place(key), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return array if isinstance(array, np.ndarray) and array.dtype == self.dtype else None

    def write(self, key: str, array: NDArray[Any]) -> NDArray[Any]:
        """Keep an array and return it as it is kept."""
        if self.dtype == np.float16:
            # Some encoders have a few activations beyond half precision; infinities would poison every mean.
            array = np.clip(array, -_HALF_MAX, _HALF_MAX)
        kept = np.ascontiguousarray(array, dtype=self.dtype)
        target = self.place(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{os.getpid()}-{target.name}")
        with partial.open("wb") as file:
            np.save(file, kept, allow_pickle=False)
        partial.replace(target)
        return kept


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def extract(
    extractor: Extractor, clips_paths: Sequence[Path], cache: Path, dtype: DTypeLike = np.float32
) -> dict[Path, NDArray[Any]]:
    """Return the features of each clip, from the cache where they are there.

    Args:
        extractor: What makes them; its name must change whenever its values would.
        clips_paths: Audio files; doubles are computed once.
        cache: Folder of the cache.
        dtype: float32, or float16 for what is large and stays below 65,504.

    Raises:
        AudioFormatError: A clip does not decode.
    """
    name = hashlib.sha256(extractor.name.encode()).hexdigest()[:12]
    readable = "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in extractor.name)[:40]
    shelf = _Shelf(cache / f"{readable}-{name}", np.dtype(dtype))
    found = _fill([shelf], _keys(clips_paths), lambda path: [extractor(read_samples(path))], readable)
    return {path: arrays[0] for path, arrays in found.items()}


def encoder_layers(
    encoder: Encoder, layers: Layers | list[int], pool: int, paths: Sequence[Path], cache: Path
) -> dict[Path, NDArray[np.float16]]:
    """Return what layers of a speech encoder make of each clip; one pass fills all layers that are missing.

    Clips run one by one, so padding never plays a part.

    Args:
        encoder: A speech encoder.
        layers: Layer numbers, 0 the input of the first layer; `last`; or `weighted_sum` for all.
        pool: Mean of so many neighbouring frames; the last group may be smaller. 1 keeps all frames.
        paths: Audio files.
        cache: Folder of the cache.

    Returns:
        float16 by path, (T, D) for one layer, (T, L, D) for several.

    Raises:
        ConfigError: No such layer, no speech encoder, or a clip longer than the encoder takes.
        AudioFormatError: A clip does not decode.
    """
    if encoder.modality != "speech" or pool < 1:
        raise ConfigError(f"got a {encoder.modality} encoder and pool {pool}; need a speech encoder and 1 or more")
    numbers = layer_numbers(encoder, layers)
    folder = cache / f"{encoder.family}-{encoder.fingerprint()[:16]}"
    shelves = [_Shelf(folder / f"layer{number:02d}-pool{pool}", np.dtype(np.float16)) for number in numbers]

    def compute(path: Path) -> list[NDArray[Any]]:
        states = _states(encoder, torch.from_numpy(read_samples(path)), max(numbers))
        return [pool_frames(states[number], pool) for number in numbers]

    found = _fill(shelves, _keys(paths), compute, encoder.family)
    return {path: arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1) for path, arrays in found.items()}


def text_tokens(
    encoder: Encoder,
    tokenizer: Callable[[str], Sequence[int]],
    sentences: Sequence[str],
    cache: Path,
    layer: int | tuple[int, ...] = -1,
) -> dict[str, NDArray[np.float16]]:
    """Return what a text encoder makes of each sentence, float16: (T, D), or (T, L, D) for several layers.

    An empty sentence has no token: (0, D) or (0, L, D).

    Args:
        encoder: A text encoder.
        tokenizer: Makes token ids of a sentence; see `encoders.load_tokenizer`.
        sentences: The sentences; doubles are computed once.
        cache: Folder of the cache.
        layer: Layer number, -1 the last; or several, all from one pass of the encoder.

    Raises:
        ConfigError: No such layer, no text encoder, or a sentence longer than the encoder takes.
    """
    if encoder.modality != "text":
        raise ConfigError("got a speech encoder; need a text encoder for sentences")
    several = layer if isinstance(layer, tuple) else (layer,)
    numbers = layer_numbers(encoder, "last" if several == (-1,) else several)
    ids = {sentence: list(tokenizer(sentence)) for sentence in dict.fromkeys(sentences) if sentence.strip()}
    keys = {
        sentence: hashlib.sha256(np.asarray(tokens, np.int64).tobytes()).hexdigest() for sentence, tokens in ids.items()
    }
    folder = cache / f"{encoder.family}-{encoder.fingerprint()[:16]}"
    shelves = [_Shelf(folder / f"layer{number:02d}", np.dtype(np.float16)) for number in numbers]

    def compute(sentence: str) -> list[NDArray[Any]]:
        states = _states(encoder, torch.tensor(ids[sentence], dtype=torch.int64), max(numbers))
        return [states[number] for number in numbers]

    found = _fill(shelves, keys, compute, encoder.family)
    nothing = np.zeros((0, encoder.width), np.float16)

    def beside(arrays: list[NDArray[Any]]) -> NDArray[np.float16]:
        return arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1)

    return {sentence: beside(found.get(sentence, [nothing] * len(numbers))) for sentence in sentences}


def pool_frames(frames: NDArray[Any], width: int) -> NDArray[Any]:
    """Return means of `width` neighbouring frames, (ceil(T / width), D) from (T, D); the last may be of fewer."""
    if width == 1 or not len(frames):
        return frames
    starts = np.arange(0, len(frames), width)
    counts = np.minimum(width, len(frames) - starts)
    means: NDArray[Any] = np.add.reduceat(frames, starts, axis=0) / counts[:, None].astype(frames.dtype)
    return means


@torch.no_grad()
def _states(encoder: Encoder, inputs: torch.Tensor, last: int) -> list[NDArray[np.float32]]:
    """Return the layers' outputs for one utterance, (T, D) each, in eval mode, whatever mode the encoder is in."""
    training = encoder.training
    encoder.eval()
    device = next(encoder.parameters()).device
    row = inputs[None].to(device)
    states, frames = encoder.encode(row, torch.ones_like(row, dtype=torch.float32), last)
    encoder.train(training)
    valid = int(frames[0].sum())
    return [state[0, :valid].cpu().numpy() for state in states]


def _keys(paths: Iterable[Path]) -> dict[Path, str]:
    return {path: content_hash(path) for path in dict.fromkeys(paths)}


def _fill(
    shelves: Sequence[_Shelf], keys: Mapping[Any, str], compute: Callable[[Any], list[NDArray[Any]]], label: str
) -> dict[Any, list[NDArray[Any]]]:
    """Return the arrays of each item, one for each shelf, computing and keeping those that are not there."""
    found = {item: _read_all(shelves, key) for item, key in keys.items()}
    missing = [item for item, arrays in found.items() if arrays is None]
    # Each process in its own order: two that fill one cache share the work.
    random.Random(os.getpid()).shuffle(missing)
    for item in tqdm(missing, desc=label, unit="clip", disable=not missing or not sys.stderr.isatty()):
        found[item] = _read_all(shelves, keys[item]) or [
            shelf.write(keys[item], array) for shelf, array in zip(shelves, compute(item), strict=True)
        ]
    return {item: arrays for item, arrays in found.items() if arrays is not None}


def _read_all(shelves: Sequence[_Shelf], key: str) -> list[NDArray[Any]] | None:
    arrays = []
    for shelf in shelves:
        array = shelf.read(key)
        if array is None:
            return None
        arrays.append(array)
    return arrays
