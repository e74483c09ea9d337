"""Hashes of what parts are made from: encoders, written sentences and audio may change under one name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from train.corpora.utterance import read_utterances
from train.data import file_sha256
from train.settings import Experiment

_ENCODER_FILES = (".json", ".safetensors", ".bin", ".txt", ".model")
_DRAWN = ("constructed", "uninformative")
_EDGE = 4096


def content_of(experiments: Sequence[Experiment], encoders: Mapping[str, str], data: Path) -> dict[str, str]:
    """Return a hash of each thing that experiments read and whose name alone does not say what it holds.

    Args:
        experiments: Those that are fitted.
        encoders: Encoders by feature that win over the experiments'.
        data: The corpora's folder.
    """
    found = {f"encoder {name}": _folder_hash(Path(name)) for name in _sources(experiments, encoders)}
    features = [feature for experiment in experiments for feature in experiment.features.values()]
    sentences = data / "text" / "goemotions.csv.gz"
    if sentences.is_file() and any(feature.sentences in _DRAWN for feature in features):
        found["sentences"] = file_sha256(sentences)
    manifest = Path(experiments[0].manifest or data / "speech" / "manifest.csv")
    if manifest.is_file():
        audio = sorted({clip.path for clip in read_utterances(manifest) if not clip.sha256})
        if audio:
            # Another manifest makes other parts: their audio is compared among themselves.
            found[f"audio of {file_sha256(manifest)[:12]}"] = _audio_hash(audio)
    return found


def _sources(experiments: Sequence[Experiment], encoders: Mapping[str, str]) -> list[str]:
    named = []
    for experiment in experiments:
        named += [encoders.get(name, feature.source) for name, feature in experiment.features.items()]
        if experiment.encoder is not None:
            named.append(encoders.get("encoder", experiment.encoder.source))
    return sorted({name for name in named if name and Path(name).is_dir()})


def _folder_hash(folder: Path) -> str:
    key = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in _ENCODER_FILES and path.is_file()):
        key.update(f"{path.name}|{file_sha256(path)}\n".encode())
    return key.hexdigest()[:16]


def _audio_hash(paths: Sequence[Path]) -> str:
    """Return a hash of sizes, beginnings and ends: whole files would take minutes where a corpus is large."""
    key = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        with path.open("rb") as file:
            key.update(f"{'/'.join(path.parts[-2:])}|{size}\n".encode())
            key.update(file.read(_EDGE))
            file.seek(max(0, size - _EDGE))
            key.update(file.read(_EDGE))
    return key.hexdigest()[:16]
