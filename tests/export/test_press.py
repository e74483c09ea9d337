"""The press end to end: checkpoint, fp32 bundle, INT8 bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the press needs torch: pip install -e '.[export]'")
onnx = pytest.importorskip("onnx", reason="the press needs onnx: pip install -e '.[export]'")

import edge_ser  # noqa: E402
import export.to_onnx  # noqa: E402
from edge_ser.bundle import Bundle  # noqa: E402
from edge_ser.corpus import read_manifest  # noqa: E402
from edge_ser.quality import spoken_part  # noqa: E402
from edge_ser.sources import read_samples  # noqa: E402
from export.card import main as card  # noqa: E402
from export.quantize import main as quantize  # noqa: E402
from export.receipt import count_operators, open_session  # noqa: E402
from export.spectrum import shorten_transforms  # noqa: E402
from train.students.keep import read_student  # noqa: E402


@pytest.fixture(scope="module")
def int8_bundle(fp32_bundle: Path, miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("int8") / "tiny-int8"
    # Two epochs on a miniature corpus leave logits near ties: the UA may move more than a trained model's.
    manifest = miniature / "speech" / "manifest.csv"
    words = [str(fp32_bundle), "--calibration", str(manifest), "--out", str(out), "--points", "20"]
    assert quantize([*words, "--target", "tensorrt"]) == 0
    return out


def test_the_bundle_answers_like_the_checkpoint_it_came_from(
    fp32_bundle: Path, checkpoints: Path, miniature: Path
) -> None:
    import torch

    model, _ = read_student(checkpoints / "mdat.safetensors")
    recognizer = edge_ser.load(fp32_bundle)
    nothing = torch.zeros(1, 1, dtype=torch.long)
    for clip in read_manifest(miniature / "speech" / "manifest.csv")[::17]:
        samples = read_samples(clip.path)
        with torch.no_grad():
            logits = model(torch.from_numpy(spoken_part(samples)[1])[None], nothing, nothing, torch.zeros(1, 65))[0]
        expected = torch.softmax(logits[0], -1).numpy()
        event = recognizer.recognize(samples)
        assert np.allclose([event.probabilities[label] for label in recognizer.labels], expected, atol=1e-4)


def test_a_graph_that_differs_from_pytorch_is_not_written(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = export.to_onnx.export_graph

    def write_wrong(model: object, path: Path) -> None:
        write(model, path)  # type: ignore[arg-type]
        graph = onnx.load(str(path))
        bias = next(t for t in graph.graph.initializer if t.name == "fusion.classifier.3.bias")
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
        onnx.save(graph, str(path))

    monkeypatch.setattr(export.to_onnx, "export_graph", write_wrong)
    checkpoint = checkpoints / "mdat.safetensors"
    assert export.to_onnx.main([str(checkpoint), "--out", str(tmp_path / "out")]) == 1
    assert "nothing written" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pressed", ["fp32_bundle", "int8_bundle"])
def test_an_utterance_can_be_judged_again_without_its_sound(
    pressed: str, miniature: Path, request: pytest.FixtureRequest
) -> None:
    recognizer = edge_ser.load(request.getfixturevalue(pressed))
    for clip in read_manifest(miniature / "speech" / "manifest.csv")[::31]:
        samples = read_samples(clip.path)
        _, heard = recognizer.listen(samples)
        again, _ = recognizer.judge_again(heard, transcript="I hate this")
        assert again.text_used
        expected = recognizer.judge(samples, transcript="I hate this").probabilities
        assert again.probabilities == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("system", ["hump-cat", "camulenet", "mha", "lora"])
def test_every_student_becomes_a_bundle_that_answers(
    system: str, checkpoints: Path, miniature: Path, tmp_path: Path
) -> None:
    assert export.to_onnx.main([str(checkpoints / f"{system}.safetensors"), "--out", str(tmp_path / system)]) == 0
    recognizer = edge_ser.load(tmp_path / system)
    voice = edge_ser.VoiceProfile()
    clip = read_manifest(miniature / "speech" / "manifest.csv")[0]
    for _ in range(2):
        event = recognizer.recognize(read_samples(clip.path), voice=voice, transcript="I hate this")
        assert sum(event.probabilities.values()) == pytest.approx(1.0)
        assert event.text_used == (system == "mha")
    # Students over one encoder share its space: the voice that one has learnt serves the others.
    other = "lora" if system != "lora" else "mha"
    assert export.to_onnx.main([str(checkpoints / f"{other}.safetensors"), "--out", str(tmp_path / other)]) == 0
    answer = edge_ser.load(tmp_path / other).judge(read_samples(clip.path), voice=voice)
    assert answer.voice_utterances == voice.utterances - 1


def test_the_short_transform_says_what_the_plain_convolution_says(checkpoints: Path, tmp_path: Path) -> None:
    """The front end is rewritten at export; the graph from before the rewrite is the reference."""
    model, _ = read_student(checkpoints / "mdat.safetensors")
    written: dict[str, Path] = {}
    for name, rewrite in (("plain", lambda _: 0), ("short", shorten_transforms)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(export.to_onnx, "shorten_transforms", rewrite)
            written[name] = tmp_path / f"{name}.onnx"
            export.to_onnx.export_graph(model, written[name])
    plain, short = (open_session(path) for path in written.values())
    rng = np.random.default_rng(0)
    for samples in (6400, 6401, 6479, 6480, 6560, 20_007):
        audio = rng.standard_normal((1, samples)).astype(np.float32) * np.float32(0.1)
        words = {"text_ids": np.zeros((1, 1), np.int64), "text_mask": np.zeros((1, 1), np.int64)}
        inputs = {"audio": audio, "voice": np.zeros((1, 65), np.float32), **words}
        for expected, got in zip(plain.run(None, inputs), short.run(None, inputs), strict=True):
            assert np.allclose(expected, got, atol=2e-5)
    convolutions = [node.name for node in onnx.load(str(written["short"])).graph.node if node.op_type == "Conv"]
    assert not any("log_mel" in name for name in convolutions)
    assert written["short"].stat().st_size < written["plain"].stat().st_size - 300_000


def test_int8_is_integers_where_it_says_so(int8_bundle: Path) -> None:
    bundle = Bundle.open(int8_bundle)
    receipt = json.loads(bundle.read("receipt.json"))
    assert bundle.manifest.precision == "int8"
    assert (receipt["integer_operators"], receipt["float_operators"]) == count_operators(bundle.path("model.onnx"))
    assert receipt["integer_operators"] >= 10
    assert set(receipt) == {
        *("cosine", "blocks", "ua_before", "ua_after", "agreement", "bytes_before", "bytes_after"),
        *("probability_shift", "speed_ratio", "integer_operators", "float_operators", "environment"),
    }
    assert set(receipt["ua_after"]) == {"ua", "interval", "ece", "ece_interval", "clips", "speakers"}
    assert min(receipt["cosine"].values()) >= 0.99 and list(receipt["cosine"]) == ["0.4", "0.5", "1", "2", "4", "8"]


def test_quantisation_is_symmetric_and_leaves_attention_products_and_front_end_in_floats(int8_bundle: Path) -> None:
    graph = onnx.load(str(int8_bundle / "model.onnx")).graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs and all(not values[node.input[2]].any() for node in pairs if len(node.input) > 2)
    producers = {output: node.op_type for node in graph.node for output in node.output}
    for node in graph.node:
        dequantised = [producers.get(name) == "DequantizeLinear" for name in node.input]
        if node.op_type == "MatMul" and "attention/MatMul" in node.name:
            assert not all(dequantised[:2])
        if "log_mel" in node.name or node.op_type in ("Add", "Sum", "LayerNormalization", "Softmax"):
            weights = [name in values for name in node.input]
            assert not any(d and not w for d, w in zip(dequantised, weights, strict=True)) or "blocks" in node.name


def test_out_of_budget_writes_nothing_and_names_the_blocks(
    fp32_bundle: Path, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "never"
    code = quantize([str(fp32_bundle), "--calibration", str(miniature), "--out", str(out), "--cosine", "1.01"])
    message = capsys.readouterr().err.splitlines()[-1]
    assert code == 1 and not out.exists()
    assert message.startswith("quantize: no INT8 graph within") and "speech/layers.0" in message


def test_the_card_says_what_manifest_and_receipt_say(
    int8_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    side = {
        **{"clips": 8, "speakers": 2, "ua": 0.625, "ua_interval": [0.5, 0.75], "wa": 0.6, "ece": 0.07},
        **{"certain_share": 0.5, "certain_accuracy": 1.0, "confusion": []},
    }
    figures = {
        "model": "mdat-int8",
        "warm_after_utterances": 10,
        "corpora": {"alpha": {"cold": side, "warm": None}},
        "non_speech": {"sounds": 1, "confident_share": 0.0},
    }
    metrics = tmp_path / "figures.json"
    metrics.write_text(json.dumps(figures))
    assert card([str(int8_bundle), "--metrics", str(metrics)]) == 0
    bundle = Bundle.open(int8_bundle)
    text = bundle.read("MODEL_CARD.md").decode()
    assert "| alpha | cold | 2 | 8 | 0.625 [0.500, 0.750] | 0.070 | 1.000 (50%) |" in text
    assert f"{bundle.manifest.provenance['parameters']:,} parameters" in text
    metrics.write_text(json.dumps({**figures, "model": "another"}))
    assert card([str(int8_bundle), "--metrics", str(metrics)]) == 1
    assert "is about another" in capsys.readouterr().err
