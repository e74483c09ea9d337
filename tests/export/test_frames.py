"""A bundle pressed before there were frames gets them, and says what it said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the press needs onnx: pip install -e '.[export]'")

import edge_ser  # noqa: E402
from edge_ser.bundle import Bundle, find_bundle  # noqa: E402
from export.frames import SPEECH_ENCODER, main  # noqa: E402


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The bundled model as it was before its frames were an output."""
    bundle = find_bundle("mdat-int8")
    model = onnx.load_from_string(bundle.read("model.onnx"))
    for node in model.graph.node:
        node.input[:] = [SPEECH_ENCODER if name == "frames" else name for name in node.input]
        node.output[:] = [SPEECH_ENCODER if name == "frames" else name for name in node.output]
    outputs = [output for output in model.graph.output if output.name != "frames"]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    manifest = replace(
        bundle.manifest, outputs=tuple(output for output in bundle.manifest.outputs if output.name != "frames")
    )
    files: dict[str, bytes | Path] = {name: bundle.read(name) for name in bundle.manifest.files}
    return Bundle.write(tmp_path / "old", manifest, {**files, "model.onnx": model.SerializeToString()}).folder


def test_frames_change_no_answer_and_make_revisions_possible(old: Path) -> None:
    samples = np.random.default_rng(0).normal(0.0, 0.1, 24_000).astype(np.float32).clip(-0.9, 0.9)
    recognizer = edge_ser.load(old, threads=1)
    before, heard = recognizer.listen(samples)
    assert not recognizer.judge_again(heard, transcript="I am so happy")[0].text_used
    said_before = recognizer.judge(samples, transcript="I am so happy").probabilities
    assert main([str(old)]) == 0
    recognizer = edge_ser.load(old, threads=1)
    after, heard = recognizer.listen(samples)
    assert after.probabilities == before.probabilities
    again, _ = recognizer.judge_again(heard, transcript="I am so happy")
    assert again.text_used and again.probabilities == said_before


def test_receipt_and_card_tell_the_new_size(old: Path) -> None:
    assert main([str(old)]) == 0
    bundle = Bundle.open(old)
    receipt = json.loads(bundle.read("receipt.json"))
    assert receipt["bytes_after"] == len(bundle.read("model.onnx"))
    assert f"{receipt['bytes_after'] / 1e6:.2f} MB after" in bundle.read("MODEL_CARD.md").decode()


def test_a_bundle_with_frames_is_left_alone(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(old)]) == 0
    before = Bundle.open(old).manifest.files
    assert main([str(old)]) == 1
    assert "has frames already" in capsys.readouterr().err
    assert Bundle.open(old).manifest.files == before


def test_a_graph_without_that_encoder_says_so(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = Bundle.open(old)
    graph = bundle.read("model.onnx").replace(b"/speech/norm/", b"/sounds/norm/")
    files: dict[str, bytes | Path] = {name: bundle.read(name) for name in bundle.manifest.files}
    Bundle.write(old, bundle.manifest, {**files, "model.onnx": graph})
    assert main([str(old)]) == 1
    assert "computes no '/speech/norm" in capsys.readouterr().err
