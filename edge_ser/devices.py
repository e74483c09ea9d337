"""The devices that record, as PortAudio sees them."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edge_ser.errors import AudioDeviceError

LIST_THEM = "See what is there: edge-ser devices"

PORTAUDIO = threading.RLock()
"""Held around every call that opens, closes or lists: PortAudio allows one at a time, and so does `quiet_stderr`."""

_MOVED_BY_THE_SYSTEM = frozenset({"default", "pipewire", "pulse"})
_ALSA_CARD = re.compile(r" \(hw:\d+,\d+\)$")


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

    @property
    def is_moved_by_the_system(self) -> bool:
        """True if the name stands for whatever microphone the sound server has chosen."""
        return self.host == "ALSA" and self.name in _MOVED_BY_THE_SYSTEM


def list_devices() -> list[Device]:
    """Return the devices that record, in PortAudio's order.

    Raises:
        AudioDeviceError: PortAudio is missing, or answers with an error.
    """
    sounddevice = import_sounddevice()
    default = default_index()
    with PORTAUDIO, quiet_stderr():
        try:
            hosts = [host["name"] for host in sounddevice.query_hostapis()]
            found_devices = sounddevice.query_devices()
        except sounddevice.PortAudioError as error:
            raise AudioDeviceError(
                f"PortAudio lists no devices ({first_line(error)}). Type: edge-ser doctor"
            ) from error
        return [
            Device(
                index=index,
                name=found["name"],
                host=hosts[found["hostapi"]],
                channels=found["max_input_channels"],
                sample_rate_hz=round(found["default_samplerate"]),
                is_default=index == default,
            )
            for index, found in enumerate(found_devices)
            if found["max_input_channels"] > 0
        ]


def default_index() -> int | str:
    """Return PortAudio's number of the default device, -1 if there is none; or what the program has set instead.

    Raises:
        AudioDeviceError: PortAudio is missing.
    """
    sounddevice = import_sounddevice()
    with PORTAUDIO:
        index: int | str = sounddevice.default.device[0]
        return index


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
    fitting = _fitting(devices, wanted)
    if len(fitting) == 1:
        return fitting[0]
    problem = f"several microphones fit {wanted!r}" if fitting else f"no microphone fits {wanted!r}"
    names = ", ".join(f"{device.index} {device.name}" for device in fitting or devices)
    raise AudioDeviceError(f"{problem}; there are: {names}. Use the number: edge-ser listen --device N")


def find_again(wanted: str | int | None, before: Device) -> Device:
    """Return the device that was open as `before`, wherever it is now; for None, the default of now.

    A number is not trusted: after a device came or went it may mean another one.

    Raises:
        AudioDeviceError: It is not there.
    """
    if wanted is None:
        return find_device(None)
    there = [device for device in list_devices() if device.host == before.host]
    same = [device for device in there if device.name == before.name]
    # The card may have another number, and ALSA's names hold it.
    same = same or [device for device in there if _without_card(device.name) == _without_card(before.name)]
    if not same and isinstance(wanted, str):
        same = _fitting(there, wanted)
    if len(same) == 1:
        return same[0]
    problem = f"several microphones are called {before.name}" if same else f"{before.name} is not there"
    raise AudioDeviceError(f"{problem}. {LIST_THEM}")


def look_again() -> bool:
    """Make PortAudio look for devices again, which it otherwise does only once; return whether it did.

    It does not while a stream of this process is open, a host's own included, since looking again would end it.

    Raises:
        AudioDeviceError: PortAudio is missing, or it does not start again.
    """
    sounddevice = import_sounddevice()
    if not all(hasattr(sounddevice, name) for name in ("_StreamBase", "_initialize", "_initialized", "_terminate")):
        return False  # they are sounddevice's own, and may be gone in a later version
    with PORTAUDIO, quiet_stderr():
        # Not isinstance, which asks the objects themselves, and strangers may answer with anything.
        streams = (held for held in gc.get_objects() if issubclass(type(held), sounddevice._StreamBase))
        if any(not stream.closed for stream in streams):
            return False
        try:
            while sounddevice._initialized:
                sounddevice._terminate()
            sounddevice._initialize()
        except sounddevice.PortAudioError as error:
            raise AudioDeviceError(f"PortAudio does not start ({first_line(error)}). {LIST_THEM}") from error
        return True


def abandon_portaudio() -> None:
    """Let the process exit although a call to PortAudio never came back: it would wait for that call for ever."""
    exit_handler = getattr(import_sounddevice(), "_exit_handler", None)
    if exit_handler is not None:
        atexit.unregister(exit_handler)


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
    try:
        saved = os.dup(2)
    except OSError:  # there is no stderr to write to
        yield
        return
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


def _fitting(devices: list[Device], wanted: str | int) -> list[Device]:
    if isinstance(wanted, int):
        return [device for device in devices if device.index == wanted]
    name = wanted.casefold()
    fitting = [device for device in devices if name in device.name.casefold()]
    return [device for device in fitting if name == device.name.casefold()] or fitting


def _without_card(name: str) -> str:
    return _ALSA_CARD.sub("", name)
