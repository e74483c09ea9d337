"""An evaluation asks the runtime, hears each speaker in turn, and scores nobody that training knew."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")
pytest.importorskip("onnx", reason="the tiny bundle needs onnx: pip install -e '.[export]'")

import edge_ser
import train.evaluate
from edge_ser.bundle import Bundle
from edge_ser.corpus import Clip, read_manifest
from edge_ser.recognizer import EmotionRecognizer
from edge_ser.testing import write_tiny_bundle
from train.evaluate import home_corpora, main, unseen_clips
from train.listening import Listener
from train.spoken import read_spoken

HEARD_BY_TRAINING = {"train": ["alpha_00", "alpha_01"], "validation": ["alpha_02"]}
WARM_AFTER = 5
"""Speakers of the miniature have eight clips."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    bundle = Bundle.open(folder)
    named = replace(bundle.manifest, provenance={"speakers": HEARD_BY_TRAINING})
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    return Bundle.write(folder, named, files).folder


@pytest.fixture(scope="module")
def clips(miniature: Path) -> list[Clip]:
    return [clip for clip in read_manifest(miniature / "speech" / "manifest.csv") if clip.corpus == "beta"]


def test_speakers_that_chose_or_taught_the_model_are_not_unseen(tiny: Path, miniature: Path) -> None:
    recognizer, listed = edge_ser.load(tiny), read_manifest(miniature / "speech" / "manifest.csv")
    unseen = {clip.speaker for clip in unseen_clips(listed, recognizer)}
    assert not unseen & {"alpha_00", "alpha_01", "alpha_02"} and {"alpha_03", "beta_00"} <= unseen
    assert home_corpora(listed, recognizer) == {"alpha"}


@pytest.mark.parametrize("text", [True, False])
def test_in_turn_the_answers_are_the_runtimes_own(clips: list[Clip], tmp_path: Path, text: bool) -> None:
    recognizer = edge_ser.load(write_tiny_bundle(tmp_path / "tiny", text=text))
    listener = Listener(recognizer)
    recordings = listener.record(clips)
    assert bool(recordings[0].heard.windows) == text
    warm = listener.warm(recordings, orders=2)
    voices: dict[str, edge_ser.VoiceProfile] = {}
    for row, number in enumerate(warm.clips[: len(clips)]):
        voice = voices.setdefault(clips[number].speaker, edge_ser.VoiceProfile())
        judgement = recognizer.judge(read_spoken(clips[number].path), voice=voice)
        assert warm.heard[row] == judgement.voice_utterances
        expected = [judgement.probabilities[label] for label in recognizer.labels]
        assert np.allclose(warm.probabilities[row], expected, atol=1e-6)
    assert sorted(warm.clips) == sorted([*range(len(clips))] * 2)
    assert warm.clips[: len(clips)].tolist() != warm.clips[len(clips) :].tolist()


def test_a_stranger_is_somebody_else_and_a_lone_speaker_has_none(tiny: Path, clips: list[Clip]) -> None:
    listener = Listener(edge_ser.load(tiny))
    recordings = listener.record(clips)
    wrong = listener.stranger(recordings)
    assert wrong.heard.tolist() == [8] * len(clips)
    assert not np.allclose(wrong.probabilities, listener.cold(recordings).probabilities)
    alone = listener.stranger([recording for recording in recordings if recording.clip.speaker == "beta_00"])
    assert len(alone.truth) == 0


def test_histories_are_as_long_as_asked_and_leave_the_clip_out(tiny: Path, clips: list[Clip]) -> None:
    listener = Listener(edge_ser.load(tiny))
    recordings = listener.record(clips)
    none, some, many = listener.after(recordings, recordings, [(0, 0), (1, 2), (5, None)])
    assert np.array_equal(none.probabilities, listener.cold(recordings).probabilities)
    assert set(some.heard) == {1, 2} and set(many.heard) == {5, 6, 7}


def test_everyday_voices_heard_three_neutral_utterances_in_four_and_never_the_clip(
    tiny: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_speaker = {name: [clip for clip in clips if clip.speaker == name] for name in {clip.speaker for clip in clips}}
    acted = [
        replace(clip, emotion="neutral" if place < (4 if name == "beta_00" else 2) else "sad")
        for name, own in by_speaker.items()
        for place, clip in enumerate(own)
    ]
    listener, taught = Listener(edge_ser.load(tiny)), []
    monkeypatch.setattr(listener, "_teach", lambda voice, recording: taught.append(recording))
    recordings = listener.record(acted)
    answers = listener.everyday(recordings)
    judged = [recording for recording in recordings if recording.clip.speaker == "beta_00"]
    assert answers.clips.tolist() == [recording.number for recording in judged], "others have said too little neutrally"
    for place, recording in enumerate(judged):
        history = taught[4 * place : 4 * place + 4]
        assert recording not in history and {other.clip.speaker for other in history} == {"beta_00"}
        assert sorted(other.clip.emotion for other in history) == ["neutral"] * 3 + ["sad"]


def figures_of(tiny: Path, data: Path, *more: str, out: Path) -> dict[str, object]:
    assert main([str(tiny), "--data", str(data), "--quick", "--out", str(out), *more]) == 0
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert isinstance(figures, dict)
    return figures


def test_one_file_holds_everything(
    tiny: Path, miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train.evaluate, "WARM_AFTER", WARM_AFTER)
    monkeypatch.setattr(train.evaluate, "HEARD", ((0, 0), (1, 2), (3, None)))
    figures = figures_of(tiny, miniature, out=tmp_path / "deep" / "tiny.json")
    corpora, pooled, robustness = figures["corpora"], figures["pooled"], figures["robustness"]
    assert isinstance(corpora, dict) and isinstance(pooled, dict) and isinstance(robustness, dict)
    assert list(corpora) == ["alpha", "beta"] and [corpora[name]["home"] for name in corpora] == [True, False]
    alpha = corpora["alpha"]
    assert (alpha["cold"]["speakers"], alpha["cold"]["clips"]) == (9, 72)
    assert alpha["warm"]["speakers"] == 9 and alpha["warm"]["clips"] == 9 * (8 - WARM_AFTER)
    assert alpha["seconds_heard"]["seconds"] == [0.8, 1.6, 2.4, 3.2, None]
    assert len(alpha["utterances_heard"]["ua"]) == len(alpha["utterances_heard"]["spans"]) == 3
    assert len(alpha["gain"]["difference_interval"]) == len(alpha["wrong_voice"]["difference_interval"]) == 2
    answers = sum(row["answers"] for row in pooled["home"]["cold"]["reliability"])
    assert answers == pooled["home"]["cold"]["clips"] == 72
    assert [row["risk"] for row in pooled["away"]["warm"]["promises"]] == [0.05, 0.2]
    assert robustness["corpora"] == ["alpha"] and len(robustness["conditions"]) >= 10
    assert figures["words"] and figures["non_speech"]
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("alpha", "room", "non-speech", "constructed"))


def test_a_corpus_without_unseen_speakers_is_one_line(
    tiny: Path, miniature: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tiny), "--data", str(miniature), "--corpora", "gamma"]) == 1
    assert "gamma: no clip of an unseen speaker" in capsys.readouterr().err


def test_a_bundle_that_names_nobody_cannot_be_judged(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(write_tiny_bundle(tmp_path / "tiny")), "--data", str(miniature)]) == 1
    assert "provenance.speakers" in capsys.readouterr().err


def test_where_each_speaker_has_one_emotion_voices_are_not_judged(
    tiny: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_emotion = [replace(clip, speaker=clip.emotion) for clip in clips]
    listener = Listener(edge_ser.load(tiny))
    monkeypatch.setattr(EmotionRecognizer, "judge_again", None)
    told = train.evaluate.CorpusHeard.of(listener, by_emotion, train.evaluate.QUICK, 0)
    assert told.figures()["warm"] is None and "wrong_voice" not in told.figures()
