"""Waves and what a pretrained encoder hears in them, frame by frame, written to disk once.

Every recording is cut to its speech first, as the runtime does. Every clip is kept in several variants (as cut, faster
or slower, begun later or after a pause, reversed), and speech or sound without labels stands beside it: to learn frames
needs no label. A variant is heard from its first sample on, since what Whisper hears depends on where in the recording
it is. Only the encoder's answers are kept, never its weights; and where somebody speaks.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from edge_ser.crowd import available_cores
from edge_ser.errors import ConfigError
from edge_ser.quality import spoken_part
from edge_ser.sources import read_samples
from edge_ser.vad import open_detector, speech_probabilities
from train.augment import SAMPLE_RATE_HZ, Wave, change_speed
from train.teacher import FrameTeacher

FRAME_SAMPLES = 640
"""40 ms: one frame of a student, two of the teacher."""
LONGEST_SILENCE_FRAMES = 40
"""Of silence that rows are given around an utterance, before and after it in all."""
SLOWEST, FASTEST = 0.8, 1.25
LABEL_KEPT = (0.87, 1.15)
"""Speeds within which speech still counts as said with the same emotion."""
REVERSED_SHARE = 0.06
LATE_SHARE, PAUSE_SHARE = 0.25, 0.3
"""Of the variants: begun up to a third later; begun up to 0.4 s before the recording does."""
FEWEST_SHARED = 200
"""Recordings that are worth a process for each core."""
_MOST_WORKERS = 8
"""Each takes a gigabyte."""
_LEVEL = 0.05
_LONGEST_S = 8.0


@dataclass(frozen=True)
class Recording:
    """One file that the bank is made from."""

    path: Path
    """Where it is."""
    speaker: str
    """Whose voice it is; empty for sound that nobody made with a voice."""
    label: int
    """Index of its emotion, or -1."""
    repeat: int = 1
    """How often it comes in one epoch."""
    variants: int = 1
    """In how many forms it is kept, the first at its own speed."""
    acted: int = -1
    """Index of the emotion that its actor meant, where the voice is another: not its label, since what was changed may
    sound otherwise; only the first opinion learns from it."""


@dataclass(frozen=True)
class Item:
    """One variant of one recording."""

    recording: int
    """Index of the recording."""
    start_sample: int
    """Where it starts among all samples."""
    samples: int
    """How long it is, a multiple of 640."""
    label: int
    """Index of its emotion, or -1 where none is to be learnt."""

    @property
    def start_frame(self) -> int:
        """Where its frames start among all frames."""
        return self.start_sample // FRAME_SAMPLES

    @property
    def frames(self) -> int:
        """How many frames it has."""
        return self.samples // FRAME_SAMPLES


@dataclass(frozen=True)
class Bank:
    """All items, memory-mapped."""

    recordings: Sequence[Recording]
    """What they were made from."""
    items: list[Item]
    """In the order of the recordings."""
    audio: NDArray[np.int16]
    """Samples of all items, one after the other."""
    targets: NDArray[np.float16]
    """The teacher's frames, (frames, size), standardised."""
    speech: NDArray[np.float16]
    """Probability of speech by frame, (frames,)."""

    def wave(self, item: Item, first_frame: int, frames: int) -> Wave:
        """Return a stretch of an item as float32 in [-1, 1]."""
        start = item.start_sample + first_frame * FRAME_SAMPLES
        return self.audio[start : start + frames * FRAME_SAMPLES].astype(np.float32) / np.float32(32767.0)

    def frames(self, item: Item, first_frame: int, frames: int) -> NDArray[np.float32]:
        """Return the teacher's frames of that stretch, (frames, size)."""
        start = item.start_frame + first_frame
        return self.targets[start : start + frames].astype(np.float32)

    def spoken(self, item: Item, first_frame: int, frames: int) -> NDArray[np.float32]:
        """Return the probability of speech in the frames of that stretch, (frames,)."""
        start = item.start_frame + first_frame
        return self.speech[start : start + frames].astype(np.float32)


def open_bank(recordings: Sequence[Recording], teacher: FrameTeacher, folder: Path, *, seed: int) -> Bank:
    """Return the bank of these recordings in `folder`, making it on first use.

    Args:
        recordings: Files, in the order in which they are kept.
        teacher: Whose frames are kept.
        folder: Where the bank lies; its name holds a hash of all that it depends on.
        seed: Chooses speeds and stretches.

    Raises:
        ConfigError: A process that made it was ended.
    """
    key = hashlib.sha256(json.dumps([teacher.digest, "cut to speech", seed]).encode())
    for recording in recordings:
        key.update(
            f"{recording.path}|{recording.path.stat().st_size}|{recording.label}|{recording.variants}\n".encode()
        )
    target = folder / f"bank-{key.hexdigest()[:16]}"
    if not (target / "items.json").is_file():
        try:
            _make(recordings, teacher, target, seed)
        except BrokenProcessPool:
            raise ConfigError(
                f"a process that made {target} was ended, for want of memory as a rule; need about 1 GB for each core; "
                "allow fewer cores (taskset -c 0) and begin again"
            ) from None
    rows = json.loads((target / "items.json").read_text(encoding="utf-8"))
    items = [Item(*row) for row in rows["items"]]
    samples = sum(item.samples for item in items)
    frames = samples // FRAME_SAMPLES
    return Bank(
        recordings,
        items,
        np.memmap(target / "audio.i16", np.int16, "r", shape=(samples,)),
        np.memmap(target / "targets.f16", np.float16, "r", shape=(frames, teacher.size)),
        np.memmap(target / "speech.f16", np.float16, "r", shape=(frames,)),
    )


def _make(recordings: Sequence[Recording], teacher: FrameTeacher, target: Path, seed: int) -> None:
    target.mkdir(parents=True, exist_ok=True)
    maker = _Maker(teacher, *_moments(recordings, teacher, seed), seed)
    items, place = [], 0
    names = ("audio.i16", "targets.f16", "speech.f16")
    with ExitStack() as stack:
        audio, targets, speech = (stack.enter_context((target / name).open("wb")) for name in names)
        made = _all_made(maker, recordings, stack)
        bar = tqdm(made, desc="bank", total=len(recordings), disable=not sys.stderr.isatty())
        for index, pieces in enumerate(bar):
            for piece in pieces:
                audio.write(piece.audio.tobytes())
                targets.write(piece.targets.tobytes())
                speech.write(piece.speech.tobytes())
                items.append(Item(index, place, len(piece.audio), piece.label))
                place += len(piece.audio)
    partial = target / ".items.json"
    rows = [list(asdict(item).values()) for item in items]
    partial.write_text(json.dumps({"items": rows}), encoding="utf-8")
    partial.replace(target / "items.json")


class _Piece(NamedTuple):
    audio: NDArray[np.int16]
    targets: NDArray[np.float16]
    speech: NDArray[np.float16]
    label: int


@dataclass(frozen=True)
class _Maker:
    """What every process needs: each recording has chances of its own, so it does not matter which makes it."""

    teacher: FrameTeacher
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    seed: int

    def pieces(self, index: int, recording: Recording) -> Iterator[_Piece]:
        for wave, label in _variants(recording, recording.variants, np.random.default_rng((self.seed, index))):
            count = len(wave) // FRAME_SAMPLES
            audio = np.round(np.clip(wave, -1.0, 1.0) * 32767.0).astype(np.int16)
            targets = ((self.teacher(wave)[:count] - self.mean) / self.deviation).astype(np.float16)
            yield _Piece(audio, targets, _speech(wave, count), label)


def _all_made(maker: _Maker, recordings: Sequence[Recording], stack: ExitStack) -> Iterator[list[_Piece]]:
    """Return every recording's pieces; where there are many of them, all cores make them."""
    numbered = enumerate(recordings)
    if len(recordings) < FEWEST_SHARED:
        return (list(maker.pieces(*one)) for one in numbered)
    workers = min(available_cores(), _MOST_WORKERS)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=(maker,))
    stack.callback(pool.shutdown, cancel_futures=True)
    return pool.map(_made, numbered, chunksize=16)


_makers: list[_Maker] = []
"""Of a process of the pool: one."""


def _begin(maker: _Maker) -> None:
    torch.set_num_threads(1)
    _makers.append(maker)


def _made(numbered: tuple[int, Recording]) -> list[_Piece]:
    return list(_makers[0].pieces(*numbered))


def _speech(wave: Wave, frames: int) -> NDArray[np.float16]:
    """Return the probability of speech in the middle of each frame."""
    detector = open_detector("silero")
    probabilities = speech_probabilities(wave, detector)
    middles = (np.arange(frames) + 0.5) * FRAME_SAMPLES
    heard_at = (np.arange(len(probabilities)) + 0.5) * detector.frame_samples
    return np.interp(middles, heard_at, probabilities).astype(np.float16)


def _moments(
    recordings: Sequence[Recording], teacher: FrameTeacher, seed: int, sample: int = 300
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(recordings), min(sample, len(recordings)), replace=False)
    waves = [wave for n in sorted(chosen) for wave, _ in _variants(recordings[int(n)], 1, rng)]
    frames = np.concatenate([teacher(wave) for wave in waves])
    return frames.mean(0), frames.std(0) + np.float32(1e-3)


def _variants(recording: Recording, variants: int, rng: np.random.Generator) -> Iterator[tuple[Wave, int]]:
    original = spoken_part(read_samples(recording.path))[1]
    for variant in range(variants):
        wave, label = original, recording.label
        if variant:
            speed = float(np.exp(rng.uniform(np.log(SLOWEST), np.log(FASTEST))))
            wave = _begun(change_speed(wave, speed), rng)
            backwards = rng.random() < REVERSED_SHARE
            wave = wave[::-1] if backwards else wave
            label = -1 if backwards or not LABEL_KEPT[0] < speed < LABEL_KEPT[1] else label
        for piece in _pieces(wave):
            yield piece, label


def _begun(wave: Wave, rng: np.random.Generator) -> Wave:
    """Return the wave begun later, or after a pause, or as it is."""
    chance = rng.random()
    if chance < LATE_SHARE:
        return wave[int(rng.integers(len(wave) // 3)) :]
    if chance < LATE_SHARE + PAUSE_SHARE:
        pause = rng.standard_normal(int(rng.uniform(0.05, 0.4) * SAMPLE_RATE_HZ)).astype(np.float32)
        return np.concatenate([pause * np.float32(np.abs(wave).max() * 10.0 ** rng.uniform(-4.5, -2.5)), wave])
    return wave


def _pieces(wave: Wave) -> Iterator[Wave]:
    """Yield the wave in pieces of at most 8 s, a whole number of frames each, brought to one level."""
    count = max(1, int(np.ceil(len(wave) / (_LONGEST_S * SAMPLE_RATE_HZ))))
    for piece in np.array_split(wave, count):
        piece = piece[: len(piece) // FRAME_SAMPLES * FRAME_SAMPLES]
        if len(piece) >= 10 * FRAME_SAMPLES:
            level = np.sqrt(np.mean(np.square(piece, dtype=np.float64))) + 1e-7
            gain = min(_LEVEL / level, 0.99 / (np.abs(piece).max() + 1e-7))
            yield (piece * np.float32(gain)).astype(np.float32)
