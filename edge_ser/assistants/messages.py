"""What WebSocket clients say in JSON.

A client begins with `hello`; then come binary frames of raw audio, and among them, at any time, `revise` and, last,
`finish`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from edge_ser.assistants.closing import CloseCode, Refused
from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.errors import ConfigError
from edge_ser.json_object import JsonObject

FORMAT = "s16le"
_REMEDY = 'begin with {"type": "hello", "rate_hz": 16000, "format": "s16le"}'


@dataclass(frozen=True)
class Hello:
    """The first message: who comes, with what audio, and what for."""

    rate_hz: int = SAMPLE_RATE_HZ
    """Hertz of the audio that follows: mono, signed, 16 bits, little-endian."""
    token: str | None = None
    """What the service asks everybody for, if it does."""
    voice: str | None = None
    """Name of a voice that the service keeps and goes on learning; None learns one for this session only."""
    partials: bool = False
    """Whether to answer while the speaker still talks, too."""
    risk: float | None = None
    """Share of wrong answers to accept, in (0, 1)."""
    levels: bool = False
    """Whether to say ten times a second of audio how loud it is."""
    resume: str | None = None
    """The session that a lost connection left."""
    events_seen: int | None = None
    """Events received in that session; later ones are sent again."""
    lost_bytes: int = 0
    """Bytes of its audio that will never come."""


@dataclass(frozen=True)
class Revise:
    """The words of an utterance have arrived."""

    utterance: int
    """Number of the utterance."""
    transcript: str
    """What was said; blank takes the words away."""


@dataclass(frozen=True)
class Finish:
    """There is no more audio."""


Command: TypeAlias = "Revise | Finish"


def read_hello(message: str | bytes) -> Hello:
    """Return the hello that a first message is.

    Raises:
        Refused: It is none.
    """
    if isinstance(message, bytes):
        raise Refused(CloseCode.MALFORMED, f"audio came before the hello; {_REMEDY}")
    try:
        return _hello(JsonObject.parse(message.encode(), "the first message", _REMEDY, ConfigError))
    except ConfigError as problem:
        raise Refused(CloseCode.MALFORMED, str(problem)) from None


def read_command(message: str) -> Command:
    """Return the command that a later message is.

    Raises:
        Refused: It is none.
    """
    remedy = 'send {"type": "revise", "utterance": 1, "transcript": "…"} or {"type": "finish"}'
    try:
        fields = JsonObject.parse(message.encode(), "a message", remedy, ConfigError)
        kind = fields.text("type")
        if kind == "finish":
            _check_keys(fields, {"type"})
            return Finish()
        if kind != "revise":
            fields.fail(f"no message has the type {kind[:20]!r}")
        _check_keys(fields, {"type", "utterance", "transcript"})
        transcript = fields.value("transcript")
        if not isinstance(transcript, str):
            fields.fail("'transcript' is no text")
        return Revise(fields.count("utterance"), transcript)
    except ConfigError as problem:
        raise Refused(CloseCode.MALFORMED, str(problem)) from None


def _hello(fields: JsonObject) -> Hello:
    if fields.plain.get("type") != "hello":
        fields.fail("it is no hello")
    _check_keys(fields, {"type", "format", *Hello.__dataclass_fields__})
    if fields.plain.get("format", FORMAT) != FORMAT:
        fields.fail(f"'format' must be {FORMAT!r}")
    given = {key for key, value in fields.plain.items() if value is not None}
    return Hello(
        rate_hz=fields.count("rate_hz") if "rate_hz" in given else SAMPLE_RATE_HZ,
        token=fields.text("token") if "token" in given else None,
        voice=fields.text("voice") if "voice" in given else None,
        partials=_flag(fields, "partials"),
        risk=fields.number("risk") if "risk" in given else None,
        levels=_flag(fields, "levels"),
        resume=fields.text("resume") if "resume" in given else None,
        events_seen=fields.count("events_seen") if "events_seen" in given else None,
        lost_bytes=fields.count("lost_bytes") if "lost_bytes" in given else 0,
    )


def _flag(fields: JsonObject, key: str) -> bool:
    value = fields.plain.get(key, False)
    if not isinstance(value, bool):
        fields.fail(f"'{key}' is neither true nor false")
    return value


def _check_keys(fields: JsonObject, known: set[str]) -> None:
    for key in fields.plain:
        if key not in known:
            fields.fail(f"there is no key {key[:20]!r}")
