"""The microphone: a fake PortAudio for what hardware rarely does, a real one for what it must do."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soxr

from edge_ser.devices import find_device, list_devices
from edge_ser.errors import AudioDeviceError
from edge_ser.events import Overflow
from edge_ser.microphone import Microphone
from edge_ser.recognizer import load
from edge_ser.testing import write_tiny_bundle
from tests.edge_ser import pulse
from tests.edge_ser.fake_portaudio import (
    CHUNK_SAMPLES,
    DEVICE_UNAVAILABLE,
    FakePortAudio,
    PortAudioError,
    chunk,
    content,
    device,
)


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> FakePortAudio:
    fake = FakePortAudio()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


def contents(microphone: Microphone) -> list[object]:
    """The numbers of the chunks in order, and the events."""
    return [content(item) for item in microphone]


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
        rest = [content(item) for item in items]

    assert first[0] == np.float32(0.001)
    assert rest == [Overflow(at_s=0.02, dropped_samples=2 * CHUNK_SAMPLES), 4, 5, 6]


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
    assert dropped + delivered == 100 * CHUNK_SAMPLES
    assert 7_000 < delivered < 10_000


def test_stop_ends_an_iteration_that_waits(portaudio: FakePortAudio) -> None:
    with Microphone() as microphone:
        timer = threading.Timer(0.05, microphone.stop)
        timer.start()
        assert list(microphone) == []
        timer.join()


def test_after_stop_nothing_more_is_recorded(portaudio: FakePortAudio) -> None:
    with Microphone() as microphone:
        portaudio.stream.deliver(chunk(1))
        microphone.stop()
        portaudio.stream.deliver(chunk(2))
        assert contents(microphone) == [1]


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
    portaudio.plugged = portaudio.devices = portaudio.devices[:1]
    with pytest.raises(AudioDeviceError, match="no microphone was found"):
        Microphone().open()


def test_a_device_in_use_says_so(portaudio: FakePortAudio) -> None:
    portaudio.works = lambda options: False
    portaudio.error = PortAudioError("Error opening InputStream: Device unavailable", DEVICE_UNAVAILABLE)
    with pytest.raises(AudioDeviceError, match="USB Headset Mono is in use"):
        Microphone().open()


def test_a_device_that_cannot_be_opened_gives_the_reason(portaudio: FakePortAudio) -> None:
    portaudio.works = lambda options: False
    with pytest.raises(AudioDeviceError, match="Invalid sample rate"):
        Microphone().open()
    assert all(stream.closed for stream in portaudio.opened)


@pytest.mark.parametrize(("rate_hz", "channels"), [(44_100, 4), (48_000, 2), (8_000, 1), (96_000, 4)])
def test_the_rate_and_channels_that_a_device_takes_are_found(
    portaudio: FakePortAudio, rate_hz: int, channels: int
) -> None:
    portaudio.works = lambda options: (options["samplerate"], options["channels"]) == (rate_hz, channels)
    with Microphone("array") as microphone:
        assert microphone.rate_hz == rate_hz
        for _ in range(50):
            portaudio.stream.deliver(np.zeros((rate_hz // 50, channels)))
        microphone.stop()
        assert sum(map(len, microphone)) == 16_000


def test_a_device_plugged_in_after_portaudio_started_is_found(portaudio: FakePortAudio) -> None:
    portaudio.plugged.append(device("Studio", inputs=1))
    with Microphone("studio") as microphone:
        assert microphone.name == "Studio"


def test_portaudio_does_not_look_again_while_the_program_uses_it(portaudio: FakePortAudio) -> None:
    with Microphone("array"):
        portaudio.plugged.append(device("Studio", inputs=1))
        with pytest.raises(AudioDeviceError, match="no microphone fits 'studio'"):
            Microphone("studio").open()
    assert portaudio.starts == 1


def test_a_block_that_is_no_audio_is_counted_as_dropped(portaudio: FakePortAudio) -> None:
    with Microphone() as microphone:
        for samples in (chunk(1), np.full(CHUNK_SAMPLES, np.nan), chunk(2)):
            portaudio.stream.deliver(samples)
        microphone.stop()
        assert contents(microphone) == [1, Overflow(at_s=0.02, dropped_samples=CHUNK_SAMPLES), 2]


def test_devices_are_listed_without_a_stderr(portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_file(descriptor: int) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(os, "dup", no_such_file)
    assert len(list_devices()) == 3


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
def test_the_default_of_the_sound_server_is_followed(real: pulse.PulseMicrophone, tmp_path: Path) -> None:
    recording = tmp_path / "heard.npy"
    listener = subprocess.Popen([sys.executable, "-c", RECORD, "8000", str(recording)], env=real.environment)
    real.wait_for_listener()
    real.control("load-module", "module-sine-source", "source_name=sine")
    real.control("set-default-source", "sine")

    assert listener.wait(30) == 0
    assert np.abs(np.load(recording)).max() > 0.1


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
