"""What one client may ask of the WebSocket service."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of the service; beyond each the client is slowed down or its connection closed with a code of its own."""

    max_clients: int = 64
    """Sessions at the same time, those that wait to be resumed included."""
    max_waiting: int = 256
    """Connections at the same time beyond `max_clients`: before their hello, for the page, or on their way out."""
    max_message_bytes: int = 1 << 17
    """Bytes of a message; four seconds of audio at 16 kHz."""
    max_session_s: float = 86_400.0
    """Seconds."""
    handshake_s: float = 5.0
    """Seconds that the HTTP request may take."""
    hello_s: float = 5.0
    """Seconds from there to the hello."""
    ping_s: float = 20.0
    """Seconds between two pings, and to wait for the answer."""
    resume_s: float = 30.0
    """Seconds that a lost session waits; 0 ends it at once."""
    close_s: float = 3.0
    """Seconds to tell a client the end."""
    max_speed: float = 4.0
    """Audio is taken so many times faster than real time; a faster client has to wait."""
    burst_s: float = 30.0
    """Seconds of audio that are taken as fast as they come before that holds."""
    max_messages_per_s: float = 1000.0
    """Messages a second, in the long run."""
    burst_messages: float = 5000.0
    """Messages that may come at once."""


class Allowance:
    """A bucket that fills at a constant rate, and what is taken from it."""

    def __init__(self, rate_per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with a full bucket.

        Args:
            rate_per_s: What flows in, a second.
            burst: What it holds.
            clock: Seconds from any zero.
        """
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._clock = clock
        self._level = burst
        self._at_s = clock()

    def take(self, amount: float) -> float:
        """Take something out, even what is not there yet, and return the seconds until it will be: 0 if it is."""
        now_s = self._clock()
        self._level = min(self._burst, self._level + self._rate_per_s * (now_s - self._at_s)) - amount
        self._at_s = now_s
        return max(0.0, -self._level / self._rate_per_s)
