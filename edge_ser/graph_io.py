"""What a graph is told and what it answers: the kinds of input and output that this release knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_ser.clips import LENGTHS
from edge_ser.json_object import JsonObject
from edge_ser.spectrogram import GEOMETRY, SPECS

UPGRADE = "install a newer edge-ser: pip install --upgrade edge-ser"
"""What to do about a bundle from the future."""

FRAMES_NAME = "frames"
"""The output from which an utterance can be judged again without its audio: float32 (1, frames, width)."""

MFCC_WIDTHS = {"mfcc39": 39, "mfcc40": 40}
"""Coefficients by recipe of an input of kind `mfcc`."""

_DTYPES = {
    "audio": "float32",
    "text_ids": "int64",
    "text_mask": "int64",
    "prosody": "float32",
    "mfcc": "float32",
    "spectrogram": "float32",
    "voice": "float32",
    "pack_down": "float32",
    "pack_up": "float32",
}
_PROSODY_WIDTH = 103
_LONGEST_CLIP_S = 600.0
_LARGEST_PICTURE = 4096
_LARGEST_EMBEDDING = 65_536
"""Numbers; memory is set aside for as many as a manifest promises."""
_LARGEST_SIDE = 4096
"""Of a matrix of a language pack."""


@dataclass(frozen=True)
class Input:
    """One input of the graph."""

    name: str
    """Name in the graph."""
    kind: str
    """`audio`, `text_ids`, `text_mask`, `prosody`, `mfcc`, `spectrogram`, `voice`, `pack_down` or `pack_up`."""
    dtype: str
    """`float32` or `int64`."""
    shape: tuple[int | str, ...]
    """Sizes; a name stands for a size that varies."""
    parameters: Mapping[str, object] = field(default_factory=dict)
    """text_ids: `max_tokens`. voice: `embedding_size` and `space`, the id of the embedding space. mfcc: `recipe`,
    `length`, `seconds`, perhaps `window_ms` and `hop_ms`. spectrogram: `spec`, `unit`, `clip_s` and `size`."""

    @property
    def max_tokens(self) -> int:
        """Tokens a transcript is cut to; of an input of kind `text_ids`."""
        return int(str(self.parameters["max_tokens"]))

    @property
    def embedding_size(self) -> int:
        """Numbers in the embedding; of an input of kind `voice`."""
        return int(str(self.parameters["embedding_size"]))

    @property
    def space(self) -> str:
        """Id of the embedding space; of an input of kind `voice`."""
        return str(self.parameters["space"])

    @staticmethod
    def from_json(fields: JsonObject) -> Input:
        """Return the input that a manifest holds.

        Raises:
            BundleError: It does not fit, or needs a newer release.
        """
        kind = fields.text("kind")
        if kind not in _DTYPES:
            fields.fail(
                f"unknown input kind '{kind}', need one of {', '.join(_DTYPES)}, or a newer edge-ser: {UPGRADE}"
            )
        if fields.text("dtype") != _DTYPES[kind]:
            fields.fail(f"an input of kind '{kind}' is {fields.text('dtype')}, need {_DTYPES[kind]}")
        parameters = fields.nested("parameters")
        if kind == "text_ids":
            parameters.count("max_tokens", minimum=1)
        if kind == "voice":
            parameters.text("space")
            _check_shape(fields, (1, 2 * parameters.count("embedding_size", 1, _LARGEST_EMBEDDING) + 1))
        elif kind == "prosody":
            _check_shape(fields, (1, _PROSODY_WIDTH))
        elif kind == "mfcc":
            _check_shape(fields, (1, None, MFCC_WIDTHS[_check_mfcc(parameters)]))
        elif kind == "spectrogram":
            _check_shape(fields, (1, 1, *(_check_spectrogram(parameters),) * 2))
        elif kind in ("pack_down", "pack_up"):
            _check_shape(fields, (1, None, None))
            _check_sides(fields)
        else:
            _check_shape(fields, (1, None))
        return Input(fields.text("name"), kind, fields.text("dtype"), fields.shape("shape"), parameters.plain)


@dataclass(frozen=True)
class Output:
    """One output of the graph: `logits`, `embedding`, `attributes` or `frames`."""

    name: str
    """Name in the graph."""
    dtype: str
    """`float32`."""
    shape: tuple[int | str, ...]
    """Sizes; a name stands for a size that varies."""

    @staticmethod
    def from_json(fields: JsonObject) -> Output:
        """Return the output that a manifest holds.

        Raises:
            BundleError: It does not fit, or needs a newer release.
        """
        if fields.text("dtype") != "float32":
            fields.fail(f"an output is {fields.text('dtype')}, need float32")
        return Output(fields.text("name"), fields.text("dtype"), fields.shape("shape"))


def _check_mfcc(fields: JsonObject) -> str:
    """Return the recipe."""
    for key, allowed in (("recipe", tuple(MFCC_WIDTHS)), ("length", LENGTHS)):
        if fields.text(key) not in allowed:
            fields.fail(f"'{key}' is '{fields.text(key)}', need one of {', '.join(allowed)}")
    shortest_s = 0.0 if fields.text("length") == "as_is" else 0.1
    fields.number("seconds", lambda value: shortest_s <= value <= _LONGEST_CLIP_S, f"from {shortest_s} to 600")
    for key, allowed_ms in (("window_ms", (30, 40)), ("hop_ms", (10, 20))):
        if key in fields.plain and fields.count(key) not in allowed_ms:
            fields.fail(f"'{key}' is {fields.count(key)}, need {allowed_ms[0]} or {allowed_ms[1]}")
    return fields.text("recipe")


def _check_spectrogram(fields: JsonObject) -> int:
    """Return the pixels of a side."""
    for key, allowed in (("spec", SPECS), ("unit", tuple(GEOMETRY))):
        if fields.text(key) not in allowed:
            fields.fail(f"'{key}' is '{fields.text(key)}', need one of {', '.join(allowed)}")
    fields.number("clip_s", lambda value: 0.1 <= value <= _LONGEST_CLIP_S, "from 0.1 to 600")
    return fields.count("size", 1, _LARGEST_PICTURE)


def _check_sides(fields: JsonObject) -> None:
    if not all(isinstance(size, int) and 1 <= size <= _LARGEST_SIDE for size in fields.shape("shape")):
        fields.fail(
            f"'{fields.text('name')}' has shape {list(fields.shape('shape'))}, need sizes up to {_LARGEST_SIDE}"
        )


def _check_shape(fields: JsonObject, need: tuple[int | None, ...]) -> None:
    shape = fields.shape("shape")
    # None in `need` is any size; a name in `shape` is a size that varies.
    fits = len(shape) == len(need) and all(
        wanted is None or size == wanted for size, wanted in zip(shape, need, strict=True)
    )
    if not fits:
        words = ", ".join("any size" if size is None else str(size) for size in need)
        fields.fail(f"'{fields.text('name')}' has shape {list(shape)}, need [{words}]")
