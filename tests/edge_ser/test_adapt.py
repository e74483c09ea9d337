"""A model adapted to a user's own clips: what it learns, what it refuses, and the bundle it is kept in."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edge_ser
from edge_ser.adapt import adapt
from edge_ser.adapt_report import AdaptReport
from edge_ser.bundle import Bundle
from edge_ser.cli import main
from edge_ser.errors import BundleError, ConfigError
from edge_ser.quality import Speech
from edge_ser.shots import Shot, hear_shots, list_shots
from edge_ser.sources import read_samples
from edge_ser.stream import Stream
from edge_ser.testing import EMBEDDING_SIZE, write_tiny_bundle
from edge_ser.voice import VoiceProfile
from tests.edge_ser.fakes import ScriptedDetector, scripted_audio

RATE_HZ = 16_000
PITCH_HZ = {"happy": 150.0, "sad": 900.0, "tired": 2500.0, "angry": 5000.0}


def tone(pitch_hz: float, seed: int, level: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng((round(pitch_hz), seed))
    time_s = np.arange(int(rng.uniform(0.5, 0.7) * RATE_HZ)) / RATE_HZ
    wave = np.sin(2 * np.pi * pitch_hz * rng.uniform(0.97, 1.03) * time_s + seed)
    return (level * rng.uniform(0.9, 1.1) * wave).astype(np.float32)


def write_shots(folder: Path, labels: dict[str, int]) -> Path:
    for label, count in labels.items():
        (folder / label).mkdir(parents=True)
        for take in range(count):
            soundfile.write(folder / label / f"{take}.wav", tone(PITCH_HZ[label], take), RATE_HZ)
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", attributes=("arousal",))


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shots(tmp_path_factory.mktemp("clips") / "shots", {"happy": 6, "sad": 6, "tired": 6})


@pytest.fixture(scope="module")
def report(base: Path, shots: Path) -> AdaptReport:
    return adapt(base, list_shots(shots), base.parent / "mine", threads=1)


@pytest.fixture(scope="module")
def mine(base: Path, report: AdaptReport) -> edge_ser.EmotionRecognizer:
    return edge_ser.load(base.parent / report.name, threads=1)


@pytest.mark.parametrize("label", ["happy", "sad", "tired"])
def test_it_has_learnt_the_clips_labels_the_new_one_too(mine: edge_ser.EmotionRecognizer, label: str) -> None:
    assert [mine.judge(tone(PITCH_HZ[label], seed)).emotion for seed in range(20, 25)] == [label] * 5


def test_clips_are_learnt_from_without_the_silence_around_their_speech(
    base: Path, shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_ser.shots.spoken_part", lambda samples: (Speech.CLEAR, samples[1_000:7_500]))
    recognizer = edge_ser.load(base, threads=1)
    heard, skipped = hear_shots(recognizer, list_shots(shots))
    assert heard and not skipped
    for item in heard:
        part = read_samples(item.shot.path)[1_000:7_500]
        assert np.array_equal(item.samples, part)
        assert np.array_equal(item.heard.outputs["logits"], recognizer.listen(part)[1].outputs["logits"])


def test_the_report_tells_what_it_was_worth_on_clips_left_out(report: AdaptReport) -> None:
    assert report.left_out.after == 1.0
    assert report.left_out.before < 0.7
    assert {row.label: row.clips for row in report.left_out.labels} == {"happy": 6, "sad": 6, "tired": 6}
    assert report.new_voice is None
    assert "'tired' is new to the model." in report.notes
    assert any(note.startswith("No clip of angry, neutral") for note in report.notes)


def test_labels_without_clips_keep_their_place(base: Path, shots: Path, tmp_path: Path) -> None:
    two = [shot for shot in list_shots(shots) if shot.label != "tired"]
    folder = tmp_path / "tiny"
    shutil.copytree(base, folder)
    adapt(folder, two, tmp_path / "two", threads=1)
    recognizer = edge_ser.load(tmp_path / "two", threads=1)
    assert recognizer.labels == ("angry", "happy", "neutral", "sad")
    judged = recognizer.judge(tone(PITCH_HZ["happy"], 30)).probabilities
    old = edge_ser.load(folder, threads=1).judge(tone(PITCH_HZ["happy"], 30)).probabilities
    assert judged["happy"] > old["happy"]
    # What they say of each other must not change either.
    assert (judged["angry"] > judged["neutral"]) == (old["angry"] > old["neutral"])


def test_the_old_bundle_is_left_as_it_is_and_the_new_one_is_small(base: Path, shots: Path, tmp_path: Path) -> None:
    before = contents(base)
    report = adapt(base, list_shots(shots), base.parent / "small", threads=1)
    assert contents(base) == before
    assert report.size_bytes == sum(path.stat().st_size for path in (base.parent / "small").iterdir()) < 1_000_000
    assert {path.name for path in (base.parent / "small").iterdir()} == {"manifest.json", "head.npz", "MODEL_CARD.md"}


def test_an_adapted_model_does_all_that_a_model_does(mine: edge_ser.EmotionRecognizer) -> None:
    voice = VoiceProfile()
    stream = Stream(mine, voice=voice, partials=True, detector=ScriptedDetector())
    events = stream.push(scripted_audio([(True, 1.8), (False, 0.7)])) + stream.finish()
    answers = [event for event in events if isinstance(event, edge_ser.Emotion)]
    assert [answer.final for answer in answers] == [False, False, True]
    assert answers[-1].model == "mine" and set(answers[-1].probabilities) == set(mine.labels)
    assert answers[-1].attributes is not None
    assert voice.utterances == 1
    again = stream.revise(answers[-1].utterance, transcript="so happy today")
    assert again.text_used and again.probabilities != answers[-1].probabilities
    assert "tired" in repr(mine)


def test_a_voice_of_the_base_is_one_of_the_adapted_model(base: Path, mine: edge_ser.EmotionRecognizer) -> None:
    voice = VoiceProfile()
    edge_ser.load(base, threads=1).judge(tone(300.0, 0), voice=voice)
    assert mine.judge(tone(300.0, 1), voice=voice).voice_utterances == 1
    assert voice.utterances == 2


def write_table(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_a_table_may_name_speakers_and_words(shots: Path) -> None:
    table = write_table(
        shots.parent / "a.csv", ["path,label,speaker,transcript", "shots/happy/0.wav,happy,anna,i am fine"]
    )
    assert list_shots(table) == [Shot(shots / "happy" / "0.wav", "happy", "anna", "i am fine")]


def test_strangers_first_words_get_the_old_answer_where_voices_disagree(base: Path, tmp_path: Path) -> None:
    # Whatever one voice calls happy the other calls sad: nothing can be learnt for a third.
    rows = ["path,label,speaker"]
    for voice, labels in (("anna", ("happy", "sad")), ("ben", ("sad", "happy"))):
        for label, pitch_hz in zip(labels, (300.0, 3000.0), strict=True):
            for take in range(5):
                name = f"{voice}-{label}-{take}.wav"
                soundfile.write(tmp_path / name, tone(pitch_hz + (voice == "ben"), take), RATE_HZ)
                rows.append(f"{name},{label},{voice}")
    shutil.copytree(base, tmp_path / "tiny")
    done = adapt(tmp_path / "tiny", list_shots(write_table(tmp_path / "a.csv", rows)), tmp_path / "two", threads=1)
    assert done.voices == 2 and done.new_voice is not None and done.first_trust == 0
    old, new = edge_ser.load(tmp_path / "tiny", threads=1), edge_ser.load(tmp_path / "two", threads=1)
    for pitch_hz in (200.0, 1000.0, 4000.0):
        assert new.judge(tone(pitch_hz, 0)).emotion == old.judge(tone(pitch_hz, 0)).emotion


def test_what_cannot_be_used_is_said_and_left_out(base: Path, shots: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shots"
    shutil.copytree(shots, folder)
    (folder / "sad" / "noise.wav").write_bytes(b"this is no audio")
    shutil.copy(folder / "sad" / "0.wav", folder / "sad" / "again.wav")
    shutil.copy(folder / "sad" / "1.wav", folder / "happy" / "also.wav")
    soundfile.write(folder / "happy" / "silent.wav", np.zeros(RATE_HZ), RATE_HZ)
    soundfile.write(folder / "happy" / "short.wav", tone(150.0, 0)[:800], RATE_HZ)
    (folder / "sad" / "notes.txt").write_text("no clip")
    shutil.copytree(base, tmp_path / "tiny")
    done = adapt(tmp_path / "tiny", list_shots(folder), tmp_path / "mine", threads=1)
    reasons = {f"{item.path.parent.name}/{item.path.name}": item.reason for item in done.skipped}
    assert set(reasons) == {
        "sad/noise.wav", "sad/again.wav", "sad/1.wav", "happy/also.wav", "happy/silent.wav", "happy/short.wav"
    }  # fmt: skip
    assert "too quiet" in reasons["happy/silent.wav"] and "too short" in reasons["happy/short.wav"]
    assert "same recording" in reasons["sad/0.wav" if "sad/0.wav" in reasons else "sad/again.wav"]
    assert done.left_out.clips == 17


@pytest.mark.parametrize(
    ("labels", "words"),
    [({"happy": 5}, "5 of 'happy'.*two labels"), ({"tired": 1}, "1 of 'tired'.*two labels"), ({}, "lists no clip")],
)
def test_too_little_to_learn_from_is_said(base: Path, tmp_path: Path, labels: dict[str, int], words: str) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    write_shots(folder, labels)
    with pytest.raises(ConfigError, match=words):
        adapt(base, list_shots(folder), tmp_path / "mine", threads=1)
    assert not (tmp_path / "mine").exists()


def test_one_clip_of_each_of_two_labels_is_enough_and_promises_nothing(base: Path, tmp_path: Path) -> None:
    folder = write_shots(tmp_path / "shots", {"happy": 1, "sad": 1})
    shutil.copytree(base, tmp_path / "tiny")
    done = adapt(tmp_path / "tiny", list_shots(folder), tmp_path / "mine", threads=1)
    assert any(note.startswith("Few clips of happy, sad") for note in done.notes)
    assert edge_ser.load(tmp_path / "mine", threads=1).judge(tone(150.0, 0)).uncertain


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["file,label", "a.wav,sad"], "lacks the column.*path"),
        (["path,label", "a.wav,"], "a.csv:2: no label"),
        (["path,label", ",sad"], "a.csv:2: no path"),
        (["path,label"], "lists no clip"),
        (["path,label", f"a.wav,{'x' * 50}"], "is no name"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, rows: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        list_shots(write_table(tmp_path / "a.csv", rows))


def test_a_source_that_is_neither_folder_nor_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere"):
        list_shots(tmp_path / "nowhere")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match=r"cannot read .*binary\.csv"):
        list_shots(tmp_path / "binary.csv")


def test_capitals_do_not_make_a_new_label(base: Path, shots: Path, tmp_path: Path) -> None:
    capitals = [Shot(shot.path, shot.label.upper()) for shot in list_shots(shots) if shot.label != "tired"]
    shutil.copytree(base, tmp_path / "tiny")
    assert adapt(tmp_path / "tiny", capitals, tmp_path / "mine").labels == ("angry", "happy", "neutral", "sad")


def test_only_an_adapted_bundle_is_replaced(base: Path, shots: Path, tmp_path: Path) -> None:
    listed = list_shots(shots)
    shutil.copytree(base, tmp_path / "tiny")
    shutil.copytree(base, tmp_path / "other")
    for where, words in (("tiny", "the model itself"), ("tiny/inside", "the model itself"), ("other", "is no adapted")):
        with pytest.raises(ConfigError, match=words):
            adapt(tmp_path / "tiny", listed, tmp_path / where, threads=1)
    first = adapt(tmp_path / "tiny", listed, tmp_path / "mine", threads=1)
    second = adapt(tmp_path / "tiny", [shot for shot in listed if shot.label != "tired"], tmp_path / "mine", threads=1)
    assert first.labels != second.labels == edge_ser.load(tmp_path / "mine").labels


def test_an_adapted_model_is_not_adapted_again(base: Path, shots: Path, report: AdaptReport) -> None:
    with pytest.raises(ConfigError, match=r"adapted already.*--model tiny"):
        adapt(base.parent / report.name, list_shots(shots), base.parent / "again")


@pytest.fixture
def pair(base: Path, report: AdaptReport, tmp_path: Path) -> Path:
    """An adapted bundle beside its base."""
    shutil.copytree(base, tmp_path / "tiny")
    shutil.copytree(base.parent / report.name, tmp_path / "mine")
    return tmp_path / "mine"


def test_it_opens_wherever_its_base_lies_beside_it(pair: Path) -> None:
    bundle = Bundle.open(pair)
    assert bundle.base is not None and bundle.base.folder == pair.parent / "tiny"
    assert bundle.read("tokenizer.json") == bundle.base.read("tokenizer.json")


def test_without_its_base_it_says_what_is_missing(pair: Path) -> None:
    shutil.rmtree(pair.parent / "tiny")
    with pytest.raises(BundleError, match=r"adapted from 'tiny'.*neither bundled nor beside it"):
        Bundle.open(pair)


def test_another_version_of_the_base_is_refused(pair: Path) -> None:
    manifest = json.loads((pair.parent / "tiny" / "manifest.json").read_text())
    (pair.parent / "tiny" / "manifest.json").write_text(json.dumps({**manifest, "licence": "other"}))
    with pytest.raises(BundleError, match="another version of 'tiny'"):
        Bundle.open(pair)


def test_a_damaged_base_is_refused(pair: Path) -> None:
    (pair.parent / "tiny" / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="damaged or changed"):
        Bundle.open(pair)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": ["happy", "angry", "neutral", "sad", "tired"]}, "does not fit its base"),
        ({"base": {"name": "../tiny", "sha256": "0" * 64}}, "letters, digits"),
        ({"base": {"name": "tiny", "sha256": "0"}}, "64 hexadecimal digits"),
        ({"base": {"name": "tiny"}}, "'sha256' is missing"),
        ({"graphs": {"model": "head.npz"}}, "'graphs' and 'base'"),
        ({"files": {}}, "need 'head.npz' there"),
    ],
)
def test_a_delta_that_does_not_fit_is_refused(pair: Path, change: dict[str, object], words: str) -> None:
    manifest = json.loads((pair / "manifest.json").read_text())
    (pair / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(BundleError, match=words):
        edge_ser.load(pair)


def put_head(bundle: Path, content: bytes) -> None:
    (bundle / "head.npz").write_bytes(content)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["head.npz"] = hashlib.sha256(content).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))


@given(place=st.integers(0, 10**6), byte=st.integers(0, 255))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_head_that_was_tampered_with_opens_or_is_a_plain_error(pair: Path, place: int, byte: int) -> None:
    good = (pair / "head.npz").read_bytes()
    damaged = bytearray(good)
    damaged[place % len(good)] = byte
    put_head(pair, bytes(damaged))
    try:
        edge_ser.load(pair, threads=1)
    except BundleError as error:
        assert "head.npz" in str(error)
    finally:
        put_head(pair, good)


def arrays_of(bundle: Path) -> dict[str, np.ndarray]:
    with np.load(bundle / "head.npz") as file:
        return dict(file)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clips", np.zeros((3, EMBEDDING_SIZE))),
        ("pull", np.full((18, 5), np.nan)),
        ("reaches", np.zeros(2)),
        ("numbers", np.zeros(8)),
        ("axes", np.array([object()])),
        ("gains", None),
    ],
)
def test_a_head_that_does_not_fit_is_refused(pair: Path, name: str, value: np.ndarray | None) -> None:
    changed = {**arrays_of(pair), name: value}
    np.savez(pair / "new.npz", **{key: item for key, item in changed.items() if item is not None})
    put_head(pair, (pair / "new.npz").read_bytes())
    with pytest.raises(BundleError, match="no adapted head"):
        edge_ser.load(pair, threads=1)


def test_the_command_tells_what_it_did(
    base: Path, shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(base, tmp_path / "tiny")
    shutil.copytree(shots, tmp_path / "shots")
    (tmp_path / "shots" / "sad" / "broken.wav").write_bytes(b"RIFF")
    command = ["adapt", "--model", str(tmp_path / "tiny"), "--shots", str(tmp_path / "shots"), "--threads", "1"]
    assert main([*command, "--out", str(tmp_path / "mine")]) == 0
    output = capsys.readouterr()
    assert "LABEL" in output.out and "18 clips, 1 voice" in output.out and "'tired' is new" in output.out
    assert output.err.count("\n") == 1 and "broken.wav" in output.err
    assert main([*command, "--out", str(tmp_path / "mine"), "--format", "json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["clips"] == 18 and plain["ua_after"] == 1.0 and len(plain["skipped"]) == 1
    assert main(["models", str(tmp_path / "mine")]) == 0
    assert "tired" in capsys.readouterr().out


def test_the_commands_errors_are_one_line(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["adapt", "--model", str(base), "--shots", str(tmp_path / "nowhere"), "--out", str(tmp_path / "mine")]
    assert main(words) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_card_and_the_manifest_name_nobody(base: Path, report: AdaptReport, shots: Path) -> None:
    for path in (base.parent / report.name).iterdir():
        assert str(shots).encode() not in path.read_bytes()
        assert b"0.wav" not in path.read_bytes()


@pytest.mark.parametrize("option", ["--shots", "--out"])
def test_a_name_that_no_file_can_have_is_one_line(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shots = tmp_path / "shots.csv"
    shots.write_text("path,label\nno.wav,happy\n")
    words = {"--shots": str(shots), "--out": str(tmp_path / "out"), option: str(tmp_path / ("a" * 300))}
    assert main(["adapt", *(word for pair in words.items() for word in pair)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
