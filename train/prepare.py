"""Write the manifest of corpora that you have, and say what was found, missing, duplicated or unreadable.

    python -m train.prepare emodb=~/corpora/emodb iemocap=~/corpora/IEMOCAP_full_release --out data
    python -m train.prepare --list

The manifest is data/speech/manifest.csv; audio is not copied. Pass --data data to the other commands.
Every file is read once. Broken and missing ones are listed and left out, the rest go on, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_ser.errors import ConfigError, EdgeSerError
from train.corpora import READERS
from train.corpora.audit import Audit, audit, unlisted
from train.corpora.tables import corpus_table
from train.corpora.utterance import Utterance, write_manifest

SHOWN = 10
"""Files that a table names of each kind; JSON names all."""


def prepare(
    folders: Sequence[tuple[str, Path]], manifest: Path, *, jobs: int = 1, replace: bool = False
) -> list[Audit]:
    """Write the manifest of some corpora and return what was found of each.

    Args:
        folders: Name of a corpus and the folder that holds it.
        manifest: The CSV to write.
        jobs: How many files are read at once.
        replace: Whether the CSV may exist.

    Raises:
        ConfigError: A folder does not hold its corpus, nothing can be read, or the manifest exists.
    """
    if manifest.exists() and not replace:
        raise ConfigError(f"{manifest} exists; need a new file: pass another --out, or --replace to write it anew")
    utterances: list[Utterance] = []
    for name, folder in folders:
        utterances += READERS[name](folder)
    audits = audit(utterances, jobs)
    for found in audits:
        own = [clip for clip in utterances if clip.corpus == found.corpus]
        found.unlisted += [
            path for name, folder in folders if name == found.corpus for path in unlisted(folder, own, name)
        ]
    kept = [clip for found in audits for clip in found.kept]
    if kept:
        write_manifest(manifest, kept)
        return audits
    listed = f"{len(utterances)} listed, {sum(len(found.missing) for found in audits)} do not exist"
    raise ConfigError(f"no audio file can be read ({listed}); need those that the labels name; check the folders")


def print_report(audits: Sequence[Audit]) -> None:
    """Print a line for each corpus, then what is to be known about its files."""
    head = ("corpus", "utterances", "speakers", "hours", "missing", "duplicated", "unreadable")
    rows = [head, *(_row(found) for found in audits)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    for found in audits:
        classes = found.as_object()["classes"]
        assert isinstance(classes, dict)
        print(f"\n{found.corpus}: " + ", ".join(f"{label or 'no label'} {count}" for label, count in classes.items()))
        _print_some("differs from what is published", found.differences())
        _print_some("missing", [str(path) for path in found.missing])
        _print_some("duplicated", [_same(*pair) for pair in found.duplicated])
        _print_some("unreadable", found.unreadable)
        _print_some("there, but in no label or not named as the corpus names its clips", [*map(str, found.unlisted)])
        _print_some("silent, yet kept", [str(path) for path in found.silent])


def _row(found: Audit) -> tuple[str, ...]:
    about = found.as_object()
    counts = (len(found.missing), len(found.duplicated), len(found.unreadable))
    return (*(str(about[name]) for name in ("corpus", "utterances", "speakers", "hours")), *map(str, counts))


def _same(path: Path, first: Path, agree: bool) -> str:
    return f"{path} is {first}" + ("" if agree else ", but with another label or speaker")


def _print_some(what: str, lines: Sequence[str]) -> None:
    if lines:
        print(f"  {what}:")
    for line in lines[:SHOWN]:
        print(f"    {line}")
    if len(lines) > SHOWN:
        print(f"    and {len(lines) - SHOWN} more; --format json names all")


def print_corpora() -> None:
    """Print what can be read: where it is to be had, on which conditions, and what its files look like."""
    for name in READERS:
        about = corpus_table(name)
        print(f"{name}: {about.title}")
        print(f"  {about.language}, {about.utterances:,} utterances, licence: {about.licence}")
        print(f"  from {about.home}")
        print(f"  files: {', '.join(about.layout)}")


def _folder(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals or not folder:
        raise argparse.ArgumentTypeError(f"got {text!r}; need CORPUS=FOLDER, for example emodb=corpora/emodb")
    if name not in READERS:
        raise argparse.ArgumentTypeError(f"no corpus {name!r}; need one of {', '.join(READERS)}")
    return name, Path(folder).expanduser()


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 1 where a file is missing or could not be read."""
    parser = argparse.ArgumentParser(
        prog="python -m train.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpora", nargs="*", type=_folder, metavar="CORPUS=FOLDER", help="a corpus and where it is")
    parser.add_argument("--out", type=Path, help="folder that gets speech/manifest.csv")
    parser.add_argument("--replace", action="store_true", help="write a manifest that exists anew")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="how the report is written")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="files read at once (default: cores)")
    parser.add_argument("--list", action="store_true", help="say which corpora can be read, and leave")
    options = parser.parse_args(argv)
    if options.list:
        print_corpora()
        return 0
    if not options.corpora or options.out is None:
        parser.error("give CORPUS=FOLDER and --out FOLDER, or --list")
    manifest = options.out / "speech" / "manifest.csv"
    try:
        audits = prepare(options.corpora, manifest, jobs=max(1, options.jobs), replace=options.replace)
    except EdgeSerError as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 1
    if options.format == "json":
        report = {"manifest": str(manifest), "corpora": [found.as_object() for found in audits]}
        print(json.dumps(report, indent=1, ensure_ascii=False))
    else:
        print_report(audits)
        print(f"\nwrote {manifest}; pass --data {options.out} to the other commands")
    return 1 if any(found.unreadable or found.missing for found in audits) else 0


if __name__ == "__main__":
    # So that `--list | head` ends quietly, as other programs do.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    raise SystemExit(main())
