"""Turn an fp32 bundle into a calibrated INT8 bundle with a receipt, or into nothing.

    python export/quantize.py build/mdat --calibration FOLDER --out build/mdat-int8

FOLDER holds speech/manifest.csv and noise/noise.csv. Ranges come from clips of the training speakers; temperature,
thresholds and the UA before and after come from the validation speakers that the bundle names. Every block is
quantised alone to measure its harm; while the whole is out of budget, the most harmful block goes back to float. If no
choice is in budget, nothing is written.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray

from edge_ser.bundle import Bundle
from edge_ser.environment import environment
from edge_ser.errors import ConfigError, EdgeSerError
from edge_ser.metrics import bootstrap_interval, confusion_matrix, unweighted_accuracy
from export.calibrate import fit_calibration
from export.card import render_card
from export.material import LENGTHS_S, Material, crop, progress, read_material
from export.receipt import Inputs, cosine, count_operators, open_session, run, speed_ratio, sqnr_db
from export.static_int8 import prepare, quantisable_blocks, quantise

SPEED_S = 3.0


@dataclass(frozen=True)
class Budget:
    """What quantisation may cost."""

    cosine: float = 0.99
    """Smallest cosine between embeddings, at any length."""
    ua_points: float = 0.5
    """Loss of UA on the validation speakers, in points (hundredths)."""
    shift: float = 0.03
    """Mean change of a probability, at any length; unlike the embedding it sees fusion, words and voice."""


@dataclass(frozen=True)
class Trial:
    """One quantised graph and what it costs."""

    cosines: dict[float, float]
    """Smallest cosine between embeddings, by seconds of audio."""
    shifts: dict[float, float]
    """Mean change of a probability, by seconds of audio."""
    logits: NDArray[np.float64]
    """Logits of the validation clips, cold."""
    loss_points: float
    """Loss of UA in points."""

    def __str__(self) -> str:
        """Return the costs in a few words."""
        return (
            f"cosine {min(self.cosines.values()):.4f}, probability shift {max(self.shifts.values()):.4f}, "
            f"{self.loss_points:.2f} points"
        )

    def fits(self, budget: Budget) -> bool:
        """Return whether every length and the UA are within the budget."""
        return (
            min(self.cosines.values()) >= budget.cosine
            and max(self.shifts.values()) <= budget.shift
            and self.loss_points <= budget.ua_points
        )


def all_logits(graph: Path, inputs: Iterable[Inputs]) -> NDArray[np.float64]:
    """Return logits (n, labels) of every input."""
    session = open_session(graph)
    rows = [session.run(["logits"], item)[0][0] for item in inputs]
    return np.array(rows, dtype=np.float64)


def ua(truth: NDArray[np.int64], logits: NDArray[np.float64]) -> float:
    """Return the unweighted accuracy of the largest logits."""
    return unweighted_accuracy(confusion_matrix(truth, logits.argmax(1), logits.shape[1]))


def try_blocks(graph: Path, out: Path, nodes: Sequence[str], material: Material, before: NDArray[np.float64]) -> Trial:
    """Quantise these nodes and measure the cost."""
    quantise(graph, out, nodes, material.ranges)
    cosines, shifts = {}, {}
    for seconds, inputs in material.lengths.items():
        reference, got = run(graph, inputs), run(out, inputs)
        cosines[seconds] = cosine(reference["embedding"], got["embedding"])
        shifts[seconds] = float(np.mean(np.abs(_softmax(reference["logits"]) - _softmax(got["logits"]))))
    logits = all_logits(out, material.cold)
    return Trial(cosines, shifts, logits, 100.0 * (ua(material.truth, before) - ua(material.truth, logits)))


def _softmax(logits: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    exponentials = np.exp(np.array(logits))
    shares: NDArray[np.float64] = exponentials / exponentials.sum(1, keepdims=True)
    return shares


def block_costs(graph: Path, blocks: dict[str, list[str]], material: Material) -> list[dict[str, Any]]:
    """Return each block's harm when it alone is quantised, least harmful first."""
    inputs = [item for seconds in LENGTHS_S for item in material.lengths[seconds][:12]]
    reference = run(graph, inputs)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "alone.onnx"
        for name, nodes in progress(list(blocks.items()), "block"):
            quantise(graph, alone, nodes, material.ranges[:60])
            got = run(alone, inputs)
            rows.append(
                {
                    "name": name,
                    "cosine": round(min(cosine(reference[key], got[key]) for key in got), 6),
                    "sqnr_db": round(min(sqnr_db(reference[key], got[key]) for key in got), 2),
                    "precision": "int8",
                }
            )
    return sorted(rows, key=lambda row: -row["sqnr_db"])


def quantize(bundle: Bundle, data: Path, out: Path, budget: Budget) -> dict[str, Any]:
    """Write the INT8 bundle and return its receipt.

    Raises:
        ConfigError: No choice of blocks is within the budget; nothing is written.
    """
    material = read_material(bundle, data)
    source = bundle.path(bundle.manifest.graphs["model"])
    with tempfile.TemporaryDirectory() as folder:
        graph, result = Path(folder) / "prepared.onnx", Path(folder) / "model.onnx"
        prepare(source, graph)
        blocks = quantisable_blocks(graph)
        rows = block_costs(graph, blocks, material)
        before = all_logits(graph, material.cold)
        trial = _within_budget(graph, result, blocks, rows, material, before, budget)
        receipt = _receipt((source, graph, result), rows, material, before, trial)
        _write(bundle, out, result, receipt, material, trial)
    return receipt


def _within_budget(
    graph: Path,
    result: Path,
    blocks: dict[str, list[str]],
    rows: list[dict[str, Any]],
    material: Material,
    before: NDArray[np.float64],
    budget: Budget,
) -> Trial:
    trial: Trial | None = None
    for row in [None, *reversed(rows)]:
        if row is not None:
            row["precision"] = "fp32"
            print(f"out of budget ({trial}): {row['name']} goes back to float", file=sys.stderr)
        nodes = [node for kept in rows if kept["precision"] == "int8" for node in blocks[kept["name"]]]
        if not nodes:
            break
        trial = try_blocks(graph, result, nodes, material, before)
        if trial.fits(budget):
            return trial
    harmful = ", ".join(f"{row['name']} ({row['cosine']})" for row in reversed(rows))
    raise ConfigError(
        f"no INT8 graph within cosine {budget.cosine} and {budget.ua_points} points; harm by block: {harmful}"
    )


def _receipt(
    graphs: tuple[Path, Path, Path],
    rows: list[dict[str, Any]],
    material: Material,
    before: NDArray[np.float64],
    trial: Trial,
) -> dict[str, Any]:
    source, graph, result = graphs
    integer, floating = count_operators(result)
    example = _speed_example(material)
    return {
        "cosine": {f"{seconds:g}": round(value, 6) for seconds, value in trial.cosines.items()},
        "probability_shift": {f"{seconds:g}": round(value, 5) for seconds, value in trial.shifts.items()},
        "blocks": rows,
        "ua_before": _score(before, material),
        "ua_after": _score(trial.logits, material),
        "agreement": round(float(np.mean(before.argmax(1) == trial.logits.argmax(1))), 4),
        "bytes_before": source.stat().st_size,
        "bytes_after": result.stat().st_size,
        "speed_ratio": round(speed_ratio(graph, result, example), 3),
        "integer_operators": integer,
        "float_operators": floating,
        "environment": environment("onnxruntime", "onnx", "numpy"),
    }


def _score(logits: NDArray[np.float64], material: Material) -> dict[str, Any]:
    low, high = bootstrap_interval(ua, [material.truth, logits])
    return {
        "ua": round(ua(material.truth, logits), 4),
        "interval": [round(low, 4), round(high, 4)],
        "clips": len(material.truth),
        "speakers": len(set(material.speakers.tolist())),
    }


def _speed_example(material: Material) -> Inputs:
    item = dict(material.cold[0])
    item["audio"] = crop(item["audio"][0], SPEED_S)[None]
    return item


def _write(bundle: Bundle, out: Path, graph: Path, receipt: dict[str, Any], material: Material, trial: Trial) -> None:
    # A stream is cold once and warm from then on: the thresholds must hold in both states.
    both = np.concatenate([trial.logits, all_logits(graph, material.warm)])
    noise = [all_logits(graph, sounds) for sounds in material.noise]
    calibration = fit_calibration(both, np.tile(material.truth, 2), noise)
    manifest = replace(bundle.manifest, name=f"{bundle.manifest.name}-int8", precision="int8", calibration=calibration)
    files: dict[str, bytes | Path] = {
        "model.onnx": graph,
        "receipt.json": (json.dumps(receipt, indent=1) + "\n").encode(),
        "MODEL_CARD.md": render_card(manifest, receipt).encode(),
    }
    if "tokenizer.json" in bundle.manifest.files:
        files["tokenizer.json"] = bundle.path("tokenizer.json")
    Bundle.write(out, manifest, files)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="an fp32 bundle's folder")
    parser.add_argument("--calibration", type=Path, required=True, metavar="FOLDER", help="the corpora's folder")
    parser.add_argument("--out", type=Path, required=True, help="the INT8 bundle's folder")
    parser.add_argument("--cosine", type=float, default=Budget.cosine, help="smallest cosine allowed")
    parser.add_argument("--points", type=float, default=Budget.ua_points, help="largest loss of UA allowed, in points")
    options = parser.parse_args(argv)
    try:
        budget = Budget(options.cosine, options.points)
        receipt = quantize(Bundle.open(options.bundle), options.calibration, options.out, budget)
    except EdgeSerError as error:
        print(f"quantize: {error}", file=sys.stderr)
        return 1
    worst = min(receipt["cosine"].values())
    print(
        f"{options.out}: UA {receipt['ua_before']['ua']:.4f} -> {receipt['ua_after']['ua']:.4f}, "
        f"agreement {receipt['agreement']:.3f}, smallest cosine {worst:.4f}, {receipt['integer_operators']} integer "
        f"and {receipt['float_operators']} float products, {receipt['speed_ratio']:.2f}x as fast, "
        f"{receipt['bytes_after'] / 1e6:.2f} MB"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
