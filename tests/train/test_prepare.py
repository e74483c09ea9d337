from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edge_ser.corpus import read_manifest
from tests.train.miniature_corpora import RATE_HZ, TREES, clip
from train.corpora import READERS
from train.corpora.utterance import read_utterances
from train.data import file_sha256
from train.prepare import main


def run(folder: Path, corpora: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """Return exit code and report, by corpus."""
    given = [f"{name}={folder / name}" for name in corpora]
    code = main([*given, "--out", str(folder / "out"), "--format", "json", "--jobs", "1", "--replace"])
    report = json.loads(capsys.readouterr().out)
    return code, {found["corpus"]: found for found in report["corpora"]}


def test_all_corpora_become_one_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, write in TREES.items():
        write(tmp_path / name)
    code, report = run(tmp_path, list(READERS), capsys)
    assert code == 0
    assert set(report) == {*READERS, "esd-en"}
    utterances = read_utterances(tmp_path / "out" / "speech" / "manifest.csv")
    assert len(utterances) == sum(found["utterances"] for found in report.values())
    assert len(utterances) == sum(len(list(READERS[name](tmp_path / name))) for name in READERS)
    assert len(read_manifest(tmp_path / "out" / "speech" / "manifest.csv")) == len(utterances)
    for utterance in utterances:
        assert utterance.duration_s == pytest.approx(0.1)
        assert utterance.sha256 == file_sha256(utterance.path)
    speakers = {(u.speaker, u.corpus) for u in utterances}
    assert len({speaker for speaker, _ in speakers}) == len(speakers)


def test_the_report_tells_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TREES["emodb"](tmp_path / "emodb")
    _, report = run(tmp_path, ["emodb"], capsys)
    found = report["emodb"]
    assert (found["utterances"], found["speakers"]) == (5, 4)
    assert found["classes"] == {"happiness": 1, "neutral": 1, "anger": 1, "sadness": 1, "boredom": 1}
    assert found["four"] == {"angry": 1, "happy": 1, "neutral": 1, "sad": 1}
    assert "utterances: 535 published, 5 here" in found["differences"]
    assert "boredom: 81 published, 1 here" in found["differences"]


def test_broken_files_are_listed_and_the_rest_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TREES["emodb"](tmp_path / "emodb")
    wav = tmp_path / "emodb" / "wav"
    (wav / "09a01Fa.wav").write_bytes(b"no audio at all")
    (wav / "09a02Fa.wav").write_bytes(b"")
    (wav / "09a04Fa.wav").write_bytes((wav / "03a01Fa.wav").read_bytes()[:-700])
    code, report = run(tmp_path, ["emodb"], capsys)
    assert code == 1
    assert [Path(line.split()[0]).name for line in report["emodb"]["unreadable"]] == [
        "09a01Fa.wav",
        "09a02Fa.wav",
        "09a04Fa.wav",
    ]
    assert "cut off" in report["emodb"]["unreadable"][2]
    assert len(read_utterances(tmp_path / "out" / "speech" / "manifest.csv")) == 5


def test_a_file_that_labels_name_may_be_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TREES["iemocap"](tmp_path / "iemocap")
    gone = next((tmp_path / "iemocap").glob("Session2/sentences/wav/*/*_M042.wav"))
    gone.unlink()
    TREES["msp-podcast"](tmp_path / "msp-podcast")
    lost = tmp_path / "msp-podcast" / "Audios" / "MSP-PODCAST_0003_0001.wav"
    lost.unlink()
    (tmp_path / "msp-podcast" / "Audios" / "nobody_listed_me.wav").write_bytes(b"")
    code, report = run(tmp_path, ["iemocap", "msp-podcast"], capsys)
    assert code == 1
    assert [Path(path).name for path in report["msp-podcast"]["unlisted"]] == ["nobody_listed_me.wav"]
    assert report["iemocap"]["missing"] == [str(gone)]
    assert report["msp-podcast"]["missing"] == [str(lost)]
    assert (report["iemocap"]["utterances"], report["msp-podcast"]["utterances"]) == (4, 2)


def test_the_same_content_is_kept_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TREES["ravdess"](tmp_path / "ravdess")
    # A popular copy of this corpus holds everything twice, once in a folder of its own.
    shutil.copytree(tmp_path / "ravdess" / "Actor_01", tmp_path / "ravdess" / "again" / "Actor_01")
    angry = tmp_path / "ravdess" / "Actor_01" / "03-01-05-01-01-01-01.wav"
    mislabelled = tmp_path / "ravdess" / "Actor_01" / "03-01-06-01-01-01-01.wav"
    shutil.copy(angry, mislabelled)
    code, report = run(tmp_path, ["ravdess"], capsys)
    assert code == 0
    found = report["ravdess"]
    assert found["utterances"] == 3
    assert {"path": str(mislabelled), "same_as": str(angry), "labels_agree": False} in found["duplicated"]
    assert [pair["labels_agree"] for pair in found["duplicated"]].count(True) == 2
    kept = read_utterances(tmp_path / "out" / "speech" / "manifest.csv")
    assert len({u.sha256 for u in kept}) == len(kept)


def test_silence_is_kept_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TREES["cremad"](tmp_path / "cremad")
    silent = tmp_path / "cremad" / "AudioWAV" / "1076_MTI_SAD_XX.wav"
    soundfile.write(silent, np.zeros(800), RATE_HZ)
    code, report = run(tmp_path, ["cremad"], capsys)
    assert code == 0
    assert report["cremad"]["silent"] == [str(silent)]
    assert report["cremad"]["utterances"] == 5


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".opus"])
def test_every_usual_format_is_measured(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip(tmp_path / "emodb" / f"03a01Fa{suffix}", seconds=0.5)
    assert run(tmp_path, ["emodb"], capsys)[0] == 0
    utterance = read_utterances(tmp_path / "out" / "speech" / "manifest.csv")[0]
    assert utterance.duration_s == pytest.approx(0.5, abs=0.1)


def test_the_number_of_jobs_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TREES["emodb"](tmp_path / "emodb")
    shutil.copy(tmp_path / "emodb" / "wav" / "03a01Fa.wav", tmp_path / "emodb" / "wav" / "03a01Fb.wav")
    manifests = []
    for jobs in ("1", "4"):
        out = tmp_path / jobs
        assert main([f"emodb={tmp_path / 'emodb'}", "--out", str(out), "--jobs", jobs]) == 0
        manifests.append((out / "speech" / "manifest.csv").read_bytes())
    assert manifests[0] == manifests[1]
    assert "03a01Fb.wav is " in capsys.readouterr().out


def test_the_table_names_a_few_files_and_counts_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TREES["emodb"](tmp_path / "emodb")
    for place in range(12):
        shutil.copy(tmp_path / "emodb" / "wav" / "03a01Fa.wav", tmp_path / "emodb" / "wav" / f"08a01F{place:x}.wav")
    for place in range(12):
        (tmp_path / "emodb" / "wav" / f"09a01F{chr(97 + place)}.wav").write_bytes(b"broken")
    assert main([f"emodb={tmp_path / 'emodb'}", "--out", str(tmp_path), "--jobs", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["corpus", "utterances", "speakers", "hours", "missing", "duplicated", "unreadable"]
    assert lines[1].split()[:3] == ["emodb", "5", "4"]
    assert "    and 2 more; --format json names all" in lines
    assert lines[-1].startswith("wrote ")


def test_a_wrong_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"emodb={tmp_path}", "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("prepare: ") and "wav/03a01Fa.wav" in error
    assert not (tmp_path / "out").exists()


def test_a_manifest_is_not_overwritten_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TREES["emodb"](tmp_path / "emodb")
    command = [f"emodb={tmp_path / 'emodb'}", "--out", str(tmp_path), "--jobs", "1"]
    assert main(command) == 0
    before = (tmp_path / "speech" / "manifest.csv").read_bytes()
    assert main(command) == 1
    assert "--replace" in capsys.readouterr().err
    assert main([f"emodb={tmp_path / 'nowhere'}", *command[1:], "--replace"]) == 1
    assert (tmp_path / "speech" / "manifest.csv").read_bytes() == before
    assert main([*command, "--replace"]) == 0


def test_nothing_readable_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TREES["msp-podcast"](tmp_path / "msp")
    shutil.rmtree(tmp_path / "msp" / "Audios")
    assert main([f"msp-podcast={tmp_path / 'msp'}", "--out", str(tmp_path / "out")]) == 1
    assert "3 listed, 3 do not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["emodb"], "need CORPUS=FOLDER"),
        (["emo=x"], "no corpus 'emo'; need one of iemocap, emodb"),
        (["emodb=x"], "--out FOLDER"),
        ([], "or --list"),
    ],
)
def test_a_wrong_command_says_what_to_type(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_the_list_names_every_corpus_with_licence_and_layout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    for name in READERS:
        assert f"\n{name}: " in f"\n{listed}"
    assert "CC-BY-NC-SA-4.0" in listed and "Actor_01/03-01-05-01-01-01-01.wav" in listed
