"""What a stream says: one frozen dataclass per event, each with its JSON form.

`events.schema.json` beside this file is the published schema; every emitted line validates against it.
Times are seconds from the start of the stream, on the clock of the captured samples.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

from edge_ser.ledger import AudioLedger


@dataclass(frozen=True)
class _Event:
    def to_dict(self) -> dict[str, object]:
        """Return the event as plain data, the key `type` first."""
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()
        plain = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return {"type": name, **plain}

    def to_json(self) -> str:
        """Return the event as one line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, AudioLedger):
        return value.to_dict()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return list(value)
    return value


@dataclass(frozen=True)
class SpeechStarted(_Event):
    """Somebody began to speak."""

    utterance: int
    """Number of the utterance, from 1; the `Emotion` or `Rejected` that follows carries the same."""
    start_s: float
    """Seconds; where the utterance starts, pre-roll included."""


@dataclass(frozen=True)
class Emotion(_Event):
    """How one utterance was said."""

    utterance: int
    """Number of the utterance, from 1."""
    start_s: float
    """Seconds; pre-roll included."""
    end_s: float
    """Seconds; the short tail after the last speech included. Of an early answer: where what it heard ends."""
    emotion: str
    """The likeliest label."""
    confidence: float
    """Calibrated probability of `emotion`, in [0, 1]."""
    probabilities: Mapping[str, float]
    """Calibrated probability of every label of the model; they sum to 1."""
    uncertain: bool
    """True if the answer should not be acted on at the chosen risk."""
    candidates: tuple[str, ...]
    """The labels that cannot be ruled out at the chosen risk, likeliest first. One alone in an uncertain answer: the
    model would be certain of it, but no detector was sure that this is speech."""
    attributes: Mapping[str, float] | None
    """Arousal, valence and dominance in [0, 1], or None where the model has none."""
    model: str
    """Name of the bundle that answered."""
    latency_ms: float
    """Milliseconds of work from samples to answer, without speech detection."""
    text_used: bool
    """True if a transcript was fused in."""
    voice_utterances: int
    """How many earlier utterances of this voice were used."""
    final: bool = True
    """False for an early answer while the speaker still talks."""
    revision: int = 0
    """Counts the answers for this utterance; a later one replaces the earlier."""


@dataclass(frozen=True)
class Rejected(_Event):
    """Sound that was cut out as an utterance but cannot be judged."""

    utterance: int
    """Number of the utterance, from 1."""
    start_s: float
    """Seconds; pre-roll included."""
    end_s: float
    """Seconds."""
    reason: str
    """`too_short`, `too_quiet`, `clipped`, or `not_speech`: neither the detector is sure of speech nor the model."""


@dataclass(frozen=True)
class Overflow(_Event):
    """Audio was lost before it reached the stream."""

    at_s: float
    """Seconds; where the gap is."""
    dropped_samples: int
    """Samples at 16 kHz that were dropped; 0 where nobody could count them."""
    estimated_s: float = 0.0
    """Seconds that the device itself says it lost, uncounted."""


@dataclass(frozen=True)
class DeviceLost(_Event):
    """The microphone went away."""

    at_s: float
    """Seconds."""
    device: str
    """Name of the device."""


@dataclass(frozen=True)
class DeviceRestored(_Event):
    """The microphone is back."""

    at_s: float
    """Seconds."""
    device: str
    """Name of the device."""
    gap_s: float
    """Seconds without it."""


@dataclass(frozen=True)
class Summary(_Event):
    """The last event of a stream: what became of the audio."""

    model: str
    """Name of the bundle that answered."""
    utterances: int
    """Utterances found, classified and rejected together."""
    duration_s: float
    """Seconds of audio captured."""
    ledger: AudioLedger
    """Where every captured sample went."""


Event = SpeechStarted | Emotion | Rejected | Overflow | DeviceLost | DeviceRestored | Summary
