"""Synthesisers that fall over leave nothing behind that a training would stumble over."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from train import speak


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A synthesiser that says what is in a file."""
    said = tmp_path / "said.wav"
    said_by = {"engine": ("cp", lambda text, out, rng: ["cp", str(said), str(out)])}
    monkeypatch.setattr(speak, "ENGINES", said_by)
    soundfile.write(said, np.zeros(16_000), 16_000)
    (tmp_path / "spoken").mkdir()
    return said


def test_what_is_said_is_kept(engine: Path, tmp_path: Path) -> None:
    assert speak.speak(["a sentence"], tmp_path / "spoken", "engine", 2) == 2
    kept = sorted((tmp_path / "spoken").iterdir())
    assert [path.name for path in kept] == ["engine-0000.wav", "engine-0001.wav"]


@pytest.mark.parametrize("broken", ["no length", "cut off", "short", "nothing"])
def test_what_a_synthesiser_leaves_that_fell_over_is_not(engine: Path, tmp_path: Path, broken: str) -> None:
    whole = engine.read_bytes()
    place = whole.index(b"data") + 4
    assert struct.unpack("<I", whole[place : place + 4])[0] == 32_000
    left = {
        "no length": whole[:place] + struct.pack("<I", 0) + whole[place + 4 :],
        "cut off": whole[: len(whole) * 3 // 4],
        "short": whole,
        "nothing": b"",
    }
    engine.write_bytes(left[broken])
    if broken == "short":
        soundfile.write(engine, np.zeros(1_600), 16_000)
    assert speak.speak(["a sentence"], tmp_path / "spoken", "engine", 1) == 0
    assert not list((tmp_path / "spoken").iterdir())


def test_a_synthesiser_that_hangs_does_not_end_the_rest(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speak, "_TIMEOUT_S", 0.2)
    hangs = (
        "sleep",
        lambda text, out, rng: ["sleep", "5"] if out.stem.endswith("0") else ["cp", str(engine), str(out)],
    )
    monkeypatch.setattr(speak, "ENGINES", {"engine": hangs})
    assert speak.speak(["a sentence"], tmp_path / "spoken", "engine", 2) == 1
