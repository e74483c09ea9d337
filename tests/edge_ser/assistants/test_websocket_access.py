"""Who may connect: addresses, tokens, and the pages of other hosts."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from websockets.asyncio.client import connect

from edge_ser.assistants import access
from edge_ser.assistants.address import Address
from edge_ser.assistants.websocket_door import Door
from edge_ser.errors import ConfigError
from edge_ser.recognizer import EmotionRecognizer
from tests.edge_ser.assistants.running import HELLO, closing, hello, http, serving, status

TOKEN = "correct-horse-battery-staple"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_an_address_that_others_reach_needs_a_token(recognizer: EmotionRecognizer, host: str) -> None:
    async def run(door: Door) -> None:
        async with serving(recognizer, door):
            pass

    with pytest.raises(ConfigError, match="--token-file"):
        asyncio.run(run(Door(Address(host, 0))))


def test_with_a_token_the_network_is_served(recognizer: EmotionRecognizer) -> None:
    async def run() -> dict[str, Any]:
        async with serving(recognizer, Door(Address("0.0.0.0", 0), TOKEN)) as service:
            async with connect(service.where.replace("0.0.0.0", "127.0.0.1")) as socket:
                return await hello(socket, token=TOKEN)

    assert asyncio.run(run())["type"] == "ready"


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", TOKEN[:-1], "ẞ" * 20])
def test_a_wrong_token_is_refused_and_never_logged(
    recognizer: EmotionRecognizer, token: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> tuple[int | None, str | None]:
        async with serving(recognizer, Door(Address(port=0), TOKEN)) as service:
            async with connect(service.where) as socket:
                await hello(socket, token=TOKEN)
            return await closing(service.where, json.dumps({**HELLO, "token": token}))

    with caplog.at_level(logging.DEBUG):
        code, reason = asyncio.run(run())
    # A blank token is no text at all, the others are the wrong one.
    assert code == (4400 if token == "" else 4401)
    assert TOKEN not in (reason or "")
    ours = [record for record in caplog.records if record.name.startswith("edge_ser")]
    assert not any(TOKEN in record.getMessage() for record in ours)


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = access.hmac.compare_digest
    monkeypatch.setattr(access.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    assert access.is_token(TOKEN, TOKEN) and not access.is_token("x", TOKEN) and not access.is_token(None, TOKEN)
    assert len(compared) == 3


def test_pages_of_other_hosts_may_not_connect(recognizer: EmotionRecognizer) -> None:
    async def run() -> list[int]:
        door = Door(Address(port=0), allowed_origins=("https://assistant.example",))
        async with serving(recognizer, door) as service:
            own = service.where.replace("ws://", "http://").removesuffix("/listen")
            origins = [
                None,
                own,
                own.replace("127.0.0.1", "localhost"),
                "http://evil.example",
                "null",
                "file://",
                "http://[",
                own.rpartition(":")[0] + ":1",
                "https://assistant.example",
            ]
            return [await status(service.where, origin) for origin in origins]

    assert asyncio.run(run()) == [101, 101, 403, 403, 403, 403, 403, 403, 101]


def test_names_that_lead_here_do_not_open_the_door(recognizer: EmotionRecognizer) -> None:
    """A foreign page may have its own name lead to this machine; its requests are of one origin then."""

    async def run() -> list[str]:
        async with serving(recognizer, Door(Address(port=0), shows_page=True)) as service:
            return [
                (await http(service.where, f"GET {path} HTTP/1.1\r\n{headers}\r\n\r\n")).split(" ", 2)[1]
                for path, headers in [
                    ("/", "Host: evil.example:80"),
                    ("/", "Host: 127.0.0.1.evil.example"),
                    ("/", "Host: localhost\r\nHost: evil.example"),
                    ("/", "Accept: */*"),
                    ("/", "Host: localhost:8765"),
                    ("/", "Host: [::1]:8765"),
                    ("/nothing", "Host: 127.0.0.1"),
                    ("/../../etc/passwd", "Host: 127.0.0.1"),
                ]
            ]

    assert asyncio.run(run()) == ["403", "403", "403", "403", "200", "200", "404", "404"]


def test_a_proxy_may_have_the_name_of_a_page_that_is_allowed(recognizer: EmotionRecognizer) -> None:
    async def run() -> list[str]:
        door = Door(Address(port=0), shows_page=True, allowed_origins=("https://assistant.example",))
        async with serving(recognizer, door) as service:
            return [
                (await http(service.where, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).split(" ", 2)[1]
                for host in ("assistant.example", "other.example")
            ]

    assert asyncio.run(run()) == ["200", "403"]


def test_the_page_is_shown_only_if_wanted(recognizer: EmotionRecognizer) -> None:
    async def run() -> str:
        async with serving(recognizer) as service:
            return await http(service.where, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")

    assert asyncio.run(run()).startswith("HTTP/1.1 404")


def test_a_session_cannot_be_resumed_without_the_token_or_at_another_rate(recognizer: EmotionRecognizer) -> None:
    async def run() -> list[int | None]:
        async with serving(recognizer, Door(Address(port=0), TOKEN)) as service, connect(service.where) as socket:
            session = (await hello(socket, token=TOKEN))["session"]
            stranger = {**HELLO, "resume": session}
            return [
                (await closing(service.where, json.dumps({**stranger, **more})))[0]
                for more in ({}, {"token": TOKEN, "rate_hz": 8_000}, {"token": TOKEN, "events_seen": 5})
            ]

    assert asyncio.run(run()) == [4401, 4400, 4400]
