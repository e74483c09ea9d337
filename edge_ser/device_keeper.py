"""Keeps a microphone's device recording: notices that it is gone, and brings it back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_ser.capture import Capture, open_capture
from edge_ser.capture_queue import CaptureQueue
from edge_ser.devices import (
    LIST_THEM,
    Device,
    abandon_portaudio,
    default_index,
    find_again,
    find_device,
    look_again,
)
from edge_ser.errors import AudioDeviceError
from edge_ser.events import DeviceLost, DeviceRestored

_SOUND_CARDS = Path("/dev/snd")

_log = logging.getLogger("edge_ser")


@dataclass(frozen=True)
class Patience:
    """How long the keeper waits for what."""

    stall_s: float = 3.0
    """Seconds without audio after which a device counts as lost."""
    check_s: float = 0.5
    """Seconds between two looks at the device."""
    first_retry_s: float = 0.25
    """Seconds after the first attempt to open it again has failed; each further wait is twice as long ..."""
    longest_retry_s: float = 2.0
    """... and no longer than this."""
    steady_s: float = 5.0
    """Seconds of recording after which the waits start again from the shortest."""
    close_s: float = 2.0
    """Seconds that PortAudio may take to give the device back."""


class DeviceKeeper:
    """Makes all calls to PortAudio on a thread of its own, so that a sound server that hangs holds up nobody else."""

    def __init__(
        self,
        wanted: str | int | None,
        queue: CaptureQueue,
        *,
        chunk_ms: int,
        patience: Patience,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; `start` opens the device.

        Args:
            wanted: Index, or part of a name in any case; None is the system's default, followed when it changes.
            queue: Takes the audio, and what happens to the device. Closing it ends the thread.
            chunk_ms: Milliseconds of audio in a block.
            patience: How long to wait for what.
            clock: Monotonic seconds.
        """
        self._wanted = wanted
        self._queue = queue
        self._chunk_ms = chunk_ms
        self._patience = patience
        self._clock = clock
        self._capture: Capture | None = None
        self._lost_s: float | None = None
        self._default_index: int | str | None = None
        self._cards: frozenset[str] = frozenset()
        self._cards_seen = self._cards
        self._wait_s = 0.0
        self._error: BaseException | None = None
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edge-ser microphone", daemon=True)

    @property
    def capture(self) -> Capture | None:
        """The device that records, or the last one that did; None before the first was opened."""
        return self._capture

    def start(self) -> None:
        """Open the device and keep it; return when it records or the queue was closed.

        Raises:
            AudioDeviceError: PortAudio or the device is missing, or the device is in use.
        """
        self._thread.start()
        # In short pieces, so that Ctrl-C and `stop` are heard while PortAudio hangs.
        while not (self._settled.wait(0.1) or self._queue.closed):
            pass
        if self._capture is None and self._error is not None:
            raise self._error

    def join(self) -> None:
        """Wait until the device is given back; the queue is closed before."""
        self._thread.join(self._patience.close_s)
        if self._thread.is_alive():
            abandon_portaudio()

    def _run(self) -> None:
        try:
            self._capture = capture = self._open_first()
            self._settled.set()
            while self._is_lost(capture) and (replaced := self._replace(capture)) is not None:
                self._capture = capture = replaced
        except BaseException as error:  # it belongs to the thread that takes from the queue
            self._error = error
            self._queue.close(error)
        finally:
            self._settled.set()
            if self._capture is not None:
                self._capture.close()

    def _open_first(self) -> Capture:
        try:
            return self._open(find_device(self._wanted))
        except AudioDeviceError:
            # The device may have come, or another have gone, since PortAudio last looked.
            if not look_again():
                raise
            return self._open(find_device(self._wanted))

    def _open(self, device: Device) -> Capture:
        self._default_index = default_index()
        self._cards = self._cards_seen = _sound_cards()
        return open_capture(
            device, self._queue, chunk_ms=self._chunk_ms, clock=self._clock, on_first_audio=self._on_first_audio
        )

    def _on_first_audio(self, capture: Capture, began_s: float) -> None:
        # On PortAudio's thread, which may be ahead of this one: who hears the audio shall see its device.
        self._capture = capture
        if self._lost_s is not None:
            gap_s = max(0.0, began_s - self._lost_s)
            self._queue.put(DeviceRestored(0.0, capture.device.name, round(gap_s, 3)))

    def _is_lost(self, capture: Capture) -> bool:
        """Wait until the device is lost, or until the microphone is stopped: False."""
        while not self._queue.closed:
            if capture.ended or capture.silent_s() > self._patience.stall_s or self._default_moved(capture):
                return True
            self._queue.pause(self._patience.check_s, until=lambda: capture.ended)
        return False

    def _default_moved(self, capture: Capture) -> bool:
        if self._wanted is not None or capture.last_audio_s is None:
            return False
        if default_index() != self._default_index:
            return True
        # PortAudio learns of another default only by a new look, for which the device must be closed. That is done when
        # a sound card came or went, seen twice, so that whoever sets the permissions of a new card has done so.
        cards, before = _sound_cards(), self._cards_seen
        self._cards_seen = cards
        return not capture.device.is_moved_by_the_system and cards == before and cards != self._cards

    def _replace(self, capture: Capture) -> Capture | None:
        """Report the loss and return another capture of the device; None if the microphone was stopped first."""
        rest = capture.detach()
        if capture.last_audio_s is not None:
            self._lost_s = capture.last_audio_s
            if len(rest):
                self._queue.put(rest)
            self._queue.put(DeviceLost(0.0, capture.device.name))
            if capture.last_audio_s - capture.started_s >= self._patience.steady_s:
                self._wait_s = 0.0
        elif self._lost_s is None:
            what = "went away before it delivered anything" if capture.ended else "delivers nothing"
            raise AudioDeviceError(f"{capture.device.name} {what}. Plug it in again, or {LIST_THEM.lower()}")
        capture.close()
        return self._retry(capture.device)

    def _retry(self, before: Device) -> Capture | None:
        while True:
            self._queue.pause(self._wait_s)
            if self._queue.closed:
                return None
            self._wait_s = min(max(2 * self._wait_s, self._patience.first_retry_s), self._patience.longest_retry_s)
            try:
                look_again()
                return self._open(find_again(self._wanted, before))
            except (AudioDeviceError, OSError) as error:
                _log.debug("%s is still away: %s", before.name, error)


def _sound_cards() -> frozenset[str]:
    """Return the recording devices of Linux; nothing elsewhere."""
    return frozenset(path.name for path in _SOUND_CARDS.glob("pcm*c"))
