"""The devices that record, as PortAudio sees them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edge_ser.errors import AudioDeviceError

LIST_THEM = "See what is there: edge-ser devices"


@dataclass(frozen=True)
class Device:
    """A device that records."""

    index: int
    """PortAudio's number; it can change when devices come and go."""
    name: str
    """PortAudio's name."""
    host: str
    """The system's audio interface, such as ALSA."""
    channels: int
    """The most channels it records."""
    sample_rate_hz: int
    """Hertz; the rate it prefers."""
    is_default: bool
    """True if `Microphone()` takes it."""


def list_devices() -> list[Device]:
    """Return the devices that record, in PortAudio's order.

    Raises:
        AudioDeviceError: PortAudio is missing.
    """
    sounddevice = import_sounddevice()
    with quiet_stderr():
        hosts = [host["name"] for host in sounddevice.query_hostapis()]
        default_index = sounddevice.default.device[0]
        return [
            Device(
                index=index,
                name=found["name"],
                host=hosts[found["hostapi"]],
                channels=found["max_input_channels"],
                sample_rate_hz=round(found["default_samplerate"]),
                is_default=index == default_index,
            )
            for index, found in enumerate(sounddevice.query_devices())
            if found["max_input_channels"] > 0
        ]


def find_device(wanted: str | int | None) -> Device:
    """Return the one device that is meant: by index, by part of its name in any case, or None for the default.

    Raises:
        AudioDeviceError: There is none, or the name fits several.
    """
    devices = list_devices()
    if not devices:
        raise AudioDeviceError("no microphone was found. Plug one in, or read a file: edge-ser listen --input FILE")
    if wanted is None:
        return next((device for device in devices if device.is_default), devices[0])
    if isinstance(wanted, int):
        fitting = [device for device in devices if device.index == wanted]
    else:
        name = wanted.casefold()
        fitting = [device for device in devices if name in device.name.casefold()]
        fitting = [device for device in fitting if name == device.name.casefold()] or fitting
    if len(fitting) == 1:
        return fitting[0]
    problem = f"several microphones fit {wanted!r}" if fitting else f"no microphone fits {wanted!r}"
    names = ", ".join(f"{device.index} {device.name}" for device in fitting or devices)
    raise AudioDeviceError(f"{problem}; there are: {names}. Use the number: edge-ser listen --device N")


def import_sounddevice() -> Any:
    """Return the module sounddevice, which starts PortAudio.

    Raises:
        AudioDeviceError: sounddevice or PortAudio is missing.
    """
    try:
        import sounddevice
    except ImportError as error:
        raise AudioDeviceError("sounddevice is not installed. Install it: pip install sounddevice") from error
    except OSError as error:
        raise AudioDeviceError(
            "the PortAudio library is not installed. Install it: sudo apt install libportaudio2"
        ) from error
    except Exception as error:
        # sounddevice.PortAudioError, which cannot be named: it starts PortAudio while it is imported.
        raise AudioDeviceError(f"PortAudio does not start ({first_line(error)}). Reinstall libportaudio2.") from error
    return sounddevice


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep ALSA and JACK from writing about every device they try; the error that matters is raised."""
    saved = os.dup(2)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    os.close(silent)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def first_line(error: Exception | None) -> str:
    """Return the first line of what an error says."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
