"""`edge-ser adapt`: a model that knows a user's own way of speaking, from a few labelled clips."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edge_ser.cli.options import Commands, positive_int
from edge_ser.cli.tables import add_format, print_json, print_table
from edge_ser.cli.text import report

if TYPE_CHECKING:
    from edge_ser.adapt_report import AdaptReport, Score


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "adapt",
        help="adapt a model to your own clips",
        description="Adapts a model to a few labelled clips, here and without a network. The model is left as it is; "
        "the adapted one is a small bundle that needs it.",
    )
    parser.add_argument("--model", default="mdat-int8", metavar="M", help="a bundled model's name or a bundle's folder")
    parser.add_argument(
        "--shots",
        required=True,
        type=Path,
        metavar="DIR_OR_CSV",
        help="clips in folders named by label, or a CSV: path,label[,speaker][,transcript]",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="BUNDLE", help="folder of the adapted bundle")
    parser.add_argument("--threads", type=positive_int, metavar="N", help="processor threads for one utterance")
    add_format(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Adapt, and say what it was worth."""
    from edge_ser.adapt import adapt
    from edge_ser.shots import list_shots

    done = adapt(arguments.model, list_shots(arguments.shots), arguments.out, threads=arguments.threads)
    for item in done.skipped:
        report(f"{item.path} is left out: {item.reason}" if str(item.path) not in item.reason else item.reason)
    if arguments.format == "json":
        skipped = [{"path": str(item.path), "reason": item.reason} for item in done.skipped]
        size = {"seconds": round(done.seconds, 2), "size_bytes": done.size_bytes}
        print_json({"bundle": str(arguments.out), **size, **done.to_plain(), "skipped": skipped})
    else:
        _print(done, arguments.out)
    return 0


def _print(done: AdaptReport, out: Path) -> None:
    voices = f"{done.voices} voice{'' if done.voices == 1 else 's'}"
    size = f"{done.size_bytes / 1e3:.0f} kB"
    print(f"{out}: {done.base} adapted to {done.left_out.clips} clips, {voices}, in {done.seconds:.1f} s, {size}")
    rows = [(row.label, str(row.clips), f"{row.before:.2f}", f"{row.after:.2f}") for row in done.left_out.labels]
    rows.append(("mean", str(done.left_out.clips), *_pair(done.left_out)))
    if done.new_voice is not None:
        rows.append(("mean, new voice", str(done.new_voice.clips), *_pair(done.new_voice)))
    print_table(("LABEL", "CLIPS", "BEFORE", "AFTER"), rows)
    print("Shares recognised; each clip was judged by a model that had not learnt from it.")
    for note in done.notes:
        print(note)


def _pair(item: Score) -> tuple[str, str]:
    return _with_interval(item.before, item.before_interval), _with_interval(item.after, item.after_interval)


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"
