"""Turn a checkpoint into an fp32 bundle, and prove that the graph says what PyTorch says.

    python export/to_onnx.py train/checkpoints/mdat.safetensors --out build/mdat

Nothing is written if any logit or embedding differs from PyTorch's by more than the tolerance, at any length from the
shortest utterance to the longest, with and without text, with and without a voice.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from numpy.typing import NDArray

from edge_ser.bundle import Bundle, Manifest
from edge_ser.corpus import FOUR_CLASSES
from edge_ser.environment import environment
from edge_ser.errors import ConfigError, EdgeSerError
from export.receipt import open_session
from train.checkpoint import read_checkpoint
from train.students.mdat import Mdat, MdatConfig

Array = NDArray[Any]

OPSET = 17
LENGTHS_S = (0.4, 0.5, 1.0, 2.0, 4.0, 8.0)
MIN_DURATION_S, MAX_DURATION_S = 0.4, 8.0
SAMPLE_RATE_HZ = 16_000
INPUTS = ("audio", "text_ids", "text_mask", "voice")
OUTPUTS = ("logits", "embedding")


def read_model(checkpoint: Path) -> tuple[Mdat, dict[str, Any]]:
    """Return the trained model, ready for inference, and the checkpoint's header."""
    tensors, header = read_checkpoint(checkpoint)
    settings: Any = header["settings"]
    model = Mdat(MdatConfig(**settings["model"]))
    model.load_state_dict(tensors)
    return model.eval(), header


def export_graph(model: Mdat, path: Path) -> None:
    """Write the model as ONNX with a free number of samples and of tokens, batch 1."""
    tokens = torch.ones(1, 5, dtype=torch.long)
    example = (torch.randn(1, 2 * SAMPLE_RATE_HZ) * 0.05, tokens, tokens, torch.zeros(1, 2 * model.embedding_size + 1))
    # The older exporter: it names nodes after modules, which is how blocks are told apart when they are quantised.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            example,
            str(path),
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes={"audio": {1: "samples"}, "text_ids": {1: "tokens"}, "text_mask": {1: "tokens"}},
            opset_version=OPSET,
            dynamo=False,
        )


def examples(model: Mdat) -> Iterator[dict[str, Array]]:
    """Yield inputs of every length: with and without text, fresh and known voice."""
    rng = np.random.default_rng(0)
    for seconds in LENGTHS_S:
        audio = rng.standard_normal((1, int(seconds * SAMPLE_RATE_HZ))).astype(np.float32) * np.float32(0.1)
        for tokens in (0, 1, 23):
            ids = rng.integers(0, model.config.vocabulary, (1, max(tokens, 1)))
            voice = np.zeros((1, 2 * model.embedding_size + 1), np.float32)
            if tokens != 1:
                voice = np.abs(rng.standard_normal(voice.shape)).astype(np.float32)
            mask = np.full_like(ids, min(tokens, 1))
            yield {"audio": audio, "text_ids": ids, "text_mask": mask, "voice": voice}


@torch.no_grad()
def largest_difference(model: Mdat, graph: Path) -> float:
    """Return the largest absolute difference of any output to PyTorch's over all examples."""
    session = open_session(graph)
    worst = 0.0
    for example in examples(model):
        expected = model(*(torch.from_numpy(example[name]) for name in INPUTS))
        got = session.run(list(OUTPUTS), example)
        worst = max(worst, *(float(np.abs(e.numpy() - g).max()) for e, g in zip(expected, got, strict=True)))
    return worst


def build_manifest(model: Mdat, header: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """Return the manifest of the fp32 bundle as plain data; calibration is neutral until `quantize.py` fits it."""
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    settings = header["settings"]
    return {
        "format_version": 1,
        "name": settings["name"],
        "system": settings["system"],
        "precision": "fp32",
        "labels": list(FOUR_CLASSES),
        "attributes": [],
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "min_duration_s": MIN_DURATION_S,
        "max_duration_s": MAX_DURATION_S,
        "graphs": {"model": "model.onnx"},
        "inputs": _inputs(model, space=f"{settings['name']}-{digest[:12]}"),
        "outputs": [
            _tensor("logits", "float32", [1, len(FOUR_CLASSES)]),
            _tensor("embedding", "float32", [1, model.embedding_size]),
        ],
        "calibration": {"temperature": 1.0, "default_risk": 0.15, "risks": []},
        "licence": "Apache-2.0, with attribution to the corpora in training_data",
        "training_data": header["training_data"],
        "provenance": {
            "checkpoint_sha256": digest,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "epoch": header["epoch"],
            "started_from": header.get("started_from"),
            "validation_ua": header["validation_ua"],
            "settings": settings,
            "speakers": header["speakers"],
            "environment": environment("torch", "onnxruntime", "numpy"),
        },
        "metrics": {},
        "files": {},
        "base": None,
    }


def _inputs(model: Mdat, space: str) -> list[dict[str, Any]]:
    tokens = {"max_tokens": model.config.max_tokens}
    voice = {"embedding_size": model.embedding_size, "space": space}
    return [
        _tensor("audio", "float32", [1, "samples"], kind="audio", parameters={}),
        _tensor("text_ids", "int64", [1, "tokens"], kind="text_ids", parameters=tokens),
        _tensor("text_mask", "int64", [1, "tokens"], kind="text_mask", parameters={}),
        _tensor("voice", "float32", [1, 2 * model.embedding_size + 1], kind="voice", parameters=voice),
    ]


def _tensor(name: str, dtype: str, shape: list[int | str], **more: object) -> dict[str, Any]:
    return {"name": name, **more, "dtype": dtype, "shape": shape}


def export(checkpoint: Path, tokenizer: Path, out: Path, tolerance: float) -> float:
    """Write the bundle and return the largest difference to PyTorch.

    Raises:
        ConfigError: The graph differs from PyTorch by more than `tolerance`; nothing is written.
    """
    if not tokenizer.is_file():
        raise ConfigError(f"no tokenizer at {tokenizer}; need the tokenizer.json of the run; pass --tokenizer FILE")
    model, header = read_model(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        export_graph(model, graph)
        worst = largest_difference(model, graph)
        if not worst <= tolerance:
            raise ConfigError(
                f"ONNX differs from PyTorch by {worst:.2e}; need at most {tolerance:.0e}; nothing written"
            )
        manifest = build_manifest(model, header, checkpoint)
        manifest["provenance"]["onnx_largest_difference"] = worst
        files = {"model.onnx": graph, "tokenizer.json": tokenizer}
        Bundle.write(out, Manifest.from_json(json.dumps(manifest).encode(), str(out)), files)
    return worst


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--tokenizer", type=Path, help="default: the checkpoint's name with .tokenizer.json")
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    options = parser.parse_args(argv)
    tokenizer = options.tokenizer or options.checkpoint.with_suffix(".tokenizer.json")
    try:
        worst = export(options.checkpoint, tokenizer, options.out, options.tolerance)
    except EdgeSerError as error:
        print(f"to_onnx: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: largest difference to PyTorch {worst:.1e} over {len(LENGTHS_S)} lengths, text and voices")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
