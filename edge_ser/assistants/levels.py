"""How loud the audio of a session is, for whoever wants to see that it arrives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.events import Emotion, Event, Rejected, SpeechStarted
from edge_ser.ledger import AudioLedger

LEVEL_EVERY_S = 0.1
QUIETEST_DBFS = -120.0


class LevelMeter:
    """Follows a stream and, every 0.1 s of audio, has something to say."""

    def __init__(self) -> None:
        self._samples = 0
        self._squares = 0.0
        self._waiting = 0
        self._hears_speech = False

    def follow(self, samples: NDArray[np.float32], events: Sequence[Event]) -> None:
        """Take in what was pushed to the stream and what it said to that.

        Args:
            samples: Mono float32 in [-1, 1], shape (n,), at 16 kHz.
            events: In their order.
        """
        self._samples += samples.size
        self._waiting += samples.size
        self._squares += float(np.square(samples, dtype=np.float64).sum())
        for event in events:
            if isinstance(event, SpeechStarted):
                self._hears_speech = True
            elif isinstance(event, Rejected) or (isinstance(event, Emotion) and event.final):
                self._hears_speech = False

    def message(self, ledger: AudioLedger) -> dict[str, object] | None:
        """Return the `level` message for the audio since the last one, ready for JSON, or None if it is too early.

        Args:
            ledger: The stream's account.
        """
        if self._waiting < LEVEL_EVERY_S * SAMPLE_RATE_HZ:
            return None
        power = self._squares / self._waiting
        rms_dbfs = max(QUIETEST_DBFS, 10 * math.log10(power)) if power > 0 else QUIETEST_DBFS
        self._waiting, self._squares = 0, 0.0
        return {
            "type": "level",
            "at_s": (self._samples + ledger.dropped_samples) / SAMPLE_RATE_HZ,
            "rms_dbfs": round(rms_dbfs, 1),
            "speech": self._hears_speech,
            "ledger": ledger.to_dict(),
        }
