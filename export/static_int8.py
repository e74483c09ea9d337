"""Static INT8 as explicit Q/DQ nodes: symmetric, weights per channel, only where it is safe."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from export.ranges import Ranges
from export.receipt import Inputs
from export.rewrite import pointwise_as_products, sums_before_norms

OPERATORS = ("Conv", "MatMul", "Gemm")
KEPT_FLOAT = (
    "/speech/log_mel/",
    "/speech/stem/stem.0/",
    "/fusion/graph/receive/",
    "/fusion/graph/send/",
    "/fusion/cepstrum/",
    "/fusion/image/features/features.0/",
)
"""The front end and what reads it (power spectra span many orders of magnitude), and the scores that decide graph
attention's softmax."""
TABLE_SUFFIX = "/table/Gather"


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands one utterance to the calibrator, which insists on some; the ranges are known already."""

    def __init__(self, inputs: Inputs) -> None:
        self._rest: Iterator[Inputs] = iter([inputs])

    def get_next(self) -> Inputs | None:
        """Return the next inputs, or None at the end."""
        return next(self._rest, None)


def prepare(graph: Path, out: Path) -> None:
    """Write the graph with constants folded, shapes known, and products that integer kernels can take."""
    quant_pre_process(str(graph), str(out), skip_symbolic_shape=True)
    model = onnx.load(str(out))
    pointwise_as_products(model)
    sums_before_norms(model)
    onnx.save(model, str(out))


def quantisable_blocks(graph: Path) -> dict[str, list[str]]:
    """Return the nodes that may become integers, by block, such as `speech/layers.0` or `fusion/graph`.

    A MatMul of two activations (attention) is never among them: static ranges of such products do not survive
    utterances shorter than those seen in calibration.
    """
    model = onnx.load(str(graph))
    constants = {tensor.name for tensor in model.graph.initializer}
    blocks: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.name.startswith(KEPT_FLOAT):
            continue
        weighted = node.op_type in OPERATORS and any(name in constants for name in node.input[1:2])
        if weighted or node.name.endswith(TABLE_SUFFIX):
            blocks.setdefault("/".join(node.name.strip("/").split("/")[:2]), []).append(node.name)
    return blocks


def quantise(graph: Path, out: Path, nodes: Collection[str], ranges: Ranges, example: Inputs) -> None:
    """Write `graph` with the given nodes between Q/DQ pairs.

    Args:
        graph: A prepared graph.
        out: Where the new one goes.
        nodes: Names of nodes.
        ranges: Of what these nodes read and put out.
        example: One utterance.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        quantize_static(
            str(graph),
            str(plain),
            _Reader(example),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*OPERATORS, "Gather"],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=sorted(nodes),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
                "TensorQuantOverrides": {
                    name: [{"rmin": np.float32(low), "rmax": np.float32(high)}] for name, (low, high) in ranges.items()
                },
            },
        )
        model = onnx.load(str(plain))
    _keep_outputs_float(model)
    _keep_other_readers_float(model, set(nodes))
    onnx.checker.check_model(model)
    onnx.save(model, str(out))


def _keep_outputs_float(model: onnx.ModelProto) -> None:
    """Let what the graph puts out be the value before its Q/DQ pair, whose own name the quantizer gave to the pair."""
    producers = {output: node for node in model.graph.node for output in node.output}
    for output in model.graph.output:
        dequantize = producers.get(output.name)
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue
        source = producers[dequantize.input[0]].input[0]
        swapped = {output.name: f"{output.name}_dequantized", source: output.name}
        for node in model.graph.node:
            node.input[:] = [swapped.get(name, name) for name in node.input]
            node.output[:] = [swapped.get(name, name) for name in node.output]


def _keep_other_readers_float(model: onnx.ModelProto, quantised: set[str]) -> None:
    """Let nodes that stay float read the value from before its Q/DQ pair, and give each integer reader its own DQ.

    The quantizer sends every reader of a tensor through one pair, residual additions too: that costs accuracy, and
    integer kernels are chosen only for a dequantised value with one reader. What a convolution puts out stays behind
    its pair, since the convolution becomes an integer one together with it.
    """
    producers = {output: node for node in model.graph.node for output in node.output}
    for node in list(model.graph.node):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for place, name in enumerate(node.input):
            dequantize = producers.get(name)
            if dequantize is None or dequantize.op_type != "DequantizeLinear":
                continue
            quantize = producers.get(dequantize.input[0])
            if quantize is None:
                continue
            source = producers.get(quantize.input[0])
            if node.name not in quantised and (source is None or source.op_type != "Conv"):
                node.input[place] = quantize.input[0]
            else:
                node.input[place] = _own_copy(model, dequantize, node.name, place)
    _drop_unread(model)
    del model.graph.value_info[:]


def _own_copy(model: onnx.ModelProto, dequantize: onnx.NodeProto, reader: str, place: int) -> str:
    copy = onnx.NodeProto()
    copy.CopyFrom(dequantize)
    copy.name = f"{dequantize.name}/for{reader}/{place}"
    copy.output[0] = f"{dequantize.output[0]}/for{reader}/{place}"
    model.graph.node.insert(list(model.graph.node).index(dequantize) + 1, copy)
    return str(copy.output[0])


def _drop_unread(model: onnx.ModelProto) -> None:
    read = {name for node in model.graph.node for name in node.input} | {output.name for output in model.graph.output}
    for node in list(model.graph.node):
        if node.op_type == "DequantizeLinear" and node.output[0] not in read:
            model.graph.node.remove(node)
