"""Train one of the published fusion systems on your own corpora, or on made-up ones.

The settings file names the system, its features, the corpora and how it is trained; the paper's settings are in
train/configs, tiny ones in train/configs/smoke. Features of frozen encoders are computed once and cached. Stopped, even
by kill -9? The same command goes on where it was and ends in the same weights.

The run folder gets config.json, split.json, metrics.jsonl (a line an epoch), last.safetensors (to go on),
best.safetensors, for an adapter pack-LANGUAGE.safetensors, confusion.png, curves.png and report.json: validation and
test figures with 95 % intervals over speakers. The test speakers are not heard before training has ended.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from edge_ser.errors import ConfigError, EdgeSerError
from train.checkpoint import read_checkpoint
from train.examples import Example
from train.experiment import Experiment, Sides, Workbench, read_experiment
from train.fit import FitResult, fit, on_cpu, predict
from train.language_packs import save_pack
from train.pictures import confusion_picture, learning_picture
from train.run_folder import RunFolder, package_versions, stored_state, write_json
from train.scores import by_utterance, confusion, rates_attributes, report
from train.settings import encoder_sources
from train.synthetic_corpus import write_synthetic_corpus
from train.systems import System
from train.systems.lora_multilingual import LoraSer

EXAMPLES = """
examples:
  # No corpus, no encoder, half a minute: a made-up corpus and tiny random encoders.
  python -m train.finetune train/configs/smoke/mdat.toml --synthetic --run runs/first

  # The paper's MDAT on your corpora. FOLDER/speech/manifest.csv lists the clips (python -m train.prepare writes it).
  python -m train.finetune train/configs/mdat-paper.toml --data FOLDER --run runs/mdat

  # The same with encoders that you have on disk, each a folder as transformers saves one.
  python -m train.finetune train/configs/mdat-paper.toml --data FOLDER \\
      --encoder speech=models/wav2vec2-xls-r-300m --encoder text=models/xlm-roberta-base

  # Eight GPUs, or several machines that share the run folder: the same command under accelerate. On CPUs alone,
  # --multi_gpu before -m and --cpu at the end give two processes that share each batch.
  accelerate launch --num_processes 8 -m train.finetune train/configs/mdat-paper.toml --data FOLDER
"""

SIDES = ("train", "validation", "test")
_MAY_CHANGE = ("name", "data", "fit", "versions", "processes", "device")
"""What of config.json may differ when a run goes on."""


def finetune(workbench: Workbench, run: Path, start: Path | None = None) -> dict[str, object]:
    """Train, then answer the test, and return the report.

    Args:
        workbench: The experiment at work.
        run: The run's folder; a run that stopped there goes on.
        start: A best.safetensors of the same system to begin with, as for a transfer or a language's stage.

    Raises:
        ConfigError: Settings, data, encoder, checkpoint or run folder do not fit each other.
    """
    experiment, main = workbench.experiment, PartialState().is_main_process
    config = _config(workbench, start)
    _check_same_experiment(run, config)
    split = workbench.split()
    speakers = {side: sorted({clip.speaker for clip in getattr(split, side)}) for side in SIDES}
    system = workbench.system()
    settings, heard = experiment.fit, list[str]()
    if start is not None:
        heard = start_from(system, start, speakers["test"])
        # The weights were learnt under the mean and deviation that came with them.
        settings = replace(settings, statistics=False)
    workbench.begin_stage(system)
    if main:
        _say(f"{experiment.name}: {', '.join(f'{len(getattr(split, side))} {side}' for side in SIDES)} utterances")
        write_json(run / "split.json", speakers)
        write_json(run / "config.json", config)
    train = workbench.examples(split.train, "train")
    validation = workbench.examples(split.validation, "validation")
    result = fit(system, train, validation, settings, run, heard)
    _store_temperature(system, validation, run)
    PartialState().wait_for_everyone()
    if not main:
        return {}
    _keep_pack(system, experiment.stage, run)
    return _judge(workbench, system, split, validation, result, run)


def _check_same_experiment(run: Path, config: Mapping[str, object]) -> None:
    # What decides the weights and is no setting of `fit`, which compares its own.
    path = run / "config.json"
    if not ((run / "last.safetensors").is_file() and path.is_file()):
        return
    stored, current = json.loads(path.read_text(encoding="utf-8")), json.loads(json.dumps(config, default=str))
    changed = sorted(name for name in current if name not in _MAY_CHANGE and current[name] != stored.get(name))
    if changed:
        raise ConfigError(
            f"{run} was begun with another {', '.join(changed)}; need the same settings to go on; "
            "choose another --run or remove that folder"
        )


def start_from(system: System, checkpoint: Path, test_speakers: Sequence[str]) -> list[str]:
    """Begin with the weights of another run, and return whom they have heard, in that run and those before it.

    Raises:
        ConfigError: No such checkpoint, one of another system, one that has heard a test speaker or tells nobody.
    """
    tensors, header = read_checkpoint(checkpoint)
    own = system.state_dict()
    wrong = [name for name, tensor in tensors.items() if name not in own or own[name].shape != tensor.shape]
    lacking = sorted(set(stored_state(system)) - set(tensors))
    if wrong or lacking:
        named = ", ".join([*wrong, *lacking][:3])
        raise ConfigError(f"{checkpoint} is of another system ({named} differ); need the same [model] settings")
    heard = _heard(checkpoint, header)
    leaked = sorted(set(test_speakers) & set(heard))
    if leaked:
        raise ConfigError(
            f"{checkpoint} was trained on {', '.join(leaked[:3])}, now to be tested; need the same seed and fractions"
        )
    system.load_state_dict(tensors, strict=False)
    return heard


def _heard(checkpoint: Path, header: Mapping[str, Any]) -> list[str]:
    if "heard" in header:
        return [str(name) for name in header["heard"]]
    # Checkpoints used to say nothing; the split lay beside them.
    path = checkpoint.parent / "split.json"
    if not path.is_file():
        raise ConfigError(f"{checkpoint} does not say who was heard; need split.json beside it; train it anew")
    sides = json.loads(path.read_text(encoding="utf-8"))
    return sorted({*sides["train"], *sides["validation"]})


def _judge(
    workbench: Workbench,
    system: System,
    split: Sides,
    validation: Sequence[Example],
    result: FitResult,
    run: Path,
) -> dict[str, object]:
    judged: dict[str, object] = {
        "name": workbench.experiment.name,
        "system": workbench.experiment.system,
        "classes": list(workbench.classes),
        "parameters": system.parts(),
        "best_epoch": result.best_epoch,
        "epochs": len(result.history),
        "seconds": round(sum(line["seconds"] for line in result.history), 1),
    }
    temperature = float(getattr(system, "temperature", 1.0))
    if temperature != 1.0:
        judged["temperature"] = temperature
    if validation:
        judged["validation"] = report(*by_utterance(predict(system, validation), validation), temperature=temperature)
    if split.test:
        test = workbench.examples(split.test, "test")
        logits, utterances = by_utterance(predict(system, test), test)
        judged["test"] = report(logits, utterances, temperature=temperature)
        if not rates_attributes(utterances):
            confusion_picture(confusion(logits, utterances), workbench.classes, run / "confusion.png", "test speakers")
    if result.history:
        learning_picture(result.history, result.best_epoch, run / "curves.png")
    write_json(run / "report.json", judged)
    return judged


def _store_temperature(system: System, validation: Sequence[Example], run: Path) -> None:
    # Cosines times 30 are too sure of themselves by construction; such a system brings its own remedy.
    fit_temperature = getattr(system, "fit_temperature", None)
    if fit_temperature is None or not validation or rates_attributes(validation):
        return
    device = next(system.parameters()).device
    # What is judged are whole utterances, whose mean logits are smaller than those of their pieces.
    logits, utterances = by_utterance(predict(system, validation), validation)
    truth = torch.tensor([example.emotion for example in utterances], device=device)
    temperature = fit_temperature(torch.from_numpy(logits).to(device), truth)
    if PartialState().is_main_process:
        folder = RunFolder(run)
        folder.save_best(stored_state(system), {**folder.read_best()[1], "temperature": temperature})


def _keep_pack(system: System, stage: str, run: Path) -> None:
    # What a language has learnt over a resting encoder is a small file that others can lay over theirs.
    if isinstance(system, LoraSer) and system.encoder is not None and system.encoder.mode == "lora":
        language = stage or system.config.languages[0]
        save_pack(run / f"pack-{language}.safetensors", system, language)


def _config(workbench: Workbench, start: Path | None) -> dict[str, object]:
    return {
        **asdict(workbench.experiment),
        "data": None if workbench.data is None else str(workbench.data),
        "start": None if start is None else str(start),
        "versions": package_versions(),
        "processes": PartialState().num_processes,
        "device": PartialState().device.type,
    }


def _table(judged: Mapping[str, object]) -> str:
    lines = [f"{'':12}{'value':>8}   95 % interval over speakers"]
    for side in ("validation", "test"):
        figures = judged.get(side)
        for name, figure in figures.items() if isinstance(figures, dict) else []:
            if isinstance(figure, dict):
                title = f"{side[:5]} {name.upper() if len(name) < 6 else name}"
                lines.append(f"{title:12}{figure['value']:8.3f}   {figure['low']:.3f} to {figure['high']:.3f}")
    return "\n".join(lines)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    made = argparse.ArgumentParser(
        prog="python -m train.finetune",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("settings", type=Path, metavar="SETTINGS.toml", help="such as train/configs/mdat-paper.toml")
    made.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="holds speech/manifest.csv and, for constructed text, text/goemotions.csv.gz; default: $EDGE_SER_DATA",
    )
    made.add_argument("--synthetic", action="store_true", help="make up a corpus in place of --data")
    made.add_argument(
        "--encoder",
        action="append",
        default=[],
        metavar="NAME=SOURCE",
        help="encoder of a feature (speech, text) or `encoder`, that of a system that trains it: a folder, a hub id, "
        "or tiny:wav2vec2; wins over the settings; may be given several times",
    )
    made.add_argument("--run", type=Path, metavar="FOLDER", help="default: runs/ and the name in the settings")
    made.add_argument("--cache", type=Path, metavar="FOLDER", help="of the features; default: cache beside the run")
    made.add_argument("--start", type=Path, metavar="best.safetensors", help="begin with the weights of another run")
    made.add_argument("--epochs", type=int, metavar="N", help="at most so many, whatever the settings say")
    made.add_argument("--seed", type=int, metavar="N", help="of split, weights and training")
    made.add_argument("--cpu", action="store_true", help="do not use a GPU")
    made.add_argument("--threads", type=int, metavar="N", help="CPU threads of each process; default: torch's choice")
    return made


def _experiment(options: argparse.Namespace) -> Experiment:
    experiment = read_experiment(options.settings)
    settings = experiment.fit
    if options.epochs is not None:
        settings = replace(settings, epochs=options.epochs)
    if options.cpu:
        settings = replace(settings, device="cpu")
    if options.seed is not None:
        experiment = replace(experiment, seed=options.seed)
        settings = replace(settings, seed=options.seed)
    return replace(experiment, fit=settings)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = parser().parse_args(argv)
    try:
        if options.threads is not None:
            if options.threads < 1:
                raise ConfigError(f"--threads is {options.threads}; need 1 or more")
            torch.set_num_threads(options.threads)
        experiment = _experiment(options)
        run = options.run or Path("runs") / experiment.name
        data = options.data or (Path(os.environ["EDGE_SER_DATA"]) if os.environ.get("EDGE_SER_DATA") else None)
        state = PartialState(cpu=on_cpu(experiment.fit))
        if options.synthetic:
            data = run.parent / "synthetic"
            with state.main_process_first():
                write_synthetic_corpus(data)
            experiment = replace(experiment, corpora=(), manifest="")
        cache = options.cache or run.parent / "cache"
        judged = finetune(Workbench(experiment, data, cache, encoder_sources(options.encoder)), run, options.start)
    except EdgeSerError as error:
        print(f"finetune: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("finetune: stopped; the same command goes on after the last whole epoch", file=sys.stderr)
        return 130
    if state.num_processes > 1:
        state.destroy_process_group()
    if judged:
        print(_table(judged))
        print(run / "report.json")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
