"""Keep what a run of students is worth: weights as fp16 safetensors and the tokenizer, small enough to commit.

python -m train.keep runs/students
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from edge_ser.errors import ConfigError, EdgeSerError
from train.students.keep import read_student

FOLDER = Path(__file__).parent / "checkpoints"
MAX_BYTES = 8_000_000
_SHARED = ("encoder.safetensors", "tokenizer.json")
_TO_GO_ON = ("last.safetensors", "reader.safetensors")


def keep(run: Path, folder: Path) -> Path:
    """Copy the students of a run, their encoder and tokenizer to a folder named after their tier, and return it.

    Raises:
        ConfigError: The run has no student, or a file of it is missing, does not fit or is too large to commit.
    """
    students = [path for path in sorted(run.glob("*.safetensors")) if path.name not in (*_SHARED, *_TO_GO_ON)]
    if not students:
        raise ConfigError(f"{run} holds no student; train some: python -m train.distill --help")
    tiers = {str(read_student(path)[1]["tier"]) for path in students}
    files = [*students, *(run / name for name in _SHARED)]
    for file in files:
        if not file.is_file():
            raise ConfigError(f"{run} has no {file.name}; need it beside the students; train them again")
        if file.stat().st_size > MAX_BYTES:
            raise ConfigError(
                f"{file} has {file.stat().st_size} bytes; need at most {MAX_BYTES}; train a smaller model"
            )
    target = folder / tiers.pop()
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, target / file.name)
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
