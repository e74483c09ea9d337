"""Run one of the experiments that the literature reports, and print its table beside the published one.

    python -m train.protocol cross-language train/configs/desk/mdat-k-shot.toml --source emodb --target emovo

Stopped? The same command goes on: every finished fit is a file under OUT/parts, and several processes may share OUT.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_ser.errors import ConfigError, EdgeSerError
from train.data import data_folder, file_sha256
from train.experiment import Workbench
from train.protocols import ablation, cross_language, folded, fractions, fusion, k_shot, low_resource
from train.protocols.content import content_of
from train.protocols.parts import PartStore
from train.protocols.recipe import Recipe
from train.protocols.study import Bench, Request, Study, Variant
from train.protocols.tables import Table
from train.protocols.variants import protocol_tables, read_settings, variants_of
from train.run_folder import package_versions, write_json
from train.settings import Experiment, encoder_sources

PROTOCOLS: Mapping[str, Recipe] = {
    "within-corpus": folded.WITHIN_CORPUS,
    "cross-language": cross_language.RECIPE,
    "k-shot": k_shot.RECIPE,
    "leave-speakers-out": folded.LEAVE_SPEAKERS_OUT,
    "fractions": fractions.RECIPE,
    "low-resource": low_resource.RECIPE,
    "ablation": ablation.RECIPE,
    "fusion": fusion.RECIPE,
}
"""Protocols by name."""

_EXAMPLES = """examples:
  python -m train.protocol --list
  python -m train.protocol cross-language mdat.toml --data DATA --encoder speech=whisper-tiny --target emovo urdu \\
      --source cremad emodb cremad+emodb
  python -m train.protocol k-shot mdat.toml --data DATA --source cremad --target emovo --seeds 5
  python -m train.protocol leave-speakers-out camulenet.toml --data DATA --source cremad --seeds 1
  python -m train.protocol ablation mdat-modules.toml --data DATA --source cremad --target emovo

Each argument of --source is a set of corpora to learn from together, joined by "+". A settings file holds one
experiment, as for train.finetune, and may add a table of the protocol's own ([k_shot], [fractions], ...) and tables
[[variants]]: name, and what differs (system, preset, model, features, fit; published = a name in the published table).
DATA holds speech/manifest.csv. OUT gets result.json, table.txt, pictures, and parts/, one file a finished fit: the same
command goes on where it was stopped, and several processes may work in one OUT."""


def main(arguments: Sequence[str] | None = None, bench_of: Callable[[Experiment], Bench] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: Those of the process unless given.
        bench_of: Opens the bench of an experiment; a `Workbench` unless given.
    """
    options = _parser().parse_args(arguments)
    if options.list:
        width = max(map(len, PROTOCOLS))
        print("\n".join(f"{name:<{width}}  {recipe.purpose}" for name, recipe in PROTOCOLS.items()))
        return 0
    try:
        return _run(options, bench_of)
    except EdgeSerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.protocol",
        description="Run one of the experiments that the literature reports.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"one of {', '.join(PROTOCOLS)}")
    parser.add_argument("settings", nargs="?", type=Path, metavar="SETTINGS.toml", help="the experiment")
    parser.add_argument("--list", action="store_true", help="name the protocols and stop")
    parser.add_argument("--data", type=Path, help="folder of the corpora (default: EDGE_SER_DATA)")
    parser.add_argument(
        "--encoder",
        action="append",
        default=[],
        metavar="FEATURE=FOLDER",
        help="encoder of a feature, wins over the file",
    )
    parser.add_argument(
        "--source", nargs="+", default=[], metavar="CORPUS[+CORPUS]", help="sets of corpora to learn from"
    )
    parser.add_argument("--target", nargs="+", default=[], metavar="CORPUS", help="corpora to judge on, each by itself")
    parser.add_argument("--seeds", type=int, default=5, help="fits, or draws, of everything (default: 5)")
    parser.add_argument("--pictures", choices=("png", "svg"), default="png", help="kind of pictures (default: png)")
    parser.add_argument("--out", type=Path, help="folder of results (default: runs/protocol/NAME)")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/cache"), help="folder of features (default: runs/cache)"
    )
    return parser


def _run(options: argparse.Namespace, bench_of: Callable[[Experiment], Bench] | None) -> int:
    if options.name not in PROTOCOLS or options.settings is None:
        raise ConfigError(f"got {options.name!r}; need NAME and SETTINGS.toml, NAME one of {', '.join(PROTOCOLS)}")
    if options.seeds < 1:
        raise ConfigError(f"--seeds is {options.seeds}; need 1 or more")
    raw = read_settings(options.settings)
    encoders = encoder_sources(options.encoder)
    data = data_folder(options.data)
    variants = _tagged(variants_of(raw, options.settings.parent), raw, encoders, data)
    first = variants[0].experiment
    request = Request(
        tuple(tuple(corpora.split("+")) for corpora in options.source),
        tuple(options.target),
        tuple(range(first.seed, first.seed + options.seeds)),
        f".{options.pictures}",
    )
    folder = options.out or Path("runs") / "protocol" / options.name
    content = content_of([variant.experiment for variant in variants], encoders, data)
    store = PartStore(folder / "parts", {"protocol": options.name}, content)
    study = Study(variants, protocol_tables(raw), request, bench_of or _workbench(data, options.cache, encoders), store)
    recipe = PROTOCOLS[options.name]
    parts = store.run(recipe.plan(study))
    # Processes that shared the work end together: one after the other writes what all would write.
    with store.held("report"):
        tables = recipe.report(study, parts, folder)
        text = "\n\n\n".join([*(table.text(study.classes) for table in tables), *study.notes])
        write_json(folder / "result.json", _result(options.name, study, tables, raw))
        (folder / "table.txt").write_text(text + "\n", encoding="utf-8")
    pictures = sorted(path.name for path in folder.glob(f"*{request.pictures}"))
    print(f"{text}\n\n{folder}: result.json, table.txt, {', '.join(pictures)}")
    return 0


def _result(name: str, study: Study, tables: Sequence[Table], raw: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "protocol": name,
        "classes": list(study.classes),
        "seeds": list(study.request.seeds),
        "source": ["+".join(source) for source in study.request.source],
        "target": list(study.request.target),
        "tables": [table.result() for table in tables],
        "notes": study.notes,
        "settings": json.loads(json.dumps(raw, default=str)),
        "versions": package_versions(),
    }


def _tagged(
    variants: Sequence[Variant], raw: Mapping[str, Any], encoders: Mapping[str, str], data: Path
) -> list[Variant]:
    """Return the variants with a tag that changes with anything that changes their answers, but for the seeds."""
    manifest = Path(variants[0].experiment.manifest or data / "speech" / "manifest.csv")
    listed = file_sha256(manifest) if manifest.is_file() else ""
    common = json.dumps([protocol_tables(raw), dict(encoders), listed], sort_keys=True, default=str)
    return [
        replace(one, tag=hashlib.sha256(f"{common}{one.experiment!r}".encode()).hexdigest()[:8]) for one in variants
    ]


def _workbench(data: Path, cache: Path, encoders: Mapping[str, str]) -> Callable[[Experiment], Bench]:
    def open_bench(experiment: Experiment) -> Bench:
        # Variants may read less than the command line names an encoder for.
        own = {name: source for name, source in encoders.items() if name in experiment.features or name == "encoder"}
        return Workbench(experiment, data, cache, own)

    return open_bench


if __name__ == "__main__":
    sys.exit(main())
