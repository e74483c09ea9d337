"""Rules that TensorRT has for a graph with Q/DQ pairs, and where such pairs do harm; found without TensorRT.

    python export/qdq_rules.py BUNDLE

The parser refuses zero points other than 0, types other than INT8, scales that are not positive, and biases in INT32.
Pairs on a residual sum, a layer norm, a softmax or on both sides of attention's products are taken, and cost accuracy:
they are reported, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import onnx
from onnx import TensorProto, helper

from edge_ser.bundle import find_bundle
from edge_ser.errors import EdgeSerError
from export.graph_view import GraphView

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
SUMS_AND_NORMS = ("Add", "Sum", "LayerNormalization", "Softmax")


@dataclass(frozen=True)
class Finding:
    """One broken rule."""

    rule: str
    """Its short name, such as `zero-point`."""
    node: str
    """The node that breaks it."""
    words: str
    """What is wrong with it."""
    refused: bool
    """True where TensorRT refuses the graph; False where it only gets worse."""

    def __str__(self) -> str:
        """Return the finding in one line."""
        return f"{self.node}: {self.words} ({self.rule})"


def check(model: onnx.ModelProto) -> list[Finding]:
    """Return every rule that a graph breaks, those that TensorRT refuses first."""
    view = GraphView(model.graph)
    findings = [finding for node in model.graph.node for finding in _of_node(view, node)]
    return sorted(findings, key=lambda finding: not finding.refused)


def quantised_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the products that get both sides from DequantizeLinear, and so may run in INT8."""
    view = GraphView(model.graph)
    return [
        node
        for node in model.graph.node
        if node.op_type in WEIGHTED and all(view.comes_from(name, DEQUANTIZE) for name in node.input[:2])
    ]


def quantised_products(model: onnx.ModelProto) -> int:
    """Return how many products may run in INT8."""
    return len(quantised_nodes(model))


def _of_node(view: GraphView, node: onnx.NodeProto) -> Iterator[Finding]:
    if node.op_type in (QUANTIZE, DEQUANTIZE):
        yield from _of_pair(view, node)
    elif node.op_type in WEIGHTED:
        yield from _of_product(view, node)
    elif node.op_type in SUMS_AND_NORMS and _rounded(view, node):
        words = f"{node.op_type} reads an activation that went through INT8; keep residual sums and norms in float"
        yield Finding("placement", node.name, words, refused=False)


def _of_pair(view: GraphView, node: onnx.NodeProto) -> Iterator[Finding]:
    scale = view.constant(node.input[1])
    if scale is None:
        yield Finding("scale", node.name, "the scale is no constant", refused=True)
    elif not (scale > 0).all():
        yield Finding("scale", node.name, "a scale is not positive", refused=True)
    kind = _integer_type(view, node)
    if kind == TensorProto.INT32:
        yield Finding("bias", node.name, "INT32 is dequantised; a bias has to be float", refused=True)
    elif kind != TensorProto.INT8:
        name = TensorProto.DataType.Name(kind)
        yield Finding("type", node.name, f"{name} is quantised; need signed INT8", refused=True)
    zero_point = view.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if zero_point is not None and np.any(zero_point != 0):
        yield Finding("zero-point", node.name, "a zero point is not 0; need symmetric INT8", refused=True)
    if scale is not None and scale.size > 1 and not view.is_constant(node.input[0]):
        yield Finding("per-tensor", node.name, "an activation has a scale per channel; need one for all", refused=True)


def _integer_type(view: GraphView, node: onnx.NodeProto) -> int:
    """Return the type on the integer side; without a zero point it is UINT8 by ONNX's rule."""
    if len(node.input) > 2 and node.input[2]:
        return view.element_type(node.input[2])
    if node.op_type == QUANTIZE:
        return int(TensorProto.UINT8)
    source = view.producer(node.input[0])
    if source is not None and source.op_type == QUANTIZE:
        return _integer_type(view, source)
    return view.element_type(node.input[0])


def _of_product(view: GraphView, node: onnx.NodeProto) -> Iterator[Finding]:
    from_integers = [view.comes_from(name, DEQUANTIZE) for name in node.input[:2]]
    of_weights = [view.is_weight(name) for name in node.input[:2]]
    if all(from_integers) and not any(of_weights):
        words = "both sides are activations, as in attention; static ranges do not hold for shorter audio"
        yield Finding("attention", node.name, words, refused=False)
    elif any(from_integers) and not all(from_integers):
        side = "weights" if of_weights[from_integers.index(True)] else "input"
        yield Finding("half", node.name, f"only its {side} went through INT8, so it runs in float", refused=False)
    weights = view.producer(node.input[1])
    if from_integers[1] and of_weights[1] and weights is not None:
        scale = view.constant(weights.input[1])
        axis, need = _axis(view, weights), _output_axis(node)
        if scale is not None and scale.size > 1 and axis != need:
            words = f"its weights have a scale for each entry of axis {axis}; need axis {need}, the output channels"
            yield Finding("axis", node.name, words, refused=True)


def _axis(view: GraphView, pair: onnx.NodeProto) -> int:
    axis = next((int(helper.get_attribute_value(a)) for a in pair.attribute if a.name == "axis"), 1)
    return axis + view.rank(pair.input[0]) if axis < 0 else axis


def _output_axis(node: onnx.NodeProto) -> int:
    if node.op_type == "Gemm":
        transposed = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "transB"), 0)
        return 0 if transposed else 1
    return 0 if node.op_type == "Conv" else 1


def _rounded(view: GraphView, node: onnx.NodeProto) -> bool:
    """Return whether a node reads an activation from INT8, other than what an integer convolution gives."""
    for name in node.input:
        pair = view.producer(name)
        if pair is None or pair.op_type != DEQUANTIZE or view.is_weight(name):
            continue
        quantise = view.producer(pair.input[0])
        source = None if quantise is None else view.producer(quantise.input[0])
        if source is None or source.op_type != "Conv":
            return True
    return False


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 1 if TensorRT would refuse the graph as it stands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="a bundled name or a bundle's folder")
    options = parser.parse_args(argv)
    try:
        bundle = find_bundle(options.bundle)
        findings = [
            finding
            for name in (bundle.base or bundle).manifest.graphs.values()
            for finding in check(onnx.load_from_string(bundle.read(name)))
        ]
    except EdgeSerError as error:
        print(f"qdq_rules: {error}", file=sys.stderr)
        return 1
    for finding in findings:
        print(f"{'refused' if finding.refused else 'worse':<8} {finding}")
    print(f"{len(findings)} findings; build_trt.py folds biases into floats by itself")
    return 1 if any(finding.refused and finding.rule != "bias" for finding in findings) else 0


if __name__ == "__main__":
    raise SystemExit(main())
