"""Faults: readers that leave, files that lie, and models that fail. Each is one clear line, and nothing is lost.

The rest of the list stands with what it is about:

- a microphone that goes away, and a sound server killed in mid-utterance: test_microphone_loss.py
- a slow consumer, and overflow: test_microphone.py, test_microphone_queue.py
- `kill -9`, and a disk that is full while a voice is saved: test_voices.py, test_cli_voices.py
- a disk that is full while results are written: test_cli.py
- samples that are NaN, a model that fails and an interrupt, in a stream: test_stream.py
- 24 hours of audio: test_long_run.py (slow)
- the coverage-guided fuzzer: tests/fuzz (slow)
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edge_ser
from edge_ser import sources
from edge_ser.bundle import Bundle
from edge_ser.cli import main
from edge_ser.errors import BundleError, ConfigError, EdgeSerError
from edge_ser.graph_io import Output
from edge_ser.head_file import head_from_bytes
from edge_ser.json_object import JsonObject
from edge_ser.manifest import TOKENIZER_NAME
from edge_ser.sources import read_blocks, read_samples
from edge_ser.testing import write_tiny_bundle
from edge_ser.voice import VoiceProfile
from edge_ser.voices import VoiceStore
from tests.fuzz import targets
from tests.fuzz.fuzz import change

ROOT = Path(__file__).parents[2]
CONVERSATION = str(ROOT / "examples" / "conversation.flac")
COMMAND = [sys.executable, "-m", "edge_ser"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_bundle(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VoiceStore:
    monkeypatch.setenv("EDGE_SER_VOICES", str(tmp_path / "voices"))
    return VoiceStore()


# A reader that closes the pipe


def without_a_reader(*words: str, stream: str = "stdout") -> subprocess.CompletedProcess[bytes]:
    """Run a command whose `stream` is a pipe that nobody reads; the other one is kept."""
    reader, writer = os.pipe()
    os.close(reader)
    kept = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: writer}
    try:
        return subprocess.run([*COMMAND, *words], **kept, cwd=ROOT, timeout=60)
    finally:
        os.close(writer)


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["models"],
        ["models", "--format", "json"],
        ["models", "MODEL"],
        ["voices"],
        ["voices", "--format", "json"],
        ["voices", "--delete", "anna"],
        ["voices", "--merge", "anna", "ben", "--into", "both", "--format", "json"],
        ["listen", "--model", "MODEL", "--input", CONVERSATION, "--format", "text"],
        ["listen", "--model", "MODEL", "--input", CONVERSATION, "--partials"],
        ["classify", "--model", "MODEL", CONVERSATION],
        ["classify", "--model", "MODEL", CONVERSATION, "--whole", "--format", "jsonl"],
        ["classify", "--model", "MODEL", CONVERSATION, "--whole", "--format", "csv"],
        ["bench", "--model", "MODEL", "--repeat", "2"],
    ],
    ids=lambda words: " ".join(Path(word).name for word in words),
)
def test_a_reader_that_left_is_no_fault(tiny: str, store: VoiceStore, words: list[str]) -> None:
    voice = VoiceProfile()
    voice.update(np.ones(8), "tiny")
    store.save("anna", voice)
    store.save("ben", voice)
    done = without_a_reader(*(tiny if word == "MODEL" else word for word in words))

    assert (done.returncode, done.stderr) == (0, b"")
    # What was asked for is done, whether somebody hears of it or not.
    kept = {voice.name for voice in store.list()}
    assert ("anna" in kept, "both" in kept) == ("--delete" not in words, "--merge" in words)


def test_a_picture_is_drawn_whether_somebody_hears_of_it_or_not(tiny: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need the extra plot")
    picture = tmp_path / "x.svg"
    done = without_a_reader("timeline", "--model", tiny, CONVERSATION, "--out", str(picture))

    assert (done.returncode, done.stderr) == (0, b"")
    assert picture.read_text().rstrip().endswith("</svg>")


def test_a_reader_of_messages_that_left_costs_no_result(tiny: str) -> None:
    files = ["missing.wav", CONVERSATION]
    done = without_a_reader("classify", "--model", tiny, "--whole", "--format", "jsonl", *files, stream="stderr")

    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == [CONVERSATION]
    assert done.returncode == 1


# kill -9


def test_a_listener_killed_at_any_moment_leaves_a_voice_that_opens(tiny: str, store: VoiceStore) -> None:
    words = ["listen", "--model", tiny, "--input", "-", "--voice", "anna"]
    audio = np.rint(np.pad(read_samples(CONVERSATION), (0, 32_000)) * 32767).astype("<i2").tobytes()
    heard = 0
    for answers in (1, 4):
        with subprocess.Popen([*COMMAND, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as listener:
            assert listener.stdin is not None and listener.stdout is not None
            listener.stdin.write(audio)
            listener.stdin.flush()
            seen: list[dict] = []
            while len(seen) < answers:
                event = json.loads(listener.stdout.readline())
                seen += [event] if event["type"] == "emotion" else []
            listener.send_signal(signal.SIGKILL)
        assert seen[0]["voice_utterances"] == heard
        heard = store.open("anna").utterances if store.has("anna") else 0
    assert heard >= 3
    # What a killed writer leaves is gone with the next save.
    store.save("anna", store.open("anna"))
    assert {path.name for path in store.folder.iterdir()} == {"anna.voice", ".lock"}


# Files that lie

FAST = settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", targets.TARGETS)
def test_sound_inputs_are_sound(name: str) -> None:
    for seed in targets.seeds(name):
        targets.TARGETS[name](seed)


@pytest.mark.parametrize("name", ["voice", "audio", "csv", "manifest", "bundle"])
@settings(FAST, max_examples=60)
@given(data=st.data())
def test_damaged_bytes_are_a_clear_error(name: str, data: st.DataObject) -> None:
    seeds = targets.seeds(name)
    content = bytearray(data.draw(st.sampled_from(seeds)))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        content[start : start + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    targets.TARGETS[name](bytes(content))


@pytest.mark.parametrize("name", ["manifest", "voice", "bundle"])
@settings(FAST, max_examples=80)
@given(seed=st.integers(0, 2**32))
def test_odd_values_are_a_clear_error(name: str, seed: int) -> None:
    dice = random.Random(seed)
    # Of a bundle the manifest and the tokenizer are JSON.
    start = dice.choice(targets.seeds(name)[:2])
    head = start[:1] if name == "bundle" else b""
    try:
        changed = change(json.loads(start[len(head) :]), dice)
        text = (
            targets.signed(changed) if name == "voice" and isinstance(changed, dict) else json.dumps(changed).encode()
        )
    except (ValueError, RecursionError, OverflowError):
        return  # Nobody could write that.
    targets.TARGETS[name](head + text)


# What the fuzzer and reading the code found


def opened(text: str) -> JsonObject:
    return JsonObject.parse(text.encode(), "x.json", "write it again", ConfigError)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'{{"a": {"[" * depth}{"]" * depth}}}', "nested more than 50 levels")
        # Python's reader takes some depths that its writer or a copy of the value does not.
        for depth in (51, 200, 400, 900)
    ]
    + [
        ('{"a": "\\ud800"}', "surrogates not allowed"),
        ('{"\\udfff": 1}', "surrogates not allowed"),
        ('{"a": 1e999}', "too large a number"),
        (f'{{"a": {"9" * 4300}}}', "4300 digits is too long"),
        (f'{{"a": {"9" * 5000}}}', "too long"),
    ],
)
def test_json_that_could_not_be_written_again_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        opened(text)


def test_a_count_beyond_all_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most 1000000000000000"):
        opened('{"a": 1000000000000001}').count("a")
    assert opened('{"a": 1000000000000000}').count("a") == 10**15


def changed_manifest(tiny: str, folder: Path, **fields: object) -> Path:
    """Return a copy of a bundle with other fields in its manifest."""
    shutil.copytree(tiny, folder)
    plain = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps({**plain, **fields}))
    return folder


def test_an_embedding_too_large_for_memory_is_refused_before_it_is_set_aside(tiny: str, tmp_path: Path) -> None:
    plain = json.loads(Path(tiny, "manifest.json").read_bytes())
    size = 10**12
    for item in plain["inputs"]:
        if item["kind"] == "voice":
            item |= {"shape": [1, 2 * size + 1], "parameters": {"embedding_size": size, "space": "tiny"}}
    for item in plain["outputs"]:
        if item["name"] == "embedding":
            item["shape"] = [1, size]
    with pytest.raises(BundleError, match="at most 65536"):
        edge_ser.load(changed_manifest(tiny, tmp_path / "x", inputs=plain["inputs"], outputs=plain["outputs"]))


def test_a_temperature_that_gives_no_numbers_is_refused(tiny: str, tmp_path: Path) -> None:
    calibration = {**json.loads(Path(tiny, "manifest.json").read_bytes())["calibration"], "temperature": 1e-320}
    with pytest.raises(BundleError, match=r"0\.001 to 1000"):
        edge_ser.load(changed_manifest(tiny, tmp_path / "x", calibration=calibration))


def rewritten(tiny: str, folder: Path, name: str, content: bytes, outputs: tuple[Output, ...] | None = None) -> Path:
    """Return a copy of a bundle with another file, hashes made to fit."""
    bundle = Bundle.open(tiny)
    files = {other: Path(tiny, other) for other in bundle.manifest.files}
    manifest = bundle.manifest if outputs is None else replace(bundle.manifest, outputs=outputs)
    return Bundle.write(folder, manifest, {**files, name: content}).folder


def test_a_graph_that_fails_on_an_utterance_is_a_clear_error(tiny: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(Path(tiny, "model.onnx"))
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 1]), "a_single_word"))
    for node in graph.graph.node:
        if node.output[0] == "valid_ids":
            node.input[0] = "word"
    graph.graph.node.insert(0, onnx.helper.make_node("Reshape", ["text_ids", "a_single_word"], ["word"]))
    recognizer = edge_ser.load(rewritten(tiny, tmp_path / "x", "model.onnx", graph.SerializeToString()))
    recognizer.recognize(np.zeros(8_000, np.float32), transcript="fine")
    with pytest.raises(BundleError, match="fails"):
        recognizer.recognize(np.zeros(8_000, np.float32), transcript="not fine")


def test_a_graph_that_answers_in_another_shape_is_a_clear_error(tiny: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(Path(tiny, "model.onnx"))
    for value in graph.graph.output:
        if value.name == "frames":
            value.type.tensor_type.shape.dim[1].dim_param = "frames"
        elif value.name == "logits":
            value.type.tensor_type.shape.dim[1].dim_param = "labels"
    for node in graph.graph.node:
        if node.output[0] == "logits":
            node.output[0] = "once"
    # All logits once for each word: nobody can tell before the words come.
    graph.graph.node.append(onnx.helper.make_node("Shape", ["text_ids"], ["repeats"]))
    graph.graph.node.append(onnx.helper.make_node("Tile", ["once", "repeats"], ["logits"]))
    folder = rewritten(tiny, tmp_path / "x", "model.onnx", graph.SerializeToString())
    recognizer = edge_ser.load(folder)
    recognizer.recognize(np.zeros(8_000, np.float32), transcript="fine")
    with pytest.raises(BundleError, match=r"'logits' came in shape \[1, 8\]"):
        recognizer.recognize(np.zeros(8_000, np.float32), transcript="not fine")


@pytest.mark.parametrize(("old", "new"), [(b"mean_power", b"mean_p\xffwer"), (b"logits", b"logit\xff")])
def test_a_graph_whose_names_are_no_text_works_or_is_a_clear_error(tiny: str, old: bytes, new: bytes) -> None:
    graph = Path(tiny, "model.onnx").read_bytes().replace(old, new)
    targets.TARGETS["bundle"](bytes([targets.BUNDLE_PARTS.index("model.onnx")]) + graph)


def test_a_tokenizer_that_fails_on_a_word_is_a_clear_error(tiny: str, tmp_path: Path) -> None:
    plain = json.loads(Path(tiny, TOKENIZER_NAME).read_bytes())
    plain["model"]["unk_token"] = "nowhere"
    recognizer = edge_ser.load(rewritten(tiny, tmp_path / "x", TOKENIZER_NAME, json.dumps(plain).encode()))
    with pytest.raises(BundleError, match="is no tokenizer"):
        recognizer.recognize(np.zeros(8_000, np.float32), transcript="a word unheard of")


@pytest.mark.parametrize("name", ["\0", "a" * 300, "a/" * 3000])
def test_names_that_no_file_can_have_are_a_clear_error(name: str) -> None:
    for use in (VoiceProfile.open, read_blocks, read_samples, VoiceStore().open):
        with pytest.raises(EdgeSerError):
            use(name)


def test_a_table_of_clips_that_is_damaged_is_a_clear_error(tmp_path: Path) -> None:
    head = b"path,corpus,speaker,emotion4,duration_s\n"
    for row in (b"\xff", b"a.wav", b"a" * 200_000, b"a" * 300 + b",x,y,sad,1", b"\0,x,y,sad,1"):
        (tmp_path / "table.csv").write_bytes(head + row)
        with pytest.raises(ConfigError):
            edge_ser.corpus.read_manifest(tmp_path / "table.csv")


def test_a_small_file_with_hours_of_silence_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "LONGEST_WHOLE_S", 60.0)
    path = tmp_path / "silence.flac"
    soundfile.write(path, np.zeros(61 * 16_000, np.int16), 16_000)
    assert path.stat().st_size < 20_000
    with pytest.raises(EdgeSerError, match="utterance by utterance: edge-ser classify"):
        read_samples(path)
    assert sum(map(len, read_blocks(path))) == 61 * 16_000


def test_a_head_that_unpacks_without_end_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "head.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("clips.npy", bytes(20_000_000))
    assert path.stat().st_size < 100_000
    with pytest.raises(BundleError, match="unpacks to more than"):
        head_from_bytes(path.read_bytes(), "head.npz", 8, 4)


def test_a_million_keys_are_read_or_refused_in_seconds(tmp_path: Path) -> None:
    text = json.dumps({str(number): number for number in range(10**5)}).encode()
    began_s = time.process_time()
    targets.TARGETS["manifest"](text)
    targets.TARGETS["voice"](text)
    assert time.process_time() - began_s < 5


def test_the_command_turns_damage_into_one_line(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("manifest.json", "model.onnx", TOKENIZER_NAME):
        folder = tmp_path / name
        shutil.copytree(tiny, folder)
        (folder / name).write_bytes((folder / name).read_bytes()[:-7])
        assert main(["listen", "--model", str(folder), "--input", CONVERSATION]) == 1
        output, messages = capsys.readouterr()
        assert (output, len(messages.splitlines())) == ("", 1)


@pytest.mark.parametrize("fields", [{"min_duration_s": 1e5, "max_duration_s": 1e6}, {"max_duration_s": 1e-9}])
def test_durations_beyond_all_sense_are_refused(tiny: Path, tmp_path: Path, fields: dict[str, float]) -> None:
    with pytest.raises(BundleError, match="duration_s"):
        edge_ser.load(changed_manifest(tiny, tmp_path / "x", **fields))


def test_a_model_name_too_long_is_a_clear_error() -> None:
    with pytest.raises(BundleError, match="no model"):
        edge_ser.load("a" * 300)
