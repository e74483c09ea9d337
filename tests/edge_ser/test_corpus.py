"""Reading a corpus manifest: what is wrong is said before anything is trained on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_ser.corpus import list_sounds, read_manifest
from edge_ser.errors import ConfigError

HEAD = "path,corpus,speaker,emotion4,duration_s,gender"


def write(folder: Path, *rows: str, head: str = HEAD) -> Path:
    for name in ("a.wav", "b.wav"):
        (folder / name).touch()
    path = folder / "manifest.csv"
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return path


def test_clips_come_in_order_with_what_is_known(tmp_path: Path) -> None:
    path = write(tmp_path, "b.wav,mine,me,sad,1.5,f", "a.wav,mine,you,,0.7,")
    first, second = read_manifest(path)
    assert (first.path, first.speaker, first.emotion, first.duration_s) == (tmp_path / "b.wav", "me", "sad", 1.5)
    assert (second.emotion, second.gender, second.transcript, second.licence) == ("", "", "", "")


@pytest.mark.parametrize(
    ("rows", "head", "says"),
    [
        ([], HEAD, "lists no clip"),
        (["a.wav,mine,1.0"], "path,corpus,duration_s", "lacks the column.s. speaker, emotion4"),
        (["missing.wav,mine,me,sad,1,f"], HEAD, "manifest.csv:2: no file"),
        (["a.wav,mine,me,bored,1,f"], HEAD, "manifest.csv:2: emotion4 is 'bored'"),
        (["a.wav,mine,me,sad,1,f", "b.wav,mine,,sad,1,f"], HEAD, "manifest.csv:3: no speaker"),
        (["a.wav,mine,me,sad,long,f"], HEAD, "duration_s is 'long'"),
        (["a.wav,mine,me,sad,1,f", "a.wav,mine,me,sad,1,f"], HEAD, "a.wav is listed twice"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, rows: list[str], head: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_manifest(write(tmp_path, *rows, head=head))


def test_no_manifest_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pass --data FOLDER"):
        read_manifest(tmp_path / "manifest.csv")


def test_no_recording_stands_on_two_sides(tmp_path: Path) -> None:
    names = ["rain_1-17-A.opus", "rain_1-18-A.opus", "rain_1-19-A.opus", "rain_1-20-A.opus", "tap_0.opus", "tap_1.opus"]
    names += ["tap_2.opus", "tap_3.opus"]
    table = tmp_path / "noise.csv"
    table.write_text("\n".join(["path", *names]) + "\n", encoding="utf-8")
    sides = {side: [path.name for path in list_sounds(table, side)] for side in ("training", "calibration", "held_out")}
    # tap_3 is a cut of what the others heard as tap_0 to tap_2: it judges nothing.
    assert sides["held_out"] == ["rain_1-20-A.opus"]
    assert sides["calibration"] == ["rain_1-19-A.opus"]
    assert sides["training"] == ["rain_1-17-A.opus", "rain_1-18-A.opus", "tap_0.opus", "tap_1.opus", "tap_2.opus"]
