"""A language pack: a small delta bundle over a model that answers as ever without one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

import edge_ser
from edge_ser.array_file import arrays_to_bytes
from edge_ser.bundle import Bundle
from edge_ser.cli import main
from edge_ser.errors import BundleError, ConfigError
from edge_ser.language_pack import LanguagePack
from edge_ser.shots import Shot
from edge_ser.testing import write_tiny_bundle

RATE_HZ = 16_000
SADDER = LanguagePack(np.array([[0.0], [4.0]], np.float32), np.array([[0.0, 0.0, 0.0, 5.0]], np.float32))
"""Over the tiny model, whose second feature is brightness and whose last label is sad."""


def hiss(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 0.1, RATE_HZ).astype(np.float32)


def write_pack(folder: Path, base: Path, content: bytes) -> Path:
    bundle = Bundle.open(base)
    manifest = replace(bundle.manifest, name=folder.name, graphs={}, base=bundle.identity)
    return Bundle.write(folder, manifest, {"pack.npz": content}).folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny", pack=True)


@pytest.fixture
def pack(base: Path) -> Path:
    return write_pack(base.parent / "tiny-am", base, SADDER.to_bytes())


def test_a_model_that_takes_packs_answers_without_one_as_if_it_took_none(base: Path, tmp_path: Path) -> None:
    plain = edge_ser.load(write_tiny_bundle(tmp_path / "plain"))
    for seed in range(3):
        assert edge_ser.load(base).judge(hiss(seed)).probabilities == plain.judge(hiss(seed)).probabilities


def test_a_pack_changes_the_answer_and_its_base_stays_as_it_was(base: Path, pack: Path) -> None:
    before, after = edge_ser.load(base).judge(hiss(0)), edge_ser.load(pack).judge(hiss(0))
    assert before.emotion != "sad" and after.emotion == "sad"
    assert edge_ser.load(base).judge(hiss(0)).probabilities == before.probabilities
    nothing = LanguagePack(np.zeros_like(SADDER.down), np.zeros_like(SADDER.up))
    empty = edge_ser.load(write_pack(base.parent / "empty", base, nothing.to_bytes()))
    assert empty.judge(hiss(0)).probabilities == before.probabilities


def test_words_that_come_late_are_judged_with_the_pack(pack: Path) -> None:
    recognizer = edge_ser.load(pack)
    _, heard = recognizer.listen(hiss(0))
    again, _ = recognizer.judge_again(heard, transcript="so sad today")
    expected = recognizer.judge(hiss(0), transcript="so sad today").probabilities
    assert again.text_used and again.probabilities == pytest.approx(expected, abs=1e-6)


def test_a_voice_learnt_without_the_pack_serves_with_it(base: Path, pack: Path) -> None:
    voice = edge_ser.VoiceProfile()
    edge_ser.load(base).judge(hiss(0), voice=voice)
    assert edge_ser.load(pack).judge(hiss(1), voice=voice).voice_utterances == 1


def test_it_listens_and_is_shown(pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "clip.wav", hiss(0), RATE_HZ)
    words = ["classify", str(tmp_path / "clip.wav"), "--whole", "--model", str(pack), "--format", "jsonl"]
    assert main(words) == 0
    event = json.loads(capsys.readouterr().out.splitlines()[0])
    assert event["emotion"] == "sad" and event["model"] == "tiny-am"
    assert main(["listen", "--input", str(tmp_path / "clip.wav"), "--model", str(pack), "--format", "jsonl"]) == 0
    assert '"summary"' in capsys.readouterr().out
    assert main(["models", str(pack)]) == 0
    assert "tiny, with a language pack over it" in capsys.readouterr().out


def test_another_version_of_its_base_or_none_is_refused(pack: Path) -> None:
    manifest = json.loads((pack.parent / "tiny" / "manifest.json").read_text())
    (pack.parent / "tiny" / "manifest.json").write_text(json.dumps({**manifest, "licence": "other"}))
    with pytest.raises(BundleError, match=r"learnt over another version of 'tiny'.*train.language_pack"):
        edge_ser.load(pack)
    shutil.rmtree(pack.parent / "tiny")
    with pytest.raises(BundleError, match=r"learnt over 'tiny', which is neither bundled nor beside it"):
        edge_ser.load(pack)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04 and no more", "pack.npz is no language pack"),
        (LanguagePack(SADDER.down.T, SADDER.up).to_bytes(), "does not fit the inputs"),
        (LanguagePack(SADDER.down, SADDER.up * np.nan).to_bytes(), "not finite"),
        (arrays_to_bytes({"down": SADDER.down, "up": SADDER.up, "version": np.array([2.0])}), "version"),
        (arrays_to_bytes({"down": SADDER.down, "version": np.array([1.0])}), "'up' is missing"),
        (arrays_to_bytes({"down": np.array([[object()]]), "version": np.array([1.0])}), "allow_pickle"),
    ],
)
def test_a_file_that_is_no_pack_of_this_model_is_refused(base: Path, content: bytes, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        edge_ser.load(write_pack(base.parent / "other", base, content))


def test_a_model_that_takes_no_packs_refuses_one(tmp_path: Path) -> None:
    plain = write_tiny_bundle(tmp_path / "plain")
    with pytest.raises(BundleError, match="does not fit the inputs"):
        edge_ser.load(write_pack(tmp_path / "plain-am", plain, SADDER.to_bytes()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": ["sad", "angry", "happy", "neutral"]}, "does not fit the inputs and labels"),
        ({"files": {"pack.npz": "0" * 64, "head.npz": "0" * 64}}, "lists both"),
    ],
)
def test_a_manifest_that_does_not_fit_its_pack_is_refused(pack: Path, change: dict[str, object], words: str) -> None:
    manifest = json.loads((pack / "manifest.json").read_text())
    (pack / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(BundleError, match=words):
        edge_ser.load(pack)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [({"pack_up": None}, "both of 'pack_down'"), ({"pack_down": [1, 2, 3]}, "of one rank")]
    + [({"pack_down": shape}, "'pack_down' has shape") for shape in ([1, 2], [1, "n", 1], [1, 10**6, 1], [1, -2, 1])],
)
def test_inputs_for_packs_that_make_no_sense_are_refused(
    base: Path, sizes: dict[str, list[object] | None], words: str
) -> None:
    manifest = json.loads((base / "manifest.json").read_text())
    inputs = [{**item, "shape": sizes.get(item["kind"], item["shape"])} for item in manifest["inputs"]]
    manifest["inputs"] = [item for item in inputs if item["shape"] is not None]
    (base / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=words):
        edge_ser.load(base)


def test_a_pack_is_no_model_to_adapt(pack: Path, tmp_path: Path) -> None:
    from edge_ser.adapt import adapt

    with pytest.raises(ConfigError, match=r"adapted already.*--model tiny"):
        adapt(pack, [Shot(tmp_path / "clip.wav", "sad")], tmp_path / "mine")
