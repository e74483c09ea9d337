"""Keep a run's best model: weights as fp16 safetensors and its tokenizer, small enough to commit.

python -m train.keep runs/mdat
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from edge_ser.errors import ConfigError, EdgeSerError
from train.checkpoint import read_checkpoint

FOLDER = Path(__file__).parent / "checkpoints"
MAX_BYTES = 8_000_000


def keep(run: Path, folder: Path) -> Path:
    """Copy best.safetensors and tokenizer.json of a run and return the checkpoint's path.

    Raises:
        ConfigError: The run has no best checkpoint, or it is too large to commit.
    """
    best = run / "best.safetensors"
    _, header = read_checkpoint(best)
    if best.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{best} has {best.stat().st_size} bytes; need at most {MAX_BYTES}; train a smaller model")
    settings = header["settings"]
    if not isinstance(settings, dict):
        raise ConfigError(f"{best} does not say its settings; train it again: python -m train.distill --help")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{settings['name']}.safetensors"
    shutil.copyfile(best, target)
    shutil.copyfile(run / "tokenizer.json", target.with_suffix(".tokenizer.json"))
    return target


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.keep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of a run")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="default: train/checkpoints")
    options = parser.parse_args(argv)
    try:
        print(keep(options.run, options.folder))
    except EdgeSerError as error:
        print(f"keep: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
