"""What a service manager is told, on a real socket."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_ser.cli import main
from edge_ser.cli.supervision import ServiceManager, supervised
from edge_ser.events import DeviceLost, DeviceRestored

CHUNK = np.zeros(320, np.float32)


class Manager:
    """The side of the service manager."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        lines: list[str] = []
        while True:
            try:
                lines += self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return lines

    def heard_until(self, line: str) -> list[str]:
        """Wait until a line comes, and return all up to it."""
        lines: list[str] = []
        while line not in lines:
            assert select.select([self._socket], [], [], 60)[0], f"{line} did not come"
            lines += self._socket.recv(4096).decode().splitlines()
        return lines

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    there = Manager(tmp_path)
    yield there
    there.close()


def program(manager: Manager, **environment: str) -> ServiceManager:
    return ServiceManager({"NOTIFY_SOCKET": manager.address, **environment})


def test_the_first_audio_says_that_the_program_is_ready_and_the_end_that_it_stops(manager: Manager) -> None:
    chunks = supervised([CHUNK, CHUNK], program(manager))
    assert manager.heard() == []
    next(chunks)
    assert manager.heard()[0] == "READY=1"
    assert len(list(chunks)) == 1
    assert manager.heard() == ["STOPPING=1"]


def test_signs_of_life_come_with_the_audio_a_few_times_in_a_timeout(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr("edge_ser.cli.supervision.time.monotonic", lambda: now_s)
    chunks = supervised([CHUNK] * 1000, program(manager, WATCHDOG_USEC="8000000"))
    for _ in range(1000):
        next(chunks)
        now_s += 0.02
    signs = manager.heard().count("WATCHDOG=1")
    assert 10 <= signs <= 11, "20 s of audio, one sign every 2 s"


def test_a_microphone_that_is_away_is_waited_for_without_signs_of_life(manager: Manager) -> None:
    lost, back = DeviceLost(1.0, "a\nmicrophone"), DeviceRestored(1.0, "a\nmicrophone", 60.0)
    chunks = supervised([CHUNK, lost, back, CHUNK], program(manager, WATCHDOG_USEC="8000000"))
    next(chunks)
    manager.heard()
    next(chunks)
    assert manager.heard() == ["STATUS=waiting for a microphone", "WATCHDOG_USEC=0"]
    next(chunks)
    assert manager.heard() == ["STATUS=", "WATCHDOG_USEC=8000000"]


def test_a_watchdog_that_is_meant_for_another_process_gets_no_signs(manager: Manager) -> None:
    told = program(manager, WATCHDOG_USEC="8000000", WATCHDOG_PID=str(os.getpid() + 1))
    told.alive()
    told.waits("nothing")
    assert [line for line in manager.heard() if "WATCHDOG" in line] == []


def test_a_manager_that_is_gone_or_was_never_there_stops_nobody(tmp_path: Path) -> None:
    for environment in ({}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}, {"NOTIFY_SOCKET": "@edge-ser-nobody"}):
        assert len(list(supervised([CHUNK, CHUNK], ServiceManager(environment)))) == 2


def test_listen_tells_it(root: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert main(["listen", "--input", str(root / "examples" / "conversation.flac"), "--format", "jsonl"]) == 0
    heard = manager.heard()
    assert heard[:2] == ["READY=1", "WATCHDOG=1"]
    assert heard[-1] == "STOPPING=1"


def test_a_server_is_ready_when_it_listens_and_alive_while_its_loop_turns(manager: Manager, tmp_path: Path) -> None:
    pytest.importorskip("websockets", reason="serving needs the extra serve")
    environment = {**os.environ, "NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "400000"}
    environment.pop("WATCHDOG_PID", None)
    words = [sys.executable, "-m", "edge_ser", "serve", "--uri", f"unix://{tmp_path / 'door'}"]
    server = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
    try:
        heard = manager.heard_until("READY=1")
        assert (tmp_path / "door").exists()
        assert "WATCHDOG=1" in heard or manager.heard_until("WATCHDOG=1")
        assert manager.heard_until("WATCHDOG=1")
    finally:
        server.terminate()
        assert server.wait(30) == 0
