"""`listen --voice`, `listen --partials`, `--risk` and `voices`: what is kept, what is not, and what a fault leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from edge_ser.cli import main
from edge_ser.cli.voice_saving import SAVED_EVERY_UTTERANCES
from edge_ser.sources import read_samples
from edge_ser.testing import EMBEDDING_SIZE, write_tiny_bundle
from edge_ser.voice import VoiceProfile
from edge_ser.voices import VoiceStore
from tests.edge_ser import disks

ROOT = Path(__file__).parents[2]
CONVERSATION = str(ROOT / "examples" / "conversation.flac")
SCHEMA = json.loads((ROOT / "edge_ser" / "events.schema.json").read_text(encoding="utf-8"))
UTTERANCES = 6
TWO_UTTERANCES_S = 6.8
COMMAND = [sys.executable, "-m", "edge_ser"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_bundle(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VoiceStore:
    monkeypatch.setenv("EDGE_SER_VOICES", str(tmp_path / "voices"))
    return VoiceStore()


def heard(count: int, space: str = "tiny", size: int = EMBEDDING_SIZE) -> VoiceProfile:
    voice = VoiceProfile()
    for embedding in np.random.default_rng(count).standard_normal((count, size)):
        voice.update(embedding, space)
    return voice


def listen(tiny: str, *options: str) -> int:
    return main(["listen", "--model", tiny, "--input", CONVERSATION, "--format", "jsonl", *options])


def answers(output: str) -> list[dict]:
    return [event for event in map(json.loads, output.splitlines()) if event["type"] == "emotion"]


def comparable(events: list[dict], *but: str) -> list[dict]:
    return [{key: value for key, value in event.items() if key not in ("latency_ms", *but)} for event in events]


# --voice


def test_a_voice_goes_on_where_it_stopped(tiny: str, store: VoiceStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert listen(tiny) == 0
    nameless = answers(capsys.readouterr().out)
    assert listen(tiny, "--voice", "anna") == 0
    first = answers(capsys.readouterr().out)
    assert store.open("anna").utterances == UTTERANCES
    assert listen(tiny, "--voice", "anna") == 0
    second = answers(capsys.readouterr().out)

    assert comparable(first) == comparable(nameless)
    assert [event["voice_utterances"] for event in first + second] == list(range(2 * UTTERANCES))
    assert store.open("anna").utterances == 2 * UTTERANCES


# Listens with an eye on every file that is opened for writing and every name that is changed.
WATCHED = """
import os, sys
touched = []
def watch(event, words):
    if event == "open" and isinstance(words[0], str):
        if (isinstance(words[1], str) and set(words[1]) & set("wax+")) or words[2] & (os.O_WRONLY | os.O_RDWR):
            touched.append(words[0])
    elif event in ("os.mkdir", "os.rename", "os.link", "os.symlink", "tempfile.mkstemp", "tempfile.mkdtemp"):
        touched.append(str(words[0]))
sys.addaudithook(watch)
from edge_ser.cli import main
assert main(sys.argv[1:]) == 0
print(touched, file=sys.stderr)
"""


def watched(tmp_path: Path, tiny: str, *options: str) -> str:
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    mine = {name: value for name, value in os.environ.items() if name not in ("EDGE_SER_VOICES", "XDG_DATA_HOME")}
    command = [sys.executable, "-B", "-c", WATCHED, "listen", "--model", tiny, "--input", CONVERSATION, *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**mine, "HOME": str(home)})
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_without_a_name_nothing_is_written(tmp_path: Path, tiny: str) -> None:
    assert watched(tmp_path, tiny, "--partials") == "[]\n"
    assert list((tmp_path / "home").iterdir()) == []
    # The eye sees what there is to see.
    assert "voices" in watched(tmp_path, tiny, "--voice", "anna")
    kept = {path.name for path in (tmp_path / "home").rglob("*") if path.is_file()}
    assert kept == {"anna.voice", ".lock"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"damaged", "not valid JSON"),
        ("other", "was learnt with another model ('other'), tiny needs 'tiny'"),
        ("tiny", "learnt as 5 numbers"),
    ],
)
def test_a_voice_that_does_not_fit_is_an_error_before_listening(
    tiny: str, store: VoiceStore, capsys: pytest.CaptureFixture[str], content: bytes | str, words: str
) -> None:
    store.save("anna", heard(3, str(content), size=5))
    if isinstance(content, bytes):
        store.path("anna").write_bytes(content)
    before = store.path("anna").read_bytes()

    assert listen(tiny, "--voice", "anna") == 1
    output, messages = capsys.readouterr()
    assert output == ""
    assert words in messages
    assert len(messages.splitlines()) == 1
    assert store.path("anna").read_bytes() == before


def test_a_model_without_a_voice_and_a_name_that_is_none_are_errors(
    tmp_path: Path, tiny: str, capsys: pytest.CaptureFixture[str]
) -> None:
    deaf = str(write_tiny_bundle(tmp_path / "deaf", voice=False))
    for model, name, words in (
        (deaf, "anna", "leave out --voice"),
        (tiny, "../anna", "is no name"),
        (tiny, "", "no name"),
    ):
        assert listen(model, "--voice", name) == 1
        output, messages = capsys.readouterr()
        assert (output, len(messages.splitlines())) == ("", 1)
        assert words in messages


class Pipe:
    """A listener on a pipe that stays open."""

    def __init__(self, tiny: str, *options: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "listen", "--model", tiny, "--input", "-", *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
        )  # fmt: skip

    def play(self, seconds: float = 60.0) -> None:
        samples = read_samples(CONVERSATION)[: round(seconds * 16_000)]
        # Silence closes the last utterance.
        self.process.stdin.write(np.rint(np.pad(samples, (0, 32_000)) * 32767).astype("<i2").tobytes())
        self.process.stdin.flush()

    def wait_for(self, count: int) -> None:
        while count:
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            count -= json.loads(line)["type"] == "emotion"

    def end(self, number: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(number)
        with self.process:
            return self.process.wait(30), self.process.stderr.read().decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_voice(tiny: str, store: VoiceStore, number: signal.Signals) -> None:
    pipe = Pipe(tiny, "--voice", "anna")
    pipe.play(TWO_UTTERANCES_S)
    pipe.wait_for(2)
    assert pipe.end(number) == (0, "")
    assert store.open("anna").utterances == 2


def test_a_killed_listener_loses_the_last_few_utterances_and_the_next_goes_on(
    tiny: str, store: VoiceStore, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = Pipe(tiny, "--voice", "anna")
    pipe.play()
    pipe.wait_for(UTTERANCES)
    code, _ = pipe.end(signal.SIGKILL)
    kept = store.open("anna").utterances
    assert code == -signal.SIGKILL
    assert UTTERANCES - SAVED_EVERY_UTTERANCES <= kept <= UTTERANCES

    assert listen(tiny, "--voice", "anna") == 0
    assert answers(capsys.readouterr().out)[0]["voice_utterances"] == kept
    assert store.open("anna").utterances == kept + UTTERANCES


def test_two_listeners_to_one_voice_lose_nothing(tiny: str, store: VoiceStore) -> None:
    pipes = [Pipe(tiny, "--voice", "anna") for _ in range(2)]
    for pipe in pipes:
        pipe.play()
    for pipe in pipes:
        pipe.wait_for(UTTERANCES)
    assert [pipe.end(signal.SIGTERM) for pipe in pipes] == [(0, "")] * 2
    assert store.open("anna").utterances == 2 * UTTERANCES
    both = heard_alone(tiny).merged(heard_alone(tiny))
    np.testing.assert_allclose(store.open("anna").as_input(EMBEDDING_SIZE), both.as_input(EMBEDDING_SIZE), atol=1e-5)


def heard_alone(tiny: str) -> VoiceProfile:
    from edge_ser import load

    stream = load(tiny).stream()
    for _ in stream.listen([read_samples(CONVERSATION)]):
        pass
    return stream.voice


def test_a_reader_that_left_does_not_lose_the_voice(tiny: str, store: VoiceStore) -> None:
    pipe = Pipe(tiny, "--voice", "anna")
    pipe.play(TWO_UTTERANCES_S)
    pipe.wait_for(1)
    pipe.process.stdout.close()
    with pipe.process:
        pipe.process.stdin.close()
        messages = pipe.process.stderr.read()
    assert (pipe.process.returncode, messages) == (0, b"")
    assert store.open("anna").utterances in (1, 2)


def check_that_a_full_disk_is_one_line(
    tiny: str, store: VoiceStore, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    # The voice was asked for and is not kept: that is an error, once all was heard.
    assert listen(tiny, "--voice", "anna") == 1
    output, messages = capsys.readouterr()
    assert len(answers(output)) == UTTERANCES
    assert json.loads(output.splitlines()[-1])["type"] == "summary"
    assert len(messages.splitlines()) == 1
    assert f"{words}); need 10 kB of free space (listening goes on)" in messages
    assert store.open("anna") == heard(4)


def test_a_full_disk_is_one_line_and_listening_goes_on(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with disks.small(tmp_path / "disk") as disk:
        monkeypatch.setenv("EDGE_SER_VOICES", str(disk))
        VoiceStore().save("anna", heard(4))
        disks.fill(disk)
        check_that_a_full_disk_is_one_line(tiny, VoiceStore(), capsys, "No space left on device")


def test_a_file_that_may_not_grow_is_as_a_full_disk(
    tiny: str, store: VoiceStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.save("anna", heard(4))
    with disks.limited(100):
        check_that_a_full_disk_is_one_line(tiny, store, capsys, "File too large")


def test_a_voice_deleted_while_it_is_learnt_is_one_line(tiny: str, store: VoiceStore) -> None:
    pipe = Pipe(tiny, "--voice", "anna")
    pipe.play()
    pipe.wait_for(UTTERANCES)
    while not store.has("anna"):
        pipe.play()
        pipe.wait_for(UTTERANCES)
    assert main(["voices", "--delete", "anna"]) == 0
    pipe.play()
    pipe.wait_for(UTTERANCES)
    code, messages = pipe.end(signal.SIGTERM)
    assert code == 1
    assert len(messages.splitlines()) == 1
    assert "was deleted meanwhile" in messages
    assert store.list() == ()


# --partials, --risk


def test_partials_answer_while_the_speaker_talks(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert listen(tiny) == 0
    finals = answers(capsys.readouterr().out)
    assert listen(tiny, "--partials") == 0
    output = capsys.readouterr().out
    events = answers(output)
    for line in output.splitlines():
        jsonschema.validate(json.loads(line), SCHEMA)

    assert comparable([event for event in events if event["final"]], "revision") == comparable(finals, "revision")
    assert len(events) > 2 * UTTERANCES
    for number in range(1, UTTERANCES + 1):
        revisions = [(event["revision"], event["final"]) for event in events if event["utterance"] == number]
        assert revisions == [(index, index == len(revisions) - 1) for index in range(len(revisions))]


@pytest.mark.parametrize("whole", [(), ("--whole",)])
def test_a_stricter_risk_makes_more_answers_uncertain(
    tiny: str, capsys: pytest.CaptureFixture[str], whole: tuple[str, ...]
) -> None:
    uncertain = {}
    for risk in ("0.9", "0.01"):
        command = ["classify", CONVERSATION, "--model", tiny, "--format", "jsonl", "--risk", risk, *whole]
        assert main(command) == 0
        uncertain[risk] = [event["uncertain"] for event in answers(capsys.readouterr().out)]
    assert not all(uncertain["0.9"])
    assert all(uncertain["0.01"])


# voices


def test_voices_lists_what_is_kept(store: VoiceStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["voices"]) == 0
    assert capsys.readouterr() == (
        "",
        f"edge-ser: no voice is kept in {store.folder}. Type: edge-ser listen --voice NAME\n",
    )
    assert main(["voices", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert not store.folder.exists()

    store.save("anna", heard(12))
    store.save("bob", heard(3))
    store.path("bob").write_bytes(b"damaged")
    assert main(["voices"]) == 0
    output, messages = capsys.readouterr()
    _, anna, bob = output.splitlines()
    assert (anna.split()[:2], anna.split()[-1]) == (["anna", "12"], "tiny")
    assert (bob.split()[:2], bob.split()[-1]) == (["bob", "-"], "(damaged)")
    assert messages.startswith(f"edge-ser: {store.path('bob')} is not valid JSON")

    assert main(["voices", "--format", "json"]) == 0
    anna, bob = json.loads(capsys.readouterr().out)
    assert (anna["name"], anna["utterances"], anna["space"], anna["problem"]) == ("anna", 12, "tiny", None)
    assert (bob["name"], bob["utterances"]) == ("bob", None)
    assert "not valid JSON" in bob["problem"]


def test_voices_deletes(store: VoiceStore, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("anna", "bob", "carl"):
        store.save(name, heard(2))
    assert main(["voices", "--delete", "anna", "bob", "anna"]) == 0
    assert capsys.readouterr().out.splitlines() == ["deleted anna", "deleted bob"]
    assert main(["voices", "--delete", "anna"]) == 1
    assert "no voice 'anna'" in capsys.readouterr().err
    assert main(["voices", "--delete", "carl", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"deleted": ["carl"]}
    assert store.list() == ()


def test_voices_merges(store: VoiceStore, capsys: pytest.CaptureFixture[str]) -> None:
    store.save("anna", heard(2))
    store.save("hall", heard(5))
    assert main(["voices", "--merge", "anna", "hall", "--into", "anna"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "merged anna, hall into anna: 7 utterances",
        "hall stayed; to remove: edge-ser voices --delete hall",
    ]
    merged = store.open("anna").as_input(EMBEDDING_SIZE)
    np.testing.assert_allclose(merged, heard(2).merged(heard(5)).as_input(EMBEDDING_SIZE))

    assert main(["voices", "--merge", "anna", "hall", "--into", "both", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"merged": ["anna", "hall"], "into": "both", "utterances": 12}
    store.save("foreign", heard(2, "other"))
    assert main(["voices", "--merge", "anna", "foreign", "--into", "anna"]) == 1
    output, messages = capsys.readouterr()
    assert (output, len(messages.splitlines())) == ("", 1)
    assert "learnt with the same model" in messages


@pytest.mark.parametrize(
    "words",
    [
        ["voices", "--merge", "a", "b"],
        ["voices", "--into", "c"],
        ["voices", "--delete"],
        ["voices", "--delete", "a", "--merge", "b", "c", "--into", "d"],
        ["listen", "--voice"],
        ["classify", CONVERSATION, "--risk", "1"],
    ],
)
def test_wrong_usage_is_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: edge-ser" in capsys.readouterr().err
