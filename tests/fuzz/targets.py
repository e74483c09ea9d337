"""What fuzzing feeds with bytes: whatever comes in, only success or an `EdgeSerError` may come out.

Each target takes bytes as a hostile file would bring them; anything but `EdgeSerError` that it raises is a finding.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from edge_ser.backends import open_backend
from edge_ser.bundle import Bundle
from edge_ser.cli.classify import read_transcripts
from edge_ser.corpus import read_manifest
from edge_ser.errors import EdgeSerError
from edge_ser.head import Head, Kernel, VoicePrior, Whitening
from edge_ser.head_file import head_to_bytes
from edge_ser.manifest import HEAD_NAME, MANIFEST_NAME, TOKENIZER_NAME, Manifest
from edge_ser.recognizer import EmotionRecognizer
from edge_ser.shots import list_shots
from edge_ser.sources import read_blocks
from edge_ser.testing import EMBEDDING_SIZE, write_tiny_bundle
from edge_ser.voice import VoiceProfile

ROOT = Path(__file__).resolve().parents[2]
Target = Callable[[bytes], None]

BUNDLE_PARTS = (MANIFEST_NAME, TOKENIZER_NAME, "model.onnx", HEAD_NAME)
"""What the target `bundle` puts its input in the place of: the first byte chooses, the rest is the content."""

_MOST_BLOCKS = 3600
"""An hour of audio; a small file may well hold days of silence, and is read in constant memory."""


@cache
def _room() -> Path:
    """Return a folder of this process."""
    kept = tempfile.TemporaryDirectory(prefix="edge-ser-fuzz-")
    _rooms.append(kept)
    return Path(kept.name)


_rooms: list[tempfile.TemporaryDirectory[str]] = []


def _file(data: bytes, name: str) -> Path:
    path = _room() / name
    path.write_bytes(data)
    return path


# manifest


def manifest(data: bytes) -> None:
    """Read a manifest; what was read is written and read again as the same."""
    try:
        read = Manifest.from_json(data, "fuzz")
    except EdgeSerError:
        return
    assert Manifest.from_json(read.to_json().encode(), "fuzz") == read


# bundle


@cache
def _bundles() -> tuple[Path, Path]:
    """Return the folders of a bundle and of one that is adapted from it."""
    base = Bundle.open(write_tiny_bundle(_room() / "tiny", attributes=("arousal",)))
    delta = replace(base.manifest, name="delta", graphs={}, base=base.identity)
    folders = base.folder, Bundle.write(_room() / "delta", delta, {HEAD_NAME: head_to_bytes(_head())}).folder
    for folder in folders:
        # What the packages read when they are loaded is read now.
        _judge_with(folder)
    return folders


def _head() -> Head:
    size, labels, clips = EMBEDDING_SIZE, 4, 5
    values = np.random.default_rng(0)
    return Head(
        voice=VoicePrior(np.zeros(size), np.ones(size), 3.0, 2.0, 0.5),
        whitening=Whitening(values.standard_normal((size, 3)), np.ones(3), 1.0),
        kernel=Kernel(0.1, np.ones(2), np.ones(2)),
        temperature=1.0,
        sharpness=1.0,
        clips=values.standard_normal((clips, size)),
        pull=values.standard_normal((clips, labels)),
    )


def bundle(data: bytes) -> None:
    """Open a bundle of which one part is `data`, hashes made to fit, and judge with it, with words and without."""
    part = BUNDLE_PARTS[data[0] % len(BUNDLE_PARTS)] if data else MANIFEST_NAME
    base, delta = _bundles()
    folder = delta if part == HEAD_NAME else base
    changed = {part: data[1:]}
    if part != MANIFEST_NAME:
        plain = json.loads((folder / MANIFEST_NAME).read_bytes())
        plain["files"][part] = hashlib.sha256(data[1:]).hexdigest()
        changed[MANIFEST_NAME] = json.dumps(plain).encode()
    before = {name: (folder / name).read_bytes() for name in changed}
    try:
        for name, content in changed.items():
            (folder / name).write_bytes(content)
        with OnlyReads(_room()):
            _judge_with(folder)
    finally:
        for name, content in before.items():
            (folder / name).write_bytes(content)


def _judge_with(folder: Path) -> None:
    voice = VoiceProfile()
    samples = 0.3 * np.sin(np.arange(8_000) / 10, dtype=np.float32)
    try:
        opened = Bundle.open(folder)
        recognizer = EmotionRecognizer(opened, open_backend(opened, threads=1))
        for _ in range(2):
            judgement, heard = recognizer.listen(samples, transcript="i am so happy", voice=voice)
            again, _ = recognizer.judge_again(heard, transcript="not fine", voice=voice)
            assert abs(sum(judgement.probabilities.values()) - 1) < 1e-6
            assert abs(sum(again.probabilities.values()) - 1) < 1e-6
        json.loads(opened.manifest.to_json())
    except EdgeSerError:
        pass


class OnlyReads:
    """While it is entered, Python code that opens a file outside a folder, or opens it to write, is a finding."""

    def __init__(self, folder: Path) -> None:
        """Allow the folder, and whatever Python itself is made of."""
        # Python and its packages load modules late.
        python = {sys.prefix, sys.base_prefix, *sys.path}
        folders = [os.path.realpath(path) for path in (folder, *python) if path]
        self._allowed = tuple(f"{path}/" for path in [*folders, "/proc", "/sys"])
        self.stray: list[str] = []

    def __enter__(self) -> OnlyReads:
        _watching.append(self)
        _hook()
        return self

    def __exit__(self, *error: object) -> None:
        _watching.remove(self)
        assert not self.stray, f"opened outside the bundle: {self.stray}"

    def note(self, path: object) -> None:
        """Take note of a path that is opened."""
        if isinstance(path, str | bytes) and not os.path.realpath(os.fsdecode(path)).startswith(self._allowed):
            self.stray.append(os.fsdecode(path))


_watching: list[OnlyReads] = []


@cache
def _hook() -> None:
    """Hook into Python, which has no way back, once."""

    def see(event: str, words: tuple[object, ...]) -> None:
        if event == "open" and _watching:
            _watching[-1].note(words[0])

    sys.addaudithook(see)


# voice


def voice(data: bytes) -> None:
    """Open a voice; one that opens can be used, taught, merged, and is saved and opened as the same."""
    try:
        opened = VoiceProfile.open(_file(data, "anna.voice"))
    except EdgeSerError:
        return
    kept = _room() / "kept.voice"
    opened.save(kept)
    assert VoiceProfile.open(kept) == opened
    if opened.space is None:
        return
    size = len(VoiceProfile.open(kept)._mean)
    assert np.isfinite(opened.as_input(size)).all()
    opened.update(np.ones(size), opened.space)
    twice = opened.merged(VoiceProfile.open(kept))
    assert np.isfinite(twice.as_input(size)).all()
    twice.save(kept)
    assert VoiceProfile.open(kept).utterances == twice.utterances


def signed(plain: dict[str, object]) -> bytes:
    """Return the file of a voice with a checksum that fits."""
    content = {key: value for key, value in plain.items() if key != "sha256"}
    sha256 = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({**content, "sha256": sha256}).encode()


# audio


def audio(data: bytes) -> None:
    """Read an audio file block by block; every block is finite, in range and a second long or so."""
    try:
        blocks = read_blocks(_file(data, "sound"))
        for block in itertools.islice(blocks, _MOST_BLOCKS):
            assert block.dtype == np.float32
            assert block.ndim == 1
            assert block.size <= 2 * 16_000
            assert (np.abs(block) <= 1).all()
    except EdgeSerError:
        pass


# csv


def csv(data: bytes) -> None:
    """Read a table as transcripts, as shots and as a corpus."""
    path = _file(data, "table.csv")
    readers: tuple[Callable[[Path], Iterable[object]], ...] = (read_transcripts, list_shots, read_manifest)
    for read in readers:
        try:
            list(read(path))
        except EdgeSerError:
            pass


TARGETS: dict[str, Target] = {"manifest": manifest, "bundle": bundle, "voice": voice, "audio": audio, "csv": csv}


# What there is to start from.


def seeds(target: str) -> list[bytes]:
    """Return sound inputs of a target, for a fuzzer to change."""
    return _SEEDS[target]()


def _manifests() -> list[bytes]:
    return [(folder / MANIFEST_NAME).read_bytes() for folder in _bundles()]


def _parts() -> list[bytes]:
    base, delta = _bundles()
    folders = (base, base, base, delta)
    return [
        bytes([place]) + (folder / name).read_bytes()
        for place, (folder, name) in enumerate(zip(folders, BUNDLE_PARTS, strict=True))
    ]


def _voices() -> list[bytes]:
    heard = VoiceProfile()
    for row in np.random.default_rng(0).standard_normal((3, 4)):
        heard.update(row, "tiny")
    path = _room() / "seed.voice"
    files = []
    for profile in (VoiceProfile(), heard):
        profile.save(path)
        files.append(path.read_bytes())
    return files


_SOUNDS = (
    ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "MS_ADPCM"), ("WAVEX", "PCM_16"),
    ("RF64", "PCM_16"), ("W64", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"), ("AU", "ULAW"), ("CAF", "ALAC_16"),
)  # fmt: skip


def _sounds() -> list[bytes]:
    wave = 0.3 * np.sin(np.arange(2_400) / 7)
    files = []
    for place, (kind, coding) in enumerate(_SOUNDS):
        file = io.BytesIO()
        shape = np.stack([wave, -wave], axis=1) if place % 3 == 1 else wave
        soundfile.write(file, shape, 24_000 if coding == "OPUS" else 16_000, format=kind, subtype=coding)
        files.append(file.getvalue())
    return files


def _tables() -> list[bytes]:
    clip = ROOT / "examples" / "conversation.flac"
    return [
        b'path,transcript\na.wav,"so, so happy"\nb.wav,\n',
        b"path,label,speaker,transcript\na.wav,happy,anna,\nb.wav,sad,,fine\n",
        f"path,corpus,speaker,emotion4,duration_s,transcript\n{clip},demo,anna,happy,1.5,fine\n".encode(),
    ]


_SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "manifest": _manifests,
    "bundle": _parts,
    "voice": _voices,
    "audio": _sounds,
    "csv": _tables,
}

# What breaks readers of JSON.

ODD_VALUES: tuple[object, ...] = (
    None, True, 0, -1, 1, 2, 0.5, -0.0, 1e-320, 1e300, 10**12, 10**30, -(10**18), int("9" * 4300), "", " ", "\0",
    "\ud800", "a" * 300, "../../etc/passwd", "/etc/passwd", "model.onnx", "manifest.json", "angry", [], {}, [[]],
    [1, -1], [1, 10**12], [1, "samples"], {"": {}}, {"model": "/etc/passwd"}, {"\ud800": "0" * 64},
    {"a" * 300: "0" * 64}, [0] * 2_000,
)  # fmt: skip
DEPTHS = (60, 300, 480, 900, 960, 980, 990, 5_000)
"""How deep a value may lie: around what Python's own reader and writer still take."""


def nested(depth: int) -> object:
    """Return a list in a list in a list."""
    value: object = 0
    for _ in range(depth):
        value = [value]
    return value
