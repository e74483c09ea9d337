"""What the services are made of: audio that comes in pieces, a stream beside an event loop, addresses, limits."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_ser.assistants.access import checked_origin, read_token
from edge_ser.assistants.address import Address
from edge_ser.assistants.closing import CloseCode, Ending
from edge_ser.assistants.incoming import IncomingAudio
from edge_ser.assistants.limits import Allowance
from edge_ser.assistants.worker import StreamWorker
from edge_ser.errors import AudioFormatError, ConfigError
from edge_ser.recognizer import EmotionRecognizer


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    cut, start = [], 0
    for size in sizes:
        cut.append(data[start : start + size])
        start += size
    return [*cut, data[start:]]


def wave(samples: int) -> NDArray[np.float64]:
    return 0.5 * np.sin(np.arange(samples) * 0.2) + np.random.default_rng(0).normal(0, 0.05, samples)


def as_pcm(samples: NDArray[np.float64], width: int) -> bytes:
    whole = np.round(samples * (1 << (8 * width - 1))).astype("<i8")
    return whole.view(np.uint8).reshape(-1, 8)[:, :width].tobytes()


@given(st.lists(st.integers(0, 700), max_size=12), st.sampled_from([8_000, 16_000, 44_100]), st.sampled_from([1, 2]))
def test_the_size_of_the_pieces_never_changes_the_samples(sizes: list[int], rate_hz: int, channels: int) -> None:
    data = as_pcm(wave(1_200 * channels), 2)
    whole, parts = IncomingAudio(rate_hz, 2, channels), IncomingAudio(rate_hz, 2, channels)
    at_once = np.concatenate([whole.decode(data), whole.flush()])
    in_pieces = np.concatenate([*(parts.decode(piece) for piece in pieces(data, sizes)), parts.flush()])
    np.testing.assert_array_equal(at_once, in_pieces)


@pytest.mark.parametrize("width", [2, 3, 4])
def test_every_width_is_the_same_sound(width: int) -> None:
    samples = wave(1_000)
    decoded = IncomingAudio(width=width).decode(as_pcm(samples, width))
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, samples, atol=2.0**-16)


def test_sixteen_bits_are_what_the_core_makes_of_them() -> None:
    extremes = np.array([-32_768, -1, 0, 1, 32_767], "<i2")
    np.testing.assert_array_equal(
        IncomingAudio().decode(extremes.tobytes()), extremes.astype(np.float32) / np.float32(32_768)
    )


def test_channels_are_averaged() -> None:
    stereo = np.stack([np.full(100, 0.5), np.full(100, -0.25)], axis=1)
    np.testing.assert_allclose(IncomingAudio(channels=2).decode(as_pcm(stereo.ravel(), 2)), 0.125, atol=1e-4)


def test_resampling_in_pieces_is_resampling() -> None:
    samples = wave(48_000)
    incoming = IncomingAudio(48_000)
    data = as_pcm(samples, 2)
    parts = [incoming.decode(data[start : start + 1_921]) for start in range(0, len(data), 1_921)]
    resampled = np.concatenate([*parts, incoming.flush()])
    wanted = soxr.resample(samples.astype(np.float32), 48_000, 16_000)
    assert resampled.size == wanted.size
    np.testing.assert_allclose(resampled, wanted, atol=1e-3)


def test_after_a_flush_the_sound_begins_anew() -> None:
    data = as_pcm(wave(4_800), 2)
    fresh, used = IncomingAudio(48_000), IncomingAudio(48_000)
    used.decode(data[:999])
    used.flush()
    np.testing.assert_array_equal(fresh.decode(data), used.decode(data))


@pytest.mark.parametrize(
    "form",
    [(3_999, 2, 1), (400_000, 2, 1), (True, 2, 1), (16_000, 1, 1), (16_000, 5, 1), (16_000, 2, 0), (16_000, 2, 9)],
)
def test_audio_that_cannot_be_taken_is_told(form: tuple[int, int, int]) -> None:
    with pytest.raises(AudioFormatError, match="need"):
        IncomingAudio(*form)


class SlowStream:
    """A stream whose work waits for the test, and which says if two threads are in it."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.inside = threading.Lock()
        self.pushed: list[int] = []
        self.ledger: Any = None

    def may_answer(self, samples: int) -> bool:
        return True

    def push(self, samples: NDArray[np.generic]) -> list[int]:
        assert self.inside.acquire(blocking=False)
        self.go_on.wait(10)
        self.pushed.append(int(samples[0]))
        self.inside.release()
        return [int(samples[0])]

    def finish(self) -> list[int]:
        assert not self.inside.locked()
        return [-1]


def piece(number: int) -> NDArray[np.int16]:
    return np.full(4, number, np.int16)


def test_calls_are_served_in_order_one_at_a_time_and_off_the_event_loop() -> None:
    async def run() -> tuple[list[int], list[list[Any]]]:
        stream = SlowStream()
        with ThreadPoolExecutor(4) as executor:
            worker = StreamWorker(stream, executor)  # type: ignore[arg-type]
            calls = [asyncio.ensure_future(worker.push(piece(number))) for number in range(8)]
            await asyncio.sleep(0)
            assert not any(call.done() for call in calls)
            stream.go_on.set()
            return stream.pushed, list(await asyncio.gather(*calls))

    pushed, events = asyncio.run(run())
    assert pushed == list(range(8))
    assert [event for found in events for event in found] == pushed


def test_a_caller_that_is_cancelled_loses_neither_audio_nor_events() -> None:
    async def run() -> tuple[list[int], list[Any]]:
        stream = SlowStream()
        with ThreadPoolExecutor(4) as executor:
            worker = StreamWorker(stream, executor)  # type: ignore[arg-type]
            calls = [asyncio.ensure_future(worker.push(piece(number))) for number in range(2)]
            await asyncio.sleep(0.01)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            assert all(call.cancelled() for call in calls)
            last = asyncio.ensure_future(worker.finish())
            await asyncio.sleep(0.01)
            stream.go_on.set()
            return stream.pushed, list(await last)

    pushed, events = asyncio.run(run())
    assert pushed == [0, 1]
    assert events == [0, 1, -1]


def test_a_piece_that_asks_for_no_answer_does_not_overtake_one_that_does(
    recognizer: EmotionRecognizer, recording: NDArray[np.int16]
) -> None:
    chunks = [recording[start : start + 480] for start in range(0, 64_000, 480)]

    async def run() -> list[Any]:
        worker = StreamWorker(recognizer.stream())
        events = await asyncio.gather(*(worker.push(chunk) for chunk in chunks))
        return [event for found in events for event in found] + await worker.finish()

    stream = recognizer.stream()
    alone = [event for chunk in chunks for event in stream.push(chunk)] + stream.finish()
    assert [_timeless(event) for event in asyncio.run(run())] == [_timeless(event) for event in alone]


def _timeless(event: Any) -> dict[str, object]:
    return {key: value for key, value in event.to_dict().items() if key != "latency_ms"}


def test_what_was_lost_before_it_came_is_dropped(recognizer: EmotionRecognizer) -> None:
    async def run() -> tuple[int, bool]:
        worker = StreamWorker(recognizer.stream())
        await worker.push(np.zeros(8_000, np.float32))
        await worker.lose(1_600)
        await worker.finish()
        return worker.ledger.dropped_samples, worker.ledger.balances

    assert asyncio.run(run()) == (1_600, True)


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("tcp://127.0.0.1:99", Address("127.0.0.1", 99)),
        ("ws://localhost", Address("localhost", 7)),
        ("ws://[::1]:99/", Address("::1", 99)),
        ("tcp://0.0.0.0:0", Address("0.0.0.0", 0)),
        ("unix:///run/edge-ser.sock", Address(path="/run/edge-ser.sock")),
    ],
)
def test_a_uri_names_an_address(uri: str, address: Address) -> None:
    assert Address.parse(uri, 7) == address


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "127.0.0.1:99",
        "http://127.0.0.1",
        "tcp://:99",
        "tcp://h:99999",
        "tcp://h:x",
        "tcp://[::1",
        "tcp://u@h:1",
        "tcp://h:1/x",
        "ws://h?x=1",
        "unix://run/x",
        "unix:///",
    ],
)
def test_what_is_no_uri_is_told(uri: str) -> None:
    with pytest.raises(ConfigError, match="--uri"):
        Address.parse(uri, 7)


@pytest.mark.parametrize(
    ("host", "is_private"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.0.2.1", False),
    ],
)
def test_only_this_machine_reaches_a_private_address(host: str, is_private: bool) -> None:
    assert Address(host, 1).is_private is is_private


def test_a_host_that_does_not_exist_is_told() -> None:
    with pytest.raises(ConfigError, match="--host"):
        _ = Address("no such host", 1).is_private


def test_an_allowance_lets_a_burst_through_and_then_keeps_the_rate() -> None:
    now = [0.0]
    allowance = Allowance(10.0, 5.0, clock=lambda: now[0])
    assert [allowance.take(1) for _ in range(5)] == [0.0] * 5
    assert allowance.take(1) == pytest.approx(0.1)
    now[0] = 0.1
    assert allowance.take(0) == 0.0
    now[0] = 100.0
    assert allowance.take(5) == 0.0 and allowance.take(1) == pytest.approx(0.1)


@pytest.mark.parametrize("url", ["https://Assistant.example", "https://assistant.example/"])
def test_an_origin_is_what_browsers_send(url: str) -> None:
    assert checked_origin(url) == "https://assistant.example"


def test_a_reason_fits_into_a_close_frame() -> None:
    ending = Ending(CloseCode.MALFORMED, "ü" * 200)
    assert ending.short_reason == "ü" * 61


def test_a_token_is_read_without_its_line_end(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("  sixteen-letters!\n", encoding="ascii")
    path.chmod(0o600)
    assert read_token(path) == "sixteen-letters!"


@pytest.mark.parametrize(
    "content", [b"", b"short", b"with a space in it", "ümläute-sind-nicht-gut".encode(), b"x" * 1_030]
)
def test_what_is_no_token_is_told_without_telling_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="make one") as problem:
        read_token(path)
    assert not content or content.decode() not in str(problem.value)


def test_a_token_is_made_as_the_hint_says_and_is_for_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with pytest.raises(ConfigError, match="make one") as problem:
        read_token(path)
    subprocess.run(str(problem.value).partition("make one: ")[2], shell=True, check=True, umask=0o022)
    assert len(read_token(path)) > 16 and path.stat().st_mode & 0o077 == 0


def test_a_token_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing", "pipe", "", "a\0b"):
        with pytest.raises(ConfigError, match="cannot read a token"):
            read_token(f"{tmp_path}/{name}")


def test_a_token_that_others_can_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "token"
    path.write_text("sixteen-letters!", encoding="ascii")
    path.chmod(0o644)
    read_token(path)
    assert "chmod 600" in caplog.text and "sixteen" not in caplog.text
