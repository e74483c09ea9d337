"""The model card, rendered from manifest and receipt; nothing in it is typed by hand.

    python export/card.py edge_ser/models/mdat-int8 --metrics benchmarks/mdat-int8.json

puts an evaluation's figures into the bundle's manifest and renders its card anew.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edge_ser.bundle import Bundle, Manifest
from edge_ser.errors import ConfigError, EdgeSerError


def render_card(manifest: Manifest, receipt: Mapping[str, Any]) -> str:
    """Return the card as Markdown."""
    parts = [
        f"# {manifest.name}",
        f"System `{manifest.system}`, {manifest.precision}, {_parameters(manifest)} parameters. "
        f"Labels: {', '.join(manifest.labels)}. "
        f"Utterances of {manifest.min_duration_s:g} to {manifest.max_duration_s:g} s, "
        f"{manifest.sample_rate_hz} Hz mono.",
        _training_data(manifest),
        _metrics(manifest),
        _calibration(manifest),
        _receipt(receipt),
        _limits(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _parameters(manifest: Manifest) -> str:
    parameters = manifest.provenance.get("parameters")
    return f"{parameters:,}" if isinstance(parameters, int) else "an unknown number of"


def _training_data(manifest: Manifest) -> str:
    rows = [
        f"| {item.corpus} | {item.utterances} | {item.speakers or '-'} | {item.licence} |"
        for item in manifest.training_data
    ]
    head = ["## Training data", "", "| corpus | items | speakers | licence |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows, "", f"Licence of the model: {manifest.licence}."])


def _metrics(manifest: Manifest) -> str:
    corpora = manifest.metrics.get("corpora")
    if not isinstance(corpora, Mapping):
        return ""
    lines = [
        "## Accuracy on speakers never heard",
        "",
        "UA, unweighted accuracy over 4 classes, 95 % intervals. *Cold*: each utterance with a fresh voice profile. "
        f"*Warm*: after {manifest.metrics['warm_after_utterances']} utterances of the same speaker.",
        "",
        "| corpus | voice | speakers | clips | UA | ECE | certain answers: right (share of all) |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for corpus, sides in corpora.items():
        lines += [_metric_row(corpus, side, sides[side]) for side in ("cold", "warm") if sides[side]]
    noise: Any = manifest.metrics["non_speech"]
    lines += [
        "",
        f"Of {noise['sounds']} unheard sounds that are no speech, "
        f"{noise['confident_share']:.1%} got a confident answer.",
    ]
    return "\n".join(lines)


def _metric_row(corpus: str, side: str, figures: Mapping[str, Any]) -> str:
    low, high = figures["ua_interval"]
    right = "-" if figures["certain_accuracy"] is None else f"{figures['certain_accuracy']:.3f}"
    return (
        f"| {corpus} | {side} | {figures['speakers']} | {figures['clips']} "
        f"| {figures['ua']:.3f} [{low:.3f}, {high:.3f}] "
        f"| {figures['ece']:.3f} | {right} ({figures['certain_share']:.0%}) |"
    )


def _calibration(manifest: Manifest) -> str:
    calibration = manifest.calibration
    lines = [
        "## Calibration",
        "",
        f"Temperature {calibration.temperature:g}, default risk {calibration.default_risk:g}; "
        "fitted on the validation speakers.",
    ]
    if calibration.risks:
        lines += ["", "| risk | certain from confidence | label ruled out below |", "| --- | --- | --- |"]
        lines += [
            f"| {row.risk:g} | {row.min_confidence:.3f} | {row.min_probability:.3f} |" for row in calibration.risks
        ]
    return "\n".join(lines)


def _receipt(receipt: Mapping[str, Any]) -> str:
    if not receipt:
        return ""
    before, after = receipt["ua_before"], receipt["ua_after"]
    lengths = ", ".join(f"{seconds} s {value:.4f}" for seconds, value in receipt["cosine"].items())
    kept = [row["name"] for row in receipt["blocks"] if row["precision"] != "int8"]
    return "\n".join(
        [
            "## INT8 against fp32",
            "",
            f"- UA on {after['clips']} validation clips: {before['ua']:.4f} before, {after['ua']:.4f} after; "
            f"the same answer for {receipt['agreement']:.1%}.",
            f"- Smallest cosine between embeddings: {lengths}.",
            f"- Mean change of a probability, words and voices included: at most "
            f"{max(receipt['probability_shift'].values()):.4f} at any of these lengths.",
            f"- Products that ONNX Runtime runs in integers: {receipt['integer_operators']}; in floats: "
            f"{receipt['float_operators']}. Blocks sent back to float: {', '.join(kept) or 'none'}.",
            f"- {receipt['bytes_before'] / 1e6:.2f} MB before, {receipt['bytes_after'] / 1e6:.2f} MB after; "
            f"{receipt['speed_ratio']:.2f} times as fast on one thread ({receipt['environment']['processor']}).",
        ]
    )


def _limits() -> str:
    return "\n".join(
        [
            "## Limits",
            "",
            "Learnt from acted speech: it hears how something is said, not what a person feels. Expect less on "
            "spontaneous speech and on languages not listed above. Inferring emotions of people at work or in "
            "education is prohibited in the EU (AI Act, Article 5(1)(f)).",
        ]
    )


def add_metrics(folder: Path, metrics: Path) -> None:
    """Put an evaluation's figures into a bundle's manifest and render its card anew.

    Raises:
        ConfigError: The figures are those of another bundle.
    """
    bundle = Bundle.open(folder)
    figures = json.loads(metrics.read_text(encoding="utf-8"))
    if figures.get("model") != bundle.manifest.name:
        raise ConfigError(f"{metrics} is about {figures.get('model')}; need figures of {bundle.manifest.name}")
    receipt = json.loads(bundle.read("receipt.json")) if "receipt.json" in bundle.manifest.files else {}
    manifest = replace(bundle.manifest, metrics=figures)
    files: dict[str, bytes | Path] = {name: bundle.read(name) for name in bundle.manifest.files}
    files["MODEL_CARD.md"] = render_card(manifest, receipt).encode()
    Bundle.write(folder, manifest, files)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--metrics", type=Path, required=True, help="JSON from python -m train.evaluate --out")
    options = parser.parse_args(argv)
    try:
        add_metrics(options.bundle, options.metrics)
    except (EdgeSerError, OSError, json.JSONDecodeError) as error:
        print(f"card: {error}", file=sys.stderr)
        return 1
    print(options.bundle / "MODEL_CARD.md")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
