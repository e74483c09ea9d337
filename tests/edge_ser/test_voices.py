"""Voices by name: private, whole at every moment, shared between processes without losing what anyone has learnt."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from edge_ser import voices
from edge_ser.errors import ConfigError
from edge_ser.kept_voice import KeptVoice
from edge_ser.voice import VoiceProfile
from edge_ser.voices import VoiceStore, default_folder
from tests.edge_ser import disks

ROOT = Path(__file__).parents[2]
SIZE = 288
ALONE = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def heard(count: int, seed: int = 0, space: str = "mdat-1", size: int = SIZE) -> VoiceProfile:
    voice = VoiceProfile()
    for embedding in np.random.default_rng(seed).standard_normal((count, size)):
        voice.update(embedding, space)
    return voice


def teach(voice: VoiceProfile, count: int, seed: int) -> None:
    for embedding in np.random.default_rng(seed).standard_normal((count, SIZE)):
        voice.update(embedding, "mdat-1")


def assert_same(voice: VoiceProfile, expected: VoiceProfile) -> None:
    np.testing.assert_allclose(voice.as_input(SIZE), expected.as_input(SIZE), rtol=1e-5, atol=1e-6)


@pytest.fixture
def store(tmp_path: Path) -> VoiceStore:
    return VoiceStore(tmp_path / "data" / "voices")


# where


def test_voices_lie_where_the_user_or_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGE_SER_VOICES", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/anna")
    assert default_folder() == Path("/home/anna/.local/share/edge-ser/voices")
    monkeypatch.setenv("XDG_DATA_HOME", "not/absolute")
    assert default_folder() == Path("/home/anna/.local/share/edge-ser/voices")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_folder() == Path("/data/edge-ser/voices")
    monkeypatch.setenv("EDGE_SER_VOICES", "/voices")
    assert default_folder() == Path("/voices")


def test_a_user_without_a_home_is_told_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGE_SER_VOICES", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(ConfigError, match="export EDGE_SER_VOICES="):
        VoiceStore()


def test_looking_makes_nothing(store: VoiceStore) -> None:
    assert store.list() == ()
    assert not store.has("anna")
    with pytest.raises(ConfigError, match=r"no voice 'anna'.*there is: none; type: edge-ser voices"):
        store.open("anna")
    with pytest.raises(ConfigError, match="no voice 'anna'"):
        store.delete("anna")
    assert not store.folder.parent.exists()


def test_folder_and_files_are_their_owners_alone(store: VoiceStore) -> None:
    store.save("anna", heard(3))
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    files = list(store.folder.iterdir())
    assert store.path("anna") in files
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


@pytest.mark.parametrize("name", ["anna", "Anna-2", "a.b_c", "José", "Юля", "अमृता", "7", "x" * 200])
def test_names_that_people_have_are_names(store: VoiceStore, name: str) -> None:
    store.save(name, heard(2))
    assert store.open(unicodedata.normalize("NFD", name)) == heard(2)
    assert [(voice.name, voice.problem) for voice in store.list()] == [(unicodedata.normalize("NFC", name), None)]


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../anna", "a/b", "/etc/passwd", ".anna", "-anna", "a b", "a\nb", "a\0b", "\udce9", "x" * 201],
)
def test_what_is_no_name_is_refused_everywhere(store: VoiceStore, name: str) -> None:
    store.save("anna", heard(2))
    for use in (store.open, store.delete, store.has, lambda it: store.save(it, heard(2))):
        with pytest.raises(ConfigError, match="is no name for a voice"):
            use(name)
    with pytest.raises(ConfigError, match="is no name for a voice"):
        store.merge(["anna", "anna"], name)
    assert [voice.name for voice in store.list()] == ["anna"]


# list, delete, merge


def test_the_list_says_what_is_there_and_what_is_damaged(store: VoiceStore) -> None:
    store.save("bob", heard(4))
    store.save("anna", heard(3, space="other", size=5))
    store.save("cut", heard(3))
    os.truncate(store.path("cut"), 700)
    store.path("folder").mkdir()
    (store.folder / "not a name.voice").write_text("{}")
    (store.folder / "notes.txt").write_text("none of its business")
    os.symlink("nowhere", store.path("link"))

    listed = {voice.name: voice for voice in store.list()}
    assert list(listed) == sorted(listed) == ["anna", "bob", "cut", "folder", "link", "not a name"]
    assert (listed["bob"].utterances, listed["bob"].space, listed["bob"].problem) == (4, "mdat-1", None)
    assert (listed["anna"].utterances, listed["anna"].space) == (3, "other")
    assert listed["bob"].size_bytes == store.path("bob").stat().st_size
    assert listed["bob"].changed_at == store.path("bob").stat().st_mtime
    for name, words in {"cut": "not valid JSON", "folder": "not a regular", "link": "No such file"}.items():
        assert listed[name].utterances is None
        assert words in str(listed[name].problem)
    assert "no name" in str(listed["not a name"].problem)


def test_delete_removes_all_of_them_or_none_and_what_a_crash_left(store: VoiceStore) -> None:
    for name in ("anna", "anna2", "damaged"):
        store.save(name, heard(2))
    store.path("damaged").write_bytes(b"damaged")
    (store.folder / ".anna.voice-abcd1234").write_bytes(b"what a killed writer left")

    with pytest.raises(ConfigError, match="no voice 'bob'"):
        store.delete("anna", "bob")
    assert store.has("anna")
    store.delete("anna", "damaged")
    assert [voice.name for voice in store.list()] == ["anna2"]
    assert {file.name for file in store.folder.iterdir()} == {"anna2.voice", ".lock"}


def test_merge_pools_what_was_heard_and_keeps_the_others(store: VoiceStore) -> None:
    store.save("anna", heard(5, seed=1))
    store.save("hall", heard(9, seed=2))
    whole = heard(5, seed=1).merged(heard(9, seed=2))

    assert store.merge(["anna", "hall"], into="both").utterances == 14
    assert_same(store.open("both"), whole)
    assert store.open("anna") == heard(5, seed=1)
    store.merge(["hall", "anna"], into="anna")
    assert_same(store.open("anna"), whole)


def test_a_merge_that_would_lose_something_is_refused(store: VoiceStore) -> None:
    store.save("anna", heard(5, seed=1))
    store.save("bob", heard(9, seed=2))
    store.save("foreign", heard(2, space="other"))
    store.save("damaged", heard(2))
    store.path("damaged").write_bytes(b"damaged")
    before = {file.name: file.read_bytes() for file in store.folder.iterdir()}

    for names, into, words in (
        (["anna", "bob"], "foreign", "would be lost.*--delete foreign"),
        (["anna", "foreign"], "anna", "learnt with the same model"),
        (["anna", "damaged"], "anna", "not valid JSON"),
        (["anna", "nobody"], "anna", "no voice 'nobody'"),
        (["anna", "anna"], "both", "two or more different"),
        (["anna"], "both", "two or more different"),
    ):
        with pytest.raises(ConfigError, match=words):
            store.merge(names, into)
    assert {file.name: file.read_bytes() for file in store.folder.iterdir()} == before


# kept while it is learnt


def test_a_voice_kept_alone_goes_on_exactly_as_it_is(store: VoiceStore) -> None:
    kept = KeptVoice(store, "anna")
    profile = kept.profile
    for step in range(4):
        teach(profile, 3, seed=step)
        assert kept.unsaved_utterances == 3
        kept.save()
        assert kept.unsaved_utterances == 0
        assert kept.profile is profile
        assert store.open("anna") == profile


def test_nothing_heard_writes_nothing(store: VoiceStore) -> None:
    KeptVoice(store, "anna").save()
    assert store.list() == ()


def test_two_that_learn_the_same_voice_lose_nothing_and_learn_from_each_other(store: VoiceStore) -> None:
    store.save("anna", heard(10))
    kitchen, hall = KeptVoice(store, "anna"), KeptVoice(store, "anna")
    everything = heard(10)
    for step in range(5):
        for place, kept in enumerate((kitchen, hall)):
            teach(kept.profile, 2, seed=10 * step + place)
            teach(everything, 2, seed=10 * step + place)
            kept.save()
    assert_same(store.open("anna"), everything)
    assert_same(hall.profile, everything)


def test_a_voice_deleted_while_it_is_learnt_stays_deleted(store: VoiceStore) -> None:
    kept = KeptVoice(store, "anna")
    teach(kept.profile, 2, seed=1)
    kept.save()
    store.delete("anna")
    teach(kept.profile, 2, seed=2)
    with pytest.raises(ConfigError, match="deleted meanwhile, what is heard now is not kept"):
        kept.save()
    assert not store.has("anna")


def test_what_came_into_its_place_meanwhile_is_not_overwritten(store: VoiceStore) -> None:
    for content, words in ((b"damaged", "not valid JSON"), (None, "learnt with the same model")):
        kept = KeptVoice(store, "anna")
        teach(kept.profile, 2, seed=1)
        if content is None:
            store.save("anna", heard(2, space="other"))
        else:
            store.folder.mkdir(parents=True, exist_ok=True)
            store.path("anna").write_bytes(content)
        before = store.path("anna").read_bytes()
        with pytest.raises(ConfigError, match=words):
            kept.save()
        assert store.path("anna").read_bytes() == before
        store.delete("anna")


def test_a_damaged_voice_is_not_opened(store: VoiceStore) -> None:
    store.save("anna", heard(2))
    os.truncate(store.path("anna"), 100)
    with pytest.raises(ConfigError, match="start this voice afresh"):
        KeptVoice(store, "anna")
    assert store.path("anna").stat().st_size == 100


def test_a_store_that_cannot_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "voices", Path("/proc/voices")):
        with pytest.raises(ConfigError, match="export EDGE_SER_VOICES=FOLDER"):
            KeptVoice(VoiceStore(folder), "anna")


def test_a_lock_held_for_too_long_is_an_error_and_nothing_is_written(
    store: VoiceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save("anna", heard(2))
    monkeypatch.setattr(voices, "_LOCK_TIMEOUT_S", 0.05)
    with (store.folder / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"another process has been writing.*fuser"):
            store.save("anna", heard(3))
    assert store.open("anna") == heard(2)
    store.save("anna", heard(3))


WRITER = """
import sys
import numpy as np
from edge_ser.kept_voice import KeptVoice
from edge_ser.voices import VoiceStore

kept = KeptVoice(VoiceStore(sys.argv[1]), "anna")
for embedding in np.random.default_rng(int(sys.argv[2])).standard_normal((60, 288)):
    kept.profile.update(embedding, "mdat-1")
    kept.save()
"""


def test_processes_that_save_at_once_lose_nothing(store: VoiceStore) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(store.folder), str(seed)], cwd=ROOT, env=ALONE)
        for seed in (1, 2)
    ]
    assert [writer.wait(30) for writer in writers] == [0, 0]
    assert_same(store.open("anna"), heard(60, seed=1).merged(heard(60, seed=2)))


# faults

# Forks writers and kills each at a random moment within the time of three saves; what they wrote for sure is in a
# shared page. Prints how many were killed while they wrote, and how many utterances were saved.
KILLER = """
import mmap, os, random, signal, sys, time
import numpy as np
from edge_ser.kept_voice import KeptVoice
from edge_ser.voices import VoiceStore

store = VoiceStore(sys.argv[1])
acknowledged = mmap.mmap(-1, 8)
draw = random.Random(7)
in_the_act = known = 0
probe = KeptVoice(VoiceStore(sys.argv[1] + "-probe"), "anna")
started_s = time.monotonic()
for _ in range(20):
    probe.profile.update(np.ones(288), "mdat-1")
    probe.save()
save_s = (time.monotonic() - started_s) / 20
for _ in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        kept = KeptVoice(store, "anna")
        while True:
            kept.profile.update(np.ones(288), "mdat-1")
            kept.save()
            acknowledged[:] = kept.profile.utterances.to_bytes(8, "little")
    time.sleep(draw.uniform(0, 3 * save_s + 0.002))
    os.kill(child, 9)
    os.waitpid(child, 0)
    in_the_act += store.folder.is_dir() and any(".voice-" in name for name in os.listdir(store.folder))
    known = max(known, int.from_bytes(acknowledged[:], "little"))
    if store.has("anna"):
        assert store.open("anna").utterances - known in (0, 1), (store.open("anna"), known)
        known = store.open("anna").utterances
print(in_the_act, known)
"""


def test_a_writer_killed_at_any_moment_never_leaves_a_damaged_voice(store: VoiceStore) -> None:
    command = [sys.executable, "-c", KILLER, str(store.folder), "100"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=ALONE, timeout=60)
    assert done.returncode == 0, done.stderr
    in_the_act, saves = map(int, done.stdout.split())
    assert in_the_act > 5
    assert saves > 10
    # The next save tidies up.
    store.save("anna", heard(1))
    assert {file.name for file in store.folder.iterdir()} == {"anna.voice", ".lock"}


def test_a_full_disk_leaves_the_old_voice_and_nothing_is_lost_once_there_is_room(tmp_path: Path) -> None:
    with disks.small(tmp_path / "disk") as disk:
        store = VoiceStore(disk / "voices")
        kept = KeptVoice(store, "anna")
        teach(kept.profile, 3, seed=1)
        kept.save()
        filler = disks.fill(disk)
        teach(kept.profile, 3, seed=2)
        for _ in range(2):
            with pytest.raises(ConfigError, match=r"No space left on device\); need 10 kB of free space"):
                kept.save()
        assert store.open("anna").utterances == 3
        assert {file.name for file in store.folder.iterdir()} == {"anna.voice", ".lock"}
        filler.unlink()
        kept.save()
        assert store.open("anna") == kept.profile
        assert kept.profile.utterances == 6


def test_a_limit_on_file_sizes_is_as_a_full_disk(store: VoiceStore) -> None:
    store.save("anna", heard(3))
    with disks.limited(1000), pytest.raises(ConfigError, match=r"File too large\); need 10 kB of free space"):
        store.save("anna", heard(4))
    assert store.open("anna") == heard(3)
    assert {file.name for file in store.folder.iterdir()} == {"anna.voice", ".lock"}
