"""A bundle's graph as TensorRT shall read it: every type stands in the ONNX, nothing is left to the builder."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from edge_ser.errors import ConfigError
from export.graph_view import GraphView
from export.qdq_rules import DEQUANTIZE, QUANTIZE, check, quantised_products

KEPT_FLOAT32 = ("LayerNormalization", "Pow", "ReduceMean", "ReduceSum", "Reciprocal", "Softmax", "Sqrt")
"""Sums and quotients, which leave the range or the digits of 16 bits."""


def prepared(graph: bytes, precision: str) -> onnx.ModelProto:
    """Return the graph in a precision.

    Args:
        graph: A serialised ONNX model, of floats or with Q/DQ pairs.
        precision: `int8` keeps the pairs, `fp16` and `fp32` take them out: the weights keep the values of their 8 bits.

    Raises:
        ConfigError: It has no pairs and INT8 is wanted, or it breaks a rule of TensorRT's.
    """
    model = onnx.load_from_string(graph)
    drop_unread(model)
    _fold_dequantised(model, weights_too=precision != "int8")
    if precision == "int8":
        _check_int8(model)
    else:
        _remove_pairs(model)
    if precision == "fp16":
        model = _in_float16(model)
    drop_unread(model)
    _drop_unused_domains(model)
    onnx.checker.check_model(model)
    return model


def _check_int8(model: onnx.ModelProto) -> None:
    if quantised_products(model) == 0:
        raise ConfigError(
            "the bundle's graph has no Q/DQ pairs, so nothing would run in INT8; need an INT8 bundle (python "
            "export/quantize.py --help), or --precision fp16"
        )
    refused = [finding for finding in check(model) if finding.refused]
    if refused:
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        raise ConfigError(
            f"TensorRT would refuse the graph: {refused[0]}{more}; need symmetric INT8; quantise the bundle again: "
            "python export/quantize.py --help"
        )


def _fold_dequantised(model: onnx.ModelProto, weights_too: bool) -> None:
    """Put floats in the place of dequantised INT32 biases, which TensorRT does not read, and perhaps of weights."""
    view = GraphView(model.graph)
    for node in [node for node in model.graph.node if node.op_type == DEQUANTIZE]:
        values = view.constant(node.input[0])
        if values is not None and (weights_too or values.dtype == np.int32):
            folded = numpy_helper.from_array(_dequantised(view, node, values), node.output[0])
            model.graph.initializer.append(folded)
            model.graph.node.remove(node)


def _dequantised(view: GraphView, node: onnx.NodeProto, values: NDArray[np.generic]) -> NDArray[np.float32]:
    scale = view.constant(node.input[1])
    if scale is None:
        raise ConfigError(f"{node.name} has a scale that is no constant; quantise the bundle again")
    zero_point = view.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    assert zero_point is not None
    if scale.size > 1:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        along = [1] * values.ndim
        along[axis] = scale.size
        scale, zero_point = scale.reshape(along), np.broadcast_to(zero_point.reshape(-1), (scale.size,)).reshape(along)
    floats: NDArray[np.float32] = ((values.astype(np.float64) - zero_point) * scale).astype(np.float32)
    return floats.reshape(values.shape)


def in_float(model: onnx.ModelProto, products: Collection[str]) -> onnx.ModelProto:
    """Return an INT8 graph in which these products read floats: where TensorRT has no kernel for them in INT8.

    Args:
        model: The graph.
        products: Names of nodes.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    view = GraphView(changed.graph)
    for node in [node for node in changed.graph.node if node.name in products]:
        for place, name in enumerate(node.input):
            pair = view.producer(name)
            if pair is None or pair.op_type != DEQUANTIZE:
                continue
            source, values = view.producer(pair.input[0]), view.constant(pair.input[0])
            if source is not None and source.op_type == QUANTIZE:
                node.input[place] = source.input[0]
            elif values is not None:
                node.input[place] = f"{name}/for{node.name}"
                folded = numpy_helper.from_array(_dequantised(view, pair, values), node.input[place])
                changed.graph.initializer.append(folded)
    drop_unread(changed)
    onnx.checker.check_model(changed)
    return changed


def _remove_pairs(model: onnx.ModelProto) -> None:
    """Let who reads an activation's pair read the activation."""
    view = GraphView(model.graph)
    before = {}
    for node in model.graph.node:
        source = view.producer(node.input[0]) if node.op_type == DEQUANTIZE else None
        if source is not None and source.op_type == QUANTIZE:
            before[node.output[0]] = source.input[0]
    for node in model.graph.node:
        node.input[:] = [_first(before, name) for name in node.input]


def _first(before: dict[str, str], name: str) -> str:
    while name in before:
        name = before[name]
    return name


def _in_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph in 16-bit floats, all but its spectrum and its sums; inputs and outputs stay as they are."""
    for place, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{place}"
    own = {node.name for node in model.graph.node}
    converted = convert_float_to_float16(
        model,
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *KEPT_FLOAT32],
        node_block_list=sorted(_before_logarithms(model)),
    )
    # It appends its casts at the end, one for each reader, all under the same name.
    _drop_repeated(converted)
    _skip_round_trips(converted, own)
    ordered = OnnxModel(converted)
    ordered.topological_sort()
    result: onnx.ModelProto = ordered.model
    return result


def _drop_repeated(model: onnx.ModelProto) -> None:
    nodes = {tuple(node.output): node for node in reversed(model.graph.node)}
    kept = list(reversed(nodes.values()))
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _skip_round_trips(model: onnx.ModelProto, own: set[str]) -> None:
    """Let nodes in 32 bits read each other: the converter sends what passes between them through 16 bits.

    Args:
        model: What the converter has made.
        own: Names of the nodes that were there before; a cast among them may have turned integers into floats.
    """
    casts = {node.output[0]: node for node in model.graph.node if node.op_type == "Cast" and node.name not in own}
    before = {}
    for name, cast in casts.items():
        narrowed = casts.get(cast.input[0])
        if _target(cast) == TensorProto.FLOAT and narrowed is not None and _target(narrowed) == TensorProto.FLOAT16:
            before[name] = narrowed.input[0]
    for node in model.graph.node:
        node.input[:] = [_first(before, name) for name in node.input]


def _target(cast: onnx.NodeProto) -> int:
    return next(int(attribute.i) for attribute in cast.attribute if attribute.name == "to")


def _before_logarithms(model: onnx.ModelProto) -> set[str]:
    """Return the nodes that a logarithm depends on: powers of a spectrum span more decades than 16 bits can."""
    producers = {output: node for node in model.graph.node for output in node.output}
    waiting = [node for node in model.graph.node if node.op_type == "Log"]
    names: set[str] = set()
    while waiting:
        node = waiting.pop()
        if node.name not in names:
            names.add(node.name)
            waiting += [producers[name] for name in node.input if name in producers]
    return names


def drop_unread(model: onnx.ModelProto) -> None:
    """Drop nodes and stored values that no output depends on."""
    producers = {output: node for node in model.graph.node for output in node.output}
    waiting = [output.name for output in model.graph.output]
    read: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in read:
            read.add(name)
            waiting += [source for source in (producers[name].input if name in producers else ()) if source]
    nodes = [node for node in model.graph.node if read & set(node.output)]
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(tensors)


def _drop_unused_domains(model: onnx.ModelProto) -> None:
    used = {node.domain for node in model.graph.node} | {""}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
