"""Dynamic INT8 of matrix products: 8-bit weights per channel, activations measured as they come. For large encoders.

No ranges are learnt, so no calibration sound is needed and no utterance is too short. Convolutions stay float (those of
the wav2vec 2.0 family lose too much), and so do narrow products: the scores of graph attention, gates, and what answers
in the end. A table of word vectors is kept as 8-bit rows, each with a scale of its own.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from export.split_graphs import save_graph

NARROW = 16
"""A product with so few rows or columns stays float."""
SMALLEST_WEIGHTS = 2048
"""Numbers; integers gain nothing below."""
_SMALLEST_TABLE_BYTES = 1 << 20
_NUMBERED = re.compile(r"^(?P<layer>(?:/[^/]+)*?/[^/]+\.\d+)/")
_REPEATED = re.compile(r"_(\d+)(?=/[^/]+$)")


def dynamic_blocks(graph: Path) -> dict[str, list[str]]:
    """Return the nodes that may become integers, by block, such as `layers.3` or `system/co_attention`."""
    model = onnx.load(str(graph), load_external_data=False)
    weights = {tensor.name for tensor in model.graph.initializer if _is_worth_it(tensor)}
    names = [node.name for node in model.graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights]
    repeated = Counter(_REPEATED.sub("", name) for name in names)
    blocks: dict[str, list[str]] = {}
    for name in names:
        blocks.setdefault(_block(name, repeated), []).append(name)
    return blocks


def block_ends(graph: Path, blocks: dict[str, list[str]]) -> dict[str, str]:
    """Return the value that each block's last product makes."""
    model = onnx.load(str(graph), load_external_data=False)
    made = {node.name: node.output[0] for node in model.graph.node}
    return {block: made[names[-1]] for block, names in blocks.items()}


def with_outputs(graph: Path, names: Collection[str], out: Path) -> None:
    """Write a copy of the graph that puts out more of its values; weights outside of the file are not copied."""
    model = onnx.load(str(graph), load_external_data=False)
    present = {output.name for output in model.graph.output}
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in present
    )
    onnx.save(model, str(out))


def _is_worth_it(weights: onnx.TensorProto) -> bool:
    dims = weights.dims
    return len(dims) == 2 and min(dims) > NARROW and dims[0] * dims[1] >= SMALLEST_WEIGHTS


def _block(name: str, repeated: Counter[str]) -> str:
    numbered = _NUMBERED.match(name)
    if numbered:
        return numbered["layer"].strip("/")
    # Layers that are not called as modules repeat their parts' names: q_proj, q_proj_1, q_proj_2 ...
    plain = _REPEATED.sub("", name)
    if repeated[plain] > 1:
        number = _REPEATED.search(name)
        return f"layers.{number[1] if number else 0}"
    return "/".join(name.strip("/").split("/")[:-1][:2])


def quantise_dynamic(graph: Path, out: Path, nodes: Collection[str]) -> None:
    """Write the graph with these products in integers and its large tables of vectors as 8-bit rows.

    Args:
        graph: The float graph.
        out: The file to write.
        nodes: Names of the products; none of them leaves all in floats, tables too.
    """
    if not nodes:
        save_graph(onnx.load(str(graph)), out)
        return
    with tempfile.TemporaryDirectory(dir=out.parent) as folder, _quiet():
        plain = Path(folder) / "model.onnx"
        quantize_dynamic(
            str(graph),
            str(plain),
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=[*sorted(nodes), *(f"{name}_MatMul" for name in sorted(nodes))],
            extra_options={"WeightSymmetric": True, "MatMulConstBOnly": True},
        )
        model = onnx.load(str(plain))
    quantise_tables(model)
    save_graph(model, out)


@contextmanager
def _quiet() -> Iterator[None]:
    # The quantizer advises, in the root logger, to fold constants first, which the exporter has done.
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def quantise_tables(model: onnx.ModelProto) -> int:
    """Replace every large table that rows are looked up in by 8-bit rows and their scales; return how many."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    count = 0
    for place, node in reversed(list(enumerate(model.graph.node))):
        table = tensors.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or len(table.dims) != 2 or table.data_type != TensorProto.FLOAT:
            continue
        if 4 * table.dims[0] * table.dims[1] < _SMALLEST_TABLE_BYTES or _readers(model, table.name) > 1:
            continue
        values = numpy_helper.to_array(table)
        scale = np.maximum(np.abs(values).max(axis=1, keepdims=True), 1e-12).astype(np.float32) / 127.0
        rows = np.rint(values / scale).astype(np.int8)
        model.graph.initializer.remove(table)
        names = [f"{table.name}_{kind}" for kind in ("rows", "scale")]
        model.graph.initializer.extend(
            numpy_helper.from_array(array, name) for array, name in zip((rows, scale), names, strict=True)
        )
        del model.graph.node[place]
        for offset, new in enumerate(_look_up(node, names)):
            model.graph.node.insert(place + offset, new)
        count += 1
    return count


def _readers(model: onnx.ModelProto, name: str) -> int:
    return sum(name in node.input for node in model.graph.node)


def _look_up(node: onnx.NodeProto, tables: list[str]) -> list[onnx.NodeProto]:
    ids, out = node.input[1], node.output[0]
    return [
        helper.make_node("Gather", [tables[0], ids], [f"{out}_rows"], f"{node.name}_rows"),
        helper.make_node("Cast", [f"{out}_rows"], [f"{out}_float"], f"{node.name}_float", to=TensorProto.FLOAT),
        helper.make_node("Gather", [tables[1], ids], [f"{out}_scale"], f"{node.name}_scale"),
        helper.make_node("Mul", [f"{out}_float", f"{out}_scale"], [out], node.name),
    ]
