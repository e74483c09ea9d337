"""Engines are kept privately, under names that say what they are bound to, and read only if nobody else wrote them."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from edge_ser.backends.engine_record import EngineKey, EngineRecord
from edge_ser.backends.engine_store import EngineStore, StoredEngine, default_folder, graph_sha256
from edge_ser.bundle import Bundle
from edge_ser.errors import ConfigError, EngineMismatchError
from edge_ser.testing import write_tiny_bundle

DATA = b"an engine"
KEY = EngineKey("tiny", "orin", "10.3.0", "int8")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(write_tiny_bundle(tmp_path / "tiny"))


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "cache" / "engines")


def record(bundle: Bundle, key: EngineKey = KEY) -> EngineRecord:
    return EngineRecord(key, "Orin", "8.7", graph_sha256(bundle), hashlib.sha256(DATA).hexdigest(), {"build_s": 3})


def test_a_name_says_what_an_engine_is_bound_to() -> None:
    assert EngineKey("mdat-int8", "orin", "10.3.0", "fp16").file_name == "mdat-int8-orin-trt10.3.0-fp16.engine"


def test_what_is_written_is_found_and_read(store: EngineStore, bundle: Bundle) -> None:
    path = store.write(StoredEngine(record(bundle), DATA))
    assert path == store.folder / KEY.file_name
    found = store.find(bundle, "orin", "10.3.0")
    assert found == record(bundle)
    assert store.read(found) == StoredEngine(found, DATA)
    assert store.records("another") == []


def test_the_narrowest_precision_is_preferred(store: EngineStore, bundle: Bundle) -> None:
    for precision in ("fp32", "int8", "fp16"):
        store.write(StoredEngine(record(bundle, replace(KEY, precision=precision)), DATA))
    found = store.find(bundle, "orin", "10.3.0")
    assert found is not None and found.key.precision == "int8"


def test_none_is_none_and_another_is_a_mismatch(store: EngineStore, bundle: Bundle) -> None:
    assert store.find(bundle, "orin", "10.3.0") is None
    store.write(StoredEngine(record(bundle), DATA))
    for gpu, version in (("orin", "10.13.0"), ("thor", "10.3.0")):
        with pytest.raises(EngineMismatchError, match=rf"built for Orin \+ TensorRT 10.3.0; this is {gpu} \+ TensorRT"):
            store.find(bundle, gpu, version)


def test_a_record_that_is_none_is_passed_over(store: EngineStore, bundle: Bundle) -> None:
    path = store.write(StoredEngine(record(bundle), DATA))
    beside = path.with_name(path.name + ".json")
    good = json.loads(beside.read_text())
    for text in ("{}", "no json", json.dumps({**good, "format_version": 9}), json.dumps({**good, "key": {}})):
        beside.write_text(text)
        assert store.records("tiny") == []
    good["key"]["bundle"] = "../../elsewhere"
    beside.write_text(json.dumps(good))
    assert store.records("../../elsewhere") == []


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_folder_that_others_can_open_is_refused(store: EngineStore, bundle: Bundle, mode: int) -> None:
    store.write(StoredEngine(record(bundle), DATA))
    store.folder.chmod(mode)
    with pytest.raises(ConfigError, match=r"open to other users; .* type: chmod 700"):
        store.read(record(bundle))
    with pytest.raises(ConfigError, match="chmod 700"):
        store.write(StoredEngine(record(bundle), DATA))


def test_a_file_that_others_can_write_is_refused(store: EngineStore, bundle: Bundle) -> None:
    store.write(StoredEngine(record(bundle), DATA)).chmod(0o622)
    with pytest.raises(ConfigError, match="chmod 600"):
        store.read(record(bundle))


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_another_user_owns_is_refused(
    store: EngineStore, bundle: Bundle, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(StoredEngine(record(bundle), DATA))
    real, calls = os.geteuid(), []

    def stranger() -> int:
        calls.append(1)
        return real + 1 if len(calls) == (1 if what == "folder" else 2) else real

    monkeypatch.setattr(os, "geteuid", stranger)
    with pytest.raises(ConfigError, match="belongs to another user"):
        store.read(record(bundle))


def test_a_link_is_never_followed_and_a_pipe_never_waited_for(store: EngineStore, bundle: Bundle) -> None:
    path = store.write(StoredEngine(record(bundle), DATA))
    moved = path.rename(path.with_suffix(".moved"))
    path.symlink_to(moved)
    with pytest.raises(EngineMismatchError, match="no link"):
        store.read(record(bundle))
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(EngineMismatchError, match="no regular file"):
        store.read(record(bundle))


def test_an_engine_is_never_run_out_of_a_bundle(bundle: Bundle) -> None:
    for folder in (bundle.folder, bundle.folder / "engines"):
        inside = EngineStore(folder)
        with pytest.raises(ConfigError, match="never run out of a bundle"):
            inside.write(StoredEngine(record(bundle), DATA))
        folder.mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match="never run out of a bundle"):
            inside.read(record(bundle))


def test_a_changed_engine_is_refused(store: EngineStore, bundle: Bundle) -> None:
    store.write(StoredEngine(record(bundle), DATA)).write_bytes(DATA + b"!")
    with pytest.raises(EngineMismatchError, match="damaged or changed"):
        store.read(record(bundle))


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="engines cannot be kept"):
        EngineStore(tmp_path / "file" / "engines").write(StoredEngine(record(bundle), DATA))


def test_the_folder_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGE_SER_ENGINES", str(tmp_path / "mine"))
    assert default_folder() == tmp_path / "mine"
    monkeypatch.delenv("EDGE_SER_ENGINES")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert EngineStore().folder == tmp_path / "edge-ser" / "engines"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_folder() == tmp_path / "home" / ".cache" / "edge-ser" / "engines"


def test_timings_are_private_too(store: EngineStore) -> None:
    path = store.timing_cache("orin", "10.3.0")
    assert path.name == "orin-trt10.3.0.timing" and store.read_timing_cache(path) == b""
    store.write_timing_cache(path, b"timed")
    assert store.read_timing_cache(path) == b"timed"
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="chmod 600"):
        store.read_timing_cache(path)
