"""The microphone: a fake PortAudio for what hardware rarely does, a real one for what it must do."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st

from edge_ser import microphone as microphone_module
from edge_ser.devices import find_device, list_devices
from edge_ser.errors import AudioDeviceError
from edge_ser.events import Overflow
from edge_ser.microphone import Microphone
from edge_ser.recognizer import load
from edge_ser.testing import write_tiny_bundle
from tests.edge_ser import pulse

CHUNK_SAMPLES = 320


class FakeStream:
    def __init__(self, portaudio: FakePortAudio, options: dict) -> None:
        self.options = options
        self.closed = False
        self._portaudio = portaudio
        portaudio.opened.append(self)
        self._adc_s = 100.0

    def start(self) -> None:
        self._portaudio.check(self.options)
        self._portaudio.stream = self

    def deliver(self, samples: np.ndarray, *, overflowed: bool = False, gap_s: float = 0.0) -> None:
        """Call back as PortAudio does, with a buffer that is overwritten afterwards."""
        self._adc_s += gap_s
        buffer = np.array(samples, np.float32).reshape(-1, self.options["channels"])
        time = SimpleNamespace(inputBufferAdcTime=self._adc_s)
        self.options["callback"](buffer, len(buffer), time, SimpleNamespace(input_overflow=overflowed))
        self._adc_s += len(buffer) / self.options["samplerate"]
        buffer[:] = np.nan

    def die(self) -> None:
        self.options["finished_callback"]()

    def abort(self, ignore_errors: bool = True) -> None:
        self.die()

    def close(self, ignore_errors: bool = True) -> None:
        self.closed = True


class FakePortAudio:
    """The part of sounddevice that the microphone uses."""

    class PortAudioError(Exception):
        pass

    def __init__(self) -> None:
        self.devices = [
            device("Speaker", inputs=0),
            device("USB Headset Mono", inputs=1),
            device("Array Microphone", inputs=4, rate_hz=48_000),
            device("USB Camera", inputs=2),
        ]
        self.default = SimpleNamespace(device=(1, 0))
        self.works = lambda options: True
        self.error = FakePortAudio.PortAudioError("Invalid sample rate", -9997)
        self.stream: FakeStream | None = None
        self.opened: list[FakeStream] = []

    def query_hostapis(self) -> list[dict]:
        return [{"name": "ALSA"}]

    def query_devices(self) -> list[dict]:
        return self.devices

    def InputStream(self, **options: object) -> FakeStream:
        return FakeStream(self, options)

    def check(self, options: dict) -> None:
        if not self.works(options):
            raise self.error


def device(name: str, *, inputs: int, rate_hz: int = 44_100) -> dict:
    return {"name": name, "hostapi": 0, "max_input_channels": inputs, "default_samplerate": float(rate_hz)}


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> FakePortAudio:
    fake = FakePortAudio()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


def chunk(number: int, size: int = CHUNK_SAMPLES) -> np.ndarray:
    return np.full(size, number / 1000, np.float32)


def contents(microphone: Microphone) -> list[object]:
    """The numbers of the chunks in order, and the overflows."""
    return [item if isinstance(item, Overflow) else round(float(item[0]) * 1000) for item in microphone]


def test_chunks_come_out_in_order_and_unchanged(portaudio: FakePortAudio) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 5 * CHUNK_SAMPLES).astype(np.float32)
    with Microphone() as microphone:
        for start in range(0, len(samples), CHUNK_SAMPLES):
            portaudio.stream.deliver(samples[start : start + CHUNK_SAMPLES])
        microphone.stop()
        heard = list(microphone)

    np.testing.assert_array_equal(np.concatenate(heard), samples)
    assert portaudio.stream.closed


def test_a_slow_consumer_loses_the_oldest_and_hears_of_it_in_its_place(portaudio: FakePortAudio) -> None:
    with Microphone(queue_s=0.06) as microphone:
        items = iter(microphone)
        for number in (1, 2):
            portaudio.stream.deliver(chunk(number))
        first = next(items)
        for number in (3, 4, 5, 6):
            portaudio.stream.deliver(chunk(number))
        microphone.stop()
        rest = [item if isinstance(item, Overflow) else round(float(item[0]) * 1000) for item in items]

    assert first[0] == np.float32(0.001)
    assert rest == [Overflow(at_s=0.02, dropped_samples=2 * CHUNK_SAMPLES), 4, 5, 6]


def take_samples(queue: microphone_module._CaptureQueue, captured: np.ndarray, position: int) -> int:
    """Take one item that must continue `captured` at `position`; return where the next one continues."""
    item = queue.take(timeout_s=0.0)
    if not isinstance(item, np.ndarray):
        return position + item.dropped_frames
    np.testing.assert_array_equal(item, captured[position : position + len(item)])
    return position + len(item)


@given(steps=st.lists(st.one_of(st.just("take"), st.integers(1, 700)), max_size=60))
def test_every_captured_sample_is_delivered_or_counted_as_dropped(steps: list) -> None:
    queue = microphone_module._CaptureQueue(capacity_frames=1_000)
    captured = np.arange(700 * 60, dtype=np.float32)
    put = taken = 0
    for step in steps:
        if step != "take":
            queue.put(captured[put : put + step])
            put += step
        elif taken < put:
            taken = take_samples(queue, captured, taken)
    queue.close()
    while taken < put:
        taken = take_samples(queue, captured, taken)

    assert taken == put
    assert queue.take(timeout_s=0.0) is None


def test_the_devices_own_overflow_is_reported_where_it_happened(portaudio: FakePortAudio) -> None:
    with Microphone() as microphone:
        portaudio.stream.deliver(chunk(1))
        portaudio.stream.deliver(chunk(2), overflowed=True, gap_s=0.25)
        microphone.stop()
        heard = contents(microphone)

    assert heard == [1, Overflow(at_s=0.02, dropped_samples=0, estimated_s=0.25), 2]


def test_a_device_without_16_khz_is_resampled(portaudio: FakePortAudio) -> None:
    portaudio.works = lambda options: options["samplerate"] == 48_000 and options["channels"] == 4
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (48_000, 4)).astype(np.float32)
    with Microphone("array") as microphone:
        for start in range(0, len(samples), 960):
            portaudio.stream.deliver(samples[start : start + 960])
        microphone.stop()
        heard = np.concatenate(list(microphone))

    assert microphone.rate_hz == 48_000
    whole = soxr.resample(samples.mean(axis=1, dtype=np.float32), 48_000, 16_000)
    np.testing.assert_allclose(heard, whole, atol=1e-5)


def test_dropped_samples_are_counted_at_16_khz(portaudio: FakePortAudio) -> None:
    portaudio.works = lambda options: options["samplerate"] == 48_000
    with Microphone("array", queue_s=0.5) as microphone:
        for _ in range(100):
            portaudio.stream.deliver(chunk(1, 960))
        microphone.stop()
        items = list(microphone)

    dropped = sum(item.dropped_samples for item in items if isinstance(item, Overflow))
    delivered = sum(len(item) for item in items if not isinstance(item, Overflow))
    assert dropped == 75 * CHUNK_SAMPLES
    assert delivered == 25 * CHUNK_SAMPLES


def test_stop_ends_an_iteration_that_waits(portaudio: FakePortAudio) -> None:
    with Microphone() as microphone:
        timer = threading.Timer(0.05, microphone.stop)
        timer.start()
        assert list(microphone) == []
        timer.join()


class ClosesBeforeItWaits(threading.Condition):
    """A signal handler closes the queue when its own thread is about to wait, and so wakes nobody."""

    def wait(self, timeout: float | None = None) -> bool:
        self.queue.close()
        return super().wait(timeout)


def test_a_close_just_before_the_wait_is_not_lost() -> None:
    queue = microphone_module._CaptureQueue(capacity_frames=1_000)
    queue._changed = ClosesBeforeItWaits(threading.RLock())
    queue._changed.queue = queue
    assert queue.take(timeout_s=0.01) is None

    queue = microphone_module._CaptureQueue(capacity_frames=1_000)
    queue._changed = ClosesBeforeItWaits(threading.RLock())
    queue._changed.queue = queue
    began_s = time.monotonic()
    assert queue.take(timeout_s=60.0) is None
    assert time.monotonic() - began_s < 10


def test_after_stop_nothing_more_is_recorded(portaudio: FakePortAudio) -> None:
    with Microphone() as microphone:
        portaudio.stream.deliver(chunk(1))
        microphone.stop()
        portaudio.stream.deliver(chunk(2))
        assert contents(microphone) == [1]


def test_a_device_that_dies_yields_what_it_captured_and_then_an_error(portaudio: FakePortAudio) -> None:
    heard = []
    with Microphone() as microphone:
        portaudio.stream.deliver(chunk(1))
        portaudio.stream.die()
        with pytest.raises(AudioDeviceError, match="went away"):
            heard.extend(microphone)
    assert len(heard) == 1


def test_a_device_that_falls_silent_is_an_error(portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone_module, "STALL_S", 0.01)
    with Microphone() as microphone, pytest.raises(AudioDeviceError, match="delivered nothing"):
        next(iter(microphone))


def test_closing_twice_is_fine(portaudio: FakePortAudio) -> None:
    microphone = Microphone().open()
    stream = portaudio.stream
    microphone.close()
    microphone.close()
    assert stream.closed


def test_devices_that_record_are_listed(portaudio: FakePortAudio) -> None:
    devices = list_devices()

    assert [(d.index, d.name, d.channels, d.sample_rate_hz) for d in devices] == [
        (1, "USB Headset Mono", 1, 44_100),
        (2, "Array Microphone", 4, 48_000),
        (3, "USB Camera", 2, 44_100),
    ]
    assert [d.is_default for d in devices] == [True, False, False]


@pytest.mark.parametrize(
    ("wanted", "name"), [(None, "USB Headset Mono"), (3, "USB Camera"), ("ARRAY", "Array Microphone")]
)
def test_a_device_is_found_by_number_or_by_part_of_its_name(
    portaudio: FakePortAudio, wanted: str | int | None, name: str
) -> None:
    assert find_device(wanted).name == name


def test_an_exact_name_wins_over_names_that_contain_it(portaudio: FakePortAudio) -> None:
    portaudio.devices.append(device("usb", inputs=1))
    assert find_device("USB").name == "usb"


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [("phone line", "no microphone fits 'phone line'; there are: 1 USB Headset Mono, 2 Array"), (0, "fits 0"),
     ("usb", "several microphones fit 'usb'; there are: 1 USB Headset Mono, 3 USB Camera")],
)  # fmt: skip
def test_a_wrong_name_lists_what_is_there(portaudio: FakePortAudio, wanted: str | int, problem: str) -> None:
    with pytest.raises(AudioDeviceError, match=problem):
        Microphone(wanted).open()


def test_no_microphone_at_all_says_so(portaudio: FakePortAudio) -> None:
    portaudio.devices = portaudio.devices[:1]
    with pytest.raises(AudioDeviceError, match="no microphone was found"):
        Microphone().open()


def test_a_device_in_use_says_so(portaudio: FakePortAudio) -> None:
    portaudio.works = lambda options: False
    portaudio.error = FakePortAudio.PortAudioError("Error opening InputStream: Device unavailable", -9985)
    with pytest.raises(AudioDeviceError, match="USB Headset Mono is in use"):
        Microphone().open()


def test_a_device_that_cannot_be_opened_gives_the_reason(portaudio: FakePortAudio) -> None:
    portaudio.works = lambda options: False
    with pytest.raises(AudioDeviceError, match="Invalid sample rate"):
        Microphone().open()
    assert len(portaudio.opened) == 2
    assert all(stream.closed for stream in portaudio.opened)


def test_a_stream_that_does_not_start_is_closed_before_the_next_is_opened(portaudio: FakePortAudio) -> None:
    def works(options: dict) -> bool:
        assert all(stream.closed for stream in portaudio.opened[:-1])
        return options["samplerate"] == 44_100

    portaudio.works = works
    with Microphone() as microphone:
        assert microphone.rate_hz == 44_100
    assert len(portaudio.opened) == 2


@pytest.mark.parametrize(("error", "cure"), [(ImportError(), "pip install"), (OSError(), "apt install libportaudio2")])
def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, error: Exception, cure: str) -> None:
    class Broken:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "sounddevice":
                raise error

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(AudioDeviceError, match=cure):
        list_devices()


RECORD = """
import sys, numpy as np
from edge_ser.microphone import Microphone
from edge_ser.recognizer import load
from edge_ser.testing import write_tiny_bundle
wanted = int(sys.argv[1])
blocks = []
with Microphone() as microphone:
    for item in microphone:
        blocks.append(item)
        heard = np.concatenate(blocks)
        if np.count_nonzero(heard) and len(np.trim_zeros(heard, "f")) > wanted:
            microphone.stop()
np.save(sys.argv[2], heard)
"""


@pytest.fixture
def real(tmp_path: Path):
    reason = pulse.missing()
    if reason:
        pytest.skip(reason)
    microphone = pulse.PulseMicrophone(tmp_path)
    yield microphone
    microphone.close()


@pytest.mark.microphone
def test_portaudio_delivers_every_sample(real: pulse.PulseMicrophone, tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-32768, 32768, 40_000, dtype=np.int16)
    samples[0] = 1
    recording = tmp_path / "heard.npy"
    listener = subprocess.Popen([sys.executable, "-c", RECORD, str(len(samples)), str(recording)], env=real.environment)
    real.wait_for_listener()
    real.play(samples)

    assert listener.wait(30) == 0
    heard = np.trim_zeros(np.load(recording), "f")[: len(samples)]
    np.testing.assert_array_equal(heard, samples / np.float32(32768))


@pytest.mark.microphone
def test_a_sound_server_that_dies_is_an_error_and_no_hang(real: pulse.PulseMicrophone, tmp_path: Path) -> None:
    listener = subprocess.Popen(
        [sys.executable, "-c", RECORD, "16000", str(tmp_path / "heard.npy")],
        env=real.environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    real.wait_for_listener()
    real.kill_server()

    _, messages = listener.communicate(timeout=30)
    assert listener.returncode == 1
    assert "edge_ser.errors.AudioDeviceError: the microphone" in messages


def test_a_stream_accounts_for_what_the_microphone_dropped(portaudio: FakePortAudio, tmp_path: Path) -> None:
    stream = load(write_tiny_bundle(tmp_path / "tiny")).stream()
    with Microphone(queue_s=0.5) as microphone:
        for _ in range(50):
            portaudio.stream.deliver(chunk(1))
        microphone.stop()
        overflow, summary = stream.listen(microphone)

    assert overflow == Overflow(at_s=0.0, dropped_samples=25 * CHUNK_SAMPLES)
    assert summary.ledger.dropped_samples == 25 * CHUNK_SAMPLES
    assert summary.ledger.captured_samples == 50 * CHUNK_SAMPLES
    assert summary.ledger.balances
