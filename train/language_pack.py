"""Teach a student one language from labelled clips: a language pack of some 20 kB over a bundle that stays as it is.

    python -m train.language_pack lora.safetensors --base lora-int8 --language it --corpus emovo --out packs/lora-it
    python -m train.language_pack lora.safetensors --base lora-int8 --language am --shots clips.csv --out packs/lora-am

The clips are a corpus of the data folder, or a CSV with path, label and speaker. Speakers left out in turn say
whether it helps: if not, nothing is written. The pack is for the bundle that was
exported from this very checkpoint, which it needs beside it or bundled; then `edge-ser listen --model packs/lora-it`.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_ser.bundle import Bundle, find_bundle
from edge_ser.cli.options import positive_int
from edge_ser.corpus import FOUR_CLASSES, Clip, list_sounds, read_manifest
from edge_ser.errors import ConfigError, EdgeSerError
from edge_ser.segmenter import utterances_in
from edge_ser.shots import list_shots
from edge_ser.sources import read_samples
from edge_ser.vad import open_detector
from train.augment import Augmenter, non_speech
from train.data import data_folder, read_sounds
from train.students.keep import read_student
from train.students.language_pack import (
    FRESH,
    PackSettings,
    fusion_of,
    joined,
    learn_pack,
    listen,
    listen_to_noise,
    logits_of,
)
from train.students.language_pack_bundle import write_pack_bundle
from train.students.language_pack_trial import Held, leave_speakers_out
from train.students.student import Student

SAMPLE_RATE_HZ = 16_000
_NOISES = 60
_NOISE_S = 2.0

Wave = NDArray[np.float32]


def clips_of(options: argparse.Namespace) -> list[Clip]:
    """Return the labelled clips that the options name.

    Raises:
        ConfigError: They name none, or clips without a speaker or with another label than the student's.
    """
    if options.shots is not None:
        shots = [(shot.path, shot.voice, shot.label) for shot in list_shots(options.shots)]
        clips = [
            Clip(path, options.shots.stem, speaker, "", options.language, label, "", 0.0, options.licence)
            for path, speaker, label in shots
        ]
    else:
        listed = read_manifest(data_folder(options.data) / "speech" / "manifest.csv")
        clips = [clip for clip in listed if clip.corpus == options.corpus and clip.emotion]
    clips = [clip for clip in clips if fnmatch.fnmatch(clip.path.name, options.files)]
    if not clips:
        raise ConfigError(f"no clip of {options.shots or options.corpus} is called {options.files}; need labelled ones")
    strange = sorted({clip.emotion for clip in clips} - set(FOUR_CLASSES))
    if strange or not all(clip.speaker for clip in clips):
        got = f"clips labelled {', '.join(strange)}" if strange else "clips without a speaker"
        raise ConfigError(f"got {got}; need speakers' names and the labels {', '.join(FOUR_CLASSES)}")
    return clips


def check_fit(student: Student, checkpoint_sha256: str, base: Bundle) -> None:
    """Refuse a base whose graph is not the student's.

    Raises:
        ConfigError: It takes no packs, or comes from another checkpoint.
    """
    fusion_of(student)
    if base.manifest.input_of("pack_down") is None or base.base is not None:
        raise ConfigError(f"{base.manifest.name} takes no language packs; need a bundle of this student; export it")
    if base.manifest.provenance.get("checkpoint_sha256") != checkpoint_sha256:
        raise ConfigError(
            f"{base.manifest.name} was exported from another checkpoint; need the one that it came from; "
            "export the bundle again: python export/to_onnx.py --help"
        )


def noises(data: Path | None, seed: int = 0) -> list[Wave]:
    """Return sound that is nobody's speech to learn from: the training side's recordings, where there are any."""
    recorded = read_sounds(data / "noise", "noise.csv", "training") if _has_noise(data) and data is not None else []
    rng, augmenter = np.random.default_rng(seed), Augmenter(recorded, ())
    return [non_speech(int(_NOISE_S * SAMPLE_RATE_HZ), augmenter, rng) for _ in range(_NOISES)]


def mistaken(data: Path | None) -> list[Wave]:
    """Return what a stream takes for clear speech in the calibration side's sounds; in most it hears none."""
    if data is None or not _has_noise(data):
        return []
    sounds = (read_samples(path) for path in list_sounds(data / "noise" / "noise.csv", "calibration"))
    heard = [utterance for sound in sounds for utterance in utterances_in(sound, open_detector("silero"))]
    return [utterance.samples for utterance in heard if utterance.clear]


def teach(options: argparse.Namespace) -> str:
    """Learn a pack, write its bundle, and return what it is worth in a few lines.

    Raises:
        ConfigError: Checkpoint, base and clips do not fit each other, or the pack does not help.
    """
    clips, base = clips_of(options), find_bundle(options.base)
    student, header = read_student(options.checkpoint)
    check_fit(student, header["checkpoint_sha256"], base)
    data = None if options.data is None and options.shots is not None else data_folder(options.data)
    heard = listen(student, clips, FOUR_CLASSES)
    noise = listen_to_noise(student, noises(data))
    trials = [leave_speakers_out(student, heard, noise, PackSettings(), seed) for seed in range(options.seeds)]
    gain = float(np.mean([held.gain for held in trials]))
    if gain <= 0:
        raise ConfigError(
            f"the pack does not help speakers left out ({100 * gain:+.1f} points of UA); nothing written; need more "
            "clips, or more speakers"
        )
    pack = learn_pack(student, joined(heard, noise), PackSettings())
    sounds = mistaken(data)
    confused = logits_of(student, listen_to_noise(student, sounds), pack, FRESH) if sounds else None
    return _told(write_pack_bundle(options.out, base, pack, trials, clips, confused), trials, gain)


def _told(bundle: Bundle, trials: Sequence[Held], gain: float) -> str:
    size = sum(path.stat().st_size for path in bundle.folder.iterdir())
    figures = [held.to_plain() for held in trials]
    lines = [
        f"trial {place}, UA of speakers left out: " + ", ".join("{} {:.3f} -> {:.3f}".format(v, *held[v]) for v in held)
        for place, held in enumerate(figures, start=1)
    ]
    lines.append(f"{bundle.folder}: {size / 1e3:.0f} kB, {100 * gain:+.1f} points")
    return "\n".join(lines)


def _has_noise(data: Path | None) -> bool:
    return data is not None and (data / "noise" / "noise.csv").is_file()


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.language_pack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, help="the student, such as train/checkpoints/clean/lora.safetensors")
    parser.add_argument("--base", required=True, metavar="M", help="its bundle: a bundled name or a folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pack's bundle")
    parser.add_argument("--language", required=True, metavar="CODE", help="ISO 639-1, such as am")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--corpus", help="a corpus of the data folder")
    source.add_argument("--shots", type=Path, metavar="CSV", help="a CSV: path,label,speaker")
    parser.add_argument("--files", default="*", metavar="GLOB", help="take only clips whose file is called so")
    parser.add_argument("--licence", default="not stated", help="of the clips in --shots")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="the corpora's folder; default: EDGE_SER_DATA")
    parser.add_argument("--seeds", type=positive_int, default=5, help="trials, each leaving every speaker out once")
    options = parser.parse_args(argv)
    try:
        print(teach(options))
    except EdgeSerError as error:
        print(f"language_pack: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
