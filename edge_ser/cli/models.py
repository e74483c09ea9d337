"""`edge-ser models`: the bundled models, or one of them in full."""

from __future__ import annotations

import argparse
import json
import re
from typing import TYPE_CHECKING

from edge_ser.cli.options import Commands
from edge_ser.cli.tables import add_format, print_json, print_table
from edge_ser.cli.text import report

if TYPE_CHECKING:
    from edge_ser.bundle import Bundle

_HEAD = ("NAME", "SYSTEM", "PRECISION", "SIZE", "LABELS", "LICENCE")


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "models", help="list the models, or show one", description="Lists the bundled models, or shows one in full."
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a bundled model's name or a bundle's folder")
    add_format(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show one model, or list all."""
    from edge_ser.bundle import bundled_names, find_bundle

    if arguments.name is not None:
        _show(find_bundle(arguments.name), arguments.format)
        return 0
    bundles = [find_bundle(name) for name in bundled_names()]
    if arguments.format == "json":
        print_json([_plain(bundle) for bundle in bundles])
    elif bundles:
        print_table(_HEAD, [_row(bundle) for bundle in bundles])
    else:
        report("no model is bundled. Install a release: pip install edge-ser")
    return 0


def _row(bundle: Bundle) -> tuple[str, ...]:
    manifest = bundle.manifest
    size = size_bytes(bundle)
    size_text = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
    # What follows a comma or semicolon is in full in `models NAME`.
    licence = re.split("[,;]", manifest.licence)[0]
    return manifest.name, manifest.system, manifest.precision, size_text, " ".join(manifest.labels), licence


def size_bytes(bundle: Bundle) -> int:
    """Return the bytes of all files of a bundle."""
    return sum(bundle.path(name).stat().st_size for name in bundle.manifest.files)


def _plain(bundle: Bundle) -> dict[str, object]:
    manifest: dict[str, object] = json.loads(bundle.manifest.to_json())
    return {"folder": str(bundle.folder), "size_bytes": size_bytes(bundle), **manifest}


def _show(bundle: Bundle, format_name: str) -> None:
    if format_name == "json":
        print_json(_plain(bundle))
        return
    from edge_ser.manifest import PACK_NAME

    manifest = bundle.manifest
    print_table(_HEAD, [_row(bundle)])
    print(f"folder      {bundle.folder}")
    if manifest.base is not None:
        kind = "a language pack" if PACK_NAME in manifest.files else "an adapted head"
        print(f"base        {manifest.base.name}, with {kind} over it")
    print(f"utterances  {manifest.min_duration_s:g} to {manifest.max_duration_s:g} s at {manifest.sample_rate_hz} Hz")
    for item in manifest.inputs:
        print(f"input       {item.name}: {item.kind}, {item.dtype} {_shape(item.shape)}")
    for output in manifest.outputs:
        print(f"output      {output.name}: {output.dtype} {_shape(output.shape)}")
    risks = ", ".join(f"{row.risk:g}" for row in manifest.calibration.risks)
    print(f"risks       {risks or 'none'} (default {manifest.calibration.default_risk:g})")
    print(f"licence     {manifest.licence}")
    for corpus in manifest.training_data:
        print(
            f"learnt from {corpus.corpus}: {corpus.utterances} utterances, {corpus.speakers} speakers, {corpus.licence}"
        )
    if manifest.metrics:
        print("metrics")
        print(json.dumps(dict(manifest.metrics), indent=2, ensure_ascii=False))


def _shape(sizes: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, sizes))})"
