"""The account of every sample that was captured."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class AudioLedger:
    """Where each captured sample went; all counts are samples at 16 kHz.

    Audio that still waits for a decision (an open utterance, an unfinished frame) is not in the ledger yet: it enters
    when it is settled, so a ledger balances at any moment.
    """

    captured_samples: int = 0
    """Samples taken from the source and settled, dropped ones included."""
    classified_samples: int = 0
    """Samples in utterances that became an emotion, pre-roll included."""
    silence_samples: int = 0
    """Samples outside every utterance."""
    rejected_samples: int = 0
    """Samples in utterances that were rejected, pre-roll included."""
    dropped_samples: int = 0
    """Samples known to be lost before they reached the stream (a slow consumer)."""
    device_gap_s: float = 0.0
    """Seconds without a device; outside the balance, since nothing was captured."""
    overflow_estimated_s: float = 0.0
    """Seconds the device itself says it lost, uncounted; outside the balance."""

    @property
    def balances(self) -> bool:
        """True if every captured sample is in exactly one account."""
        settled = self.classified_samples + self.silence_samples + self.rejected_samples + self.dropped_samples
        return self.captured_samples == settled

    def to_dict(self) -> dict[str, int | float]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)
