"""Microphones that go away, come back, hang, move and are taken by others: the loop goes on and everything is told."""

from __future__ import annotations

import atexit
import itertools
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_ser import device_keeper as keeper_module
from edge_ser import microphone as microphone_module
from edge_ser.capture_queue import CaptureQueue
from edge_ser.device_keeper import DeviceKeeper, Patience
from edge_ser.errors import AudioDeviceError
from edge_ser.events import DeviceLost, DeviceRestored, Emotion, Overflow, Summary
from edge_ser.microphone import Microphone
from edge_ser.sources import read_samples
from edge_ser.stream import Stream
from edge_ser.testing import write_tiny_bundle
from tests.edge_ser import pulse
from tests.edge_ser.fake_portaudio import (
    CHUNK_SAMPLES,
    DEVICE_UNAVAILABLE,
    WAIT_S,
    FakePortAudio,
    PortAudioError,
    chunk,
    content,
    device,
)
from tests.edge_ser.fakes import FakeRecognizer, ScriptedDetector

ROOT = Path(__file__).parents[2]
HEADSET = "USB Headset Mono"
EAGER = Patience(stall_s=3600.0, check_s=0.002, first_retry_s=0.002, longest_retry_s=0.002)


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakePortAudio:
    fake = FakePortAudio()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr(microphone_module, "_PATIENCE", EAGER)
    monkeypatch.setattr(keeper_module, "_SOUND_CARDS", tmp_path)
    return fake


def next_restored(portaudio: FakePortAudio, items: Iterator[object], number: int) -> list[object]:
    """Deliver a chunk as soon as the device was opened again; return what is heard up to it."""
    portaudio.next_stream().deliver(chunk(number))
    heard = []
    while not heard or heard[-1] != number:
        heard.append(content(next(items)))
    return heard


def without_gap(items: list[object]) -> list[object]:
    return [type(item).__name__ if isinstance(item, DeviceRestored) else item for item in items]


def test_a_device_that_is_pulled_out_and_plugged_in_again_goes_on(portaudio: FakePortAudio) -> None:
    with Microphone("headset") as microphone:
        items = iter(microphone)
        first = portaudio.next_stream()
        first.deliver(chunk(1))
        assert content(next(items)) == 1
        headset = portaudio.unplug(HEADSET)
        assert next(items) == DeviceLost(at_s=0.02, device=HEADSET)
        portaudio.plugged.append(headset)
        lost = portaudio.next_stream()
        assert first.closed
        assert lost.device == HEADSET

        lost.deliver(chunk(2))
        restored = next(items)
        assert isinstance(restored, DeviceRestored)
        assert (restored.at_s, restored.device) == (0.02, HEADSET)
        assert content(next(items)) == 2


def test_audio_that_was_captured_before_the_loss_still_comes_out(portaudio: FakePortAudio) -> None:
    portaudio.works = lambda options: options["samplerate"] == 48_000
    with Microphone("array") as microphone:
        stream = portaudio.next_stream()
        for _ in range(10):
            stream.deliver(chunk(1, 960))
        portaudio.unplug("Array Microphone")
        items = list(itertools.takewhile(lambda item: not isinstance(item, DeviceLost), microphone))
    assert sum(map(len, items)) == 10 * CHUNK_SAMPLES


@pytest.mark.parametrize("wanted", ["headset", 1])
def test_a_device_is_known_by_its_name_when_its_number_changes(portaudio: FakePortAudio, wanted: str | int) -> None:
    with Microphone(wanted) as microphone:
        items = iter(microphone)
        portaudio.next_stream().deliver(chunk(1))
        headset = portaudio.unplug(HEADSET)
        portaudio.plugged.append(headset)

        assert without_gap(next_restored(portaudio, items, 2)) == [1, DeviceLost(0.02, HEADSET), "DeviceRestored", 2]
        assert portaudio.stream.options["device"] == 3
        assert microphone.name == HEADSET


def test_a_device_is_known_when_its_card_has_another_number(portaudio: FakePortAudio) -> None:
    portaudio.plugged.append(device("Studio: USB Audio (hw:1,0)", inputs=1))
    with Microphone("Studio: USB Audio (hw:1,0)") as microphone:
        portaudio.next_stream().deliver(chunk(1))
        portaudio.unplug("Studio: USB Audio (hw:1,0)")
        portaudio.plugged.append(device("Studio: USB Audio (hw:2,0)", inputs=1))
        next_restored(portaudio, iter(microphone), 2)
        assert microphone.name == "Studio: USB Audio (hw:2,0)"


def test_nobody_takes_the_place_of_a_device_that_was_named(portaudio: FakePortAudio) -> None:
    looks = threading.Semaphore(0)
    portaudio.query_hostapis = lambda: looks.release() or [{"name": "ALSA"}]
    with Microphone(1) as microphone:
        portaudio.next_stream().deliver(chunk(1))
        portaudio.unplug(HEADSET)
        portaudio.plugged += [device("Twin", inputs=1), device("Twin", inputs=1)]
        for _ in range(10):
            assert looks.acquire(timeout=WAIT_S)
        microphone.stop()
        assert [content(item) for item in microphone] == [1, DeviceLost(0.02, HEADSET)]
    assert len(portaudio.opened) == 1


def test_a_device_that_another_program_took_is_waited_for(portaudio: FakePortAudio) -> None:
    refusals = iter([True] * 5)
    with Microphone() as microphone:
        stream = portaudio.next_stream()
        stream.deliver(chunk(1))
        portaudio.error = PortAudioError("Device unavailable", DEVICE_UNAVAILABLE)
        portaudio.works = lambda options: not next(refusals, False)
        stream.die()

        assert without_gap(next_restored(portaudio, iter(microphone), 2)) == [
            1, DeviceLost(0.02, HEADSET), "DeviceRestored", 2,
        ]  # fmt: skip
    assert len(portaudio.opened) == 7


def test_a_device_may_come_back_with_another_rate(portaudio: FakePortAudio) -> None:
    with Microphone("array") as microphone:
        items = iter(microphone)
        stream = portaudio.next_stream()
        stream.deliver(chunk(1))
        portaudio.works = lambda options: options["samplerate"] == 48_000 and options["channels"] == 2
        stream.die()
        again = portaudio.next_stream()
        for _ in range(50):
            again.deliver(np.zeros((960, 2)))
        microphone.stop()
        heard = list(items)

    assert microphone.rate_hz == 48_000
    assert sum(len(item) for item in heard if isinstance(item, np.ndarray)) == 51 * CHUNK_SAMPLES


def test_the_default_that_the_program_sets_is_followed(portaudio: FakePortAudio) -> None:
    with Microphone() as microphone:
        portaudio.next_stream().deliver(chunk(1))
        portaudio.default_after_start = 3
        portaudio.default.device = (3, 0)
        heard = next_restored(portaudio, iter(microphone), 2)

    assert heard[1] == DeviceLost(0.02, HEADSET)
    assert heard[2].device == microphone.name == "USB Camera"


def test_a_new_default_is_followed_when_a_sound_card_comes(portaudio: FakePortAudio, tmp_path: Path) -> None:
    with Microphone() as microphone:
        portaudio.next_stream().deliver(chunk(1))
        portaudio.plugged.insert(1, device("Studio", inputs=1))
        (tmp_path / "pcmC1D0c").touch()
        heard = next_restored(portaudio, iter(microphone), 2)

    assert heard[2].device == "Studio"


def test_a_device_that_was_chosen_is_kept_when_the_default_changes(portaudio: FakePortAudio, tmp_path: Path) -> None:
    checks = threading.Semaphore(0)
    with Microphone("headset") as microphone:
        stream = portaudio.next_stream()
        stream.deliver(chunk(1))
        microphone._queue.pause = lambda *_, **__: checks.release()
        portaudio.default.device = (3, 0)
        (tmp_path / "pcmC1D0c").touch()
        for _ in range(10):
            assert checks.acquire(timeout=WAIT_S)
        del microphone._queue.pause
        microphone.stop()
        assert [content(item) for item in microphone] == [1]


def test_without_a_default_any_device_is_the_default(portaudio: FakePortAudio) -> None:
    with Microphone() as microphone:
        portaudio.next_stream().deliver(chunk(1))
        portaudio.unplug(HEADSET)
        portaudio.default_after_start = -1
        heard = next_restored(portaudio, iter(microphone), 2)
    assert heard[2].device == "Array Microphone"


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


class TimedQueue(CaptureQueue):
    """Lets the clock run instead of waiting, and calls a test back at every pause."""

    def __init__(self, clock: Clock, on_pause) -> None:
        super().__init__(capacity_samples=160_000)
        self.pauses_s: list[float] = []
        self._clock = clock
        self._on_pause = on_pause

    def pause(self, timeout_s: float, until=lambda: False) -> None:
        self.pauses_s.append(timeout_s)
        self._clock.now_s += timeout_s
        self._on_pause(self)


def keep(queue: TimedQueue, clock: Clock, **patience: float) -> list[object]:
    """Run a keeper without a thread until a test closes the queue; return what it captured."""
    keeper = DeviceKeeper(None, queue, chunk_ms=20, patience=Patience(**patience), clock=clock)
    keeper._run()
    items = []
    while (item := queue.take()) is not None:
        items.append(content(item))
    return items


def test_the_gap_is_as_long_as_audio_is_missing_and_the_waits_grow_up_to_a_limit(portaudio: FakePortAudio) -> None:
    clock = Clock()

    def on_pause(queue: TimedQueue) -> None:
        if len(queue.pauses_s) == 1:
            portaudio.stream.deliver(chunk(1))
            portaudio.works = lambda options: False
            portaudio.stream.die()
        elif len(queue.pauses_s) == 8:
            portaudio.works = lambda options: True
        elif len(queue.pauses_s) == 9:
            clock.now_s += 0.02
            portaudio.stream.deliver(chunk(2))
            queue.close()

    queue = TimedQueue(clock, on_pause)
    items = keep(queue, clock)

    assert queue.pauses_s == [0.5, 0.0, 0.25, 0.5, 1.0, 2.0, 2.0, 2.0, 0.5]
    gap_s = sum(queue.pauses_s[1:])
    assert items == [1, DeviceLost(0.0, HEADSET), DeviceRestored(0.0, HEADSET, gap_s=gap_s), 2]


def test_the_waits_start_anew_only_after_the_device_was_steady(portaudio: FakePortAudio) -> None:
    clock = Clock()
    recordings_s = iter([0.5, 1.0, 30.0, 1.0])
    waits_s = []

    def on_pause(queue: TimedQueue) -> None:
        if portaudio.stream.closed:
            waits_s.append(queue.pauses_s[-1])
            return
        portaudio.stream.deliver(chunk(1))
        recorded_s = next(recordings_s, None)
        if recorded_s is None:
            queue.close()
            return
        clock.now_s += recorded_s
        portaudio.stream.deliver(chunk(1))
        portaudio.stream.die()

    keep(TimedQueue(clock, on_pause), clock)
    assert waits_s == [0.0, 0.25, 0.0, 0.25]


def test_a_device_that_stops_delivering_is_opened_again_and_lost_only_once(portaudio: FakePortAudio) -> None:
    clock = Clock()

    def on_pause(queue: TimedQueue) -> None:
        if len(queue.pauses_s) == 1:
            portaudio.stream.deliver(chunk(1))
        elif len(portaudio.opened) == 3:
            portaudio.stream.deliver(chunk(2))
            queue.close()

    items = keep(TimedQueue(clock, on_pause), clock, stall_s=3.0)

    first, lost, restored, second = items
    assert (first, lost, second) == (1, DeviceLost(0.0, HEADSET), 2)
    assert restored.gap_s > 6.0
    assert [stream.closed for stream in portaudio.opened] == [True, True, True]


@pytest.mark.parametrize(("dies", "problem"), [(True, "went away before it delivered"), (False, "delivers nothing")])
def test_a_device_that_never_delivered_is_an_error(portaudio: FakePortAudio, dies: bool, problem: str) -> None:
    clock = Clock()
    queue = TimedQueue(clock, lambda queue: portaudio.stream.die() if dies else None)
    with pytest.raises(AudioDeviceError, match=f"{HEADSET} {problem}"):
        keep(queue, clock)
    assert portaudio.stream.closed


def test_what_the_device_lost_without_a_word_is_reported(portaudio: FakePortAudio) -> None:
    clock = Clock()

    def on_pause(queue: TimedQueue) -> None:
        for number in range(1, 301):
            clock.now_s += 1.52 if number == 100 else 0.02
            portaudio.stream.deliver(chunk(number))
        queue.close()

    items = keep(TimedQueue(clock, on_pause), clock)
    assert [item for item in items if isinstance(item, Overflow)] == [Overflow(0.0, 0, estimated_s=1.5)]


def test_stop_ends_a_wait_for_a_lost_device(portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone_module, "_PATIENCE", Patience(first_retry_s=3600.0, longest_retry_s=3600.0))
    with Microphone() as microphone:
        items = iter(microphone)
        portaudio.next_stream().deliver(chunk(1))
        portaudio.works = lambda options: False
        portaudio.unplug(HEADSET)
        assert [content(next(items)), next(items)] == [1, DeviceLost(0.02, HEADSET)]
        timer = threading.Timer(0.05, microphone.stop)
        timer.start()
        assert list(items) == []
        timer.join()


@pytest.mark.parametrize("at_first", [True, False])
def test_a_sound_server_that_hangs_holds_up_neither_stop_nor_the_end_of_the_program(
    portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch, at_first: bool
) -> None:
    hangs, answer, given_up = threading.Event(), threading.Event(), []
    portaudio._exit_handler = lambda: None
    monkeypatch.setattr(microphone_module, "_PATIENCE", Patience(check_s=0.002, close_s=0.05))
    monkeypatch.setattr(atexit, "unregister", given_up.append)

    def hang(options: dict) -> bool:
        hangs.set()
        return answer.wait(WAIT_S)

    microphone = Microphone()
    if not at_first:
        microphone.open()
        portaudio.stream.deliver(chunk(1))
    portaudio.works = hang
    stopper = threading.Thread(target=lambda: hangs.wait(WAIT_S) and microphone.stop())
    stopper.start()
    if not at_first:
        portaudio.stream.die()
    assert [content(item) for item in microphone] == ([] if at_first else [1, DeviceLost(0.02, HEADSET)])
    microphone.close()
    stopper.join()
    assert given_up == [portaudio._exit_handler]

    keeper = microphone._keeper
    answer.set()
    keeper._thread.join(WAIT_S)
    assert all(stream.closed for stream in portaudio.opened)


def test_a_bug_on_the_keepers_thread_reaches_the_owner_of_the_loop(
    portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(capture: object) -> bool:
        raise ZeroDivisionError

    with Microphone() as microphone:
        portaudio.stream.deliver(chunk(1))
        monkeypatch.setattr(microphone._keeper, "_default_moved", broken)
        with pytest.raises(ZeroDivisionError):
            list(microphone)
    assert portaudio.stream.closed


def test_a_microphone_can_be_opened_again(portaudio: FakePortAudio) -> None:
    microphone = Microphone()
    for _ in range(2):
        with microphone:
            portaudio.stream.deliver(chunk(1))
            microphone.stop()
            assert [content(item) for item in microphone] == [1]


def test_a_stream_settles_what_was_said_before_the_loss_and_counts_the_gap(portaudio: FakePortAudio) -> None:
    stream = Stream(FakeRecognizer(), detector=ScriptedDetector())
    with Microphone(queue_s=0.5) as microphone:
        listening = stream.listen(microphone)
        capture = portaudio.next_stream()
        for samples in [np.full(CHUNK_SAMPLES, 0.9)] * 20:
            capture.deliver(samples)
        headset = portaudio.unplug(HEADSET)
        portaudio.plugged.append(headset)
        capture = portaudio.next_stream()
        for samples in [np.full(CHUNK_SAMPLES, 0.9)] * 40:
            capture.deliver(samples)
        microphone.stop()
        events = list(listening)

    summary = events[-1]
    assert isinstance(summary, Summary)
    (restored,) = (event for event in events if isinstance(event, DeviceRestored))
    assert summary.ledger.captured_samples == 60 * CHUNK_SAMPLES
    assert summary.ledger.dropped_samples == 35 * CHUNK_SAMPLES
    assert summary.ledger.device_gap_s == restored.gap_s
    assert summary.ledger.balances
    assert any(isinstance(event, Emotion) for event in events)


@pytest.fixture
def real(tmp_path: Path) -> Iterator[pulse.PulseMicrophone]:
    reason = pulse.missing()
    if reason:
        pytest.skip(reason)
    microphone = pulse.PulseMicrophone(tmp_path)
    yield microphone
    microphone.close()


class Listener:
    """`edge-ser listen` on the private microphone."""

    def __init__(self, real: pulse.PulseMicrophone, model: Path) -> None:
        command = [sys.executable, "-m", "edge_ser", "listen", "--model", str(model), "--format", "jsonl"]
        self.process = subprocess.Popen(command, env=real.environment, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.events: list[dict] = []

    def wait_for(self, kind: str) -> dict:
        """Read events up to the next one of this kind and return it."""
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if self.events[-1]["type"] == kind:
                return self.events[-1]
        raise EOFError(f"no {kind} after {self.events}")

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.mark.microphone
def test_listening_survives_a_sound_server_that_dies_in_the_middle_of_a_word(
    real: pulse.PulseMicrophone, tmp_path: Path
) -> None:
    speech = np.round(read_samples(ROOT / "examples" / "conversation.flac") * 32767).astype(np.int16)
    with Listener(real, write_tiny_bundle(tmp_path / "tiny")) as listener:
        real.wait_for_listener()
        real.play(speech[: round(1.5 * 16_000)])
        real.kill_server()
        cut = listener.wait_for("device_lost")
        real.restart_server()
        real.wait_for_listener()
        real.play(speech[: round(6.8 * 16_000)])
        listener.wait_for("emotion")
        real.kill_server()
        listener.wait_for("device_lost")
        listener.process.send_signal(signal.SIGINT)
        summary = listener.wait_for("summary")
        assert listener.process.wait(WAIT_S) == 0

    before = listener.events[: listener.events.index(cut)]
    assert [event["type"] for event in before] == ["speech_started", "emotion"]
    (restored,) = (event for event in listener.events if event["type"] == "device_restored")
    ledger = summary["ledger"]
    assert restored["gap_s"] == ledger["device_gap_s"] > 0
    parts = ("classified", "silence", "rejected", "dropped")
    assert ledger["captured_samples"] == sum(ledger[f"{part}_samples"] for part in parts)
    assert ledger["classified_samples"] > 16_000


@pytest.mark.microphone
def test_listening_survives_a_sound_server_that_hangs(real: pulse.PulseMicrophone, tmp_path: Path) -> None:
    with Listener(real, write_tiny_bundle(tmp_path / "tiny")) as listener:
        real.wait_for_listener()
        real.play(np.zeros(8_000, np.int16))
        real.stop_answering()
        listener.wait_for("device_lost")
        listener.process.send_signal(signal.SIGINT)
        listener.wait_for("summary")
        assert listener.process.wait(WAIT_S) == 0
