"""The tiny bundle with Q/DQ pairs, as TensorRT wants them, and spoilt copies of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge_ser.bundle import Bundle
from edge_ser.testing import write_tiny_bundle


def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with both sides of every product of an activation and a weight behind pairs."""
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            weights = tensors[node.input[1]]
            scale = np.maximum(np.abs(weights).max(0), 1e-6).astype(np.float32) / 127
            name = node.output[0]
            for key, values in {
                "weights": np.round(weights / scale).astype(np.int8),
                "weight_scale": scale,
                "weight_zero": np.zeros(scale.size, np.int8),
                "scale": np.float32(1 / 64),
                "zero": np.int8(0),
            }.items():
                model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), f"{name}/{key}"))
            pair = [f"{name}/scale", f"{name}/zero"]
            nodes += [
                helper.make_node("QuantizeLinear", [node.input[0], *pair], [f"{name}/q"], f"{name}/Quantize"),
                helper.make_node("DequantizeLinear", [f"{name}/q", *pair], [f"{name}/dq"], f"{name}/Dequantize"),
                helper.make_node(
                    "DequantizeLinear",
                    [f"{name}/weights", f"{name}/weight_scale", f"{name}/weight_zero"],
                    [f"{name}/wdq"],
                    f"{name}/DequantizeWeights",
                    axis=1,
                ),
            ]
            node.name = f"{name}/MatMul"
            node.input[:] = [f"{name}/dq", f"{name}/wdq"]
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def write_tiny_int8_bundle(
    folder: Path, spoil: Callable[[onnx.ModelProto], object] = lambda model: None, text: bool = True
) -> Path:
    """Write the tiny bundle as an INT8 one; `spoil` may change its graph first."""
    floats = Bundle.open(write_tiny_bundle(folder.with_name(f"{folder.name}-floats"), text=text))
    model = quantised(onnx.load_from_string(floats.read("model.onnx")))
    spoil(model)
    files: dict[str, bytes | Path] = {name: floats.path(name) for name in floats.manifest.files}
    manifest = replace(floats.manifest, precision="int8")
    return Bundle.write(folder, manifest, files | {"model.onnx": model.SerializeToString()}).folder
