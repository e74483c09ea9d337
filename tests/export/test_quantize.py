"""INT8 is written with proof or not at all; its proof can be repeated."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the press needs torch: pip install -e '.[export]'")
onnx = pytest.importorskip("onnx", reason="the press needs onnx: pip install -e '.[export]'")

from onnx import numpy_helper  # noqa: E402

from edge_ser.bundle import Bundle  # noqa: E402
from edge_ser.frontend import FrontEnd  # noqa: E402
from export import static_int8  # noqa: E402
from export.check_parity import main as check_parity  # noqa: E402
from export.material import read_material  # noqa: E402
from export.quantize import main as quantize  # noqa: E402
from export.ranges import measure_ranges  # noqa: E402
from export.receipt import open_session  # noqa: E402
from export.static_int8 import prepare, quantisable_blocks  # noqa: E402
from export.trt_parity import stored_inputs  # noqa: E402

BLOCK = "speech/layers.0"
OTHERS = ("speech/blocks.0", "fusion/text_layer")


def damage(graph: Path, *, floats: bool) -> None:
    """Spoil what one block's products are multiplied by: the scale of its integers or, on demand, its floats."""
    model = onnx.load(str(graph))
    blocks = {name for name in (f"/{BLOCK}/up/MatMul", f"/{BLOCK}/down/MatMul")}
    scales = {node.output[0]: node.input[1] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    read = {node.input[1] for node in model.graph.node if node.name in blocks}
    spoilt = {scales.get(name, name if floats else "") for name in read}
    for tensor in model.graph.initializer:
        if tensor.name in spoilt:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array((values * 40.0).astype(np.float32), tensor.name))
    onnx.save(model, str(graph))


def altered(bundle: Bundle, out: Path, graph: Path | None = None, **fields: object) -> Path:
    """Write the bundle with another graph or other fields of its manifest."""
    files = {name: bundle.path(name) for name in bundle.manifest.files}
    manifest = replace(bundle.manifest, **fields)  # type: ignore[arg-type]
    Bundle.write(out, manifest, files | ({} if graph is None else {"model.onnx": graph}))
    return out


def spoilt_quantiser(*, floats: bool) -> Callable[..., None]:
    def quantise(graph: Path, out: Path, *rest: object, **more: object) -> None:
        static_int8.quantise(graph, out, *rest, **more)  # type: ignore[arg-type]
        damage(out, floats=floats)

    return quantise


def few_blocks(graph: Path) -> dict[str, list[str]]:
    return {name: nodes for name, nodes in quantisable_blocks(graph).items() if name in (BLOCK, *OTHERS)}


@pytest.mark.parametrize("floats", [True, False])
def test_a_corrupt_block_is_never_written_as_integers(
    floats: bool,
    fp32_bundle: Path,
    miniature: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Damage that goes with the integers sends the block back to float; damage that stays refuses the build."""
    monkeypatch.setattr("export.quantize.quantisable_blocks", few_blocks)
    for module in ("quantize", "trial"):
        monkeypatch.setattr(f"export.{module}.quantise", spoilt_quantiser(floats=floats))
    out = tmp_path / "int8"
    code = quantize([str(fp32_bundle), "--calibration", str(miniature), "--out", str(out), "--points", "20"])
    error = capsys.readouterr().err
    assert f"{BLOCK} goes back to float" in error
    if floats:
        assert code == 1 and not out.exists()
        assert "nothing written" in error.splitlines()[-1] and BLOCK in error.splitlines()[-1]
        return
    rows = json.loads(Bundle.open(out).read("receipt.json"))["blocks"]
    assert code == 0
    assert next(row for row in rows if row["name"] == BLOCK)["precision"] == "fp32"
    assert [row["precision"] for row in rows if row["name"] != BLOCK] == ["int8", "int8"]


def test_what_check_parity_replays_is_measured_before_anything_is_kept(fp32_bundle: Path, miniature: Path) -> None:
    bundle = Bundle.open(fp32_bundle)
    measured = read_material(bundle, miniature).lengths
    for seconds, replayed in stored_inputs(bundle).items():
        assert len(measured[seconds]) > len(replayed)
        for inputs in replayed:
            same = ({name: np.array_equal(found[name], inputs[name]) for name in inputs} for found in measured[seconds])
            assert any(all(every.values()) for every in same), f"a crop of {seconds} s is replayed, but not measured"


def test_an_int8_bundle_cannot_be_quantised_again(
    fp32_bundle: Path, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = altered(Bundle.open(fp32_bundle), tmp_path / "int8", precision="int8")
    assert quantize([str(other), "--calibration", str(miniature), "--out", str(tmp_path / "again")]) == 1
    assert "need an fp32 bundle" in capsys.readouterr().err


def test_the_prepared_graph_answers_as_before_without_pointwise_convolutions(fp32_bundle: Path, tmp_path: Path) -> None:
    bundle, prepared = Bundle.open(fp32_bundle), tmp_path / "prepared.onnx"
    source = bundle.path("model.onnx")
    prepare(source, prepared)
    samples = np.random.default_rng(1).standard_normal(20_000).astype(np.float32) * np.float32(0.1)
    inputs = FrontEnd(bundle).inputs(samples, "I hate this")
    for expected, got in zip(*(open_session(path).run(None, inputs) for path in (source, prepared)), strict=True):
        assert np.allclose(expected, got, atol=1e-5)
    assert "/speech/squeeze/Conv" in quantisable_blocks(prepared)["speech/squeeze"]
    kinds = {node.name: node.op_type for node in onnx.load(str(prepared)).graph.node}
    assert kinds["/speech/squeeze/Conv"] == "MatMul"


def test_ranges_cover_utterances_of_any_length(fp32_bundle: Path, tmp_path: Path) -> None:
    bundle, prepared = Bundle.open(fp32_bundle), tmp_path / "prepared.onnx"
    prepare(bundle.path("model.onnx"), prepared)
    nodes = quantisable_blocks(prepared)[BLOCK]
    rng = np.random.default_rng(2)
    clips = [
        FrontEnd(bundle).inputs(rng.standard_normal(size).astype(np.float32) * np.float32(0.1))
        for size in (8000, 30_000)
    ]
    both, single = measure_ranges(prepared, nodes, clips), [measure_ranges(prepared, nodes, [clip]) for clip in clips]
    assert both and all(low < 0.0 < high or low == 0.0 < high for low, high in both.values())
    for name, (low, high) in both.items():
        assert low == min(one[name][0] for one in single) and high == max(one[name][1] for one in single)


def test_parity_of_a_bundle_with_itself_and_with_a_corrupt_form(
    fp32_bundle: Path, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "found.json"
    words = [str(fp32_bundle), str(fp32_bundle), "--data", str(miniature), "--out", str(found)]
    assert check_parity(words) == 0
    said = capsys.readouterr().out
    assert "cold: UA" in said and "+0.00 points" in said
    figures = json.loads(found.read_text())
    assert list(figures["cosine"]) == ["0.4", "0.5", "1", "2", "4", "8"] and min(figures["cosine"].values()) > 0.99999
    clips = figures["clips"]
    assert clips["clips"] >= 16 and clips["warm"]["agreement"] == 1.0 and clips["warm"]["points_interval"] == [0.0, 0.0]

    bundle, graph = Bundle.open(fp32_bundle), tmp_path / "model.onnx"
    graph.write_bytes(bundle.read("model.onnx"))
    model = onnx.load(str(graph))
    weights = next(node.input[1] for node in model.graph.node if node.name == f"/{BLOCK}/up/MatMul")
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == weights)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(-40.0), weights))
    onnx.save(model, str(graph))
    corrupt = altered(bundle, tmp_path / "corrupt", graph)
    assert check_parity([str(fp32_bundle), str(corrupt)]) == 1
    assert "out of budget" in capsys.readouterr().err


def test_parity_wants_two_forms_of_one_model(
    fp32_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Bundle.open(fp32_bundle)
    other = altered(bundle, tmp_path / "other", labels=tuple(reversed(bundle.manifest.labels)))
    for second, words in ((str(other), "need two forms of one model"), ("no-such-model", "no-such-model")):
        assert check_parity([str(fp32_bundle), second]) == 1
        assert words in capsys.readouterr().err
