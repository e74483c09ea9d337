"""The rules that TensorRT has for Q/DQ graphs: the bundled models keep them, and each broken one is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_ser.bundle import Bundle, bundled_names, find_bundle
from edge_ser.testing import write_tiny_bundle
from export.build_trt import main as build_trt
from export.qdq_rules import Finding, check, main, quantised_products
from export.trt_graph import prepared
from tests.tiny_int8 import quantised, write_tiny_int8_bundle


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")
    return quantised(onnx.load(str(folder / "model.onnx"))).SerializeToString()


@pytest.fixture
def model(tiny: bytes) -> onnx.ModelProto:
    return onnx.load_from_string(tiny)


def replace_tensor(model: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(values, name))


def named(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def pair(model: onnx.ModelProto, value: str, before: onnx.NodeProto, place: int) -> None:
    """Let one input of a node go through INT8."""
    inputs = ["heard/scale", "heard/zero"]
    nodes = [
        helper.make_node("QuantizeLinear", [value, *inputs], ["new_q"], "new_q"),
        helper.make_node("DequantizeLinear", ["new_q", *inputs], ["new_dq"], "new_dq"),
    ]
    before.input[place] = "new_dq"
    at = list(model.graph.node).index(before)
    for node in reversed(nodes):
        model.graph.node.insert(at, node)


@pytest.mark.parametrize("name", bundled_names())
def test_a_bundled_model_keeps_the_rules_once_its_biases_are_floats(name: str) -> None:
    bundle = find_bundle(name)
    for file in bundle.manifest.graphs.values():
        graph = bundle.read(file)
        before = onnx.load_from_string(graph)
        assert {finding.rule for finding in check(before) if finding.refused} <= {"bias"}
        after = prepared(graph, "int8")
        assert [str(finding) for finding in check(after) if finding.refused] == []
        assert quantised_products(after) == quantised_products(before) > 0
        assert not [finding for finding in check(after) if finding.rule in ("attention", "placement")]


def test_a_graph_made_by_the_rules_has_no_finding(model: onnx.ModelProto) -> None:
    assert check(model) == []
    assert quantised_products(model) == 4


def only(model: onnx.ModelProto) -> Finding:
    findings = check(model)
    assert len(findings) == 1, findings
    return findings[0]


def test_a_zero_point_that_is_not_zero_is_refused(model: onnx.ModelProto) -> None:
    replace_tensor(model, "heard/zero", np.array(3, np.int8))
    assert {(f.rule, f.refused) for f in check(model)} == {("zero-point", True)}
    assert {f.node for f in check(model)} == {"heard/Quantize", "heard/Dequantize"}


def test_unsigned_integers_are_refused(model: onnx.ModelProto) -> None:
    replace_tensor(model, "heard/zero", np.array(0, np.uint8))
    assert {(f.rule, f.refused) for f in check(model)} == {("type", True)}
    assert "UINT8 is quantised" in check(model)[0].words


def test_a_pair_without_a_zero_point_is_unsigned_by_the_rules_of_onnx(model: onnx.ModelProto) -> None:
    for name in ("heard/Quantize", "heard/Dequantize"):
        del named(model, name).input[2:]
    assert {f.rule for f in check(model)} == {"type"}


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_a_scale_must_be_positive(model: onnx.ModelProto, scale: float) -> None:
    replace_tensor(model, "heard/scale", np.array(scale, np.float32))
    assert {(f.rule, f.refused) for f in check(model)} == {("scale", True)}


def test_a_scale_must_be_constant(model: onnx.ModelProto) -> None:
    named(model, "heard/Quantize").input[1] = "loudness"
    assert only(model).words == "the scale is no constant"


def test_a_bias_in_int32_is_refused_and_folded(model: onnx.ModelProto, tiny: bytes) -> None:
    bias = helper.make_node("DequantizeLinear", ["bias", "bias_scale"], ["bias_float"], "bias/Dequantize")
    add = helper.make_node("Add", ["heard", "bias_float"], ["heard_more"], "bias/Add")
    total = next(node for node in model.graph.node if node.output[0] == "logits")
    total.input[list(total.input).index("heard")] = "heard_more"
    for node in (bias, add):
        model.graph.node.insert(list(model.graph.node).index(total), node)
    model.graph.initializer.append(numpy_helper.from_array(np.array([100, -200, 0, 4], np.int32), "bias"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "bias_scale"))
    finding = only(model)
    assert (finding.rule, finding.refused, finding.node) == ("bias", True, "bias/Dequantize")
    folded = prepared(model.SerializeToString(), "int8")
    assert check(folded) == []
    floats = next(tensor for tensor in folded.graph.initializer if tensor.name == "bias_float")
    assert numpy_helper.to_array(floats).tolist() == [50.0, -100.0, 0.0, 2.0]


def test_weights_need_a_scale_for_each_output_channel(model: onnx.ModelProto) -> None:
    weights = named(model, "heard/DequantizeWeights")
    weights.attribute[0].i = 0
    replace_tensor(model, "heard/weight_scale", np.ones(2, np.float32))
    replace_tensor(model, "heard/weight_zero", np.zeros(2, np.int8))
    finding = only(model)
    assert (finding.rule, finding.refused, finding.node) == ("axis", True, "heard/MatMul")
    assert "axis 0; need axis 1" in finding.words


@pytest.mark.parametrize(
    ("operator", "attributes", "axis"),
    [("Conv", {}, 0), ("Gemm", {"transB": 1}, 0), ("Gemm", {}, 1), ("ConvTranspose", {}, 1), ("MatMul", {}, 1)],
)
@pytest.mark.parametrize("given", [0, 1, -1])
def test_each_product_has_its_axis(operator: str, attributes: dict[str, int], axis: int, given: int) -> None:
    shape = (3, 3, 3) if operator.startswith("Conv") else (3, 3)
    tensors = {
        "w": np.ones(shape, np.int8),
        "ws": np.ones(3, np.float32),
        "wz": np.zeros(3, np.int8),
        "s": np.float32(1),
        "z": np.int8(0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"], "dq"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wdq"], "wdq", axis=given),
        helper.make_node(operator, ["dq", "wdq"], ["y"], "product", **attributes),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in tensors.items()],
    )
    refused = [finding.rule for finding in check(helper.make_model(graph)) if finding.refused]
    meant = given if given >= 0 else len(shape) + given
    assert refused == ([] if meant == axis else ["axis"])


def test_an_activation_has_one_scale_for_all(model: onnx.ModelProto) -> None:
    replace_tensor(model, "heard/scale", np.ones(2, np.float32))
    replace_tensor(model, "heard/zero", np.zeros(2, np.int8))
    assert {f.rule for f in check(model)} == {"per-tensor"}


def test_a_pair_on_a_residual_sum_is_reported_but_not_refused(model: onnx.ModelProto) -> None:
    add = next(node for node in model.graph.node if node.op_type == "Add")
    pair(model, add.input[0], add, 0)
    finding = only(model)
    assert (finding.rule, finding.refused, finding.node) == ("placement", False, add.name)


def test_attention_between_pairs_is_reported(model: onnx.ModelProto) -> None:
    named(model, "heard/MatMul").input[1] = "embedding/dq"
    findings = {finding.rule: finding for finding in check(model)}
    assert not findings["attention"].refused and findings["attention"].node == "heard/MatMul"


def test_a_product_with_one_side_in_int8_runs_in_float(model: onnx.ModelProto) -> None:
    named(model, "heard/MatMul").input[0] = "features"
    assert (only(model).rule, only(model).words) == ("half", "only its weights went through INT8, so it runs in float")
    assert quantised_products(model) == 3


def test_the_build_refuses_a_broken_graph_before_it_looks_for_a_gpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tiny_int8_bundle(
        tmp_path / "bad", lambda model: replace_tensor(model, "heard/zero", np.array(3, np.int8))
    )
    assert build_trt([str(folder), "--plan", "--engine-dir", str(tmp_path / "engines")]) == 1
    said = capsys.readouterr().err
    assert "TensorRT would refuse the graph: heard/Quantize: a zero point is not 0" in said and "and 1 more" in said


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write_tiny_int8_bundle(tmp_path / "good")
    assert main([str(good)]) == 0
    assert capsys.readouterr().out.startswith("0 findings")
    bad = write_tiny_int8_bundle(
        tmp_path / "bad", lambda model: replace_tensor(model, "heard/scale", np.array(0, np.float32))
    )
    assert main([str(bad)]) == 1
    assert capsys.readouterr().out.startswith("refused  heard/Quantize: a scale is not positive (scale)")
    assert main([str(tmp_path / "none")]) == 1


def test_halves_do_not_touch_what_a_logarithm_reads(tiny: bytes) -> None:
    model = prepared(tiny, "fp16")
    producers = {output: node for node in model.graph.node for output in node.output}
    logarithm = next(node for node in model.graph.node if node.op_type == "Log")
    waiting, seen = [logarithm.input[0]], set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting += producers[name].input if name in producers else []
    halves = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    assert halves and not seen & halves
    assert "Cast" not in {producers[name].op_type for name in seen if name in producers}


def test_an_opened_graph_is_left_as_it_was(tmp_path: Path) -> None:
    bundle = Bundle.open(write_tiny_int8_bundle(tmp_path / "tiny"))
    graph = bundle.read("model.onnx")
    for precision in ("int8", "fp16", "fp32"):
        assert prepared(graph, precision).SerializeToString() == prepared(graph, precision).SerializeToString()
    assert bundle.read("model.onnx") == graph
