"""The part of sounddevice that the microphone uses, with devices that tests plug in, pull out and break."""

from __future__ import annotations

import queue
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

CHUNK_SAMPLES = 320
DEVICE_UNAVAILABLE = -9985
WAIT_S = 20.0


class PortAudioError(Exception):
    pass


class FakeStream:
    def __init__(self, portaudio: FakePortAudio, options: dict) -> None:
        assert portaudio._initialized, "PortAudio is not started"
        self.options = options
        self.device = portaudio.devices[options["device"]]["name"]
        self.closed = False
        self._portaudio = portaudio
        portaudio.opened.append(self)
        self._adc_s = 100.0

    def start(self) -> None:
        self._portaudio.check(self.options)
        self._portaudio.stream = self
        self._portaudio.started.put(self)

    def deliver(self, samples: NDArray[np.float32], *, overflowed: bool = False, gap_s: float = 0.0) -> None:
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
    """Knows the devices of `plugged` as they were when it was last started, like the real one."""

    PortAudioError = PortAudioError
    _StreamBase = FakeStream

    def __init__(self) -> None:
        self.plugged = [
            device("Speaker", inputs=0),
            device("USB Headset Mono", inputs=1),
            device("Array Microphone", inputs=4, rate_hz=48_000),
            device("USB Camera", inputs=2),
        ]
        self.default = SimpleNamespace(device=(1, 0))
        self.default_after_start = 1
        self.works = lambda options: True
        self.error = PortAudioError("Invalid sample rate", -9997)
        self.stream: FakeStream | None = None
        self.opened: list[FakeStream] = []
        self.started: queue.Queue[FakeStream] = queue.Queue()
        self._initialized = 0
        self.starts = 0
        self._initialize()

    def _initialize(self) -> None:
        self._initialized += 1
        self.starts += 1
        self.devices = list(self.plugged)
        self.default.device = (self.default_after_start, 0)

    def _terminate(self) -> None:
        assert all(stream.closed for stream in self.opened), "an open stream was pulled away"
        self._initialized -= 1

    def query_hostapis(self) -> list[dict]:
        return [{"name": "ALSA"}]

    def query_devices(self) -> list[dict]:
        return self.devices

    def InputStream(self, **options: object) -> FakeStream:
        return FakeStream(self, options)

    def check(self, options: dict) -> None:
        if not self.works(options):
            raise self.error

    def next_stream(self) -> FakeStream:
        """Return the stream that was started first among those not returned yet; wait for it."""
        return self.started.get(timeout=WAIT_S)

    def unplug(self, name: str) -> dict:
        """Take the device away and end its stream, as drivers do; return it."""
        gone = next(found for found in self.plugged if found["name"] == name)
        self.plugged.remove(gone)
        if self.stream is not None and self.stream.device == name:
            self.stream.die()
        return gone


def device(name: str, *, inputs: int, rate_hz: int = 44_100) -> dict:
    return {"name": name, "hostapi": 0, "max_input_channels": inputs, "default_samplerate": float(rate_hz)}


def chunk(number: int, size: int = CHUNK_SAMPLES) -> NDArray[np.float32]:
    return np.full(size, number / 1000, np.float32)


def content(item: object) -> object:
    """The number of a chunk, or the event itself."""
    return round(float(item[0]) * 1000) if isinstance(item, np.ndarray) else item
