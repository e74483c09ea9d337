"""Fakes for the tests of whoever builds on edge-ser: a tiny bundle and a backend without a model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_ser.bundle import Bundle
from edge_ser.calibration import Calibration, RiskRow
from edge_ser.graph_io import FRAMES_NAME, Input, Output
from edge_ser.manifest import TOKENIZER_NAME, Manifest, TrainingCorpus

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

EMBEDDING_SIZE = 8
"""Size of the tiny bundle's embedding."""

_OPSET = 17
_IR_VERSION = 8
_WORDS = ("[UNK]", "i", "am", "so", "not", "happy", "sad", "angry", "fine", "today")
_MAX_TOKENS = 16


class FakeBackend:
    """A backend that gives prepared answers in turn, the last one for ever, and keeps what it was asked."""

    name = "fake"
    provider = "none"

    def __init__(self, *answers: Mapping[str, NDArray[Any]]) -> None:
        """Prepare answers: outputs by name, each of shape (1, size)."""
        self._answers = answers
        self.calls: list[dict[str, NDArray[Any]]] = []
        """The inputs of every call so far."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return the next answer."""
        answer = self._answers[min(len(self.calls), len(self._answers) - 1)]
        self.calls.append(dict(inputs))
        return {name: np.asarray(values, dtype=np.float32) for name, values in answer.items()}

    def fuse(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return the next answer, without frames."""
        return {name: values for name, values in self.run(inputs).items() if name != FRAMES_NAME}


def write_tiny_bundle(
    folder: str | os.PathLike[str],
    *,
    labels: Sequence[str] = ("angry", "happy", "neutral", "sad"),
    text: bool = True,
    voice: bool = True,
    attributes: Sequence[str] = (),
    pack: bool = False,
) -> Path:
    """Write a real bundle whose graph weighs loudness against zero crossings, and return its folder.

    It needs the `onnx` package, no training and no download; the same arguments give the same bytes. Louder, brighter
    audio gives other logits; a transcript and a voice shift them a little.

    Args:
        folder: Where it shall lie.
        labels: Emotions, two or more.
        text: Whether the model reads a transcript; if so, it gives frames too, to be asked again when the words come.
        voice: Whether the model hears a voice.
        attributes: Attributes in [0, 1], such as arousal.
        pack: Whether the model takes language packs, of rank 1.
    """
    reads = _Reads(text, voice, pack)
    files = {"model.onnx": _graph(len(labels), reads, len(attributes)).SerializeToString(deterministic=True)}
    if text:
        files[TOKENIZER_NAME] = _tokenizer_json().encode()
    return Bundle.write(folder, _manifest(tuple(labels), reads, tuple(attributes)), files).folder


class _Reads(NamedTuple):
    text: bool
    voice: bool
    pack: bool


def _manifest(labels: tuple[str, ...], reads: _Reads, attributes: tuple[str, ...]) -> Manifest:
    inputs = [Input("audio", "audio", "float32", (1, "samples"))]
    if reads.text:
        inputs.append(Input("text_ids", "text_ids", "int64", (1, "tokens"), {"max_tokens": _MAX_TOKENS}))
        inputs.append(Input("text_mask", "text_mask", "int64", (1, "tokens")))
    if reads.pack:
        inputs.append(Input("pack_down", "pack_down", "float32", (1, 2, 1)))
        inputs.append(Input("pack_up", "pack_up", "float32", (1, 1, len(labels))))
    if reads.voice:
        space = {"embedding_size": EMBEDDING_SIZE, "space": "tiny"}
        inputs.append(Input("voice", "voice", "float32", (1, 2 * EMBEDDING_SIZE + 1), space))
    outputs = [Output("logits", "float32", (1, len(labels))), Output("embedding", "float32", (1, EMBEDDING_SIZE))]
    if attributes:
        outputs.append(Output("attributes", "float32", (1, len(attributes))))
    if reads.text:
        outputs.append(Output(FRAMES_NAME, "float32", (1, 1, 2)))
    return Manifest(
        name="tiny",
        system="tiny",
        precision="fp32",
        labels=labels,
        attributes=attributes,
        min_duration_s=0.25,
        max_duration_s=8.0,
        graphs={"model": "model.onnx"},
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        calibration=Calibration(1.0, 0.2, (RiskRow(0.05, 0.9, 0.02), RiskRow(0.2, 0.5, 0.1))),
        licence="MIT",
        training_data=(TrainingCorpus("none", "none", 0, 0),),
        provenance={"made_by": "edge_ser.testing.write_tiny_bundle"},
    )


def _tokenizer_json() -> str:
    vocabulary = {word: index for index, word in enumerate(_WORDS)}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": None,
            "decoder": None,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": _WORDS[0]},
        }
    )


def _graph(labels: int, reads: _Reads, attributes: int) -> ModelProto:
    from onnx import TensorProto, helper, numpy_helper

    angles = 2 * np.pi * np.arange(labels) / labels
    weights = {
        "one": np.array([1]),
        "floor": np.array(1e-10, dtype=np.float32),
        "first": np.array([0]),
        "last": np.array([2**31 - 1]),
        "minus_one": np.array([-1]),
        "centre": np.array([[-5.0, 0.2]], dtype=np.float32),
        "scale": np.array([[0.3, 4.0]], dtype=np.float32),
        "to_logits": 2 * np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32),
        "to_embedding": np.cos(np.arange(2 * EMBEDDING_SIZE).reshape(2, -1)).astype(np.float32),
        "to_attributes": np.sin(1 + np.arange(2 * max(1, attributes)).reshape(2, -1)).astype(np.float32),
        "voice_to_logits": np.sin(np.arange(EMBEDDING_SIZE * labels).reshape(-1, labels)).astype(np.float32) / 4,
        "text_to_logits": np.cos(np.arange(labels)).astype(np.float32)[np.newaxis],
        "voice_end": np.array([EMBEDDING_SIZE + 1]),
    }
    nodes = _audio_nodes(frames=reads.text)
    parts = ((reads.text, _text_nodes), (reads.voice, _voice_nodes), (reads.pack, _pack_nodes))
    nodes += [node for is_read, part in parts if is_read for node in part()]
    terms = ["heard", *(term for term, is_read in zip(("said", "known", "learnt"), reads, strict=True) if is_read)]
    nodes.append(helper.make_node("Sum", terms, ["logits"]))
    if attributes:
        nodes.append(helper.make_node("MatMul", ["features", "to_attributes"], ["raw_attributes"]))
        nodes.append(helper.make_node("Sigmoid", ["raw_attributes"], ["attributes"]))
    used = {name for node in nodes for name in node.input}
    manifest = _manifest(tuple(str(i) for i in range(labels)), reads, tuple(str(i) for i in range(attributes)))
    types = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(item.name, types[item.dtype], item.shape) for item in manifest.inputs],
        [helper.make_tensor_value_info(item.name, types[item.dtype], item.shape) for item in manifest.outputs],
        [numpy_helper.from_array(values, name) for name, values in weights.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)


def _audio_nodes(frames: bool) -> list[NodeProto]:
    from onnx import helper

    # Where frames are given, all else is computed from them: that is what lets an utterance be judged again.
    heard = "heard_features" if frames else "features"
    framed = [
        helper.make_node("Unsqueeze", [heard, "one"], [FRAMES_NAME]),
        helper.make_node("Squeeze", [FRAMES_NAME, "one"], ["features"]),
    ]
    return [
        helper.make_node("Mul", ["audio", "audio"], ["power"]),
        helper.make_node("ReduceMean", ["power"], ["mean_power"], axes=[1], keepdims=1),
        helper.make_node("Add", ["mean_power", "floor"], ["floored_power"]),
        helper.make_node("Log", ["floored_power"], ["loudness"]),
        helper.make_node("Slice", ["audio", "one", "last", "one"], ["later"]),
        helper.make_node("Slice", ["audio", "first", "minus_one", "one"], ["earlier"]),
        helper.make_node("Sign", ["later"], ["later_sign"]),
        helper.make_node("Sign", ["earlier"], ["earlier_sign"]),
        helper.make_node("Sub", ["later_sign", "earlier_sign"], ["steps"]),
        helper.make_node("Abs", ["steps"], ["crossings"]),
        helper.make_node("ReduceMean", ["crossings"], ["crossing_rate"], axes=[1], keepdims=1),
        helper.make_node("Concat", ["loudness", "crossing_rate"], ["raw_features"], axis=1),
        helper.make_node("Sub", ["raw_features", "centre"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["scaled"]),
        helper.make_node("Tanh", ["scaled"], [heard]),
        *(framed if frames else []),
        helper.make_node("MatMul", ["features", "to_logits"], ["heard"]),
        helper.make_node("MatMul", ["features", "to_embedding"], ["embedding"]),
    ]


def _text_nodes() -> list[NodeProto]:
    from onnx import TensorProto, helper

    return [
        helper.make_node("Mul", ["text_ids", "text_mask"], ["valid_ids"]),
        helper.make_node("Cast", ["valid_ids"], ["ids"], to=TensorProto.FLOAT),
        helper.make_node("Sin", ["ids"], ["sines"]),
        helper.make_node("ReduceMean", ["sines"], ["tone"], axes=[1], keepdims=1),
        helper.make_node("MatMul", ["tone", "text_to_logits"], ["said"]),
    ]


def _voice_nodes() -> list[NodeProto]:
    from onnx import helper

    return [
        helper.make_node("Slice", ["voice", "one", "voice_end", "one"], ["voice_mean"]),
        helper.make_node("MatMul", ["voice_mean", "voice_to_logits"], ["known"]),
    ]


def _pack_nodes() -> list[NodeProto]:
    from onnx import helper

    return [
        helper.make_node("MatMul", ["features", "pack_down"], ["low"]),
        helper.make_node("MatMul", ["low", "pack_up"], ["high"]),
        helper.make_node("Squeeze", ["high", "one"], ["learnt"]),
    ]
