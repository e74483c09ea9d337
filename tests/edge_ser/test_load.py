"""Loading: what runs where, and graphs that are not what their manifest says."""

import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import edge_ser
from edge_ser.backends import open_backend
from edge_ser.bundle import Bundle
from edge_ser.errors import BackendUnavailableError, BundleError, ConfigError
from edge_ser.recognizer import EmotionRecognizer, load
from edge_ser.testing import write_tiny_bundle

SOUND = (0.1 * np.random.default_rng(0).standard_normal(16_000)).clip(-0.99, 0.99).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", attributes=("arousal", "valence"))


def answer(recognizer: EmotionRecognizer) -> dict[str, object]:
    return {**asdict(recognizer.judge(SOUND)), "latency_ms": None}


def test_load_says_in_one_line_what_runs_where_and_why(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="edge_ser"):
        edge_ser.load(str(folder), provider="cpu", threads=3)
    assert len(caplog.messages) == 1
    for words in ("tiny", str(folder), "onnxruntime", "CPU, 3 threads", "asked for: cpu"):
        assert words in caplog.messages[0]


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_threads_do_not_change_the_answer(folder: Path, threads: int | None) -> None:
    one, other = load(folder, threads=1), load(folder, threads=threads)
    assert other.judge(SOUND).probabilities == pytest.approx(dict(one.judge(SOUND).probabilities))


@pytest.mark.parametrize(
    ("provider", "threads", "error", "words"),
    [
        ("cuda", None, BackendUnavailableError, "use --provider cpu"),
        ("tensorrt", None, BackendUnavailableError, "use --provider cpu"),
        ("gpu", None, ConfigError, "auto, cpu, cuda or tensorrt"),
        ("cpu", 0, ConfigError, "--threads 1"),
        ("cpu", -2, ConfigError, "--threads 1"),
    ],
)
def test_what_cannot_run_here_is_said(
    folder: Path, provider: str, threads: int | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        load(folder, provider=provider, threads=threads)


def test_a_missing_onnxruntime_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(BackendUnavailableError, match="pip install onnxruntime"):
        load(folder)


def test_a_graph_that_is_none_is_a_plain_error(folder: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(folder)
    files = {"model.onnx": b"no graph", "tokenizer.json": bundle.read("tokenizer.json")}
    Bundle.write(tmp_path / "b", bundle.manifest, files)
    with pytest.raises(BundleError, match="does not open in ONNX Runtime"):
        load(tmp_path / "b")


MISFITS = [
    ({"text": False}, "the graph's inputs are audio, voice"),
    ({"labels": ("a", "b", "c")}, r"'logits' has shape \[1, 3\] in the graph"),
    ({"attributes": ()}, "the graph's outputs are embedding, frames, logits"),
]


@pytest.mark.parametrize(("change", "words"), MISFITS)
def test_a_graph_that_is_not_the_manifests_is_refused(
    folder: Path, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    bundle = Bundle.open(folder)
    options = {"attributes": ("arousal", "valence"), **change}
    other = Bundle.open(write_tiny_bundle(tmp_path / "other", **options))  # type: ignore[arg-type]
    files = {"model.onnx": other.read("model.onnx"), "tokenizer.json": bundle.read("tokenizer.json")}
    mixed = Bundle.write(tmp_path / "mixed", bundle.manifest, files)
    with pytest.raises(BundleError, match=words):
        open_backend(mixed)


def test_a_graph_of_another_type_is_refused(folder: Path, tmp_path: Path) -> None:
    import onnx

    bundle = Bundle.open(folder)
    model = onnx.load_from_string(bundle.read("model.onnx"))
    cast = onnx.helper.make_node("Cast", ["logits"], ["wide"], to=onnx.TensorProto.DOUBLE)
    model.graph.node.append(cast)
    model.graph.output.append(onnx.helper.make_tensor_value_info("wide", onnx.TensorProto.DOUBLE, [1, 4]))
    for node in model.graph.node:
        node.input[:] = ["raw" if name == "logits" else name for name in node.input]
        node.output[:] = [{"logits": "raw", "wide": "logits"}.get(name, name) for name in node.output]
    kept = [output for output in model.graph.output if output.name not in ("logits", "wide")]
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.DOUBLE, [1, 4]))
    model.graph.output.extend(kept)
    files = {"model.onnx": model.SerializeToString(), "tokenizer.json": bundle.read("tokenizer.json")}
    with pytest.raises(BundleError, match=r"'logits' is tensor\(double\) in the graph"):
        open_backend(Bundle.write(tmp_path / "b", bundle.manifest, files))


def test_a_graph_that_leaves_a_shape_open_is_taken_at_the_manifests_word(folder: Path, tmp_path: Path) -> None:
    import onnx

    bundle = Bundle.open(folder)
    model = onnx.load_from_string(bundle.read("model.onnx"))
    audio = next(item for item in model.graph.input if item.name == "audio")
    audio.type.tensor_type.ClearField("shape")
    files = {"model.onnx": model.SerializeToString(), "tokenizer.json": bundle.read("tokenizer.json")}
    open_shaped = Bundle.write(tmp_path / "b", bundle.manifest, files)
    closed = EmotionRecognizer(bundle, open_backend(bundle))
    assert answer(EmotionRecognizer(open_shaped, open_backend(open_shaped))) == answer(closed)
