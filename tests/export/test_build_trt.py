"""Engines: what is planned, built, refused and kept; with fakes of TensorRT and CUDA that compute on the CPU."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge_ser
from edge_ser.adapt import adapt
from edge_ser.backends import open_backend
from edge_ser.bundle import Bundle, bundled_names, find_bundle
from edge_ser.errors import BackendUnavailableError, ConfigError, EngineMismatchError
from edge_ser.shots import list_shots
from edge_ser.testing import write_tiny_bundle
from export.build_trt import in_onnx_runtime, main
from export.trt_builder import count_layers
from export.trt_parity import BUDGETS, Inputs, compare, stored_inputs
from export.trt_plan import Wanted, make_plan
from tests import fake_tensorrt
from tests.edge_ser.test_adapt import tone, write_shots
from tests.fake_tensorrt import DESK, ORIN, FakeTensorrt
from tests.tiny_int8 import write_tiny_int8_bundle

NAME = "tiny-nvidia-rtx-4000-ada-trt10.3.0-int8.engine"


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    return tmp_path / "engines"


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> FakeTensorrt:
    return fake_tensorrt.install(monkeypatch)


def build(engines: Path, *words: str) -> int:
    return main([*words, "--engine-dir", str(engines)])


@pytest.fixture(scope="module")
def tiny_int8(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_int8_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))


# What is planned, on any machine


@pytest.mark.parametrize("model", bundled_names())
def test_the_plan_of_a_bundled_model_is_json_and_needs_neither_gpu_nor_tensorrt(
    model: str, engines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(engines, model, "--plan") == 0
    plan = json.loads(capsys.readouterr().out)
    manifest = find_bundle(model).manifest
    assert plan["precision"] == "int8" and plan["network"]["strongly_typed"]
    assert plan["network"]["products_to_run_in_int8"] > 0
    assert plan["engine"] == str(engines / f"{model}-GPU-trtVERSION-int8.engine")
    fewest, most = round(manifest.min_duration_s * 16_000), round(manifest.max_duration_s * 16_000)
    assert plan["profiles"][0]["audio"]["min"] == f"1x{fewest}"
    assert plan["profiles"][-1]["audio"]["max"] == f"1x{most}"
    assert len(plan["here"]["missing"]) == 2
    assert not engines.exists()


def test_without_tensorrt_nothing_is_built_and_one_line_says_why(
    tiny_int8: str, engines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(engines, tiny_int8) == 1
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1
    assert "tensorrt is not importable here" in said.err and "JetPack" in said.err


def test_the_plan_says_what_this_machine_has(
    tiny_int8: str, engines: Path, tensorrt: FakeTensorrt, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(engines, tiny_int8, "--plan") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["here"] == {"gpu": DESK.name, "tensorrt": "10.3.0", "missing": []}
    assert plan["engine"].endswith(NAME)
    assert plan["timing_cache"].endswith("nvidia-rtx-4000-ada-trt10.3.0.timing")


def test_ranges_of_lengths_meet_and_cover_all_that_the_model_takes(tmp_path: Path) -> None:
    bundle = Bundle.open(write_tiny_bundle(tmp_path / "tiny"))
    plan = make_plan(bundle, Wanted("fp32", buckets_s=(3.0, 1.0, 20.0, 0.1)))
    audio = [profile["audio"] for profile in plan.profiles]
    assert [shapes.smallest for shapes in audio] == [(1, 4000), (1, 16_000), (1, 48_000)]
    assert [shapes.largest for shapes in audio] == [(1, 16_000), (1, 48_000), (1, 128_000)]
    assert plan.profiles[0]["text_ids"].largest == (1, 16)
    one = make_plan(bundle, Wanted("fp32", buckets_s=()))
    assert len(one.profiles) == 1


def test_a_batch_needs_a_graph_that_takes_one(tmp_path: Path) -> None:
    bundle = Bundle.open(write_tiny_bundle(tmp_path / "tiny"))
    with pytest.raises(ConfigError, match="one utterance at a time"):
        make_plan(bundle, Wanted("fp32", batch=4))
    free = with_free_batch(bundle, tmp_path / "free")
    plan = make_plan(free, Wanted("fp32", batch=4))
    assert plan.profiles[0]["audio"].smallest == (1, 4000)
    assert plan.profiles[0]["audio"].largest == (4, 16_000)
    assert plan.profiles[0]["voice"].largest[0] == 4


def with_free_batch(bundle: Bundle, folder: Path) -> Bundle:
    import onnx

    model = onnx.load_from_string(bundle.read("model.onnx"))
    for item in model.graph.input:
        item.type.tensor_type.shape.dim[0].dim_param = "batch"
    files: dict[str, bytes | Path] = {name: bundle.path(name) for name in bundle.manifest.files}
    return Bundle.write(folder, bundle.manifest, files | {"model.onnx": model.SerializeToString()})


def test_an_int8_engine_of_a_model_of_floats_is_refused(
    tmp_path: Path, engines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tiny_bundle(tmp_path / "tiny")
    assert build(engines, str(folder), "--plan", "--precision", "int8") == 1
    assert "export/quantize.py" in capsys.readouterr().err
    assert build(engines, str(folder), "--plan") == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "fp16"


@pytest.fixture(scope="module")
def bundled_inputs() -> dict[float, list[Inputs]]:
    inputs = stored_inputs(find_bundle("mdat-int8"))
    # The first of the four at each length begins in silence, about which no answer is right; the second knows a voice.
    return {seconds: items[1:2] for seconds, items in inputs.items() if seconds <= 2}


@pytest.mark.parametrize("precision", ["int8", "fp16", "fp32"])
def test_the_graph_that_tensorrt_reads_answers_as_the_bundled_model_does(
    precision: str, bundled_inputs: dict[float, list[Inputs]]
) -> None:
    plan = make_plan(find_bundle("mdat-int8"), Wanted(precision))
    reference, other = open_backend(plan.bundle, "cpu").run, in_onnx_runtime(plan.graph.SerializeToString())
    parity = compare(reference, other, bundled_inputs)
    assert parity.fits(plan.budget) and parity.agreement == 1.0
    types = {tensor.data_type for tensor in plan.graph.graph.initializer}
    assert (10 in types) == (precision == "fp16") and (3 in types) == (precision == "int8")


# What is built


def test_an_engine_is_built_kept_and_found_by_the_runtime(
    tiny_int8: str, engines: Path, tensorrt: FakeTensorrt, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(engines, tiny_int8) == 0
    receipt = json.loads(capsys.readouterr().out)
    assert receipt["engine"] == str(engines / NAME)
    assert receipt["layers"]["int8"] == 1 and min(receipt["parity"]["cosine"].values()) > 0.999
    assert receipt["environment"]["tensorrt"] == "10.3.0"
    samples = np.sin(np.arange(24_000) / 20).astype(np.float32) * 0.1
    recognizer = edge_ser.load(tiny_int8, provider="tensorrt", engine_dir=engines)
    expected = edge_ser.load(tiny_int8, provider="cpu").judge(samples).probabilities
    assert recognizer.judge(samples).probabilities == pytest.approx(dict(expected), abs=1e-4)


def test_what_is_kept_is_readable_by_its_owner_alone(tiny_int8: str, engines: Path, tensorrt: FakeTensorrt) -> None:
    before = os.umask(0)
    try:
        assert build(engines, tiny_int8) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(engines.stat().st_mode) == 0o700
    files = sorted(engines.iterdir())
    assert [path.name for path in files] == ["nvidia-rtx-4000-ada-trt10.3.0.timing", NAME, f"{NAME}.json"]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)


def test_the_network_is_strongly_typed_and_floats_keep_32_bits(
    tiny_int8: str, engines: Path, tensorrt: FakeTensorrt
) -> None:
    assert build(engines, tiny_int8, "--workspace-mb", "64") == 0
    assert tensorrt.network is not None and tensorrt.config is not None
    assert tensorrt.network._flags == 1 << int(fake_tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert not tensorrt.config._flags
    assert tensorrt.config._pools == {0: 64 << 20}
    assert tensorrt.config.profiling_verbosity == fake_tensorrt.ProfilingVerbosity.DETAILED
    shapes = [profile._shapes for profile in tensorrt.config._profiles]
    assert all("voice" not in profile and "audio" in profile for profile in shapes), "only what varies has a range"


def test_what_is_built_is_left_as_it_is_until_asked_again(
    tiny_int8: str, engines: Path, tensorrt: FakeTensorrt, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(engines, tiny_int8) == 0
    first = (engines / NAME).stat().st_mtime_ns
    tensorrt.builder_says = "must not be asked"
    assert build(engines, tiny_int8, "--sound", "must not be read") == 0
    assert (engines / NAME).stat().st_mtime_ns == first
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["engine"].endswith(NAME)
    assert build(engines, tiny_int8, "--again") == 1


def test_timings_are_kept_for_the_next_build(tiny_int8: str, engines: Path, tensorrt: FakeTensorrt) -> None:
    assert build(engines, tiny_int8) == 0
    assert build(engines, tiny_int8, "--precision", "fp16") == 0
    cache = engines / "nvidia-rtx-4000-ada-trt10.3.0.timing"
    assert cache.read_bytes() == b"timed;timed;"
    assert {path.name for path in engines.glob("*.engine")} == {NAME, NAME.replace("-int8.engine", "-fp16.engine")}


def test_a_product_that_has_no_kernel_in_int8_goes_back_to_float(
    tiny_int8: str, engines: Path, tensorrt: FakeTensorrt, capsys: pytest.CaptureFixture[str]
) -> None:
    tensorrt.no_kernel_for = {"heard/MatMul", "embedding/MatMul"}
    assert build(engines, tiny_int8) == 0
    said = capsys.readouterr()
    receipt = json.loads(said.out)
    assert sorted(receipt["products_back_to_float"]) == ["embedding/MatMul", "heard/MatMul"]
    assert receipt["products_to_run_in_int8"] == 2
    assert min(receipt["parity"]["cosine"].values()) > 0.99
    assert "no kernel in INT8, back to float: heard/MatMul" in said.err


def test_an_adapted_model_runs_the_engine_of_its_base(tmp_path: Path, engines: Path, tensorrt: FakeTensorrt) -> None:
    base = write_tiny_bundle(tmp_path / "tiny")
    clips = write_shots(tmp_path / "shots", {"happy": 5, "sad": 5})
    adapt(base, list_shots(clips), tmp_path / "mine", threads=1)
    assert build(engines, str(tmp_path / "mine"), "--precision", "fp32") == 0
    assert [path.name for path in engines.glob("*.engine")] == [NAME.replace("int8", "fp32")]
    samples = tone(150.0, 1)
    on_gpu = edge_ser.load(tmp_path / "mine", provider="tensorrt", engine_dir=engines).judge(samples)
    on_cpu = edge_ser.load(tmp_path / "mine", provider="cpu").judge(samples)
    assert on_gpu.probabilities == pytest.approx(dict(on_cpu.probabilities), abs=1e-4)


# What is refused


def test_an_engine_that_answers_otherwise_is_not_kept(
    tiny_int8: str, engines: Path, tensorrt: FakeTensorrt, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    tensorrt.spoil = lambda name, values: values + rng.normal(0, 1, values.shape).astype(values.dtype)
    assert build(engines, tiny_int8) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("build_trt: the engine answers otherwise") and "need a cosine of 0.99" in said
    assert list(engines.glob("*.engine*")) == []


def test_an_engine_that_answers_with_nan_is_not_kept(tiny_int8: str, engines: Path, tensorrt: FakeTensorrt) -> None:
    tensorrt.spoil = lambda name, values: values * np.float32(np.nan)
    assert build(engines, tiny_int8) == 1
    assert list(engines.glob("*.engine*")) == []


def test_an_int8_engine_without_an_int8_layer_is_not_kept(
    tiny_int8: str, engines: Path, tensorrt: FakeTensorrt, capsys: pytest.CaptureFixture[str]
) -> None:
    tensorrt.layers = 105 * [{"LayerType": "gemm", "Inputs": [{"Format/Datatype": "Half"}]}]
    assert build(engines, tiny_int8) == 1
    assert "none of the engine's 105 layers in INT8" in capsys.readouterr().err
    assert list(engines.glob("*.engine*")) == []
    assert build(engines, tiny_int8, "--precision", "fp16") == 0


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"parser_says": "No importer registered for op: Foo"}, "does not read the graph: No importer registered"),
        ({"builder_says": "Could not find any implementation for node X"}, "use --precision fp16"),
        ({"builder_says": "Requested amount of GPU memory could not be allocated"}, "4000 MB are free"),
        ({"starts": False}, "CUDA initialization failure with error: 35"),
        ({"__version__": "8.6.1"}, "TensorRT 8.6.1 is too old"),
    ],
)
def test_what_goes_wrong_is_said_in_one_line(
    fault: dict[str, Any],
    words: str,
    tiny_int8: str,
    engines: Path,
    tensorrt: FakeTensorrt,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in fault.items():
        setattr(tensorrt, name, value)
    assert build(engines, tiny_int8) == 1
    said = capsys.readouterr().err.splitlines()
    assert words in said[-1] and said[-1].startswith("build_trt: ")
    assert len([line for line in said if not line.startswith("building ")]) == 1
    assert list(engines.glob("*.engine*")) == []


def test_a_gpu_without_memory_is_said(
    tiny_int8: str, engines: Path, tensorrt: FakeTensorrt, capsys: pytest.CaptureFixture[str]
) -> None:
    tensorrt.cuda.free_bytes = 1000
    assert build(engines, tiny_int8) == 1
    assert "the GPU's memory is used up" in capsys.readouterr().err


def test_a_sound_that_is_missing_is_said(
    tiny_int8: str, engines: Path, capsys: pytest.CaptureFixture[str], tensorrt: FakeTensorrt
) -> None:
    assert build(engines, tiny_int8, "--sound", "nowhere.wav") == 1
    assert "use --sound FILE" in capsys.readouterr().err


# An engine elsewhere


def test_an_engine_of_another_gpu_or_version_is_a_mismatch(
    tiny_int8: str, engines: Path, tensorrt: FakeTensorrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build(engines, tiny_int8) == 0
    fake_tensorrt.install(monkeypatch, ORIN, "10.13.3")
    with pytest.raises(
        EngineMismatchError, match=r"was built for NVIDIA RTX 4000 Ada \+ TensorRT 10.3.0; this is orin"
    ):
        edge_ser.load(tiny_int8, provider="tensorrt", engine_dir=engines)
    assert edge_ser.load(tiny_int8, engine_dir=engines)  # auto goes on without


def test_an_engine_of_another_version_of_the_model_is_a_mismatch(
    tmp_path: Path, engines: Path, tensorrt: FakeTensorrt
) -> None:
    old = write_tiny_bundle(tmp_path / "old")
    assert build(engines, str(old), "--precision", "fp32") == 0
    new = write_tiny_bundle(tmp_path / "new", labels=("calm", "moved"))
    with pytest.raises(EngineMismatchError, match="from another version of 'tiny'"):
        edge_ser.load(new, provider="tensorrt", engine_dir=engines)


def test_no_engine_yet_says_what_to_type(tiny_int8: str, engines: Path, tensorrt: FakeTensorrt) -> None:
    with pytest.raises(BackendUnavailableError, match=r"type: python export/build_trt.py tiny"):
        edge_ser.load(tiny_int8, provider="tensorrt", engine_dir=engines)


def test_a_file_that_tensorrt_does_not_take_is_a_mismatch(
    tiny_int8: str, engines: Path, tensorrt: FakeTensorrt
) -> None:
    assert build(engines, tiny_int8) == 0
    (engines / NAME).write_bytes(b"something else")
    with pytest.raises(EngineMismatchError, match="damaged or changed"):
        edge_ser.load(tiny_int8, provider="tensorrt", engine_dir=engines)


# Counting layers


@pytest.mark.parametrize(
    ("layer", "counted"),
    [
        ({"LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": "Row major Int8 format"}]}, "int8"),
        ({"LayerType": "gemm", "Inputs": [{"Format/Datatype": "Half"}]}, "fp16"),
        ({"LayerType": "gemm", "Inputs": [{"Format": "Row major linear", "DataType": "Float"}]}, "fp32"),
        ({"LayerType": "gemm", "Inputs": [{"Format": "Row major linear INT8 format", "DataType": "Int8"}]}, "int8"),
        ({"LayerType": "kgen", "Inputs": [{"Format/Datatype": "Float"}], "TacticName": "sm80_xmma_i8i8_i8"}, "int8"),
        ({"LayerType": "Reformat", "Inputs": [{"Format/Datatype": "Int8"}]}, "other"),
        ({"LayerType": "gather", "Inputs": [{"Format/Datatype": "Int64"}]}, "other"),
        ("only a name", "other"),
    ],
)
def test_a_layer_counts_by_what_it_computes_from(layer: Any, counted: str) -> None:
    counts = count_layers(json.dumps({"Layers": [layer], "Bindings": []}))
    assert counts == dict.fromkeys(counts, 0) | {counted: 1}


def test_parity_of_a_graph_with_itself_is_perfect_and_spoilt_answers_are_out_of_budget(tmp_path: Path) -> None:
    bundle = Bundle.open(write_tiny_bundle(tmp_path / "tiny"))
    inputs, run = stored_inputs(bundle), open_backend(bundle, "cpu").run
    assert compare(run, run, inputs).fits(BUDGETS["fp32"])
    spoilt = compare(run, lambda item: {k: v[:, ::-1] for k, v in run(item).items()}, inputs)
    assert not spoilt.fits(BUDGETS["int8"])
