"""The sound that a bundle is quantised and calibrated with."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.backends import open_backend
from edge_ser.bundle import Bundle
from edge_ser.corpus import Clip, list_sounds, read_manifest
from edge_ser.errors import ConfigError
from edge_ser.frontend import FrontEnd
from edge_ser.quality import spoken_part
from edge_ser.recognizer import EmotionRecognizer
from edge_ser.segmenter import utterances_in
from edge_ser.sources import read_samples
from edge_ser.vad import open_detector
from edge_ser.voice import VoiceProfile
from export.receipt import Inputs
from export.trt_parity import stored_inputs

Item = TypeVar("Item")

RANGE_CLIPS = 240
RANGE_CROPS_S = (0.5, 1.0, 2.0, 3.0, 5.0)
LENGTH_CLIPS = 60


@dataclass(frozen=True)
class Material:
    """The sound that an fp32 bundle is quantised and calibrated with."""

    ranges: list[Inputs]
    """Crops of training clips, some with words and a voice: they set the integer ranges."""
    lengths: dict[float, list[Inputs]]
    """By seconds, also shorter and longer than the ranges were: crops of validation clips, some with words and a voice,
    and what check_parity.py replays. They measure the harm, and nothing is kept that would be refused there."""
    cold: list[Inputs]
    """Whole validation clips, each with a fresh voice."""
    warm: list[Inputs]
    """The same clips, each with the voice that its speaker's clips before it make."""
    truth: NDArray[np.int64]
    """Their label indices."""
    speakers: NDArray[np.str_]
    """Their speakers."""
    noise: list[list[Inputs]]
    """By sound that is nobody's speech: what a stream takes for clear speech in it."""


def data_folder(calibration: Path) -> Path:
    """Return the corpora's folder for itself or for its speech/manifest.csv."""
    return calibration if calibration.is_dir() else calibration.resolve().parent.parent


def read_material(bundle: Bundle, calibration: Path) -> Material:
    """Return the material for the speakers that the bundle names.

    Args:
        bundle: An fp32 bundle.
        calibration: The corpora's manifest, or the folder that holds speech/manifest.csv; sounds that are nobody's
            speech are in noise/noise.csv of that folder, where there are any.

    Raises:
        ConfigError: The corpora lack the clips of those speakers.
    """
    manifest = calibration / "speech" / "manifest.csv" if calibration.is_dir() else calibration
    sounds = data_folder(calibration) / "noise" / "noise.csv"
    speakers: Any = bundle.manifest.provenance.get("speakers", {})
    labels = bundle.manifest.labels
    clips = [clip for clip in read_manifest(manifest) if clip.emotion in labels]
    train = [clip for clip in clips if clip.speaker in set(speakers.get("train", []))]
    validation = [clip for clip in clips if clip.speaker in set(speakers.get("validation", []))]
    if not train or not validation:
        raise ConfigError(
            f"{manifest} has no clip of the speakers in {bundle.folder}; need the corpora it was trained on"
        )
    validation = [validation[int(place)] for place in np.random.default_rng(0).permutation(len(validation))]
    chosen = [train[int(place)] for place in np.random.default_rng(0).choice(len(train), RANGE_CLIPS)]
    source, stored = _Source(bundle), stored_inputs(bundle)
    cold, warm = source.conversation(validation)
    measured = list(enumerate(validation[:LENGTH_CLIPS]))
    return Material(
        ranges=[source.mixed(clip, RANGE_CROPS_S[n % len(RANGE_CROPS_S)], n) for n, clip in enumerate(chosen)],
        lengths={
            seconds: [*(source.mixed(clip, seconds, n) for n, clip in measured), *replayed]
            for seconds, replayed in stored.items()
        },
        cold=cold,
        warm=warm,
        truth=np.array([labels.index(clip.emotion) for clip in validation]),
        speakers=np.array([clip.speaker for clip in validation]),
        noise=[source.mistaken(path) for path in progress(_sounds(sounds), "sound")],
    )


def _sounds(listed: Path) -> list[Path]:
    return list(list_sounds(listed, "calibration")) if listed.is_file() else []


class _Source:
    """Makes inputs of a bundle's graph from clips."""

    def __init__(self, bundle: Bundle) -> None:
        self._recognizer = EmotionRecognizer(bundle, open_backend(bundle, threads=1))
        self._front_end = FrontEnd(bundle)
        self._voices: dict[str, VoiceProfile] = {}

    def mixed(self, clip: Clip, seconds: float, place: int) -> Inputs:
        """Return a crop: every second one with words, two in three with the voice heard so far."""
        samples = crop(spoken_part(read_samples(clip.path))[1], seconds)
        voice = self._voices.setdefault(clip.speaker, VoiceProfile())
        inputs = self._front_end.inputs(samples, clip.transcript if place % 2 else None, voice if place % 3 else None)
        self._recognizer.judge(samples, voice=voice)
        return inputs

    def conversation(self, clips: Sequence[Clip]) -> tuple[list[Inputs], list[Inputs]]:
        """Return whole clips with a fresh voice, and with the voice of what came before them."""
        voices: dict[str, VoiceProfile] = {}
        cold, warm = [], []
        for clip in progress(clips, "clip"):
            samples = spoken_part(read_samples(clip.path))[1]
            voice = voices.setdefault(clip.speaker, VoiceProfile())
            cold.append(self._front_end.inputs(samples))
            warm.append(self._front_end.inputs(samples, voice=voice))
            self._recognizer.judge(samples, voice=voice)
        return cold, warm

    def mistaken(self, path: Path) -> list[Inputs]:
        """Return what a stream takes for clear speech in a sound; in most it hears none."""
        heard = utterances_in(read_samples(path), open_detector("silero"))
        return [self._front_end.inputs(utterance.samples) for utterance in heard if utterance.clear]


def progress(items: Sequence[Item], unit: str) -> Iterable[Item]:
    """Return the items under a progress bar, shown only to a person at a terminal."""
    bar: Iterable[Item] = tqdm(items, unit=unit, disable=not sys.stderr.isatty())
    return bar


def crop(samples: NDArray[np.float32], seconds: float) -> NDArray[np.float32]:
    """Return the middle of a clip, repeated where it is shorter."""
    wanted = int(seconds * SAMPLE_RATE_HZ)
    if len(samples) < wanted:
        return np.resize(samples, wanted)
    start = (len(samples) - wanted) // 2
    return samples[start : start + wanted]
