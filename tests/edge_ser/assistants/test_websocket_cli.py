"""`edge-ser serve` as a process: what it says, whom it refuses, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.asyncio.client import connect

from edge_ser.assistants.notice import NOTICE
from edge_ser.cli import main
from edge_ser.cli.service_log import ServiceLog
from edge_ser.events import Summary
from edge_ser.ledger import AudioLedger
from tests.edge_ser.assistants.running import hello, send_all, to_end

TOKEN = "correct-horse-battery-staple"


class Service:
    """The process, and its lines so far."""

    def __init__(self, process: subprocess.Popen[str], lines: IO[str]) -> None:
        self.process = process
        self._lines = lines
        self.log: list[str] = []
        self.where = ""

    def wait_for(self, pattern: str) -> str:
        """Read lines until one matches."""
        for line in self._lines:
            self.log.append(line.rstrip())
            if re.search(pattern, line):
                return line.rstrip()
        raise AssertionError("\n".join(self.log))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        self.log += [line.rstrip() for line in self._lines]
        return self.process.wait(30)


@contextlib.contextmanager
def served(root: Path, *options: str) -> Iterator[Service]:
    command = [sys.executable, "-m", "edge_ser", "serve", "--port", "0", *options]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        service = Service(process, process.stderr)
        try:
            service.where = service.wait_for(r"listens on ").split(" listens on ")[1].split(";")[0]
            yield service
        finally:
            process.kill()


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n", encoding="ascii")
    path.chmod(0o600)
    return str(path)


def test_it_says_what_it_is_and_what_for(root: Path, token_file: str) -> None:
    with served(root, "--purpose", "care of the elderly", "--page", "--token-file", token_file) as service:
        page = service.wait_for("the page: ")
        assert service.stop(signal.SIGINT) == 0
    text = "\n".join(service.log)
    assert NOTICE in text
    assert "purpose: care of the elderly" in text
    # What goes into a log holds no token.
    assert page.endswith("/") and TOKEN not in text


def test_sigterm_finishes_open_utterances_and_prints_the_ledger(root: Path, recording: NDArray[np.int16]) -> None:
    async def talk(service: Service) -> list[dict[str, Any]]:
        socket = await connect(service.where)
        await hello(socket)
        await send_all(socket, recording[:40_000].tobytes())
        assert json.loads(await socket.recv())["type"] == "speech_started"
        service.process.send_signal(signal.SIGTERM)
        messages, code, _ = await to_end(socket)
        assert code == 1001
        return messages

    with served(root) as service:
        messages = asyncio.run(talk(service))
        service.wait_for(r"^edge-ser: 1 client: ")
        assert service.process.wait(30) == 0
    assert [message["type"] for message in messages] == ["emotion", "summary"]
    assert "client 1 (the service stops): 1 utterance in 2.5 s" in "\n".join(service.log)
    assert not any("Traceback" in line for line in service.log)


def test_the_client_in_readme_works(root: Path) -> None:
    readme = (root / "README.md").read_text(encoding="utf-8").partition("### WebSocket")[2]
    program = readme.partition("```python\n")[2].partition("```")[0]
    assert "ws://127.0.0.1:8765/listen" in program
    with served(root) as service:
        program = program.replace("ws://127.0.0.1:8765/listen", service.where)
        done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
        assert service.stop() == 0
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    assert messages[0]["type"] == "ready" and messages[-1]["type"] == "summary"
    assert messages[-1]["utterances"] == 6


@pytest.mark.parametrize("options", [("--host", "0.0.0.0"), ("--host", "::"), ("--uri", "tcp://0.0.0.0:0")])
def test_an_open_door_without_a_token_is_refused_at_once(
    options: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *options]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "--token-file" in captured.err


@pytest.mark.parametrize(
    "options",
    [
        ("--port", "70000"),
        ("--port", "x"),
        ("--uri", "tcp://127.0.0.1:1", "--port", "1"),
        ("--upstream", "tcp://127.0.0.1:1"),
        ("--protocol", "wyoming", "--page"),
        ("--protocol", "wyoming", "--token-file", "x"),
        ("--max-clients", "0"),
        ("--protocol", "smoke-signals"),
    ],
)
def test_wrong_usage(options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["serve", *options])
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    "options",
    [
        ("--token-file", "/nowhere"),
        ("--uri", "http://x"),
        ("--host", "no such host"),
        ("--model", "no-such-model"),
        ("--allow-origin", "assistant.example"),
        ("--allow-origin", "https://assistant.example/page"),
        ("--page", "--uri", "unix:///tmp/nowhere/door"),
    ],
)
def test_mistakes_are_one_line(options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *options]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_without_the_package_it_says_what_to_install(root: Path) -> None:
    program = "import sys; sys.modules['websockets'] = None\nfrom edge_ser.cli import main\nsys.exit(main(['serve']))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 1
    assert "pip install 'edge-ser[serve]'" in done.stderr and "Traceback" not in done.stderr


def test_the_token_is_shown_to_a_person_only_and_a_ledger_that_does_not_balance_is_shouted() -> None:
    lines: list[str] = []
    with ServiceLog("model", lines.append) as log:
        log.shows_page, log.page_token = True, TOKEN
        log.started("ws://127.0.0.1:1/listen")
        log.began(1)
        log.ended(1, Summary("model", 2, 1.0, AudioLedger(16_000, 8_000, 8_000)), "finished")
        log.ended(2, Summary("model", 0, 1.0, AudioLedger(16_000, 0, 15_999)), "finished")
    assert lines[1] == f"the page: http://127.0.0.1:1/#token={TOKEN}"
    assert lines[-3] == "client 1 (finished): 2 utterances in 1.0 s: 0.5 s judged, 0.5 s silence"
    assert "DOES NOT BALANCE" in lines[-2] and "DOES NOT BALANCE" in lines[-1]
    assert lines[-1].startswith("2 clients: 2 utterances in 2.0 s")
