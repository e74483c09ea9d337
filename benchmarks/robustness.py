"""What noise and rooms cost a bundle, and what it says to sound that is nobody's speech.

    python benchmarks/robustness.py [MODEL]

Clips of unseen speakers (EDGE_SER_DATA) are judged clean, with held-out noise, in held-out rooms, quiet, through a
telephone's band and cut short; each row is UA over the same clips, cold.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import edge_ser
from edge_ser.corpus import FOUR_CLASSES, read_manifest
from edge_ser.metrics import bootstrap_interval
from edge_ser.sources import read_samples
from train.augment import add_noise, add_room, limit_band
from train.data import data_folder, read_sounds, usable
from train.evaluate import ua, unseen_clips

Wave = NDArray[np.float32]
CORPORA = ("cremad", "emodb")
EVERY = 3


def changes(data: Path, rng: np.random.Generator) -> dict[str, Callable[[Wave], Wave]]:
    """Return what is done to a clip, by name."""
    noises = read_sounds(data / "noise", "noise.csv", held_out=True)
    rooms = read_sounds(data / "rir", "rir.csv", held_out=True)

    def noisy(snr_db: float) -> Callable[[Wave], Wave]:
        return lambda wave: add_noise(wave, np.resize(noises[rng.integers(len(noises))], len(wave)), snr_db)

    return {
        "clean": lambda wave: wave,
        "noise at 20 dB": noisy(20.0),
        "noise at 10 dB": noisy(10.0),
        "noise at 0 dB": noisy(0.0),
        "room": lambda wave: add_room(wave, rooms[rng.integers(len(rooms))]),
        "-60 dBFS": lambda wave: (wave / np.sqrt(np.mean(wave**2)) * 1e-3).astype(np.float32),
        "telephone band": lambda wave: limit_band(wave, 300.0, 3400.0),
        "first 0.8 s": lambda wave: wave[:12_800],
    }


def main() -> int:
    """Print the table."""
    recognizer = edge_ser.load(sys.argv[1] if len(sys.argv) > 1 else "mdat-int8")
    data = data_folder(None)
    clips = unseen_clips(read_manifest(data / "speech" / "manifest.csv"), recognizer)
    clips = [clip for clip in clips if usable(clip, CORPORA)][::EVERY]
    waves = [read_samples(clip.path) for clip in clips]
    truth = np.array([FOUR_CLASSES.index(clip.emotion) for clip in clips])
    speakers = [clip.speaker for clip in clips]
    print(
        f"{recognizer.model}: {len(clips)} clips of {len(set(speakers))} unseen speakers ({', '.join(CORPORA)}), cold"
    )
    for name, change in changes(data, np.random.default_rng(0)).items():
        said = [recognizer.judge(change(wave)).probabilities for wave in waves]
        probabilities = np.array([[row[label] for label in FOUR_CLASSES] for row in said])
        low, high = bootstrap_interval(ua, [truth, probabilities], speakers)
        print(f"  {name:<15} UA {ua(truth, probabilities):.3f} [{low:.3f}, {high:.3f}]")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
