"""Rewrites the front end of a graph so that its Fourier transform costs a third of the products.

The workshop writes log-mel features as a convolution with windowed cosines and sines: plain, and what PyTorch trains
with. A frame x of N samples has, at its even frequencies, the transform of x[n] + x[n + N/2], and at its odd ones that
of x[n] - x[n + N/2]: half the products for two additions. The even half is halved once more, and frequencies that no
filter hears are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge_ser.errors import ConfigError
from export.rewrite import drop_unread_constants, lift_constants

_PREFIX = "fourier/"
_TOLERANCE = 1e-5
_HALVINGS = 2
_LAST = 2**62


def kernels(window: int) -> NDArray[np.float64]:
    """Return Hann-windowed cosines and sines, (2 (window / 2 + 1), 1, window): a convolution with them is a DFT."""
    place = np.arange(window)
    angle = 2.0 * math.pi * np.outer(np.arange(window // 2 + 1), place) / window
    rows: NDArray[np.float64] = np.concatenate([np.cos(angle) * _hann(window), np.sin(angle) * _hann(window)])
    return rows[:, np.newaxis]


def shorten_transforms(model: onnx.ModelProto) -> int:
    """Rewrite every convolution with such kernels, to the mel filters behind it; return how many there were.

    Raises:
        ConfigError: What follows the convolution is not power, then filters.
    """
    lift_constants(model.graph)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    transforms = [node for node in model.graph.node if _is_transform(node, constants)]
    for transform in transforms:
        between, filters = _way_to_filters(model.graph, transform)
        weights = numpy_helper.to_array(constants[filters.input[1]])[:, :, 0]
        part = _Rewrite(transform.input[0], filters.output[0], transform.name, _stride(transform))
        part.write(constants[transform.input[1]].dims[2], weights)
        place = list(model.graph.node).index(transform)
        for node in (transform, *between, filters):
            model.graph.node.remove(node)
        for node in reversed(part.nodes):
            model.graph.node.insert(place, node)
        model.graph.initializer.extend(part.constants)
    drop_unread_constants(model.graph)
    onnx.checker.check_model(model)
    return len(transforms)


def _hann(window: int) -> NDArray[np.float64]:
    wave: NDArray[np.float64] = 0.5 - 0.5 * np.cos(2.0 * math.pi * np.arange(window) / window)
    return wave


def _is_transform(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    tensor = constants.get(node.input[1]) if node.op_type == "Conv" else None
    if (
        tensor is None
        or len(tensor.dims) != 3
        or tensor.dims[1] != 1
        or tensor.dims[0] != 2 * (tensor.dims[2] // 2 + 1)
    ):
        return False
    return bool(np.abs(numpy_helper.to_array(tensor) - kernels(tensor.dims[2])).max() < _TOLERANCE)


def _stride(node: onnx.NodeProto) -> int:
    return int(next(attribute.ints[0] for attribute in node.attribute if attribute.name == "strides"))


def _way_to_filters(graph: onnx.GraphProto, transform: onnx.NodeProto) -> tuple[list[onnx.NodeProto], onnx.NodeProto]:
    """Return the nodes that make power of the transform, and the convolution that reads it."""
    names, between = {transform.output[0]}, list[onnx.NodeProto]()
    for node in graph.node:
        if not names & set(node.input):
            continue
        if node.op_type == "Conv":
            return between, node
        between.append(node)
        names |= set(node.output)
    raise ConfigError(f"no filters behind {transform.name}; need a front end of power, then filters")


@dataclass
class _Rewrite:
    """The nodes between a waveform (B, 1, samples) and what filters make of its power, (B, filters, frames)."""

    source: str
    result: str
    name: str
    hop: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def write(self, window: int, filters: NDArray[np.float32]) -> None:
        """Fill `nodes` and `constants`; filters (filters, bins)."""
        bins = np.flatnonzero(np.abs(filters).max(0))
        windowed = self._node("Mul", [self._frames(window), self._constant("hann", _hann(window))])
        powers: list[str] = []
        order: list[NDArray[np.int64]] = []
        for signal, length, some in self._parts(windowed, window, window, bins, _HALVINGS):
            angle = 2.0 * math.pi * (np.outer(np.arange(length), some) % window) / window
            waves = self._constant(f"waves{len(order)}", np.concatenate([np.cos(angle), np.sin(angle)], axis=1))
            both = self._node("MatMul", [signal, waves])
            cosine, sine = self._halves(self._node("Mul", [both, both]))
            powers.append(self._node("Add", [cosine, sine]))
            order.append(some)
        heard = self._constant("filters", filters[:, np.concatenate(order)].T)
        bands = self._node("MatMul", [self._node("Concat", powers, axis=2), heard])
        self.nodes.append(helper.make_node("Transpose", [bands], [self.result], f"{self.name}/bands", perm=[0, 2, 1]))

    def _frames(self, window: int) -> str:
        """Return frames (B, frames, window), put together from rows of one hop."""
        whole, rest = divmod(window, self.hop)
        padded = self._node("Pad", [self.source, self._indices("pads", 0, 0, 0, 0, 0, self.hop - rest)])
        length = self._node("Shape", [padded], start=2)
        hop = self._indices("hop", self.hop)
        end = self._node("Mul", [self._node("Div", [length, hop]), hop])
        whole_rows = self._slice(padded, 2, 0, end)
        rows = self._node("Reshape", [whole_rows, self._indices("rows", 0, -1, self.hop)])
        pieces = [self._slice(rows, 1, place, place - whole) for place in range(whole)]
        pieces.append(self._slice(self._slice(rows, 1, whole, _LAST), 2, 0, rest))
        return self._node("Concat", pieces, axis=2)

    def _parts(
        self, signal: str, length: int, window: int, bins: NDArray[np.int64], halvings: int
    ) -> list[tuple[str, int, NDArray[np.int64]]]:
        """Return signals whose transforms at these frequencies are the whole one's: name, length, frequencies."""
        if halvings == 0:
            return [(signal, length, bins)]
        half = length // 2
        halves = self._halves(signal)
        even = bins * half % window == 0
        odd_part = (self._node("Sub", halves), half, bins[~even])
        return [*self._parts(self._node("Add", halves), half, window, bins[even], halvings - 1), odd_part]

    def _halves(self, value: str) -> list[str]:
        name = f"{self.name}/{len(self.nodes)}"
        self.nodes.append(helper.make_node("Split", [value], [f"{name}/0", f"{name}/1"], name, axis=2))
        return [f"{name}/0", f"{name}/1"]

    def _slice(self, value: str, axis: int, start: int, end: int | str) -> str:
        end = end if isinstance(end, str) else self._indices(f"end{end}", end)
        return self._node(
            "Slice", [value, self._indices(f"start{start}", start), end, self._indices(f"axis{axis}", axis)]
        )

    def _node(self, operator: str, inputs: list[str], **attributes: object) -> str:
        name = f"{self.name}/{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [f"{name}/0"], name, **attributes))
        return f"{name}/0"

    def _indices(self, label: str, *values: int) -> str:
        return self._keep(label, np.array(values, dtype=np.int64))

    def _constant(self, label: str, values: NDArray[np.floating]) -> str:
        return self._keep(label, values.astype(np.float32))

    def _keep(self, label: str, values: NDArray[np.generic]) -> str:
        name = f"{self.name}/{_PREFIX}{label}"
        if all(tensor.name != name for tensor in self.constants):
            self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name
