"""A real browser with a microphone that plays a recording, and a service that says what a test wants it to say."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from edge_ser.assistants.page import HEADERS, page_file

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

PATIENCE_S = 60
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=800,600",
    # Whatever a page asks of another host fails.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


@contextlib.contextmanager
def chromium(profile: Path, recording: Path) -> Iterator[Chrome]:
    """Open a browser whose microphone plays a WAV file, again and again."""
    programs = shutil.which("chromium"), shutil.which("chromedriver")
    if None in programs:
        pytest.skip("there is no browser: apt install chromium chromium-driver")
    selenium = pytest.importorskip(
        "selenium.webdriver", reason="the browser is driven by selenium: pip install selenium"
    )
    options = selenium.ChromeOptions()
    options.binary_location = programs[0]
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--use-file-for-fake-audio-capture={recording}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(programs[1]))
    try:
        yield driver
    finally:
        driver.quit()


class Client:
    """What a scripted service sees of one connection."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.hello = json.loads(socket.recv(PATIENCE_S))
        self.audio = bytearray()
        self.has_finished = False

    def say(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            self.socket.send(json.dumps(message))

    def hear(self, until_bytes: float = float("inf")) -> None:
        """Take audio until there is so much of it, or the client says that it is all."""
        while len(self.audio) < until_bytes and not self.has_finished:
            message = self.socket.recv(PATIENCE_S)
            if isinstance(message, bytes):
                self.audio += message
            else:
                self.has_finished = json.loads(message) == {"type": "finish"}


class ScriptedService:
    """Serves the page, and lets a function of the test lead every conversation."""

    def __init__(self) -> None:
        self.lead: Callable[[Client], None] = lambda client: None
        self.clients: list[Client] = []
        self._problems: list[BaseException] = []

    @contextlib.contextmanager
    def open(self) -> Iterator[ScriptedService]:
        with serve(self._handle, "127.0.0.1", 0, process_request=_answer) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            self.url = f"http://127.0.0.1:{server.socket.getsockname()[1]}/"
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def check(self) -> None:
        """Raise what went wrong in a conversation."""
        for problem in self._problems:
            raise problem

    def _handle(self, socket: ServerConnection) -> None:
        try:
            client = Client(socket)
            self.clients.append(client)
            self.lead(client)
        except ConnectionClosed:
            pass
        except BaseException as problem:
            self._problems.append(problem)


def _answer(socket: ServerConnection, request: Request) -> Response | None:
    if request.path == "/listen":
        return None
    file = page_file(request.path)
    if file is None:
        return socket.respond(404, "")
    headers = Headers(HEADERS)
    headers["Content-Type"], headers["Content-Length"] = file.content_type, str(len(file.body))
    headers["Connection"] = "close"
    return Response(200, "OK", headers, file.body)
