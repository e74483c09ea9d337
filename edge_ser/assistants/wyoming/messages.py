"""What comes in and goes out over Wyoming, beyond the package's own events."""

from __future__ import annotations

import asyncio

from wyoming.event import Event
from wyoming.info import AsrModel, AsrProgram, Attribution, Info

import edge_ser
from edge_ser.recognizer import EmotionRecognizer

MAX_EVENT_BYTES = 1 << 20
"""Bytes of an event's data or payload; a client that announces more is cut off."""

BROKEN = (OSError, EOFError, AttributeError, KeyError, TypeError, RecursionError)
"""What reading an event raises where the other side has left, or sends what is no event."""


class BoundedReader:
    """A reader that refuses to collect more than an event may hold."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        """Read from `reader`."""
        self._reader = reader

    async def readline(self) -> bytes:
        """Return the next line."""
        return await self._reader.readline()

    async def readexactly(self, size: int) -> bytes:
        """Return the next bytes.

        Raises:
            EOFError: They are too many, or the client has left.
        """
        if not 0 <= size <= MAX_EVENT_BYTES:
            raise EOFError(f"an event of {size} bytes")
        return await self._reader.readexactly(size)


def well_formed(event: Event | None) -> Event | None:
    """Return an event as it is.

    Raises:
        TypeError: Its data is no JSON object.
    """
    if event is not None and not isinstance(event.data, dict):
        raise TypeError("an event without data by name")
    return event


def form_of(event: Event) -> tuple[int, int, int]:
    """Return rate, width and channels; what is no number becomes 0, which nobody takes for audio."""
    values = [event.data.get(name, usual) for name, usual in (("rate", 16_000), ("width", 2), ("channels", 1))]
    rate_hz, width, channels = (value if isinstance(value, int) else 0 for value in values)
    return rate_hz, width, channels


def own_info(recognizer: EmotionRecognizer) -> Event:
    """Return what the service says of itself where it stands before no other."""
    manifest = recognizer.bundle.manifest
    by = Attribution(name="edge-ser", url="")
    heard = f"how speech sounds ({', '.join(recognizer.labels)}); gives no words"
    # Without a language no assistant takes it for a speech-to-text service of its own.
    model = AsrModel(manifest.name, by, True, heard, edge_ser.__version__, languages=[])
    program = AsrProgram("edge-ser", by, True, heard, edge_ser.__version__, models=[model])
    return Info(asr=[program]).event()
