"""Turn an fp32 bundle into a calibrated INT8 bundle with a receipt, or into nothing.

    python export/quantize.py build/mdat --calibration FOLDER --out build/mdat-int8

FOLDER holds speech/manifest.csv and noise/noise.csv. Ranges come from clips of the training speakers; temperature, thresholds and
the UA before and after come from the validation speakers that the bundle names. Every block is quantised alone to
measure its harm; while the whole is out of budget, the most harmful block goes back to float. If no choice is in
budget, nothing is written.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.bundle import Bundle
from edge_ser.corpus import Clip, read_manifest
from edge_ser.errors import ConfigError, EdgeSerError
from edge_ser.frontend import FrontEnd
from edge_ser.metrics import bootstrap_interval, confusion_matrix, unweighted_accuracy
from edge_ser.sources import read_samples
from export.calibrate import fit_calibration
from export.card import render_card
from export.provenance import environment
from export.receipt import Inputs, cosine, count_operators, open_session, run, speed_ratio, sqnr_db
from export.static_int8 import prepare, quantisable_blocks, quantise

Item = TypeVar("Item")

LENGTHS_S = (0.4, 0.5, 1.0, 2.0, 4.0, 8.0)
SPEED_S = 3.0
RANGE_CLIPS = 240
RANGE_CROPS_S = (0.5, 1.0, 2.0, 3.0, 5.0)


@dataclass(frozen=True)
class Budget:
    """What quantisation may cost."""

    cosine: float = 0.99
    """Smallest cosine between embeddings, at any length."""
    ua_points: float = 0.5
    """Loss of UA on the validation speakers, in points (hundredths)."""


@dataclass(frozen=True)
class Material:
    """The sound that an fp32 bundle is quantised and calibrated with."""

    ranges: list[Inputs]
    """Crops of training clips, some with words and a voice: they set the integer ranges."""
    lengths: dict[float, list[Inputs]]
    """Crops of validation clips by seconds: they measure the cosine."""
    validation: list[Inputs]
    """Whole validation clips."""
    truth: NDArray[np.int64]
    """Their label indices."""
    speakers: NDArray[np.str_]
    """Their speakers."""
    noise: list[Inputs]
    """Sounds that are nobody's speech."""


def read_material(bundle: Bundle, data: Path) -> Material:
    """Return the material for the speakers that the bundle names.

    Raises:
        ConfigError: The folder lacks the clips of those speakers.
    """
    speakers: Any = bundle.manifest.provenance.get("speakers", {})
    labels = bundle.manifest.labels
    clips = [clip for clip in read_manifest(data / "speech" / "manifest.csv") if clip.emotion in labels]
    train = [clip for clip in clips if clip.speaker in set(speakers.get("train", []))]
    validation = [clip for clip in clips if clip.speaker in set(speakers.get("validation", []))]
    if not train or not validation:
        raise ConfigError(f"{data} has no clip of the speakers in {bundle.folder}; need the corpora it was trained on")
    front_end = FrontEnd(bundle)
    return Material(
        ranges=_range_inputs(front_end, bundle, train),
        lengths={seconds: _crops(front_end, validation, seconds) for seconds in LENGTHS_S},
        validation=[front_end.inputs(read_samples(clip.path)) for clip in _progress(validation, "clip")],
        truth=np.array([labels.index(clip.emotion) for clip in validation]),
        speakers=np.array([clip.speaker for clip in validation]),
        noise=[front_end.inputs(read_samples(path)) for path in _noises(data / "noise")],
    )


def _progress(items: Sequence[Item], unit: str) -> Iterable[Item]:
    bar: Iterable[Item] = tqdm(items, unit=unit, disable=not sys.stderr.isatty())
    return bar


def _range_inputs(front_end: FrontEnd, bundle: Bundle, clips: Sequence[Clip]) -> list[Inputs]:
    rng = np.random.default_rng(0)
    chosen = [clips[int(place)] for place in rng.choice(len(clips), RANGE_CLIPS, replace=len(clips) < RANGE_CLIPS)]
    voice = bundle.manifest.input_of("voice")
    session = open_session(bundle.path(bundle.manifest.graphs["model"]))
    inputs = []
    mean: NDArray[np.float32] | None = None
    for place, clip in enumerate(chosen):
        samples = _crop(read_samples(clip.path), RANGE_CROPS_S[place % len(RANGE_CROPS_S)])
        item = front_end.inputs(samples, clip.transcript if place % 2 else None)
        embedding = session.run(["embedding"], item)[0][0]
        if voice is not None and place % 3 == 2 and mean is not None:
            item[voice.name] = np.concatenate([[place % 60 + 1], mean, np.abs(embedding - mean)])[None].astype(np.float32)
        mean = embedding
        inputs.append(item)
    return inputs


def _crops(front_end: FrontEnd, clips: Sequence[Clip], seconds: float, count: int = 24) -> list[Inputs]:
    step = max(1, len(clips) // count)
    return [front_end.inputs(_crop(read_samples(clip.path), seconds)) for clip in clips[::step]][:count]


def _crop(samples: NDArray[np.float32], seconds: float) -> NDArray[np.float32]:
    """Return the middle of a clip, repeated where it is shorter."""
    wanted = int(seconds * SAMPLE_RATE_HZ)
    if len(samples) < wanted:
        return np.resize(samples, wanted)
    start = (len(samples) - wanted) // 2
    return samples[start : start + wanted]


def _noises(folder: Path) -> list[Path]:
    with (folder / "noise.csv").open(encoding="utf-8", newline="") as lines:
        names = sorted(row["path"] for row in csv.DictReader(lines))
    # Every fourth sound is kept for evaluation, here as in the workshop.
    return [folder / name for place, name in enumerate(names) if place % 4 != 3]


@dataclass(frozen=True)
class Trial:
    """One quantised graph and what it costs."""

    cosines: dict[float, float]
    """Smallest cosine between embeddings, by seconds of audio."""
    logits: NDArray[np.float64]
    """Logits of the validation clips."""
    loss_points: float
    """Loss of UA in points."""

    def fits(self, budget: Budget) -> bool:
        """Return whether every length and the UA are within the budget."""
        return min(self.cosines.values()) >= budget.cosine and self.loss_points <= budget.ua_points


def all_logits(graph: Path, inputs: Iterable[Inputs]) -> NDArray[np.float64]:
    """Return logits (n, labels) of every input."""
    session = open_session(graph)
    return np.array([session.run(["logits"], item)[0][0] for item in inputs], dtype=np.float64)


def ua(truth: NDArray[np.int64], logits: NDArray[np.float64]) -> float:
    """Return the unweighted accuracy of the largest logits."""
    return unweighted_accuracy(confusion_matrix(truth, logits.argmax(1), logits.shape[1]))


def try_blocks(graph: Path, out: Path, nodes: Sequence[str], material: Material, before: NDArray[np.float64]) -> Trial:
    """Quantise these nodes and measure the cost."""
    quantise(graph, out, nodes, material.ranges)
    cosines = {
        seconds: cosine(run(graph, inputs)["embedding"], run(out, inputs)["embedding"])
        for seconds, inputs in material.lengths.items()
    }
    logits = all_logits(out, material.validation)
    return Trial(cosines, logits, 100.0 * (ua(material.truth, before) - ua(material.truth, logits)))


def block_costs(graph: Path, blocks: dict[str, list[str]], material: Material) -> list[dict[str, Any]]:
    """Return each block's harm when it alone is quantised, least harmful first."""
    inputs = [item for seconds in LENGTHS_S for item in material.lengths[seconds][:8]] + material.ranges[1:40:2]
    reference = run(graph, inputs)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "alone.onnx"
        for name, nodes in _progress(list(blocks.items()), "block"):
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
        before = all_logits(graph, material.validation)
        trial = _within_budget(graph, result, blocks, rows, material, before, budget)
        receipt = _receipt(graph, result, rows, material, before, trial)
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
    for row in [None, *reversed(rows)]:
        if row is not None:
            row["precision"] = "fp32"
            print(f"out of budget: {row['name']} goes back to float", file=sys.stderr)
        nodes = [node for kept in rows if kept["precision"] == "int8" for node in blocks[kept["name"]]]
        if not nodes:
            break
        trial = try_blocks(graph, result, nodes, material, before)
        if trial.fits(budget):
            return trial
    harmful = ", ".join(f"{row['name']} ({row['cosine']})" for row in reversed(rows))
    raise ConfigError(f"no INT8 graph within cosine {budget.cosine} and {budget.ua_points} points; harm by block: {harmful}")


def _receipt(
    graph: Path,
    result: Path,
    rows: list[dict[str, Any]],
    material: Material,
    before: NDArray[np.float64],
    trial: Trial,
) -> dict[str, Any]:
    integer, floating = count_operators(result)
    example = _speed_example(material)
    return {
        "cosine": {f"{seconds:g}": round(value, 6) for seconds, value in trial.cosines.items()},
        "blocks": rows,
        "ua_before": _score(before, material),
        "ua_after": _score(trial.logits, material),
        "agreement": round(float(np.mean(before.argmax(1) == trial.logits.argmax(1))), 4),
        "bytes_before": graph.stat().st_size,
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
    item = dict(material.validation[0])
    item["audio"] = _crop(item["audio"][0], SPEED_S)[None]
    return item


def _write(
    bundle: Bundle, out: Path, graph: Path, receipt: dict[str, Any], material: Material, trial: Trial
) -> None:
    calibration = fit_calibration(trial.logits, material.truth, all_logits(graph, material.noise))
    manifest = replace(
        bundle.manifest, name=f"{bundle.manifest.name}-int8", precision="int8", calibration=calibration
    )
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
