"""Why a connection ends: the close codes of the WebSocket service."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

_LONGEST_REASON_BYTES = 123  # a control frame holds 125, two are the code


class CloseCode(IntEnum):
    """Codes of RFC 6455 below 4000, the service's own above; the last three digits follow HTTP."""

    FINISHED = 1000
    GOING_AWAY = 1001
    TOO_BIG = 1009
    FAULT = 1011
    MALFORMED = 4400
    BAD_TOKEN = 4401
    UNKNOWN_SESSION = 4404
    TIMED_OUT = 4408
    REPLACED = 4409
    SESSION_TOO_LONG = 4410
    TOO_MANY_MESSAGES = 4429
    FULL = 4503


MEANINGS = {
    CloseCode.FINISHED: "the client sent `finish`; the summary was the last message",
    CloseCode.GOING_AWAY: "the service stops; open utterances were answered, the summary was the last message",
    CloseCode.TOO_BIG: "a message was larger than 128 KiB",
    CloseCode.FAULT: "the service failed; its log says how",
    CloseCode.MALFORMED: "a message was no message of this protocol, or hello asked for what there is not",
    CloseCode.BAD_TOKEN: "the token is missing or wrong",
    CloseCode.UNKNOWN_SESSION: "the session to resume is over; connect without `resume`",
    CloseCode.TIMED_OUT: "no hello within 5 s, or no sign of life for 40 s",
    CloseCode.REPLACED: "the session was resumed on another connection",
    CloseCode.SESSION_TOO_LONG: "the session lasted 24 hours; the summary was the last message; connect again",
    CloseCode.TOO_MANY_MESSAGES: "more than 1000 messages a second",
    CloseCode.FULL: "64 clients are being served (`--max-clients`); try later",
}
"""What each code says, with the limits as `serve` sets them."""


@dataclass(frozen=True)
class Ending:
    """How a connection ends."""

    code: CloseCode
    """What the client is told."""
    reason: str
    """The same for a person."""
    is_lost: bool = False
    """True if nobody meant it to end: the session waits to be resumed."""

    @property
    def short_reason(self) -> str:
        """The reason as far as a close frame holds it."""
        return self.reason.encode()[:_LONGEST_REASON_BYTES].decode(errors="ignore")


class Refused(Exception):
    """What a client sent cannot be served; carries the ending."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.ending = Ending(code, reason)
