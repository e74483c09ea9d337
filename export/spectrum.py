"""Puts the kernels of the Fourier transform into a graph as the arithmetic that makes them, not as numbers.

Windowed cosines and sines would be a sixth of a student's file. A runtime folds the arithmetic into constants when it
opens the graph, so nothing is computed twice.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_PREFIX = "fourier/"
_TOLERANCE = 1e-5


def kernels(window: int) -> NDArray[np.float64]:
    """Return Hann-windowed cosines and sines, (2 (window / 2 + 1), 1, window): a convolution with them is a DFT."""
    place = np.arange(window)
    hann = 0.5 - 0.5 * np.cos(2.0 * math.pi * place / window)
    angle = 2.0 * math.pi * np.outer(np.arange(window // 2 + 1), place) / window
    rows: NDArray[np.float64] = np.concatenate([np.cos(angle) * hann, np.sin(angle) * hann])[:, np.newaxis]
    return rows


def compute_kernels(model: onnx.ModelProto) -> int:
    """Replace every constant that holds such kernels by nodes that compute it; return how many there were."""
    replaced = 0
    for tensor in list(model.graph.initializer):
        if len(tensor.dims) != 3 or tensor.dims[1] != 1 or tensor.dims[0] != 2 * (tensor.dims[2] // 2 + 1):
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values - kernels(tensor.dims[2])).max() > _TOLERANCE:
            continue
        model.graph.initializer.remove(tensor)
        nodes = _arithmetic(tensor.name, tensor.dims[2])
        for node in reversed(nodes):
            model.graph.node.insert(0, node)
        replaced += 1
    onnx.checker.check_model(model)
    return replaced


def _arithmetic(name: str, window: int) -> list[onnx.NodeProto]:
    """Return nodes whose last output is `name`; whole numbers to 2^24 are exact in float32, and no angle is large."""

    def constant(label: str, value: NDArray[np.generic] | float) -> onnx.NodeProto:
        array = np.asarray(value, dtype=np.float32)
        return helper.make_node("Constant", [], [_PREFIX + label], value=numpy_helper.from_array(array))

    def node(operator: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
        names = [_PREFIX + item for item in inputs]
        return helper.make_node(operator, names, [_PREFIX + output], _PREFIX + output, **attributes)

    column = np.arange(window // 2 + 1, dtype=np.float32)[:, np.newaxis, np.newaxis]
    nodes = [
        constant("bins", column),
        constant("places", np.arange(window, dtype=np.float32)[np.newaxis, np.newaxis]),
        constant("window", float(window)),
        constant("turn", 2.0 * math.pi / window),
        constant("half", 0.5),
        node("Mul", ["bins", "places"], "product"),
        node("Mod", ["product", "window"], "phase", fmod=1),
        node("Mul", ["phase", "turn"], "angle"),
        node("Cos", ["angle"], "cosine"),
        node("Sin", ["angle"], "sine"),
        node("Concat", ["cosine", "sine"], "waves", axis=0),
        node("Mul", ["places", "turn"], "place_angle"),
        node("Cos", ["place_angle"], "place_cosine"),
        node("Mul", ["place_cosine", "half"], "half_cosine"),
        node("Sub", ["half", "half_cosine"], "hann"),
    ]
    last = helper.make_node("Mul", [_PREFIX + "waves", _PREFIX + "hann"], [name], _PREFIX + "kernels")
    return [*nodes, last]
