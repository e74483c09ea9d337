"""The file of an adapted head: arrays by name, nothing that could be executed."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from edge_ser.array_file import arrays_from_bytes, arrays_to_bytes
from edge_ser.errors import BundleError
from edge_ser.head import Floats, Head, Kernel, VoicePrior, Whitening

_VERSION = 1
_SHAPES = {
    "voice_mean": ("D",),
    "voice_deviation": ("D",),
    "axes": ("D", "r"),
    "gains": ("r",),
    "amplitudes": ("k",),
    "reaches": ("k",),
    "clips": ("n", "D"),
    "pull": ("n", "labels"),
    "numbers": (8,),
}
_HALF = ("clips",)


def head_to_bytes(head: Head) -> bytes:
    """Return the file that keeps a head; `clips` in half precision, the rest in single."""
    numbers = [
        _VERSION,
        head.voice.heard,
        head.voice.patience,
        head.voice.first_trust,
        head.whitening.scale,
        head.kernel.constant,
        head.temperature,
        head.sharpness,
    ]
    arrays = {
        "voice_mean": head.voice.mean,
        "voice_deviation": head.voice.deviation,
        "axes": head.whitening.axes,
        "gains": head.whitening.gains,
        "amplitudes": head.kernel.amplitudes,
        "reaches": head.kernel.reaches,
        "clips": head.clips,
        "pull": head.pull,
        "numbers": np.array(numbers),
    }
    types = {name: np.float16 if name in _HALF else np.float32 for name in arrays}
    return arrays_to_bytes({name: values.astype(types[name]) for name, values in arrays.items()})


def head_from_bytes(content: bytes, where: str, embedding_size: int, labels: int) -> Head:
    """Return the head that a file keeps.

    Args:
        content: The file.
        where: Its path, for messages.
        embedding_size: Numbers in the base model's embedding, D.
        labels: Labels of the adapted model.

    Raises:
        BundleError: It is no such file, or does not fit the model.
    """
    arrays = _read(content, where)
    sizes = {"D": embedding_size, "labels": labels}
    for name, shape in _SHAPES.items():
        if name not in arrays or len(arrays[name].shape) != len(shape):
            _fail(where, f"'{name}' is missing or of another shape")
        for size, wanted in zip(arrays[name].shape, shape, strict=True):
            expected = wanted if isinstance(wanted, int) else sizes.setdefault(wanted, size)
            if size != expected:
                _fail(where, f"'{name}' has {size} values where {expected} are needed")
    version, heard, patience, trust, scale, constant, temperature, sharpness = map(float, arrays["numbers"])
    if version != _VERSION:
        _fail(where, f"version {version:g} of the format is not {_VERSION}, the one known here")
    if (
        min(patience, scale, temperature, sharpness, *arrays["reaches"].tolist()) <= 0
        or heard < 0
        or not 0 <= trust <= 1
    ):
        _fail(where, "a number is out of its range")
    return Head(
        voice=VoicePrior(arrays["voice_mean"], arrays["voice_deviation"], heard, patience, trust),
        whitening=Whitening(arrays["axes"], arrays["gains"], scale),
        kernel=Kernel(constant, arrays["amplitudes"], arrays["reaches"]),
        temperature=temperature,
        sharpness=sharpness,
        clips=arrays["clips"],
        pull=arrays["pull"],
    )


def _read(content: bytes, where: str) -> dict[str, Floats]:
    try:
        return arrays_from_bytes(content, _SHAPES)
    except ValueError as problem:
        _fail(where, str(problem))


def _fail(where: str, problem: str) -> NoReturn:
    raise BundleError(f"{where} is no adapted head ({problem}); adapt again: edge-ser adapt --help")
