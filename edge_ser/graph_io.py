"""What a graph is told and what it answers: the kinds of input and output that this release knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_ser.errors import BundleError
from edge_ser.json_object import JsonObject

UPGRADE = "install a newer edge-ser: pip install --upgrade edge-ser"
"""What to do about a bundle from the future."""

FRAMES_NAME = "frames"
"""The output from which an utterance can be judged again without its audio: float32 (1, frames, width)."""

_DTYPES = {"audio": "float32", "text_ids": "int64", "text_mask": "int64", "prosody": "float32", "voice": "float32"}
_LATER_KINDS = ("mfcc",)
_PROSODY_WIDTH = 103
_LARGEST_EMBEDDING = 65_536
"""Numbers; memory is set aside for as many as a manifest promises."""


@dataclass(frozen=True)
class Input:
    """One input of the graph."""

    name: str
    """Name in the graph."""
    kind: str
    """`audio`, `text_ids`, `text_mask`, `prosody` or `voice`."""
    dtype: str
    """`float32` or `int64`."""
    shape: tuple[int | str, ...]
    """Sizes; a name stands for a size that varies."""
    parameters: Mapping[str, object] = field(default_factory=dict)
    """text_ids: `max_tokens`. voice: `embedding_size` and `space`, the id of the embedding space."""

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
        if kind in _LATER_KINDS:
            raise BundleError(f"{fields.where}: inputs of kind '{kind}' need a newer edge-ser; {UPGRADE}")
        if kind not in _DTYPES:
            fields.fail(f"unknown input kind '{kind}', need one of {', '.join(_DTYPES)}")
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


def _check_shape(fields: JsonObject, need: tuple[int | None, ...]) -> None:
    shape = fields.shape("shape")
    # None in `need` is any size; a name in `shape` is a size that varies.
    fits = len(shape) == len(need) and all(
        wanted is None or size == wanted for size, wanted in zip(shape, need, strict=True)
    )
    if not fits:
        words = ", ".join("any size" if size is None else str(size) for size in need)
        fields.fail(f"'{fields.text('name')}' has shape {list(shape)}, need [{words}]")
