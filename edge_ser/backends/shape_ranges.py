"""The shapes that a graph's inputs can have, from what the manifest says."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.bundle import Bundle
from edge_ser.graph_io import Input

_USUAL_TOKENS = 16


@dataclass(frozen=True)
class ShapeRange:
    """The shapes of one input."""

    smallest: tuple[int, ...]
    """No size may be smaller."""
    usual: tuple[int, ...]
    """What it shall be fastest with."""
    largest: tuple[int, ...]
    """No size may be larger."""


def sample_limits(bundle: Bundle) -> tuple[int, int]:
    """Return the fewest and the most samples that a graph is ever given: an utterance is padded or cut to them."""
    manifest = bundle.manifest
    fewest = math.ceil(manifest.min_duration_s * SAMPLE_RATE_HZ)
    return fewest, max(fewest, int(manifest.max_duration_s * SAMPLE_RATE_HZ))


def shape_ranges(bundle: Bundle, fewest: int, most: int, batch: int = 1) -> dict[str, ShapeRange]:
    """Return the shapes of every input for audio of `fewest` to `most` samples; it shall be fastest with the most.

    Args:
        bundle: The bundle.
        fewest: Samples.
        most: Samples.
        batch: Most utterances at once.
    """
    return {item.name: _range(item, bundle, fewest, most, batch) for item in bundle.manifest.inputs}


def _range(item: Input, bundle: Bundle, fewest: int, most: int, batch: int) -> ShapeRange:
    if item.kind == "audio":
        return ShapeRange((1, fewest), (1, most), (batch, most))
    ids = bundle.manifest.input_of("text_ids")
    if item.kind in ("text_ids", "text_mask") and ids is not None:
        return ShapeRange((1, 1), (1, min(_USUAL_TOKENS, ids.max_tokens)), (batch, ids.max_tokens))
    fixed = tuple(int(size) for size in item.shape[1:])
    return ShapeRange((1, *fixed), (1, *fixed), (batch, *fixed))


def told(shape: tuple[int, ...]) -> str:
    """Return a shape as TensorRT's tools write it, such as `1x16000`."""
    return "x".join(str(size) for size in shape)
