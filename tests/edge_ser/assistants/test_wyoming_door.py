"""Where the Wyoming service is to be found and who may come in: addresses, sockets, Zeroconf, and the command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("wyoming", reason="the service needs the extra serve: pip install -e '.[serve]'")

from wyoming.user_event import UserEvent

import edge_ser
from edge_ser.assistants.address import Address
from edge_ser.assistants.wyoming import Door, Service
from edge_ser.assistants.wyoming.listening import may_connect, network
from edge_ser.cli import main
from tests.edge_ser.assistants.wyoming_fakes import (
    LOCAL,
    ask,
    requests,
    run,
    served,
)


@contextlib.contextmanager
def commanded(root: Path) -> Iterator[tuple[subprocess.Popen[str], IO[str], IO[str], str]]:
    """The command's process, what it writes, its log and its address; it is killed at the end, or after two minutes."""
    command = [sys.executable, "-m", "edge_ser", "serve", "--protocol", "wyoming", "--port", "0", "--events"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        too_late = threading.Timer(120, process.kill)
        too_late.start()
        try:
            assert process.stdout is not None and process.stderr is not None
            uri = next(found[0] for line in process.stderr if (found := re.search(r"tcp://[\d.:]+", line)))
            yield process, process.stdout, process.stderr, uri
        finally:
            too_late.cancel()
            process.kill()


def test_whoever_stops_to_read_the_events_costs_nobody_an_answer(root: Path, speech: NDArray[np.int16]) -> None:
    with commanded(root) as (process, events_out, log_out, uri):
        events_out.close()
        heard = [asyncio.run(asyncio.wait_for(ask(uri, requests(speech)), 30)) for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        log = log_out.read()
        process.wait(30)
    assert process.returncode == 0, log
    assert all(events[-1].data["context"]["emotion"] for events in heard)
    assert "Traceback" not in log and log.count("events are written no more") == 1
    assert "2 clients: 2 utterances" in log


def test_other_machines_need_to_be_allowed(recognizer: edge_ser.EmotionRecognizer) -> None:
    async def scenario(door: Door) -> None:
        async with served(recognizer, door):
            pass

    everywhere = Door(Address("0.0.0.0", 0))
    with pytest.raises(edge_ser.ConfigError, match="--allow"):
        run(scenario(everywhere))
    with pytest.raises(edge_ser.ConfigError, match="neighbour"):
        run(scenario(replace(everywhere, allow=("neighbour",))))
    run(scenario(replace(everywhere, allow=("192.168.1.0/24",))))


@pytest.mark.parametrize(
    ("peer", "is_let_in"),
    [
        (("127.0.0.1", 5), True),
        (("::1", 5, 0, 0), True),
        (("192.168.1.20", 5), True),
        (("::ffff:192.168.1.20", 5, 0, 0), True),
        (("192.168.1.21", 5), False),
        (("fe80::1%eth0", 5, 0, 2), True),
        (("2001:db8::1", 5, 0, 0), False),
        ("", True),
    ],
)
def test_only_who_is_allowed_gets_in(peer: object, is_let_in: bool) -> None:
    allowed = [network("192.168.1.20"), network("fe80::/64")]
    assert may_connect(peer, allowed) is is_let_in


def test_who_is_refused_is_told_to_whoever_runs_the_service(
    recognizer: edge_ser.EmotionRecognizer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edge_ser.assistants.wyoming.may_connect", lambda peer, allowed: False)

    async def scenario() -> None:
        async with served(recognizer) as (uri, _):
            for _ in range(2):
                with contextlib.suppress(OSError):
                    assert await ask(uri, []) == []

    run(scenario())
    assert caplog.text.count("--allow 127.0.0.1") == 1


def test_a_socket_of_the_dead_makes_way_and_nothing_else_does(
    recognizer: edge_ser.EmotionRecognizer, tmp_path: Path
) -> None:
    async def scenario(path: Path) -> None:
        door = Door(Address(path=str(path)))
        async with served(recognizer, door):
            with pytest.raises(edge_ser.ConfigError, match="another service"):
                async with served(recognizer, door):
                    pass

    dead = tmp_path / "dead.socket"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(dead))
    run(scenario(dead))
    diary = tmp_path / "diary.txt"
    diary.write_text("dear diary", encoding="utf-8")
    with pytest.raises(edge_ser.ConfigError, match="no socket"):
        run(scenario(diary))
    assert diary.read_text(encoding="utf-8") == "dear diary"


@pytest.mark.parametrize(
    "uri", ["127.0.0.1:10300", "http://whisper:10300", "tcp://whisper", "unix://whisper", "tcp://h:99999"]
)
def test_an_upstream_that_is_no_address_is_refused(recognizer: edge_ser.EmotionRecognizer, uri: str) -> None:
    async def scenario() -> None:
        async with served(recognizer, service=Service(uri)):
            pass

    with pytest.raises(edge_ser.ConfigError, match="tcp://HOST:PORT"):
        run(scenario())


def test_home_assistant_can_find_it(recognizer: edge_ser.EmotionRecognizer) -> None:
    zeroconf = pytest.importorskip("zeroconf", reason="announcing needs the extra zeroconf")

    async def scenario() -> None:
        async with served(recognizer, replace(LOCAL, announced="edge-ser test")) as (uri, _):
            asked = await asyncio.to_thread(_find, zeroconf)
            assert asked is not None
            assert uri == f"tcp://{asked.parsed_addresses()[0]}:{asked.port}"

    run(scenario())


def _find(zeroconf: Any) -> Any:
    kind = "_wyoming._tcp.local."
    with zeroconf.Zeroconf(interfaces=["127.0.0.1"]) as network:
        return network.get_service_info(kind, f"edge-ser test.{kind}", 5000)


def test_the_command_serves_and_writes_every_event(root: Path, speech: NDArray[np.int16]) -> None:
    with commanded(root) as (process, events_out, log_out, uri):
        events = asyncio.run(asyncio.wait_for(ask(uri, requests(speech)), 30))
        process.send_signal(signal.SIGTERM)
        written = [json.loads(line) for line in events_out]
        log = log_out.read()
        process.wait(30)
    assert process.returncode == 0, log
    assert written == [UserEvent.from_event(event).data for event in events[:-1]]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--host", "0.0.0.0"], "--allow"),
        (["--upstream", "whisper:10300"], "tcp://HOST:PORT"),
        (["--allow", "the neighbours"], "192.168.1.0/24"),
        (["--announce", "--uri", "unix:///tmp/nowhere/door"], "leave out --announce"),
    ],
)
def test_what_cannot_be_served_is_one_line(options: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--protocol", "wyoming", *options]) == 1
    error = capsys.readouterr().err
    assert text in error and len(error.splitlines()) == 1
