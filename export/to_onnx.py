"""Turn a student's checkpoint, or a published system of any size, into an fp32 bundle that says what PyTorch says.

    python export/to_onnx.py train/checkpoints/mdat.safetensors --out build/mdat                     # a student
    python export/to_onnx.py train/configs/mdat-paper.toml --weights runs/mdat/best.safetensors --out build/mdat-paper
    python export/to_onnx.py train/configs/mdat-paper.toml --random --out build/mdat-paper           # without weights

A student is one graph. A settings file of `train.finetune` gives three: speech, fusion and, where the system reads
words, text, so that words are optional and their features kept; weights above 2 GB lie in a file beside their graph.

The speech encoder's weights lie beside it (`encoder.safetensors`, named in the checkpoint). Nothing is written if any
logit, embedding or frame differs from PyTorch's by more than the tolerance, at any length from the shortest utterance
to the longest, with and without text, with and without a voice.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from edge_ser.bundle import Bundle, Manifest
from edge_ser.corpus import FOUR_CLASSES
from edge_ser.environment import environment
from edge_ser.errors import ConfigError, EdgeSerError
from edge_ser.graph_io import FRAMES_NAME
from edge_ser.prosody import WIDTH as PROSODY_WIDTH
from export.receipt import open_session
from export.spectrum import shorten_transforms
from train.students.fusions.lora import LoraFusion
from train.students.keep import read_student
from train.students.student import Student

Array = NDArray[Any]

OPSET = 17
LENGTHS_S = (0.4, 0.5, 1.0, 2.0, 4.0, 8.0)
MIN_DURATION_S, MAX_DURATION_S = 0.4, 8.0
SAMPLE_RATE_HZ = 16_000
_VARYING = {"audio": "samples", "text_ids": "tokens", "text_mask": "tokens", FRAMES_NAME: "frames"}


def outputs_of(student: Student) -> tuple[str, ...]:
    """Return the names of the graph's outputs; frames are there where words may arrive later and be fused in."""
    return ("logits", "embedding", FRAMES_NAME) if "text_ids" in student.inputs else ("logits", "embedding")


def export_graph(student: Student, path: Path) -> None:
    """Write the student as ONNX with a free number of samples and of tokens, batch 1."""
    example = next(examples(student))
    every_output = ("logits", "embedding", FRAMES_NAME)
    # The older exporter: it names nodes after modules, which is how blocks are told apart when they are quantised.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            student,
            tuple(torch.from_numpy(example[name]) for name in student.inputs),
            str(path),
            input_names=list(student.inputs),
            output_names=list(every_output),
            dynamic_axes={name: {1: size} for name, size in _VARYING.items() if name in (*student.inputs, FRAMES_NAME)},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load(str(path))
    shorten_transforms(model)
    kept = [output for output in model.graph.output if output.name in outputs_of(student)]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.save(model, str(path))


def examples(student: Student) -> Iterator[dict[str, Array]]:
    """Yield inputs of every length: with and without text, fresh and known voice."""
    rng = np.random.default_rng(0)
    for seconds in LENGTHS_S:
        audio = rng.standard_normal((1, int(seconds * SAMPLE_RATE_HZ))).astype(np.float32) * np.float32(0.1)
        for tokens in (0, 1, 23):
            ids = rng.integers(0, student.config.vocabulary, (1, max(tokens, 1)))
            voice = np.zeros((1, 2 * student.embedding_size + 1), np.float32)
            if tokens != 1:
                voice = np.abs(rng.standard_normal(voice.shape)).astype(np.float32)
            all_inputs = {
                "audio": audio,
                "text_ids": ids,
                "text_mask": np.full_like(ids, min(tokens, 1)),
                "prosody": rng.standard_normal((1, PROSODY_WIDTH)).astype(np.float32),
                "voice": voice,
                **{name: _pack(shape, tokens, rng) for name, shape in pack_shapes(student).items()},
            }
            yield {name: all_inputs[name] for name in student.inputs}


def _pack(shape: tuple[int, int], tokens: int, rng: np.random.Generator) -> Array:
    """Return a matrix of a language pack, zeros in two examples of three."""
    return (0.1 * rng.standard_normal((1, *shape)) * (tokens > 1)).astype(np.float32)


def pack_shapes(student: Student) -> dict[str, tuple[int, int]]:
    """Return the shapes of the matrices of a language pack by input, none where the student takes no packs."""
    return student.fusion.pack_shapes if isinstance(student.fusion, LoraFusion) else {}


@torch.no_grad()
def largest_difference(student: Student, path: Path) -> float:
    """Return the largest absolute difference of any output to PyTorch's over all examples."""
    session = open_session(path)
    worst = 0.0
    names = outputs_of(student)
    for example in examples(student):
        expected = student(*(torch.from_numpy(example[name]) for name in student.inputs))
        got = session.run(list(names), example)
        worst = max(
            worst, *(float(np.abs(e.numpy() - g).max()) for e, g in zip(expected[: len(names)], got, strict=True))
        )
    return worst


def build_manifest(student: Student, header: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest of the fp32 bundle as plain data; calibration is neutral until `quantize.py` fits it."""
    return {
        "format_version": 1,
        "name": header["name"],
        "system": student.config.system,
        "precision": "fp32",
        "labels": list(FOUR_CLASSES),
        "attributes": [],
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "min_duration_s": MIN_DURATION_S,
        "max_duration_s": MAX_DURATION_S,
        "graphs": {"model": "model.onnx"},
        "inputs": [_input(student, name, header) for name in student.inputs],
        "outputs": _outputs(student),
        "calibration": {"temperature": 1.0, "default_risk": 0.15, "risks": []},
        "licence": header["licence"],
        "training_data": header["training_data"],
        "provenance": {
            **{
                key: header[key]
                for key in ("checkpoint_sha256", "encoder_sha256", "settings", "validation", "speakers")
            },
            "parameters": sum(parameter.numel() for parameter in student.parameters()),
            "parameters_by_part": {
                name: sum(parameter.numel() for parameter in part.parameters())
                for name, part in student.named_children()
            },
            "environment": environment("torch", "onnxruntime", "numpy"),
        },
        "metrics": {},
        "files": {},
        "base": None,
    }


def _input(student: Student, name: str, header: dict[str, Any]) -> dict[str, Any]:
    size = student.embedding_size
    # Students over one encoder share its embedding, so a voice that one has learnt serves the others.
    space = f"{header['tier']}-{header['encoder_sha256'][:12]}"
    entries: dict[str, dict[str, Any]] = {
        "audio": _tensor("audio", "float32", [1, "samples"], parameters={}),
        "text_ids": _tensor("text_ids", "int64", [1, "tokens"], parameters={"max_tokens": student.config.max_tokens}),
        "text_mask": _tensor("text_mask", "int64", [1, "tokens"], parameters={}),
        "prosody": _tensor("prosody", "float32", [1, PROSODY_WIDTH], parameters={}),
        "voice": _tensor("voice", "float32", [1, 2 * size + 1], parameters={"embedding_size": size, "space": space}),
        **{pack: _tensor(pack, "float32", [1, *shape], parameters={}) for pack, shape in pack_shapes(student).items()},
    }
    return {"kind": name, **entries[name]}


def _outputs(student: Student) -> list[dict[str, Any]]:
    outputs = [
        _tensor("logits", "float32", [1, student.config.classes]),
        _tensor("embedding", "float32", [1, student.embedding_size]),
    ]
    if "text_ids" in student.inputs:
        outputs.append(_tensor(FRAMES_NAME, "float32", [1, "frames", student.config.speech_width]))
    return outputs


def _tensor(name: str, dtype: str, shape: list[int | str], **more: object) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": shape, **more}


def export(checkpoint: Path, out: Path, tolerance: float) -> float:
    """Write the bundle and return the largest difference to PyTorch.

    Raises:
        ConfigError: The graph differs from PyTorch by more than `tolerance`; nothing is written.
    """
    student, header = read_student(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_graph(student, path)
        worst = largest_difference(student, path)
        if not worst <= tolerance:
            raise ConfigError(
                f"ONNX differs from PyTorch by {worst:.2e}; need at most {tolerance:.0e}; nothing written"
            )
        manifest = build_manifest(student, header)
        manifest["provenance"]["onnx_largest_difference"] = worst
        files = {"model.onnx": path}
        if "text_ids" in student.inputs:
            files["tokenizer.json"] = _tokenizer(checkpoint)
        Bundle.write(out, Manifest.from_json(json.dumps(manifest).encode(), str(out)), files)
    return worst


def _tokenizer(checkpoint: Path) -> Path:
    path = checkpoint.parent / "tokenizer.json"
    if not path.is_file():
        raise ConfigError(
            f"no tokenizer at {path}; need the one of the run; keep it again: python -m train.keep --help"
        )
    return path


def export_experiment(settings: Path, out: Path, options: argparse.Namespace) -> float:
    """Write the bundle of a published system and return the largest difference to PyTorch.

    Raises:
        ConfigError: Settings, encoders or weights do not fit each other, or the graphs differ from PyTorch.
    """
    # Late: a student needs neither the published encoders nor the package that they are from.
    from export.system_bundle import export_system
    from train.bundle_tokenizer import tokenizer_file
    from train.experiment import Workbench, read_experiment
    from train.graphs import SystemGraphs
    from train.settings import encoder_sources

    if bool(options.weights) == bool(options.random):
        raise ConfigError(f"{settings} holds no weights; need --weights runs/…/best.safetensors, or --random")
    experiment = read_experiment(settings)
    sources = encoder_sources(options.encoder)
    if options.random:
        sources = _without_weights(experiment.features, experiment.encoder) | sources
    with tempfile.TemporaryDirectory() as cache:
        workbench = Workbench(experiment, None, Path(cache), sources)
        graphs = SystemGraphs(workbench, options.weights)
    text = workbench.experiment.features.get("text")
    tokenizer = None if text is None or graphs.text_encoder is None else tokenizer_file(text.source)
    origin = {"settings": settings.name, "weights": "random" if options.random else options.weights.name}
    about = {"licence": options.licence, "provenance": origin}
    return export_system(graphs, out, about, tokenizer, options.tolerance, options.lengths)


def _without_weights(features: Mapping[str, Any], encoder: Any) -> dict[str, str]:
    """Return random encoders of the same size for those that would be downloaded."""
    from train.encoders import TRUE_SIZE

    named = {name: feature.source for name, feature in features.items()}
    named |= {} if encoder is None else {"encoder": encoder.source}
    return {name: f"random:{source}" for name, source in named.items() if source in TRUE_SIZE}


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT|SETTINGS", help="a student, or a settings file")
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--tolerance", type=float, default=2e-4)
    parser.add_argument("--weights", type=Path, help="best.safetensors of train.finetune, for a settings file")
    parser.add_argument("--random", action="store_true", help="random weights instead, encoders included")
    parser.add_argument("--encoder", action="append", default=[], metavar="FEATURE=SOURCE", help="another encoder")
    parser.add_argument(
        "--lengths", nargs="+", type=float, default=LENGTHS_S, metavar="S", help="seconds at which a system is compared"
    )
    parser.add_argument("--licence", default="not stated", help="licence of the weights, for a settings file")
    options = parser.parse_args(argv)
    try:
        if options.checkpoint.suffix == ".toml":
            worst = export_experiment(options.checkpoint, options.out, options)
        else:
            worst = export(options.checkpoint, options.out, options.tolerance)
    except EdgeSerError as error:
        print(f"to_onnx: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: largest difference to PyTorch {worst:.1e} over {len(options.lengths)} lengths")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
