"""Pictures of recordings: what is drawn is what was heard, and can be read without colour."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

import edge_ser
from edge_ser.cli import main
from edge_ser.events import Emotion, Rejected
from edge_ser.ledger import AudioLedger
from edge_ser.sources import read_blocks
from edge_ser.testing import write_tiny_bundle
from edge_ser.timeline import BIN_S, Timeline, follow
from edge_ser.timeline.layout import Row, clock, rows_of, short_names, shortened, ticks_of, wave_of, width_pt
from edge_ser.timeline.words import counts, description

ROOT = Path(__file__).parents[2]
CONVERSATION = ROOT / "examples" / "conversation.flac"
LABELS = ("angry", "happy", "neutral", "sad")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_bundle(tmp_path_factory.mktemp("models") / "tiny"))


def emotion(utterance: int, start_s: float, end_s: float, *candidates: str, final: bool = True) -> Emotion:
    """Return an answer that is uncertain unless there is one candidate."""
    rest = 0.3 / (len(LABELS) - 1)
    return Emotion(
        utterance=utterance,
        start_s=start_s,
        end_s=end_s,
        emotion=candidates[0],
        confidence=0.7,
        probabilities={label: 0.7 if label == candidates[0] else rest for label in LABELS},
        uncertain=len(candidates) > 1,
        candidates=candidates,
        attributes=None,
        model="tiny",
        latency_ms=1.0,
        text_used=False,
        voice_utterances=0,
        final=final,
    )


def timeline(
    *results: Emotion | Rejected, duration_s: float = 20.0, name: str = "talk.flac", early: tuple[Emotion, ...] = ()
) -> Timeline:
    bins = round(duration_s / BIN_S)
    wave = np.sin(np.arange(bins) / 20).astype(np.float32) / 2
    envelope = np.stack([-np.abs(wave), np.abs(wave)], axis=1)
    return Timeline(name, "tiny", LABELS, duration_s, results, early, envelope, AudioLedger())


THREE = (emotion(1, 1.0, 5.0, "happy"), emotion(2, 6.0, 9.0, "sad", "neutral"), Rejected(3, 10.0, 10.4, "too_short"))


def svg_of(shown: Timeline) -> ElementTree.Element:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    from edge_ser.timeline.picture import svg_picture

    return ElementTree.fromstring(svg_picture(shown))


def bands(root: ElementTree.Element) -> dict[str, ElementTree.Element]:
    groups = ((group.get("id", ""), group) for group in root.iter(f"{SVG}g"))
    return {name: group for name, group in groups if name.startswith("utterance-")}


def style(group: ElementTree.Element) -> str:
    path = group.find(f"{SVG}path")
    assert path is not None
    return path.get("style", "")


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(text.itertext()).strip() for text in root.iter(f"{SVG}text")]


def test_every_utterance_is_drawn_by_its_kind_and_named() -> None:
    root = svg_of(timeline(*THREE))

    found = bands(root)
    assert list(found) == ["utterance-1", "utterance-2", "utterance-3"]
    is_hatched = {name: "url(#" in style(group) for name, group in found.items()}
    assert is_hatched == {"utterance-1": False, "utterance-2": True, "utterance-3": False}
    assert "stroke-dasharray" in style(found["utterance-3"])
    assert {"1 happy 0.70", "2 sad or neutral?", "talk.flac", *LABELS} <= set(texts(root))


def test_uncertain_bars_are_hatched_in_the_lanes_of_their_candidates() -> None:
    def hatched_bars(*results: Emotion) -> int:
        collections = [item for item in svg_of(timeline(*results)).iter(f"{SVG}g") if "PolyColl" in item.get("id", "")]
        return sum("url(#" in path.get("style", "") for item in collections for path in item.iter(f"{SVG}path"))

    assert hatched_bars(emotion(1, 1.0, 5.0, "happy")) == 0
    assert hatched_bars(emotion(1, 1.0, 5.0, "happy", "sad", "angry")) == 3


def test_a_picture_says_in_words_what_it_shows() -> None:
    root = svg_of(timeline(*THREE))

    assert root.get("role") == "img"
    named = {item.get("id"): item.text for item in root if item.tag in (f"{SVG}title", f"{SVG}desc")}
    title, about = (named[name] for name in root.get("aria-labelledby", "").split())
    assert title == "talk.flac"
    assert "3 utterances (1 happy, 1 uncertain, 1 rejected)" in (about or "")
    said = {name: group.findtext(f"{SVG}title") for name, group in bands(root).items()}
    assert said["utterance-2"] == description(THREE[1])


def test_early_answers_are_drawn_and_explained() -> None:
    early = (emotion(1, 1.0, 2.5, "sad", final=False), emotion(1, 1.0, 3.5, "happy", final=False))
    with_early, without = svg_of(timeline(*THREE, early=early)), svg_of(timeline(*THREE))

    assert "early answers" in texts(with_early)
    assert "early answers" not in texts(without)
    assert len(list(with_early.iter(f"{SVG}use"))) > len(list(without.iter(f"{SVG}use")))


def test_an_utterance_goes_on_in_the_next_row() -> None:
    root = svg_of(timeline(emotion(1, 25.0, 33.0, "happy"), duration_s=70.0))
    assert list(bands(root)) == ["utterance-1", "utterance-1-row-2"]


def test_an_hour_stays_readable() -> None:
    results = [emotion(number + 1, 12.0 * number, 12.0 * number + 5, LABELS[number % 4]) for number in range(300)]
    root = svg_of(timeline(*results, duration_s=3600.0))

    begun = [name for name in bands(root) if "row" not in name]
    assert len(begun) == 300
    assert len([item for item in root.iter(f"{SVG}g") if re.fullmatch(r"axes_\d+", item.get("id", ""))]) == 1 + 12
    _, _, width, height = map(float, root.get("viewBox", "").split())
    assert width == 864 and height < 3000
    # Where a whole word does not fit, a letter does.
    assert texts(root).count("n") == 75


def test_silence_has_a_picture_that_says_so() -> None:
    root = svg_of(timeline())
    assert bands(root) == {}
    assert "no speech found" in texts(root)


@pytest.mark.parametrize("name", ["a$b$c & <b>.wav", "日本語\x1b[31m.wav", "bad\udcff.wav", "long " * 60])
def test_any_name_can_be_drawn(name: str) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    from edge_ser.timeline.page import html_page
    from edge_ser.timeline.picture import png_picture

    shown = timeline(*THREE, name=name)
    root = svg_of(shown)
    assert "\x1b" not in "".join(root.itertext())
    assert "<b>.wav" not in html_page(shown)
    assert png_picture(shown).startswith(b"\x89PNG")


def test_the_same_recording_gives_the_same_bytes_whatever_the_users_settings() -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="needs the extra plot")
    from edge_ser.timeline.page import html_page
    from edge_ser.timeline.picture import png_picture, svg_picture

    shown = timeline(*THREE)
    first = png_picture(shown), svg_picture(shown), html_page(shown)
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 20, "savefig.transparent": True}):
        before = dict(matplotlib.rcParams)
        assert (png_picture(shown), svg_picture(shown), html_page(shown)) == first
        assert dict(matplotlib.rcParams) == before


class Page(HTMLParser):
    """What a page loads, and the cells of its table's rows."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.rows: list[list[str]] = []
        self._in_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self._in_cell = tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        if self._in_cell:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data


def test_a_page_loads_nothing_and_has_a_table_of_all_utterances() -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    from edge_ser.timeline.page import html_page

    page = html_page(timeline(*THREE))
    read = Page(page)
    assert read.loaded == []
    assert "url(http" not in page and "@import" not in page and "<script" not in page
    assert read.rows == [
        ["utterance", "from", "to", "answer", *LABELS],
        ["1", "0:01", "0:05", "happy", "0.10", "0.70", "0.10", "0.10"],
        ["2", "0:06", "0:09", "uncertain: sad or neutral", "0.10", "0.10", "0.10", "0.70"],
        ["3", "0:10", "0:10.4", "rejected: too short", ""],
    ]


def test_every_colour_of_a_page_has_a_light_and_a_dark_form() -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    from edge_ser.timeline.page import html_page

    page = html_page(timeline(*THREE))
    used = set(re.findall(r"var\((--\w+)\)", page))
    light, dark = (dict(re.findall(r"(--\w+): (#\w+);", part)) for part in page.split("@media")[:2])
    assert used and used <= set(light) == set(dark)
    assert re.findall(r'(?:fill|stroke)(?:="|: )#', page) == []


def test_a_recording_is_followed_to_its_end(tiny: str) -> None:
    recognizer = edge_ser.load(tiny)
    shown = follow(recognizer.stream(partials=True), read_blocks(CONVERSATION), name="x", labels=recognizer.labels)

    assert [result.utterance for result in shown.results] == [1, 2, 3, 4, 5, 6]
    assert shown.ledger.balances
    assert shown.early and not any(answer.final for answer in shown.early)
    samples, _ = soundfile.read(CONVERSATION, dtype="float32")
    assert shown.duration_s == pytest.approx(len(samples) / 16_000)
    assert shown.envelope.shape == (-(-len(samples) // 320), 2)
    assert shown.envelope[7].tolist() == [samples[2240:2560].min(), samples[2240:2560].max()]
    assert shown.envelope.max() == samples.max()


@given(st.floats(0.01, 400_000))
def test_rows_cover_the_recording(duration_s: float) -> None:
    rows, row_s = rows_of(duration_s)
    assert rows[0].start_s == 0
    assert rows[-1].end_s == duration_s
    assert [row.end_s for row in rows[:-1]] == [row.start_s for row in rows[1:]]
    assert all(0 < row.end_s - row.start_s <= 1.02 * row_s for row in rows)
    assert len(rows) <= 12 or row_s == 86_400
    for row in rows:
        ticks = ticks_of(row, row_s)
        assert len(ticks) <= 14
        assert all(row.start_s - 1e-6 <= tick <= row.end_s + 1e-6 for tick in ticks)


@pytest.mark.parametrize(("duration_s", "count"), [(0.1, 1), (30.0, 1), (30.0001, 1), (31.0, 2), (300.0001, 10)])
def test_a_row_is_not_begun_for_a_few_samples(duration_s: float, count: int) -> None:
    assert len(rows_of(duration_s)[0]) == count


def test_one_bang_does_not_flatten_the_wave() -> None:
    shown = timeline(duration_s=20.0)
    shown.envelope[:] *= 0.1
    shown.envelope[500] = (-1, 1)
    wave = wave_of(shown, Row(0, 20), 1000)
    assert np.median(wave[:, 2]) > 0.3
    assert wave[:, 2].max() == 1
    assert wave_of(shown, Row(20, 20), 1000).shape == (0, 3)


@given(st.text(max_size=80), st.floats(20, 400))
def test_a_shortened_text_fits(text: str, room_pt: float) -> None:
    if text.isascii():
        assert width_pt(shortened(text, room_pt, 8.0), 8.0) <= max(room_pt, width_pt("abc", 8.0))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("sad", "surprised", "angry"), ["sa", "su", "a"]),
        (("calm", "calmer"), ["calm", "calme"]),
    ],
)
def test_short_names_tell_labels_apart(labels: tuple[str, ...], names: list[str]) -> None:
    assert list(short_names(labels).values()) == names


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (3.25, "0:03.2"), (59.96, "1:00"), (3603.5, "1:00:03.5")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_counts_are_in_words() -> None:
    assert counts(timeline()) == "no speech found"
    assert counts(timeline(THREE[0])) == "1 utterance (1 happy)"


# The command


@pytest.mark.parametrize("suffix", [".png", ".SVG", ".html"])
def test_the_command_draws(suffix: str, tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    out = tmp_path / f"talk{suffix}"
    assert main(["timeline", str(CONVERSATION), "--out", str(out), "--model", tiny, "--threads", "1"]) == 0

    assert [path.name for path in tmp_path.iterdir()] == [out.name], "nothing but the picture is left"
    starts = {".png": b"\x89PNG", ".SVG": b"<svg", ".html": b"<!DOCTYPE html>"}
    assert out.read_bytes().startswith(starts[suffix])
    assert capsys.readouterr().out.startswith(f"{out}: 6 utterances (")
    if suffix == ".SVG":
        assert len(bands(ElementTree.parse(out).getroot())) == 6


def test_a_silent_recording_is_drawn(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(160, np.int16), 16_000)
    assert main(["timeline", str(silent), "--out", str(tmp_path / "x.svg"), "--model", tiny]) == 0
    assert "no speech found" in capsys.readouterr().out


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    yield folder
    folder.chmod(0o700)


def test_what_cannot_be_written_is_said_at_once(
    read_only: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    monkeypatch.setattr("edge_ser.cli.timeline.load_model", lambda _: pytest.fail("nothing must be judged"))
    (tmp_path / "folder.png").mkdir()
    problems = {
        tmp_path / "missing" / "x.png": "is no folder",
        tmp_path / "folder.png": "is no file",
    }
    if os.geteuid() != 0:  # root may write anywhere
        problems[read_only / "x.png"] = "may not be written to"
    for out, problem in problems.items():
        assert main(["timeline", str(CONVERSATION), "--out", str(out)]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and problem in said


def test_a_picture_that_cannot_be_written_leaves_the_old_one(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    out = tmp_path / "x.svg"
    out.write_text("old")
    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["timeline", str(CONVERSATION), "--out", str(out), "--model", tiny]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("name", ["x.gif", "x", ".png"])
def test_another_suffix_is_wrong_usage(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["timeline", str(CONVERSATION), "--out", name])
    assert ended.value.code == 2
    assert "does not end in .png, .svg, .html" in capsys.readouterr().err


def test_an_empty_file_is_an_error_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    (tmp_path / "empty.wav").touch()
    assert main(["timeline", str(tmp_path / "empty.wav"), "--out", str(tmp_path / "x.png")]) == 1
    assert capsys.readouterr().err.startswith(f"edge-ser: {tmp_path / 'empty.wav'} is empty")
    assert not (tmp_path / "x.png").exists()


def test_without_matplotlib_one_line_says_what_to_install(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["matplotlib"] = None
from edge_ser.cli import main
raise SystemExit(main(["timeline", *sys.argv[1:]]))
"""
    command = [sys.executable, "-c", program, str(CONVERSATION), "--out", str(tmp_path / "x.png")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "edge-ser: matplotlib is not installed, pictures need it. Install it: pip install 'edge-ser[plot]'"
    ]
