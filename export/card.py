"""The model card, rendered from manifest and receipt; nothing in it is typed by hand.

    python export/card.py edge_ser/models/mdat-int8 --metrics benchmarks/results/mdat-int8.json

puts an evaluation's figures into the bundle's manifest and renders its card anew. What a few labelled clips are worth
comes from the adapt*.json beside the figures that is about the same model, if there is one. With --copy FOLDER a copy
of the card goes there, with links to the pictures that lie in that folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edge_ser.bundle import Bundle, Manifest
from edge_ser.errors import ConfigError, EdgeSerError
from export import card_accuracy, card_bundle, card_limits
from export.card_text import joined

CARD_NAME = "MODEL_CARD.md"
ADAPT_NAMES = "adapt*.json"
_DIGITS = 3
_LEFT_OUT = ("confusion", "certain_interval", "risk_coverage", "environment", "wa")


def render_card(manifest: Manifest, receipt: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """Return the card as Markdown.

    Args:
        manifest: Of the bundle; its metrics may be empty.
        receipt: What quantisation did; empty for an fp32 bundle.
        pictures: Files that lie beside the card.
    """
    metrics = manifest.metrics
    return joined(
        card_bundle.head(manifest),
        card_bundle.architecture(manifest),
        card_bundle.interface(manifest),
        card_bundle.training_data(manifest),
        card_accuracy.accuracy(metrics),
        card_accuracy.seconds_heard(metrics),
        card_accuracy.utterances_heard(metrics),
        card_accuracy.few_shots(metrics),
        card_accuracy.calibration(manifest),
        card_accuracy.robustness(metrics),
        card_bundle.quantisation(receipt),
        card_bundle.voice(manifest),
        card_limits.failures(metrics),
        card_limits.use(manifest),
        card_bundle.commands(manifest),
        card_bundle.pictures(pictures),
    )


def compact(figures: Mapping[str, Any], adapted: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what a manifest keeps of an evaluation: rounded, without what only pictures need.

    Args:
        figures: The JSON of `python -m train.evaluate --out`.
        adapted: The JSON of `python benchmarks/adapt.py --out`; None where it was not measured.
    """
    metrics: dict[str, Any] = {key: _rounded(value) for key, value in figures.items() if key not in _LEFT_OUT}
    for voice in metrics.get("pooled", {}).get("away", {}).values():
        voice.pop("reliability", None)
    if adapted is not None:
        metrics["few_shots"] = {
            "draws": adapted["draws"],
            "corpora": {corpus: _rows_of(found["rows"]) for corpus, found in adapted["corpora"].items()},
        }
    return metrics


def _rows_of(rows: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    kept = ("ua", "ua_interval")
    return {
        row: {"shots": [int(k) for k in found], **{key: _rounded([f[key] for f in found.values()]) for key in kept}}
        for row, found in rows.items()
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items() if key not in _LEFT_OUT}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value


def read_metrics(path: Path, model: str) -> dict[str, Any]:
    """Return what the manifest of a model keeps of an evaluation and of the adaptations beside it.

    Raises:
        ConfigError: The figures are those of another bundle.
    """
    figures = json.loads(path.read_text(encoding="utf-8"))
    if figures.get("model") != model:
        raise ConfigError(f"{path} is about {figures.get('model')}; need figures of {model}")
    beside = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(path.parent.glob(ADAPT_NAMES))]
    return compact(figures, next((adapted for adapted in beside if adapted.get("model") == model), None))


def add_metrics(folder: Path, metrics: Path, copy: Path | None = None) -> None:
    """Put an evaluation's figures into a bundle's manifest and render its card anew.

    Args:
        folder: The bundle's.
        metrics: JSON from `python -m train.evaluate --out`.
        copy: A folder for a copy of the card, which links to the pictures there.

    Raises:
        ConfigError: The figures are those of another bundle.
    """
    bundle = Bundle.open(folder)
    manifest = replace(bundle.manifest, metrics=read_metrics(metrics, bundle.manifest.name))
    receipt = json.loads(bundle.read("receipt.json")) if "receipt.json" in manifest.files else {}
    files: dict[str, bytes | Path] = {name: bundle.read(name) for name in manifest.files}
    files[CARD_NAME] = render_card(manifest, receipt).encode()
    Bundle.write(folder, manifest, files)
    if copy is not None:
        pictures = sorted(path.name for path in copy.glob("*.png"))
        copy.mkdir(parents=True, exist_ok=True)
        (copy / CARD_NAME).write_text(render_card(manifest, receipt, pictures), encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--metrics", type=Path, required=True, help="JSON from python -m train.evaluate --out")
    parser.add_argument("--copy", type=Path, metavar="FOLDER", help="also write the card here, beside its pictures")
    options = parser.parse_args(argv)
    try:
        add_metrics(options.bundle, options.metrics, options.copy)
    except (EdgeSerError, OSError, json.JSONDecodeError) as error:
        print(f"card: {error}", file=sys.stderr)
        return 1
    print(options.bundle / CARD_NAME)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
