"""How far values inside a graph reach, over sound such as the model will meet: what integers have to cover."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from export.receipt import Inputs, open_session

Ranges = dict[str, tuple[float, float]]
"""Smallest and largest value, by the name of what has it."""


def measure_ranges(graph: Path, nodes: Iterable[str], inputs: Sequence[Inputs]) -> Ranges:
    """Return the ranges of what the given nodes read and put out, over all inputs; they may differ in length.

    Args:
        graph: A prepared graph.
        nodes: Names of nodes.
        inputs: What the graph is told, one utterance each.
    """
    model = onnx.load(str(graph))
    chosen, stored = set(nodes), {tensor.name for tensor in model.graph.initializer}
    ends = [end for node in model.graph.node if node.name in chosen for end in (*node.input[:1], *node.output)]
    given = {item.name for item in model.graph.input}
    names = sorted(set(ends) - stored - given)
    present = {output.name for output in model.graph.output}
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in present
    )
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.onnx"
        onnx.save(model, str(probe))
        session = open_session(probe)
    found: Ranges = {}
    for item in inputs:
        told = {name: item[name] for name in given & set(ends)}
        for name, value in (*zip(names, session.run(names, item), strict=True), *told.items()):
            low, high = found.get(name, (0.0, 0.0))
            found[name] = min(low, float(value.min())), max(high, float(value.max()))
    return found
