"""Wyoming: the proxy keeps what the real service says and adds the emotion; the plain service answers alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("wyoming", reason="the service needs the extra serve: pip install -e '.[serve]'")

from wyoming.asr import Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.event import Event, async_write_event
from wyoming.info import Describe, Info, SelectProgram
from wyoming.ping import Ping, Pong
from wyoming.user_event import UserEvent

import edge_ser
from edge_ser.assistants.address import Address
from edge_ser.assistants.wyoming import Door, Service
from tests.edge_ser.assistants.wyoming_fakes import (
    TRANSCRIPT,
    Journal,
    SpeechToText,
    answers,
    ask,
    requests,
    run,
    served,
    transcribed,
)


@contextlib.asynccontextmanager
async def proxied(
    recognizer: edge_ser.EmotionRecognizer, whisper: SpeechToText, answer_s: float = 60.0
) -> AsyncIterator[tuple[str, Journal]]:
    async with (
        whisper.running() as upstream,
        served(recognizer, service=Service(upstream, answer_s=answer_s, emotion_s=20)) as (uri, journal),
    ):
        yield uri, journal


def emotions(events: list[Event]) -> list[dict[str, Any]]:
    heard = [UserEvent.from_event(event) for event in events if UserEvent.is_type(event.type)]
    return [event.data or {} for event in heard if event.name == "emotion"]


def test_the_transcript_comes_back_unchanged_with_the_emotion_of_its_words(
    recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16], written: edge_ser.Emotion, root: Path
) -> None:
    async def scenario() -> None:
        whisper = SpeechToText(transcribed)
        async with proxied(recognizer, whisper) as (uri, _):
            sent = requests(speech)
            events = await ask(uri, sent)
        transcript = events[-1]
        assert {**transcript.data, "context": None} == {**TRANSCRIPT.data, "context": None}
        emotion = transcript.data["context"].pop("emotion")
        assert transcript.data["context"] == TRANSCRIPT.data["context"]
        assert emotion["probabilities"] == pytest.approx(dict(written.probabilities), abs=1e-4)
        assert (emotion["utterance"], emotion["revision"], emotion["text_used"]) == (1, 1, written.text_used)
        assert emotions(events)[-1] == emotion
        assert whisper.audio == b"".join(event.payload or b"" for event in sent)
        schema = json.loads((root / "edge_ser" / "events.schema.json").read_text(encoding="utf-8"))
        for event in events[:-1]:
            user_event = UserEvent.from_event(event)
            jsonschema.validate(user_event.data, schema)
            assert user_event.data is not None and user_event.data["type"] == user_event.name
        assert [UserEvent.from_event(event).name for event in events[:-1]] == [
            "speech_started", "emotion", "summary", "emotion"
        ]  # fmt: skip

    run(scenario())


def test_words_that_come_in_pieces_are_passed_on_as_they_come(
    recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16]
) -> None:
    pieces = [Event("transcript-start", {"language": "en"}), Event("transcript-chunk", {"text": "i am so"})]

    async def answer(writer: asyncio.StreamWriter) -> None:
        for event in [*pieces, Event("transcript", {"text": "i am so happy"}), Event("transcript-stop")]:
            await async_write_event(event, writer)

    async def scenario() -> None:
        async with proxied(recognizer, SpeechToText(answer)) as (uri, _), AsyncClient.from_uri(uri) as client:
            for event in requests(speech):
                await client.write_event(event)
            heard = [event for event in await answers(client) if not UserEvent.is_type(event.type)]
            assert [(event.type, event.data) for event in heard[:2]] == [(event.type, event.data) for event in pieces]
            assert heard[2].data["text"] == "i am so happy"
            last = await client.read_event()
            assert last is not None and last.type == "transcript-stop"

    run(scenario())


def test_silence_leaves_the_transcript_as_it_is(recognizer: edge_ser.EmotionRecognizer) -> None:
    async def scenario() -> None:
        async with (
            SpeechToText(transcribed).running() as upstream,
            served(recognizer, service=Service(upstream)) as (uri, _),
        ):
            events = await ask(uri, requests(np.zeros(16_000, np.int16)))
        assert (events[-1].type, events[-1].data) == (TRANSCRIPT.type, TRANSCRIPT.data)

    run(scenario())


def test_a_service_that_is_not_there_is_told_and_the_connection_ends(
    recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"tcp://127.0.0.1:{free.getsockname()[1]}"

    async def scenario() -> None:
        async with served(recognizer, service=Service(nowhere)) as (uri, _):
            for sent in (requests(speech), [Describe().event()]):
                [event] = await ask(uri, sent)
                assert nowhere in Error.from_event(event).text

    run(scenario())


async def refuse(writer: asyncio.StreamWriter) -> None:
    await async_write_event(Error("no model is loaded", "no-model").event(), writer)


async def leave(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def talk_nonsense(writer: asyncio.StreamWriter) -> None:
    writer.write(b'{"type": "transcript", "data": ["happy"]}\n')


async def be_silent(writer: asyncio.StreamWriter) -> None:
    pass


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (refuse, "no model is loaded"),
        (leave, "has closed the connection"),
        (talk_nonsense, "went away"),
        (be_silent, "no answer"),
    ],
)
def test_an_upstream_that_fails_ends_the_request_with_its_error(
    recognizer: edge_ser.EmotionRecognizer,
    speech: NDArray[np.int16],
    answer: Callable[[asyncio.StreamWriter], Coroutine[Any, Any, None]],
    text: str,
) -> None:
    async def scenario() -> None:
        async with (
            SpeechToText(answer).running() as upstream,
            served(recognizer, service=Service(upstream, answer_s=0.3)) as (uri, journal),
        ):
            events = [event for event in await ask(uri, requests(speech)) if not UserEvent.is_type(event.type)]
            assert len(events) == 1
            assert text in Error.from_event(events[0]).text
        [summary] = journal.summaries
        assert summary.ledger.balances and summary.ledger.captured_samples == speech.size

    run(scenario())


def test_an_upstream_that_dies_while_one_speaks_can_still_be_read_of(
    recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16]
) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        upstream = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, served(recognizer, service=Service(upstream)) as (uri, _):
            events = await ask(uri, requests(np.tile(speech, 20)))
        [error] = [Error.from_event(event) for event in events if Error.is_type(event.type)]
        assert upstream in error.text

    run(scenario())


def test_audio_that_nobody_can_judge_does_not_cost_the_transcript(recognizer: edge_ser.EmotionRecognizer) -> None:
    odd = [
        AudioStart(16_000, 1, 1).event(),
        AudioChunk(16_000, 1, 1, bytes(1000)).event(),
        Event("audio-chunk", {"rate": "fast", "width": None, "channels": []}, bytes(1000)),
        AudioStop().event(),
    ]

    async def scenario() -> None:
        async with (
            SpeechToText(transcribed).running() as upstream,
            served(recognizer, service=Service(upstream)) as (uri, _),
        ):
            events = await ask(uri, odd)
            assert events[-1].data == TRANSCRIPT.data
        async with served(recognizer) as (uri, _):
            events = await ask(uri, odd)
            assert "samples of 1 bytes" in Error.from_event(events[-1]).text

    run(scenario())


def test_the_proxy_is_described_as_what_it_stands_before(recognizer: edge_ser.EmotionRecognizer) -> None:
    async def scenario() -> None:
        whisper = SpeechToText(transcribed)
        async with (
            whisper.running() as upstream,
            served(recognizer, service=Service(upstream)) as (uri, _),
            AsyncClient.from_uri(uri) as client,
        ):
            await client.write_event(Describe().event())
            event = await client.read_event()
            assert event is not None
            [program] = Info.from_event(event).asr
            assert program.name == "whisper + edge-ser"
            assert program.models[0].languages == ["de", "en"]
            await client.write_event(SelectProgram(program.name).event())
            for event in requests(np.zeros(1600, np.int16)):
                await client.write_event(event)
            await answers(client)
        assert [event.data for event in whisper.got if SelectProgram.is_type(event.type)] == [{"name": "whisper"}]

    run(scenario())


def test_the_plain_service_answers_alone_and_takes_the_words(
    recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16], written: edge_ser.Emotion, tmp_path: Path
) -> None:
    async def scenario() -> None:
        path = tmp_path / "wyoming.socket"
        async with served(recognizer, Door(Address(path=str(path)))) as (uri, journal):
            assert uri == f"unix://{path}" and path.stat().st_mode & 0o077 == 0
            async with AsyncClient.from_uri(uri) as client:
                await client.write_event(Describe().event())
                event = await client.read_event()
                assert event is not None
                [program] = Info.from_event(event).asr
                assert (program.name, program.models[0].name) == ("edge-ser", recognizer.model)
                await client.write_event(Ping(text="there?").event())
                event = await client.read_event()
                assert event is not None and Pong.from_event(event).text == "there?"
                for event in requests(speech):
                    await client.write_event(event)
                events = await answers(client)
                transcript = Transcript.from_event(events[-1])
                assert transcript.text == "" and transcript.context is not None
                assert transcript.context["emotion"] == emotions(events)[-1]
                await client.write_event(Transcript(TRANSCRIPT.data["text"]).event())
                event = await client.read_event()
                assert event is not None
                [revised] = emotions([event])
                assert revised["revision"] == 1
                assert revised["probabilities"] == pytest.approx(dict(written.probabilities), abs=1e-4)
        assert journal.begun == [1] and len(journal.summaries) == 1
        assert not path.exists()

    run(scenario())


def test_other_rates_and_channels_are_heard_too(
    recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16]
) -> None:
    async def scenario() -> None:
        at_48_khz = np.repeat(speech, 3)
        stereo = np.stack([at_48_khz, at_48_khz], axis=1).tobytes()
        chunks = [
            AudioChunk(48_000, 2, 2, stereo[start : start + 9_999]).event() for start in range(0, len(stereo), 9_999)
        ]
        async with served(recognizer) as (uri, journal):
            events = await ask(uri, [AudioStart(48_000, 2, 2).event(), *chunks, AudioStop().event()])
            assert len(emotions(events)) == 1
        [summary] = journal.summaries
        assert abs(summary.ledger.captured_samples - speech.size) <= 1

    run(scenario())


def test_every_event_can_be_told_to_somebody_else(
    recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16]
) -> None:
    async def scenario() -> None:
        told: list[edge_ser.events.Event] = []
        async with served(recognizer, service=Service(tell=told.append)) as (uri, _):
            await ask(uri, requests(speech))
        assert [type(event).__name__ for event in told] == ["SpeechStarted", "Emotion", "Summary"]

    run(scenario())


@pytest.mark.parametrize(
    "sent",
    [
        b"no json\n",
        b"[1, 2]\n",
        b'{"data": {}}\n',
        b'{"type": "audio-chunk", "payload_length": 99999999999}\n',
        b'{"type": "audio-chunk", "payload_length": 1000}\nless',
        b"[" * 100_000,
        b'{"type": "ping", "data": [1]}\n',
    ],
    ids=["no json", "no object", "no type", "too large", "cut off", "deep", "no data"],
)
def test_what_is_no_event_ends_only_its_own_connection(
    recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16], sent: bytes
) -> None:
    async def scenario() -> None:
        async with served(recognizer) as (uri, _):
            host, port = uri.removeprefix("tcp://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(sent)
            writer.write_eof()
            assert not Transcript.is_type((await reader.read()).decode())
            writer.close()
            assert Transcript.is_type((await ask(uri, requests(speech[:1600])))[-1].type)

    run(scenario())


def test_a_client_that_leaves_is_accounted_for(
    recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16]
) -> None:
    async def scenario() -> None:
        async with served(recognizer) as (uri, journal):
            async with AsyncClient.from_uri(uri) as client:
                for event in requests(speech)[:-1]:
                    await client.write_event(event)
        [summary] = journal.summaries
        assert summary.ledger.balances and summary.ledger.captured_samples > 0

    run(scenario())


async def taken(client: AsyncClient, events: list[Event]) -> list[Event]:
    """Send, and return what comes until all of it has been taken."""
    for event in [*events, Ping().event()]:
        await client.write_event(event)
    came: list[Event] = []
    while (answer := await client.read_event()) is not None and not Pong.is_type(answer.type):
        came.append(answer)
    return came


def test_what_is_said_after_the_first_transcript_is_heard_and_has_words_of_its_own(
    recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16]
) -> None:
    async def scenario() -> None:
        whisper = SpeechToText(transcribed)
        async with proxied(recognizer, whisper) as (uri, journal), AsyncClient.from_uri(uri) as client:
            sent = requests(speech)
            first = await taken(client, sent[:-1])
            await whisper.say(Event("transcript", {"text": "i am so happy"}))
            first += await answers(client)
            for event in sent[2:]:
                await client.write_event(event)
            second = await answers(client)
        assert first[-1].data["context"]["emotion"]["text_used"]
        assert "i am so happy" == first[-1].data["text"]
        assert [emotion["revision"] for emotion in emotions(first)] == [0, 1]
        assert [emotion["revision"] for emotion in emotions(second)] == [0, 1]
        assert second[-1].data["context"]["emotion"] == emotions(second)[-1]
        assert [summary.ledger.captured_samples for summary in journal.summaries] == [speech.size] * 2

    run(scenario())


def test_a_late_transcript_is_of_the_stream_before_and_ends_only_that(
    recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16]
) -> None:
    async def scenario() -> None:
        whisper = SpeechToText(be_silent)
        async with proxied(recognizer, whisper) as (uri, journal), AsyncClient.from_uri(uri) as client:
            second = requests(np.concatenate([np.zeros(8_000, np.int16), speech]))
            late = await taken(client, [*requests(speech), *second[:12]])
            await whisper.say(Event("transcript", {"text": "i am so happy"}))
            late += await answers(client)
            last = await taken(client, second[12:])
            await whisper.say(TRANSCRIPT)
            last += await answers(client)
        assert late[-1].data["context"]["emotion"] == emotions(late)[-1]
        assert emotions(late)[-1]["revision"] == emotions(last)[-1]["revision"] == 1
        assert emotions(last)[-1]["start_s"] > emotions(late)[-1]["start_s"] + 0.4
        assert [summary.ledger.captured_samples for summary in journal.summaries] == [speech.size, 8_000 + speech.size]

    run(scenario())


def test_requests_that_nobody_answers_do_not_pile_up(recognizer: edge_ser.EmotionRecognizer) -> None:
    async def scenario() -> None:
        async with proxied(recognizer, SpeechToText(be_silent)) as (uri, journal):
            events = await ask(uri, [AudioStart(16_000, 2, 1).event() for _ in range(6)] + [AudioStop().event()])
        [error] = [Error.from_event(event) for event in events if Error.is_type(event.type)]
        assert "has not answered 4 requests" in error.text
        assert journal.begun == [1, 2, 3, 4, 5] and len(journal.summaries) == 5

    run(scenario())
