r"""Distil a pretrained encoder into small students, in two stages.

    python -m train.distill train/configs/students/encoder.toml --teacher FOLDER --run runs/encoder
    python -m train.distill train/configs/students/students.toml --teacher FOLDER --encoder runs/encoder \\
      --run runs/students

The first stage learns a small speech encoder from random weights; stopped, the same command goes on where it was. The
second learns the fusions of all systems over it. The corpora's folder holds speech/manifest.csv, noise/noise.csv,
rir/rir.csv, streaming/ and text/goemotions.csv.gz. What is worth keeping goes to train/checkpoints with
`python -m train.keep RUN`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from edge_ser.errors import ConfigError, EdgeSerError
from train.data import data_folder
from train.students.encoder_distiller import train_encoder
from train.students.material import Source
from train.students.run_settings import EncoderSettings, read_run
from train.students.student_trainer import train_students


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.distill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", type=Path, help="TOML file, for example train/configs/students/encoder.toml")
    parser.add_argument("--data", type=Path, help="the corpora's folder (default: EDGE_SER_DATA)")
    parser.add_argument("--teacher", type=Path, required=True, metavar="FOLDER", help="a Whisper encoder to learn from")
    parser.add_argument(
        "--encoder", type=Path, metavar="RUN", help="second stage: the first stage's run folder, or a kept encoder's"
    )
    parser.add_argument(
        "--spoken", type=Path, metavar="FOLDER", help="speech from python -m train.speak and train.voices"
    )
    parser.add_argument(
        "--start",
        type=Path,
        metavar="RUN",
        help="first stage: begin with another run's weights, or a kept encoder's (train/checkpoints/clean)",
    )
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="CPU threads (default: 1; data has a process of its own, and the bank takes all cores)",
    )
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    try:
        settings = read_run(options.settings)
        source = Source(data_folder(options.data), options.teacher, options.spoken)
        if isinstance(settings, EncoderSettings):
            train_encoder(settings, source, options.run, options.start)
        elif options.encoder is None:
            raise ConfigError("the second stage needs the first stage's run folder; pass --encoder RUN")
        else:
            train_students(settings, source, options.encoder, options.run)
    except EdgeSerError as error:
        print(f"distill: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
