"""Rewrites of a graph that leave its answers alone and let ONNX Runtime find faster kernels for it."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
from onnx import helper, numpy_helper


def pointwise_as_products(model: onnx.ModelProto) -> None:
    """Replace convolutions over time of width 1 by MatMul and Add.

    An integer convolution must put out integers, an integer product may put out floats: what residual additions read
    is then not rounded, and no convolution stays in floats because several nodes read it.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in [node for node in model.graph.node if _is_pointwise(node, constants)]:
        weights = constants.pop(node.input[1])
        product = f"{node.name}/product"
        values = np.ascontiguousarray(numpy_helper.to_array(weights)[:, :, 0].T)
        model.graph.initializer.append(numpy_helper.from_array(values, f"{product}/weights"))
        new = [
            helper.make_node("Transpose", [node.input[0]], [f"{product}/0"], f"{product}/0", perm=[0, 2, 1]),
            # The convolution's name: it says which block this is.
            helper.make_node("MatMul", [f"{product}/0", f"{product}/weights"], [f"{product}/1"], node.name),
            helper.make_node("Add", [f"{product}/1", node.input[2]], [f"{product}/2"], f"{product}/2"),
            helper.make_node("Transpose", [f"{product}/2"], [node.output[0]], f"{product}/3", perm=[0, 2, 1]),
        ]
        place = list(model.graph.node).index(node)
        model.graph.node.remove(node)
        for item in reversed(new):
            model.graph.node.insert(place, item)
    drop_unread_constants(model.graph)


def _is_pointwise(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    weights = constants.get(node.input[1]) if node.op_type == "Conv" and len(node.input) == 3 else None
    if weights is None or len(weights.dims) != 3 or weights.dims[2] != 1:
        return False
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return values.get("group", 1) == 1 and values.get("strides", [1]) == [1] and not any(values.get("pads", [0]))


def sums_before_norms(model: onnx.ModelProto) -> None:
    """Replace every Add that only a LayerNormalization reads by Sum.

    ONNX Runtime fuses the two into one kernel that takes several times as long as both do.
    """
    readers = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node.op_type)
    for node in model.graph.node:
        if node.op_type == "Add" and readers[node.output[0]] == ["LayerNormalization"]:
            node.op_type = "Sum"


def lift_constants(graph: onnx.GraphProto) -> None:
    """Let what Constant nodes hold be initializers."""
    for node in [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]:
        tensor = graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        graph.node.remove(node)


def drop_unread_constants(graph: onnx.GraphProto) -> None:
    """Remove initializers that no node reads."""
    read = {name for node in graph.node for name in node.input}
    for tensor in list(graph.initializer):
        if tensor.name not in read:
            graph.initializer.remove(tensor)
