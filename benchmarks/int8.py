"""What INT8 is worth here: a student in PyTorch, as fp32 ONNX and as INT8 ONNX, in one run on one thread.

    python benchmarks/int8.py [BUNDLE …] [--checkpoints FOLDER]

Without names it takes every bundled INT8 model. The checkpoint that a bundle was made from is found by its hash. The
forms take turns of a dozen runs on the same utterance; of each the fastest run counts, so that others' load does not.
Figures go to benchmarks/results/int8.json, too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
import torch

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.backends import open_backend
from edge_ser.bundle import Bundle, bundled_names, find_bundle
from edge_ser.environment import environment
from edge_ser.errors import ConfigError, EdgeSerError
from edge_ser.frontend import FrontEnd
from edge_ser.sources import read_samples
from export.to_onnx import export
from train.students.keep import read_student

RESULT = ROOT / "benchmarks" / "results" / "int8.json"
SOUND = ROOT / "examples" / "conversation.flac"
DURATION_S = 3.0
TURNS, RUNS = 15, 12
WORDS = "I did not expect that at all"
FORMS = ("PyTorch", "fp32", "INT8")


def checkpoint_of(bundle: Bundle, folder: Path) -> Path:
    """Return the checkpoint that a bundle was made from.

    Raises:
        ConfigError: It is not in the folder.
    """
    wanted = bundle.manifest.provenance.get("checkpoint_sha256")
    for path in sorted(folder.rglob("*.safetensors")):
        if hashlib.sha256(path.read_bytes()).hexdigest() == wanted:
            return path
    raise ConfigError(f"{bundle.manifest.name}: its checkpoint is not in {folder}; need it for PyTorch and fp32")


def eager(checkpoint: Path, inputs: dict[str, Any]) -> Callable[[], object]:
    """Return what runs the student in PyTorch."""
    student, _ = read_student(checkpoint)
    tensors = [torch.from_numpy(inputs[name]) for name in student.inputs]

    def run() -> object:
        with torch.inference_mode():
            return student(*tensors)

    return run


def fastest_ms(run: Callable[[], object]) -> float:
    """Return the duration of the fastest of some runs."""
    taken = []
    for _ in range(RUNS):
        start_s = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start_s)
    return 1e3 * min(taken)


def measure(bundle: Bundle, checkpoints: Path) -> dict[str, Any]:
    """Return milliseconds by form, the ratios and sizes."""
    checkpoint = checkpoint_of(bundle, checkpoints)
    samples = np.resize(read_samples(str(SOUND)), round(DURATION_S * SAMPLE_RATE_HZ))
    with tempfile.TemporaryDirectory() as folder:
        export(checkpoint, Path(folder) / "fp32", tolerance=2e-4)
        plain = Bundle.open(Path(folder) / "fp32")
        inputs = FrontEnd(bundle).inputs(samples, WORDS)
        graphs = [open_backend(item, "cpu", threads=1) for item in (plain, bundle)]
        runs = [eager(checkpoint, inputs), *((lambda graph=graph: graph.run(inputs)) for graph in graphs)]
        fastest = np.min([[fastest_ms(run) for run in runs] for _ in range(TURNS)], axis=0)
        sizes = [item.path(item.manifest.graphs["model"]).stat().st_size for item in (plain, bundle)]
    return {
        "ms": {form: round(float(value), 3) for form, value in zip(FORMS, fastest, strict=True)},
        "times_as_fast": {form: round(float(fastest[place] / fastest[2]), 2) for place, form in enumerate(FORMS[:2])},
        "graph_mb": {form: round(size / 1e6, 2) for form, size in zip(FORMS[1:], sizes, strict=True)},
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Return the figures in lines."""
    lines = [f"{DURATION_S:g} s of audio, 1 thread{'PyTorch':>12}{'fp32':>11}{'INT8':>11}   INT8 is    graph"]
    for name, row in rows.items():
        times = "".join(f"{row['ms'][form]:>8.2f} ms" for form in FORMS)
        ratios = " and ".join(f"{row['times_as_fast'][form]:.1f}x" for form in FORMS[:2])
        sizes = " to ".join(f"{row['graph_mb'][form]:.1f}" for form in FORMS[1:])
        lines.append(f"{name:<24} {times}   {ratios} as fast, {sizes} MB")
    return "\n".join(lines)


def main() -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", help="bundled names or folders")
    parser.add_argument("--checkpoints", type=Path, default=ROOT / "train" / "checkpoints", help="their folder")
    parser.add_argument("--out", type=Path, default=RESULT, help="the figures' file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, dict[str, Any]] = {}
    for name in options.bundles or bundled_names():
        try:
            bundle = find_bundle(name)
            if bundle.manifest.precision == "int8" and bundle.base is None:
                rows[bundle.manifest.name] = measure(bundle, options.checkpoints)
        except EdgeSerError as error:
            print(f"int8: {error}", file=sys.stderr)
    print(table(rows))
    found = {"duration_s": DURATION_S, "models": rows, "environment": environment("onnxruntime", "torch", "numpy")}
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if rows else 1


if __name__ == "__main__":
    raise SystemExit(main())
