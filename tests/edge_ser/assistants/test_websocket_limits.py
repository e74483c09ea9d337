"""What becomes of clients that break a limit: closed with the right code, the ledger balanced, others undisturbed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from edge_ser.assistants import line
from edge_ser.assistants.address import Address
from edge_ser.assistants.closing import CloseCode, Ending
from edge_ser.assistants.limits import Limits
from edge_ser.assistants.line import Line
from edge_ser.assistants.websocket_door import Door
from edge_ser.errors import ConfigError
from edge_ser.recognizer import EmotionRecognizer
from tests.edge_ser.assistants.running import HELLO, closing, converse, dial, hello, http, serving, status, to_end

HELLO_TEXT = json.dumps(HELLO)


def closed(recognizer: EmotionRecognizer, *messages: str | bytes, **limits: Any) -> tuple[int | None, str | None]:
    """Return how a service with these limits closes a client that sends these messages."""

    async def run() -> tuple[int | None, str | None]:
        async with serving(recognizer, **limits) as service:
            return await closing(service.where, *messages)

    return asyncio.run(run())


@pytest.mark.parametrize(
    "message",
    [
        b"\0\0",
        "",
        "no json",
        "[]",
        "{}",
        '{"type": "finish"}',
        '{"type": "hello", "rate_hz": "16000"}',
        '{"type": "hello", "rate_hz": 16000.5}',
        '{"type": "hello", "rate_hz": 100}',
        '{"type": "hello", "rate_hz": 1e400}',
        '{"type": "hello", "format": "f32le"}',
        '{"type": "hello", "partials": 1}',
        '{"type": "hello", "risk": 2}',
        '{"type": "hello", "risk": true}',
        '{"type": "hello", "voice": "../../x"}',
        '{"type": "hello", "voice": 7}',
        '{"type": "hello", "levles": true}',
        '{"type": "hello", "token": "\\ud800"}',
        '{"a":' * 5_000,
        "[" * 100_000,
    ],
)
def test_a_malformed_hello_is_refused(recognizer: EmotionRecognizer, message: str | bytes) -> None:
    code, reason = closed(recognizer, message)
    assert code == 4400
    assert reason


@pytest.mark.parametrize(
    "message",
    [
        "",
        "no json",
        '{"type": "hello"}',
        '{"type": "revise"}',
        '{"type": "revise", "utterance": 1}',
        '{"type": "revise", "utterance": -1, "transcript": ""}',
        '{"type": "revise", "utterance": 1, "transcript": 5}',
        '{"type": "finish", "now": true}',
    ],
)
def test_a_malformed_command_ends_the_session_with_its_summary(recognizer: EmotionRecognizer, message: str) -> None:
    async def run() -> tuple[list[dict[str, Any]], int | None, str | None]:
        async with serving(recognizer) as service, connect(service.where) as socket:
            await hello(socket)
            await socket.send(bytes(6_400))
            await socket.send(message)
            return await to_end(socket)

    messages, code, reason = asyncio.run(run())
    assert code == 4400 and reason
    assert messages[-1]["type"] == "summary" and messages[-1]["ledger"]["captured_samples"] == 3_200


def test_a_session_that_never_was_is_unknown(recognizer: EmotionRecognizer) -> None:
    assert closed(recognizer, json.dumps({**HELLO, "resume": "x" * 22}))[0] == 4404


def test_a_message_that_is_too_large_closes_with_1009(recognizer: EmotionRecognizer) -> None:
    assert closed(recognizer, HELLO_TEXT, bytes(Limits().max_message_bytes + 2))[0] == 1009
    assert closed(recognizer, "x" * (Limits().max_message_bytes + 1))[0] == 1009


def test_too_many_messages_close_with_4429(recognizer: EmotionRecognizer) -> None:
    limits = {"max_messages_per_s": 10.0, "burst_messages": 20.0}
    code, reason = closed(recognizer, HELLO_TEXT, *[b"\0\0"] * 40, **limits)
    assert code == 4429 and reason


def test_no_hello_in_time_closes_with_4408(recognizer: EmotionRecognizer) -> None:
    assert closed(recognizer, hello_s=0.05)[0] == 4408


def test_a_session_that_lasts_too_long_is_summed_up(recognizer: EmotionRecognizer) -> None:
    async def run() -> tuple[list[dict[str, Any]], int | None, str | None]:
        async with serving(recognizer, max_session_s=0.1) as service, connect(service.where) as socket:
            await hello(socket)
            await socket.send(bytes(6_400))
            return await to_end(socket)

    messages, code, _ = asyncio.run(run())
    assert code == 4410
    assert [message["type"] for message in messages] == ["summary"]


def test_a_client_too_many_is_refused_and_a_place_that_is_free_again_is_taken(recognizer: EmotionRecognizer) -> None:
    async def run() -> tuple[int | None, dict[str, Any]]:
        async with serving(recognizer, max_clients=1) as service:
            async with connect(service.where) as socket:
                await hello(socket)
                code, _ = await closing(service.where, HELLO_TEXT)
                # Lost, not left: its session waits, but makes way for whoever is here.
                socket.transport.abort()
            while True:
                async with connect(service.where) as socket:
                    await socket.send(HELLO_TEXT)
                    messages, again, _ = await _first(socket)
                    if again != 4503:
                        return code, messages

    code, ready = asyncio.run(run())
    assert code == 4503
    assert ready["type"] == "ready"


def test_connections_without_a_hello_are_counted_too(recognizer: EmotionRecognizer) -> None:
    async def run() -> None:
        async with serving(recognizer, max_clients=1, max_waiting=1) as service:
            async with connect(service.where), connect(service.where):
                with pytest.raises(InvalidStatus) as refused:
                    await connect(service.where)
                assert refused.value.response.status_code == 503
                assert b"try again later" in (refused.value.response.body or b"")
            while await status(service.where) == 503:
                await asyncio.sleep(0.01)
            async with connect(service.where) as socket:
                assert (await hello(socket))["type"] == "ready"

    asyncio.run(run())


def test_connections_that_ask_for_nothing_cannot_pile_up(recognizer: EmotionRecognizer) -> None:
    async def run() -> None:
        async with serving(recognizer, max_clients=1, max_waiting=1, handshake_s=60.0) as service:
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(4):
                    stack.push_async_callback(_leave, (await dial(service.where))[1])
                reader, writer = await dial(service.where)
                with contextlib.suppress(ConnectionError):
                    assert await asyncio.wait_for(reader.read(), 10) == b""
                writer.close()

    asyncio.run(run())


async def _leave(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _first(socket: Any) -> tuple[dict[str, Any], int | None, str | None]:
    try:
        return json.loads(await socket.recv()), None, None
    except Exception:
        return {}, socket.close_code, socket.close_reason


def test_a_handshake_that_drips_is_cut_off(recognizer: EmotionRecognizer) -> None:
    async def run() -> float:
        async with serving(recognizer, handshake_s=2.0) as service:
            began_s = time.monotonic()
            answers = asyncio.gather(*(http(service.where, "GET /listen HT") for _ in range(20)))
            # Meanwhile others are served.
            assert await converse(service.where, bytes(64_000))
            assert await answers == [""] * 20
            return time.monotonic() - began_s

    assert asyncio.run(run()) >= 2.0


@pytest.mark.parametrize(
    "noise", [b"\x16\x03\x01\x02\x00" * 40, b"\r\n\r\n" * 9, bytes(range(256)) * 300, b"GET " * 9_000]
)
def test_what_is_no_http_is_dropped_quietly(
    recognizer: EmotionRecognizer, noise: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with serving(recognizer, handshake_s=2.0) as service:
            await http(service.where, noise.decode("latin-1"))
            assert (await converse(service.where, bytes(6_400)))[-1]["type"] == "summary"

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\xff\xff\xff\xff\xff\xff", 1002),  # reserved bits and an opcode that does not exist
        (b"\x82\x04abcd", 1002),  # not masked
        (b"\x81\x82\0\0\0\0\xff\xfe", 1007),  # text that is no UTF-8
        (b"\x80\x81\0\0\0\0x", 1002),  # the rest of nothing
        (b"\x82\xff\x7f" + b"\xff" * 7 + b"mask", 1009),  # eight exabytes
    ],
)
def test_frames_that_break_the_protocol_close_with_its_own_codes(
    recognizer: EmotionRecognizer, frame: bytes, code: int
) -> None:
    async def run() -> int | None:
        async with serving(recognizer) as service, connect(service.where) as socket:
            await hello(socket)
            await socket.send(bytes(6_400))
            socket.transport.write(frame)
            return (await to_end(socket))[1]

    assert asyncio.run(run()) == code


def test_a_client_faster_than_real_time_waits_and_loses_nothing(
    recognizer: EmotionRecognizer, recording: NDArray[np.int16]
) -> None:
    async def run() -> tuple[float, list[dict[str, Any]]]:
        async with serving(recognizer, max_speed=10.0, burst_s=1.0) as service:
            began_s = time.monotonic()
            messages = await converse(service.where, recording[:112_000].tobytes())
            return time.monotonic() - began_s, messages

    took_s, messages = asyncio.run(run())
    assert took_s >= (7.0 - 1.0) / 10
    assert messages[-1]["ledger"]["captured_samples"] == 112_000


class Socket:
    """A client's end that sends what it is given and reads nothing."""

    def __init__(self, unread_bytes: int = 0) -> None:
        self.taken = 0
        self.reads = asyncio.Event()
        self.full = asyncio.Event()
        self.transport = SimpleNamespace(get_write_buffer_size=lambda: unread_bytes)

    async def recv(self) -> bytes:
        self.taken += 1
        return b"\0\0"

    async def send(self, message: str) -> None:
        self.full.set()
        await self.reads.wait()

    async def ping(self) -> None:
        await self.reads.wait()


class Talkative:
    """A session that has something to say to every piece of audio."""

    number = 1
    rate_hz = 16_000

    def __init__(self) -> None:
        self.ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    async def hear(self, data: bytes) -> list[str]:
        return ["{}"]

    def interrupt(self, ending: Ending) -> None:
        self.ending.set_result(ending)


@contextlib.asynccontextmanager
async def lined(socket: Socket, session: Talkative, limits: Limits) -> AsyncIterator[asyncio.Task[Ending]]:
    task = asyncio.ensure_future(Line(socket, session, limits).serve([], session.ending))  # type: ignore[arg-type]
    yield task
    if not session.ending.done():
        session.interrupt(Ending(CloseCode.FAULT, "the test is over"))
    await task


def test_a_client_that_does_not_read_is_not_read_from() -> None:
    async def run() -> None:
        socket, session = Socket(), Talkative()
        async with lined(socket, session, Limits()):
            await socket.full.wait()
            for _ in range(50):
                await asyncio.sleep(0)
            assert socket.taken == 1
            socket.full.clear()
            socket.reads.set()
            while socket.taken < 5:
                await asyncio.sleep(0)

    asyncio.run(run())


class Counting(Socket):
    """Sends one piece, or one command, and counts what it is told; it reads only once `reads` is set."""

    def __init__(self, message: str | bytes) -> None:
        super().__init__()
        self.message = message
        self.told: list[str] = []

    async def recv(self) -> Any:
        self.taken += 1
        if self.taken > 1:
            await asyncio.Event().wait()
        return self.message

    async def send(self, message: str) -> None:
        self.told.append(message)
        await super().send(message)


@pytest.mark.parametrize(("code", "told"), [(4410, ["1", "2", "3"]), (1001, ["1", "2", "3"]), (4409, ["1"])])
def test_what_was_to_be_said_when_the_end_came_is_said_before_it(code: int, told: list[str]) -> None:
    """Only another connection of the same session takes it over: there it is asked for with `events_seen`."""

    async def run() -> list[str]:
        socket, session = Counting(b"\0\0"), Talkative()
        session.hear = _three  # type: ignore[method-assign]
        async with lined(socket, session, Limits()) as task:
            await socket.full.wait()
            session.interrupt(Ending(CloseCode(code), "over"))
            await asyncio.sleep(0)
            socket.reads.set()
            await task
        return socket.told

    assert asyncio.run(run()) == told


async def _three(data: bytes) -> list[str]:
    return ["1", "2", "3"]


def test_a_revision_that_was_begun_when_the_end_came_is_told() -> None:
    async def run() -> list[str]:
        socket = Counting('{"type": "revise", "utterance": 1, "transcript": "so happy"}')
        session, begun, done = Talkative(), asyncio.Event(), asyncio.Event()

        async def revise(command: Any) -> list[str]:
            begun.set()
            await done.wait()
            return ["revised"]

        session.revise = revise  # type: ignore[attr-defined]
        socket.reads.set()
        async with lined(socket, session, Limits()) as task:
            await begun.wait()
            session.interrupt(Ending(CloseCode.GOING_AWAY, "over"))
            await asyncio.sleep(0)
            done.set()
            await task
        return socket.told

    assert asyncio.run(run()) == ["revised"]


def test_no_sign_of_life_ends_the_connection_and_lets_the_session_wait() -> None:
    async def run() -> Ending:
        socket, session = Socket(), Talkative()
        async with lined(socket, session, Limits(ping_s=0.02)) as task:
            return await task

    ending = asyncio.run(run())
    assert ending.code == 4408 and ending.is_lost


def test_an_end_at_the_very_moment_of_an_answer_to_a_ping_is_an_end() -> None:
    class Answering(Socket):
        """Answers a ping and ends the audio in one breath."""

        def __init__(self) -> None:
            super().__init__()
            self.pinged = asyncio.Event()

        async def recv(self) -> Any:
            await self.pinged.wait()
            self.answer.set_result(None)
            return '{"type": "finish"}'

        async def ping(self) -> Any:
            self.answer = asyncio.get_running_loop().create_future()
            self.pinged.set()
            return self.answer

    async def run() -> Ending:
        session = Talkative()
        async with lined(Answering(), session, Limits(ping_s=0.01)) as task:
            done, _ = await asyncio.wait({task}, timeout=10)
            assert done
            return await task

    assert asyncio.run(run()).code == 1000


def test_replies_that_nobody_reads_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "WATCH_EVERY_S", 0.01)

    async def run() -> Ending:
        socket, session = Socket(unread_bytes=line.MOST_UNREAD_BYTES + 1), Talkative()
        async with lined(socket, session, Limits()) as task:
            return await task

    ending = asyncio.run(run())
    assert ending.code == 4408 and not ending.is_lost


def test_a_busy_client_whose_answer_to_a_ping_waits_behind_its_audio_is_alive() -> None:
    async def run() -> int:
        socket, session = Socket(), Talkative()
        socket.reads.clear()
        session.hear = _silent  # type: ignore[method-assign]
        limits = Limits(ping_s=0.02, burst_s=0.0, max_speed=1.0, max_messages_per_s=1e6, burst_messages=1e6)
        async with lined(socket, session, limits) as task:
            done, _ = await asyncio.wait({task}, timeout=0.2)
            assert not done
            return socket.taken

    assert asyncio.run(run()) > 10


async def _silent(data: bytes) -> list[str]:
    return []


def test_the_model_failing_ends_one_session_and_no_other(
    recognizer: EmotionRecognizer, recording: NDArray[np.int16], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_ser.errors import BundleError
    from edge_ser.stream import Stream

    real = Stream.push

    def push(self: Stream, samples: NDArray[np.generic]) -> Any:
        if samples.size == 333:
            raise BundleError("the model answered with NaN; need numbers; check it")
        return real(self, samples)

    monkeypatch.setattr(Stream, "push", push)

    async def run() -> tuple[tuple[int | None, str | None], list[dict[str, Any]]]:
        async with serving(recognizer) as service:
            other = asyncio.ensure_future(converse(service.where, recording[:64_000].tobytes()))
            return await closing(service.where, HELLO_TEXT, bytes(666)), await other

    (code, reason), messages = asyncio.run(run())
    assert code == 1011 and reason is not None and "NaN" in reason
    assert messages[-1]["type"] == "summary"


def test_an_address_that_is_taken_is_told(recognizer: EmotionRecognizer) -> None:
    async def run() -> None:
        async with serving(recognizer) as service:
            port = int(service.where.rsplit(":", 1)[1].partition("/")[0])
            async with serving(recognizer, Door(Address(port=port))):
                pass

    with pytest.raises(ConfigError, match="cannot listen on"):
        asyncio.run(run())


def test_every_code_has_its_meaning_in_readme(root: Any) -> None:
    from edge_ser.assistants.closing import MEANINGS

    readme = (root / "README.md").read_text(encoding="utf-8")
    assert set(MEANINGS) == set(CloseCode)
    for code, meaning in MEANINGS.items():
        assert f"| {code.value} | {meaning} |" in readme
