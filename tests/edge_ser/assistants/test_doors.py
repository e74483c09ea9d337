"""The same answers through every door: the library, the command line, WebSocket, Wyoming, Pipecat and LiveKit."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import edge_ser
from edge_ser.cli import main

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def straight(recognizer: edge_ser.EmotionRecognizer, recording: NDArray[np.int16]) -> list[edge_ser.Emotion]:
    """What the library says of the example recording."""
    stream = recognizer.stream()
    events = [*stream.push(recording), *stream.finish()]
    emotions = [event for event in events if isinstance(event, edge_ser.Emotion)]
    assert len(emotions) > 1
    return emotions


def assert_same(events: list[dict[str, Any]], straight: list[edge_ser.Emotion]) -> None:
    """Check utterances, times and probabilities of all `emotion` events; what the machine's speed says is its own."""
    heard = [event for event in events if event["type"] == "emotion"]
    assert len(heard) == len(straight)
    for event, expected in zip(heard, straight, strict=True):
        wanted = json.loads(expected.to_json())
        assert event["probabilities"] == pytest.approx(wanted["probabilities"], abs=TOLERANCE)
        for moving in ("probabilities", "confidence", "latency_ms"):
            del event[moving], wanted[moving]
        assert event == wanted


def test_the_library_in_pieces(
    recognizer: edge_ser.EmotionRecognizer, recording: NDArray[np.int16], straight: list[edge_ser.Emotion]
) -> None:
    stream = recognizer.stream()
    events = [event for piece in np.array_split(recording, 1000) for event in stream.push(piece)] + stream.finish()
    assert_same([event.to_dict() for event in events], straight)


def test_the_command_line(root: Path, straight: list[edge_ser.Emotion], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", "--input", str(root / "examples" / "conversation.flac"), "--format", "jsonl"]) == 0
    assert_same([json.loads(line) for line in capsys.readouterr().out.splitlines()], straight)


def test_websocket(
    recognizer: edge_ser.EmotionRecognizer, recording: NDArray[np.int16], straight: list[edge_ser.Emotion]
) -> None:
    pytest.importorskip("websockets", reason="the service needs the extra serve: pip install -e '.[serve]'")
    from tests.edge_ser.assistants.running import converse, serving

    async def scenario() -> list[dict[str, Any]]:
        async with serving(recognizer) as service:
            return await converse(service.where, recording.tobytes())

    assert_same(asyncio.run(asyncio.wait_for(scenario(), 60)), straight)


@pytest.mark.parametrize("has_upstream", [False, True], ids=["alone", "as a proxy"])
def test_wyoming(
    recognizer: edge_ser.EmotionRecognizer,
    recording: NDArray[np.int16],
    straight: list[edge_ser.Emotion],
    has_upstream: bool,
) -> None:
    pytest.importorskip("wyoming", reason="the service needs the extra serve: pip install -e '.[serve]'")
    from wyoming.client import AsyncClient
    from wyoming.event import Event, async_write_event
    from wyoming.user_event import UserEvent

    from edge_ser.assistants.address import Address
    from edge_ser.assistants.wyoming import Door, Service, serve
    from tests.edge_ser.assistants.wyoming_fakes import Journal, SpeechToText, answers, requests

    async def say_nothing(writer: asyncio.StreamWriter) -> None:
        await async_write_event(Event("transcript", {"text": ""}), writer)

    async def scenario() -> list[Event]:
        journal, stop = Journal(), asyncio.Event()
        async with SpeechToText(say_nothing).running() as upstream:
            service = Service(upstream if has_upstream else None, emotion_s=50)
            serving = asyncio.create_task(serve(recognizer, Door(Address(port=0)), journal, stop, service))
            async with AsyncClient.from_uri(await journal.started_at) as client:
                for event in requests(recording):
                    await client.write_event(event)
                events = await answers(client)
            stop.set()
            await serving
        return events

    events = asyncio.run(asyncio.wait_for(scenario(), 60))
    assert_same([UserEvent.from_event(event).data or {} for event in events[:-1]], straight)


def test_pipecat(
    recognizer: edge_ser.EmotionRecognizer,
    recording: NDArray[np.int16],
    straight: list[edge_ser.Emotion],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("pipecat", reason="Pipecat lives in a venv of its own: make test-assistants")
    from pipecat.frames.frames import Frame, InputAudioRawFrame
    from pipecat.tests.utils import run_test

    from edge_ser.assistants.pipecat import EmotionFrame, EmotionProcessor

    # Sent at once, not as it is spoken, there is more to wait for.
    monkeypatch.setattr("edge_ser.assistants.pipecat.END_S", 50.0)
    frames = [
        InputAudioRawFrame(piece.tobytes(), 16_000, 1) for piece in np.split(recording, range(320, len(recording), 320))
    ]

    async def scenario() -> list[Frame]:
        down, _ = await run_test(EmotionProcessor(recognizer), frames_to_send=frames, start_timeout=20.0)
        return list(down)

    down = asyncio.run(asyncio.wait_for(scenario(), 60))
    assert_same([frame.event.to_dict() for frame in down if isinstance(frame, EmotionFrame)], straight)


def test_livekit(
    recognizer: edge_ser.EmotionRecognizer,
    recording: NDArray[np.int16],
    straight: list[edge_ser.Emotion],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("livekit.agents", reason="LiveKit Agents lives in a venv of its own: make test-assistants")
    from livekit import rtc

    from edge_ser.assistants.livekit import EmotionSTT
    from tests.edge_ser.assistants.livekit_fakes import CannedSTT

    monkeypatch.setattr("edge_ser.assistants.livekit.END_S", 50.0)
    told: list[edge_ser.Emotion] = []

    async def scenario() -> None:
        wrapper = EmotionSTT(CannedSTT([]), recognizer)
        wrapper.on("emotion", told.append)
        async with wrapper.stream() as stream:
            for piece in np.split(recording, range(160, len(recording), 160)):
                stream.push_frame(rtc.AudioFrame(piece.tobytes(), 16_000, 1, piece.size))
            stream.end_input()
            async for _ in stream:
                pass

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert_same([event.to_dict() for event in told], straight)
