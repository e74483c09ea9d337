"""What quantisation did, measured: the content of receipt.json."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

Inputs = dict[str, NDArray[Any]]
Vectors = list[NDArray[np.float64]]

INTEGER_OPERATORS = {
    "ConvInteger",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
}
_TURNS, _RUNS = 12, 10
FLOAT_OPERATORS = {"Attention", "Conv", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul", "MultiHeadAttention"}


def open_session(graph: Path, optimised: Path | None = None) -> onnxruntime.InferenceSession:
    """Return a one-thread CPU session, which writes the graph that it really runs to `optimised`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def count_operators(graph: Path) -> tuple[int, int]:
    """Return how many products ONNX Runtime runs in integers and how many in floats."""
    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        open_session(graph, optimised)
        counts = Counter(node.op_type for node in onnx.load(str(optimised)).graph.node)
    return sum(counts[name] for name in INTEGER_OPERATORS), sum(counts[name] for name in FLOAT_OPERATORS)


def run(graph: Path, inputs: Sequence[Inputs]) -> dict[str, Vectors]:
    """Return `embedding` and `logits`, these without their mean, for each of the inputs."""
    session = open_session(graph)
    said = [session.run(["embedding", "logits"], item) for item in inputs]
    return {
        "embedding": [embedding[0].astype(np.float64) for embedding, _ in said],
        "logits": [logits[0].astype(np.float64) - logits[0].mean() for _, logits in said],
    }


def cosine(reference: Vectors, other: Vectors) -> float:
    """Return the smallest cosine between pairs of vectors."""
    return min(float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) for a, b in zip(reference, other, strict=True))


def sqnr_db(reference: Vectors, other: Vectors) -> float:
    """Return the ratio of signal to quantisation noise over all vectors, in decibels, at most 120."""
    signal = sum(float(a @ a) for a in reference)
    noise = sum(float((a - b) @ (a - b)) for a, b in zip(reference, other, strict=True))
    return float(10.0 * np.log10(signal / max(noise, 1e-12 * signal)))


def speed_ratio(before: Path, after: Path, example: Inputs) -> float:
    """Return how many times as fast `after` runs on one thread, by the fastest run of each: others' load is left out.

    They take turns of several runs: single runs in turn would throw each other's weights out of the processor's cache.
    """
    fastest = [float("inf")] * 2
    sessions = [open_session(graph) for graph in (before, after)]
    for _ in range(_TURNS):
        for place, session in enumerate(sessions):
            for _ in range(_RUNS):
                start = time.perf_counter()
                session.run(None, example)
                fastest[place] = min(fastest[place], time.perf_counter() - start)
    return fastest[0] / fastest[1]
