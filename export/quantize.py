"""Turn an fp32 bundle into a calibrated INT8 bundle with a receipt, or into nothing.

    python export/quantize.py build/mdat --calibration DATA/speech/manifest.csv --out build/mdat-int8

Ranges come from clips of the training speakers; temperature, thresholds and the UA before and after come from the
validation speakers that the bundle names. What is taken for speech in ../noise/noise.csv raises the thresholds. Every
block is quantised alone to measure its harm; while the whole is out of budget, the most harmful block goes back to
float. If no choice is in budget, nothing is written.

A student becomes one static Q/DQ graph, from which ONNX Runtime and TensorRT both start. A large system, of several
graphs, becomes dynamic INT8 for the CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import onnx

from edge_ser.bundle import Bundle
from edge_ser.environment import environment
from edge_ser.errors import ConfigError, EdgeSerError
from edge_ser.metrics import bootstrap_interval, expected_calibration_error
from export.calibrate import fit_calibration
from export.card import render_card
from export.material import Material, crop, data_folder, read_material
from export.qdq_rules import check
from export.quantize_split import quantize_large
from export.ranges import measure_ranges
from export.receipt import Inputs, count_operators, speed_ratio
from export.static_int8 import prepare, quantisable_blocks, quantise
from export.trial import Budget, Trial, all_logits, block_costs, measure, ua

SPEED_S = 3.0


def quantize(bundle: Bundle, calibration: Path, out: Path, budget: Budget, target: str = "cpu") -> dict[str, Any]:
    """Write the INT8 bundle and return its receipt.

    Args:
        bundle: An fp32 bundle of one graph.
        calibration: The corpora's manifest, or their folder.
        out: The INT8 bundle's folder.
        budget: What quantisation may cost.
        target: `cpu` or `tensorrt`; for the latter the graph must keep TensorRT's rules.

    Raises:
        ConfigError: No choice of blocks is within the budget, or TensorRT would refuse the graph; nothing is written.
    """
    if bundle.manifest.precision != "fp32":
        raise ConfigError(
            f"{bundle.folder} is {bundle.manifest.precision} already; need an fp32 bundle: export/to_onnx.py"
        )
    material = read_material(bundle, calibration)
    source = bundle.path(bundle.manifest.graphs["model"])
    with tempfile.TemporaryDirectory() as folder:
        graph, result = Path(folder) / "prepared.onnx", Path(folder) / "model.onnx"
        prepare(source, graph)
        blocks = quantisable_blocks(graph)
        ranges = measure_ranges(graph, [node for nodes in blocks.values() for node in nodes], material.ranges)
        rows = block_costs(graph, blocks, ranges, material)
        before = measure(source, source, material)
        press = partial(quantise, graph, result, ranges=ranges, example=material.ranges[0])
        trial = _within_budget(press, lambda: measure(graph, result, material, before), blocks, rows, budget)
        if target == "tensorrt":
            _check_rules(result)
        receipt = _receipt((source, result), rows, material, before, trial)
        _write(bundle, out, result, receipt, material, trial)
    return receipt


def _within_budget(
    press: Callable[[list[str]], None],
    judge: Callable[[], Trial],
    blocks: dict[str, list[str]],
    rows: list[dict[str, Any]],
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
        press(nodes)
        trial = judge()
        if trial.fits(budget):
            return trial
    harmful = ", ".join(f"{row['name']} ({row['cosine']})" for row in reversed(rows))
    raise ConfigError(
        f"no INT8 graph within cosine {budget.cosine}, probability shift {budget.shift} and {budget.ua_points} points "
        f"(the last one: {trial}); nothing written; cosine by block: {harmful}"
    )


def _check_rules(graph: Path) -> None:
    # The engine's builder folds biases into floats by itself.
    refused = [item for item in check(onnx.load(str(graph))) if item.refused and item.rule != "bias"]
    if refused:
        raise ConfigError(f"TensorRT would refuse the graph: {refused[0]}; nothing written; use --target cpu")


def _receipt(
    graphs: tuple[Path, Path],
    rows: list[dict[str, Any]],
    material: Material,
    before: Trial,
    trial: Trial,
) -> dict[str, Any]:
    source, result = graphs
    integer, floating = count_operators(result)
    example = _speed_example(material)
    return {
        "cosine": {f"{seconds:g}": round(value, 6) for seconds, value in trial.cosines.items()},
        "probability_shift": {f"{seconds:g}": round(value, 5) for seconds, value in trial.shifts.items()},
        "blocks": rows,
        "ua_before": _score(before, material),
        "ua_after": _score(trial, material),
        "agreement": round(float(np.mean(before.cold.argmax(1) == trial.cold.argmax(1))), 4),
        "bytes_before": source.stat().st_size,
        "bytes_after": result.stat().st_size,
        "speed_ratio": round(speed_ratio(source, result, example), 3),
        "integer_operators": integer,
        "float_operators": floating,
        "environment": environment("onnxruntime", "onnx", "numpy"),
    }


def _score(trial: Trial, material: Material) -> dict[str, Any]:
    truth, logits = material.truth, trial.cold
    probabilities = fit_calibration([logits], truth, []).probabilities(logits)
    low, high = bootstrap_interval(ua, [truth, logits])
    low_ece, high_ece = bootstrap_interval(expected_calibration_error, [probabilities, truth])
    return {
        "ua": round(ua(truth, logits), 4),
        "interval": [round(low, 4), round(high, 4)],
        "ece": round(expected_calibration_error(probabilities, truth), 4),
        "ece_interval": [round(low_ece, 4), round(high_ece, 4)],
        "clips": len(material.truth),
        "speakers": len(set(material.speakers.tolist())),
    }


def _speed_example(material: Material) -> Inputs:
    item = dict(material.cold[0])
    item["audio"] = crop(item["audio"][0], SPEED_S)[None]
    return item


def _write(bundle: Bundle, out: Path, graph: Path, receipt: dict[str, Any], material: Material, trial: Trial) -> None:
    # A stream is cold once and warm from then on: the thresholds hold in both states.
    noise = [all_logits(graph, sounds) for sounds in material.noise]
    calibration = fit_calibration([trial.cold, trial.warm], material.truth, noise)
    manifest = replace(bundle.manifest, name=f"{bundle.manifest.name}-int8", precision="int8", calibration=calibration)
    files: dict[str, bytes | Path] = {
        "model.onnx": graph,
        "receipt.json": (json.dumps(receipt, indent=1) + "\n").encode(),
        "MODEL_CARD.md": render_card(manifest, receipt).encode(),
    }
    if "tokenizer.json" in bundle.manifest.files:
        files["tokenizer.json"] = bundle.path("tokenizer.json")
    Bundle.write(out, manifest, files)


def _large(bundle: Bundle, options: argparse.Namespace, budget: Budget) -> str:
    if options.target != "cpu":
        raise ConfigError(
            f"{options.bundle} has several graphs, which become dynamic INT8; TensorRT takes none of it; "
            "use --target cpu, or build 16-bit engines from the fp32 bundle: export/build_trt.py --precision fp16"
        )
    return quantize_large(bundle, options.calibration and data_folder(options.calibration), options.out, budget)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="an fp32 bundle's folder")
    parser.add_argument("--calibration", type=Path, metavar="MANIFEST", help="the corpora's manifest, or their folder")
    parser.add_argument("--out", type=Path, required=True, help="the INT8 bundle's folder")
    parser.add_argument("--target", choices=("cpu", "tensorrt"), default="cpu", help="what has to take the graph")
    parser.add_argument("--cosine", type=float, default=Budget.cosine, help="smallest cosine allowed")
    parser.add_argument("--points", type=float, default=Budget.ua_points, help="largest loss of UA allowed, in points")
    options = parser.parse_args(argv)
    try:
        budget = Budget(options.cosine, options.points)
        bundle = Bundle.open(options.bundle)
        if "model" not in bundle.manifest.graphs:
            print(_large(bundle, options, budget))
            return 0
        if options.calibration is None:
            raise ConfigError(f"{options.bundle} needs sound to set its integer ranges; add --calibration MANIFEST")
        receipt = quantize(bundle, options.calibration, options.out, budget, options.target)
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
