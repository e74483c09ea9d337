"""The sound that a bundle is quantised and calibrated with."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.bundle import Bundle
from edge_ser.corpus import Clip, read_manifest
from edge_ser.errors import ConfigError
from edge_ser.frontend import FrontEnd
from edge_ser.segmenter import cut
from edge_ser.sources import read_samples
from edge_ser.vad import open_detector
from export.receipt import Inputs, open_session

Item = TypeVar("Item")

LENGTHS_S = (0.4, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds at which the cosine is measured: also shorter and longer than the ranges were."""
RANGE_CLIPS = 240
RANGE_CROPS_S = (0.5, 1.0, 2.0, 3.0, 5.0)


@dataclass(frozen=True)
class Material:
    """The sound that an fp32 bundle is quantised and calibrated with."""

    ranges: list[Inputs]
    """Crops of training clips, some with words and a voice: they set the integer ranges."""
    lengths: dict[float, list[Inputs]]
    """Crops of validation clips by seconds: they measure the cosine."""
    validation: list[Inputs]
    """Whole validation clips."""
    truth: NDArray[np.int64]
    """Their label indices."""
    speakers: NDArray[np.str_]
    """Their speakers."""
    noise: list[list[Inputs]]
    """By sound that is nobody's speech: what a stream would take for utterances in it."""


def read_material(bundle: Bundle, data: Path) -> Material:
    """Return the material for the speakers that the bundle names.

    Raises:
        ConfigError: The folder lacks the clips of those speakers.
    """
    speakers: Any = bundle.manifest.provenance.get("speakers", {})
    labels = bundle.manifest.labels
    clips = [clip for clip in read_manifest(data / "speech" / "manifest.csv") if clip.emotion in labels]
    train = [clip for clip in clips if clip.speaker in set(speakers.get("train", []))]
    validation = [clip for clip in clips if clip.speaker in set(speakers.get("validation", []))]
    if not train or not validation:
        raise ConfigError(f"{data} has no clip of the speakers in {bundle.folder}; need the corpora it was trained on")
    front_end = FrontEnd(bundle)
    return Material(
        ranges=_range_inputs(front_end, bundle, train),
        lengths={seconds: _crops(front_end, validation, seconds) for seconds in LENGTHS_S},
        validation=[front_end.inputs(read_samples(clip.path)) for clip in progress(validation, "clip")],
        truth=np.array([labels.index(clip.emotion) for clip in validation]),
        speakers=np.array([clip.speaker for clip in validation]),
        noise=[_mistaken(front_end, path) for path in progress(_noises(data / "noise"), "sound")],
    )


def progress(items: Sequence[Item], unit: str) -> Iterable[Item]:
    """Return the items under a progress bar, shown only to a person at a terminal."""
    bar: Iterable[Item] = tqdm(items, unit=unit, disable=not sys.stderr.isatty())
    return bar


def _range_inputs(front_end: FrontEnd, bundle: Bundle, clips: Sequence[Clip]) -> list[Inputs]:
    rng = np.random.default_rng(0)
    chosen = [clips[int(place)] for place in rng.choice(len(clips), RANGE_CLIPS, replace=len(clips) < RANGE_CLIPS)]
    voice = bundle.manifest.input_of("voice")
    session = open_session(bundle.path(bundle.manifest.graphs["model"]))
    inputs = []
    mean: NDArray[np.float32] | None = None
    for place, clip in enumerate(chosen):
        samples = crop(read_samples(clip.path), RANGE_CROPS_S[place % len(RANGE_CROPS_S)])
        item = front_end.inputs(samples, clip.transcript if place % 2 else None)
        embedding = session.run(["embedding"], item)[0][0]
        if voice is not None and place % 3 == 2 and mean is not None:
            item[voice.name] = np.concatenate([[place % 60 + 1], mean, np.abs(embedding - mean)])[None].astype(
                np.float32
            )
        mean = embedding
        inputs.append(item)
    return inputs


def _crops(front_end: FrontEnd, clips: Sequence[Clip], seconds: float, count: int = 24) -> list[Inputs]:
    step = max(1, len(clips) // count)
    return [front_end.inputs(crop(read_samples(clip.path), seconds)) for clip in clips[::step]][:count]


def crop(samples: NDArray[np.float32], seconds: float) -> NDArray[np.float32]:
    """Return the middle of a clip, repeated where it is shorter."""
    wanted = int(seconds * SAMPLE_RATE_HZ)
    if len(samples) < wanted:
        return np.resize(samples, wanted)
    start = (len(samples) - wanted) // 2
    return samples[start : start + wanted]


def _mistaken(front_end: FrontEnd, path: Path) -> list[Inputs]:
    """Return what passes for utterances in a sound; most sounds have none, since speech detection hears none."""
    utterances = cut(read_samples(path), open_detector("silero"))
    return [front_end.inputs(utterance.samples) for utterance in utterances if not utterance.too_short]


def _noises(folder: Path) -> list[Path]:
    with (folder / "noise.csv").open(encoding="utf-8", newline="") as lines:
        names = sorted(row["path"] for row in csv.DictReader(lines))
    # Every fourth sound is kept for evaluation, here as in the workshop.
    return [folder / name for place, name in enumerate(names) if place % 4 != 3]
