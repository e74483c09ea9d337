"""The WebSocket service: the same answers as the core, commands, levels, resumed sessions and a clear end."""

from __future__ import annotations

import asyncio
import json
import os
import socket as sockets
import threading
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import soxr
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect, unix_connect

from edge_ser.assistants.address import Address
from edge_ser.assistants.notice import NOTICE
from edge_ser.assistants.session import Session
from edge_ser.assistants.websocket_door import Door
from edge_ser.errors import ConfigError
from edge_ser.events import Event
from edge_ser.recognizer import EmotionRecognizer
from tests.edge_ser.assistants.running import closing, converse, hello, send_all, serving, to_end


def without_latency(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in event.items() if key != "latency_ms"} for event in events]


def as_json(events: list[Event]) -> list[dict[str, Any]]:
    return without_latency([json.loads(event.to_json()) for event in events])


def bare(recognizer: EmotionRecognizer, samples: NDArray[np.generic], **options: Any) -> list[dict[str, Any]]:
    stream = recognizer.stream(**options)
    return as_json([*stream.push(samples), *stream.finish()])


@pytest.fixture(scope="module")
def first_two(recording: NDArray[np.int16]) -> NDArray[np.int16]:
    """Seven seconds, two utterances."""
    return recording[:112_000]


@pytest.mark.parametrize("chunk", [640, 3_333, 40_000])
def test_the_events_are_those_of_the_core(
    recognizer: EmotionRecognizer, first_two: NDArray[np.int16], chunk: int
) -> None:
    async def run() -> list[dict[str, Any]]:
        async with serving(recognizer) as service:
            return await converse(service.where, first_two.tobytes(), chunk)

    assert without_latency(asyncio.run(run())) == bare(recognizer, first_two)


def test_every_event_follows_the_schema(
    recognizer: EmotionRecognizer, first_two: NDArray[np.int16], root: Path
) -> None:
    async def run() -> list[dict[str, Any]]:
        async with serving(recognizer) as service:
            return await converse(service.where, first_two.tobytes(), partials=True)

    messages = asyncio.run(run())
    validator = jsonschema.Draft202012Validator(
        json.loads((root / "edge_ser" / "events.schema.json").read_text(encoding="utf-8"))
    )
    for message in messages:
        validator.validate(message)
    assert any(message["type"] == "emotion" and not message["final"] for message in messages)


def test_another_rate_gives_what_the_core_gives_for_the_resampled_audio(
    recognizer: EmotionRecognizer, first_two: NDArray[np.int16]
) -> None:
    at_48_khz = np.clip(soxr.resample(first_two.astype(np.float32), 16_000, 48_000), -32_768, 32_767).astype(np.int16)

    async def run() -> list[dict[str, Any]]:
        async with serving(recognizer) as service:
            return await converse(service.where, at_48_khz.tobytes(), 4_801, rate_hz=48_000)

    back = np.clip(soxr.resample(at_48_khz.astype(np.float32) / 32_768, 48_000, 16_000), -1.0, 1.0)
    there, core = asyncio.run(run()), bare(recognizer, back)
    assert [event["type"] for event in there] == [event["type"] for event in core]
    for mine, other in zip(there, core, strict=True):
        if mine["type"] == "emotion":
            assert mine["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)


def test_ready_says_who_answers_and_what_people_must_know(recognizer: EmotionRecognizer) -> None:
    async def run() -> dict[str, Any]:
        async with serving(recognizer) as service, connect(service.where) as socket:
            return await hello(socket)

    ready = asyncio.run(run())
    assert ready["type"] == "ready"
    assert (ready["model"], ready["labels"]) == (recognizer.model, list(recognizer.labels))
    assert ready["notice"] == NOTICE and "5(1)(f)" in NOTICE
    assert (ready["rate_hz"], ready["resumed"], ready["received_bytes"]) == (16_000, False, 0)


def test_words_revise_an_answer_and_unknown_utterances_are_told(
    recognizer: EmotionRecognizer, first_two: NDArray[np.int16]
) -> None:
    async def run() -> list[dict[str, Any]]:
        async with serving(recognizer) as service, connect(service.where) as socket:
            await hello(socket)
            await send_all(socket, first_two.tobytes())
            for utterance in (1, 99):
                await socket.send(json.dumps({"type": "revise", "utterance": utterance, "transcript": "no, not again"}))
            await socket.send('{"type": "finish"}')
            return (await to_end(socket))[0]

    messages = asyncio.run(run())
    stream = recognizer.stream()
    stream.push(first_two)
    wanted = json.loads(stream.revise(1, "no, not again").to_json())
    revised = next(message for message in messages if message.get("revision") == 1 and message["utterance"] == 1)
    assert without_latency([revised]) == without_latency([wanted])
    error = next(message for message in messages if message["type"] == "error")
    assert error["utterance"] == 99 and "99" in error["message"]
    assert messages[-1]["type"] == "summary"


def test_levels_come_ten_times_a_second_and_only_if_asked_for(
    recognizer: EmotionRecognizer, first_two: NDArray[np.int16]
) -> None:
    async def run() -> list[dict[str, Any]]:
        async with serving(recognizer) as service:
            return await converse(service.where, first_two.tobytes(), levels=True)

    messages = asyncio.run(run())
    levels = [message for message in messages if message["type"] == "level"]
    assert len(levels) == pytest.approx(first_two.size / 1_600, abs=1)
    assert [level["at_s"] for level in levels[:2]] == [0.1, 0.2]
    loudest = max(levels, key=lambda level: level["rms_dbfs"])
    piece = first_two[round(loudest["at_s"] * 16_000) - 1_600 : round(loudest["at_s"] * 16_000)] / 32_768
    assert loudest["rms_dbfs"] == pytest.approx(20 * np.log10(np.sqrt(np.mean(piece**2))), abs=0.06)
    # Speech is on from `speech_started` to the answer.
    assert {level["speech"] for level in levels} == {True, False}
    assert levels[-1]["ledger"]["captured_samples"] <= first_two.size
    core = bare(recognizer, first_two)
    assert without_latency([message for message in messages if message["type"] != "level"]) == core


def test_many_clients_get_their_own_answers(recognizer: EmotionRecognizer, recording: NDArray[np.int16]) -> None:
    pieces = [np.roll(recording, -24_000 * number)[:96_000] for number in range(4)]

    async def run() -> list[list[dict[str, Any]]]:
        async with serving(recognizer) as service:
            return await asyncio.gather(*(converse(service.where, piece.tobytes()) for piece in pieces))

    for piece, events in zip(pieces, asyncio.run(run()), strict=True):
        assert without_latency(events) == bare(recognizer, piece)


def cut(socket: ClientConnection) -> None:
    """Lose the connection in the middle of a frame of 640 bytes."""
    header = bytes([0x82, 0x80 | 126]) + (640).to_bytes(2, "big") + b"mask"
    socket.transport.write(header + b"\1" * 100)
    socket.transport.abort()


async def resumed(
    where: str, audio: bytes, at_byte: int, **more: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Lose the connection after `at_byte` bytes, take it up again, and return what either connection was told."""
    async with connect(where) as socket:
        session = (await hello(socket))["session"]
        await send_all(socket, audio[:at_byte])
        # The answer to a command says that the audio before it has been taken.
        await socket.send('{"type": "revise", "utterance": 999, "transcript": ""}')
        before = []
        while (message := json.loads(await socket.recv()))["type"] != "error":
            before.append(message)
        cut(socket)
    async with connect(where) as socket:
        ready = await hello(socket, resume=session, **more)
        assert ready["resumed"] and ready["session"] == session and ready["received_bytes"] == at_byte
        await send_all(socket, audio[at_byte:])
        await socket.send('{"type": "finish"}')
        after, code, _ = await to_end(socket)
    assert code == 1000
    return before, after


def test_a_resumed_session_is_as_if_nothing_had_happened(
    recognizer: EmotionRecognizer, first_two: NDArray[np.int16]
) -> None:
    async def run() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        async with serving(recognizer) as service:
            return await resumed(service.where, first_two.tobytes(), 2 * 72_000)

    before, after = asyncio.run(run())
    assert before and without_latency(before + after) == bare(recognizer, first_two)


def test_events_that_were_lost_with_the_connection_come_again(
    recognizer: EmotionRecognizer, first_two: NDArray[np.int16]
) -> None:
    async def run() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        async with serving(recognizer) as service:
            return await resumed(service.where, first_two.tobytes(), 2 * 72_000, events_seen=1)

    before, after = asyncio.run(run())
    assert len(before) > 1
    assert without_latency(before[:1] + after) == bare(recognizer, first_two)


def test_audio_that_was_lost_with_the_connection_is_counted(
    recognizer: EmotionRecognizer, first_two: NDArray[np.int16]
) -> None:
    async def run() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        async with serving(recognizer) as service:
            return await resumed(service.where, first_two.tobytes(), 2 * 20_000, lost_bytes=3_200)

    _, after = asyncio.run(run())
    assert [event["dropped_samples"] for event in after if event["type"] == "overflow"] == [1_600]
    assert after[-1]["ledger"]["dropped_samples"] == 1_600
    assert after[-1]["ledger"]["captured_samples"] == first_two.size + 1_600


@pytest.mark.parametrize("lost_bytes", [640, 641])
def test_after_a_loss_in_mid_sample_the_sound_is_the_same(recognizer: EmotionRecognizer, lost_bytes: int) -> None:
    audio = np.full(16_000, 8, np.int16).tobytes()

    async def run() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        async with serving(recognizer) as service:
            where = service.where
            async with connect(where) as socket:
                session = (await hello(socket, levels=True))["session"]
                await socket.send(audio[:1_601])
                await socket.send('{"type": "revise", "utterance": 999, "transcript": ""}')
                assert json.loads(await socket.recv())["type"] == "error"
                cut(socket)
            async with connect(where) as socket:
                await hello(socket, resume=session, lost_bytes=lost_bytes)
                await socket.send(audio[1_601 + lost_bytes :])
                await socket.send('{"type": "finish"}')
                messages, _, _ = await to_end(socket)
                return messages, [message for message in messages if message["type"] == "level"]

    messages, [level] = asyncio.run(run())
    assert level["rms_dbfs"] == pytest.approx(20 * np.log10(8 / 32_768), abs=0.06)
    # What was lost has taken its time, too.
    assert level["at_s"] == pytest.approx(messages[-1]["duration_s"], abs=2 / 16_000)
    assert messages[-1]["duration_s"] == pytest.approx(1.0, abs=2 / 16_000)


def test_a_session_can_move_from_a_connection_that_is_not_yet_known_to_be_dead(
    recognizer: EmotionRecognizer, first_two: NDArray[np.int16]
) -> None:
    async def run() -> tuple[int | None, list[dict[str, Any]]]:
        async with serving(recognizer) as service, connect(service.where) as old:
            session = (await hello(old))["session"]
            await send_all(old, first_two.tobytes()[:64_000])
            async with connect(service.where) as new:
                ready = await hello(new, resume=session, events_seen=0)
                _, code, _ = await to_end(old)
                await send_all(new, first_two.tobytes()[ready["received_bytes"] :])
                await new.send('{"type": "finish"}')
                return code, (await to_end(new))[0]

    code, events = asyncio.run(run())
    assert code == 4409
    assert without_latency(events) == bare(recognizer, first_two)


def test_a_session_that_nobody_comes_back_for_ends_with_its_ledger(
    recognizer: EmotionRecognizer, first_two: NDArray[np.int16]
) -> None:
    async def run() -> tuple[int, tuple[int | None, str | None]]:
        async with serving(recognizer, resume_s=0.05) as service:
            async with connect(service.where) as socket:
                session = (await hello(socket))["session"]
                await send_all(socket, first_two.tobytes())
                await socket.send('{"type": "revise", "utterance": 999, "transcript": ""}')
                while json.loads(await socket.recv())["type"] != "error":
                    pass
                cut(socket)
            summary = await service.wait_for_end(1)
            gone = await closing(service.where, json.dumps({"type": "hello", "rate_hz": 16_000, "resume": session}))
            return summary.ledger.captured_samples, gone

    captured, (code, reason) = asyncio.run(run())
    assert captured == first_two.size
    assert code == 4404 and reason is not None and "again" in reason


def test_a_client_that_closes_has_ended_its_session(
    recognizer: EmotionRecognizer, first_two: NDArray[np.int16]
) -> None:
    async def run() -> int:
        async with serving(recognizer) as service:
            async with connect(service.where) as socket:
                await hello(socket)
                await send_all(socket, first_two.tobytes())
            return (await service.wait_for_end(1)).ledger.captured_samples

    assert asyncio.run(run()) == first_two.size


def test_a_stopping_service_answers_open_utterances_and_sums_up(
    recognizer: EmotionRecognizer, first_two: NDArray[np.int16]
) -> None:
    part = first_two[:40_000]  # in the middle of the first utterance

    async def run() -> tuple[list[dict[str, Any]], int | None, str | None]:
        async with serving(recognizer) as service:
            socket = await connect(service.where)
            await hello(socket)
            await send_all(socket, part.tobytes())
            assert json.loads(await socket.recv())["type"] == "speech_started"
            reading = asyncio.ensure_future(to_end(socket))
        return await reading

    messages, code, _ = asyncio.run(run())
    assert [message["type"] for message in messages] == ["emotion", "summary"]
    assert messages[-1]["ledger"]["captured_samples"] == part.size
    assert code == 1001


def test_a_client_that_comes_while_the_service_stops_is_summed_up_too(
    recognizer: EmotionRecognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, is_opening, may_open = Session.open, threading.Event(), threading.Event()

    def slow(*given: Any) -> Session:
        is_opening.set()
        assert may_open.wait(10)
        return real(*given)

    monkeypatch.setattr(Session, "open", staticmethod(slow))

    async def run() -> tuple[list[dict[str, Any]], int | None, str | None]:
        async with serving(recognizer) as service:
            socket = await connect(service.where)
            await socket.send('{"type": "hello"}')
            assert await asyncio.to_thread(is_opening.wait, 10)
            asyncio.get_running_loop().call_later(0.2, may_open.set)
        return await to_end(socket)

    messages, code, _ = asyncio.run(run())
    assert code == 1001
    assert [message["type"] for message in messages] == ["ready", "summary"]


def test_a_unix_socket_is_for_its_owner_only_and_goes_away(
    recognizer: EmotionRecognizer, first_two: NDArray[np.int16], tmp_path: Path
) -> None:
    path = tmp_path / "edge-ser.sock"

    async def run() -> list[dict[str, Any]]:
        async with serving(recognizer, Door(Address(path=str(path)))):
            assert path.stat().st_mode & 0o077 == 0
            async with unix_connect(str(path), "ws://localhost/listen") as socket:
                await hello(socket)
                await send_all(socket, first_two.tobytes())
                await socket.send('{"type": "finish"}')
                return (await to_end(socket))[0]

    assert without_latency(asyncio.run(run())) == bare(recognizer, first_two)
    assert not path.exists()


def test_a_unix_socket_is_not_taken_from_a_service_that_is_there(recognizer: EmotionRecognizer, tmp_path: Path) -> None:
    path = tmp_path / "edge-ser.sock"
    door = Door(Address(path=str(path)))

    async def run() -> dict[str, Any]:
        async with serving(recognizer, door):
            with pytest.raises(ConfigError, match="another service"):
                async with serving(recognizer, door):
                    pass
            async with unix_connect(str(path), "ws://localhost/listen") as socket:
                return await hello(socket)

    assert asyncio.run(run())["type"] == "ready"
    # One that a service left behind makes way.
    with sockets.socket(sockets.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    assert asyncio.run(_serves_at(recognizer, door))


async def _serves_at(recognizer: EmotionRecognizer, door: Door) -> str:
    async with serving(recognizer, door) as service:
        return service.where


def test_ipv6(recognizer: EmotionRecognizer) -> None:
    try:
        sockets.create_server(("::1", 0), family=sockets.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")

    async def run() -> dict[str, Any]:
        async with serving(recognizer, Door(Address("::1", 0))) as service:
            assert service.where.startswith("ws://[::1]:")
            async with connect(service.where) as socket:
                return await hello(socket)

    assert asyncio.run(run())["type"] == "ready"


def test_a_kept_voice_goes_on_learning(
    recognizer: EmotionRecognizer, first_two: NDArray[np.int16], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_SER_VOICES", str(tmp_path / "voices"))

    async def run() -> list[list[dict[str, Any]]]:
        async with serving(recognizer) as service:
            return [await converse(service.where, first_two.tobytes(), voice="anna") for _ in range(2)]

    first, second = asyncio.run(run())
    used = [[event["voice_utterances"] for event in events if event["type"] == "emotion"] for events in (first, second)]
    assert used == [[0, 1], [2, 3]]
    assert "anna.voice" in os.listdir(tmp_path / "voices")
