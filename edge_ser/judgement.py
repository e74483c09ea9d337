"""How one utterance was said, before it has a place in a stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edge_ser.events import Emotion


@dataclass(frozen=True)
class Span:
    """The place of an utterance in its stream."""

    utterance: int
    """Number of the utterance, from 1."""
    start_s: float
    """Seconds; pre-roll included."""
    end_s: float
    """Seconds."""


@dataclass(frozen=True)
class Judgement:
    """How one utterance was said."""

    emotion: str
    """The likeliest label."""
    confidence: float
    """Calibrated probability of `emotion`, in [0, 1]."""
    probabilities: Mapping[str, float]
    """Calibrated probability of every label; they sum to 1."""
    uncertain: bool
    """True if the answer should not be acted on at the chosen risk."""
    candidates: tuple[str, ...]
    """The labels that cannot be ruled out at the chosen risk, likeliest first."""
    attributes: Mapping[str, float] | None
    """Each in [0, 1], or None where the model has none."""
    text_used: bool
    """True if a transcript was fused in."""
    voice_utterances: int
    """How many earlier utterances of this voice were used."""
    latency_ms: float
    """Milliseconds from samples to answer."""
    rejection: str | None
    """`too_short`, `too_quiet`, `clipped`, or None for an utterance that can be judged."""

    def doubted(self, *, everything_possible: bool = False) -> Judgement:
        """Return the same, uncertain; with every label for a candidate where no speech was heard."""
        ranked = tuple(sorted(self.probabilities, key=lambda label: -self.probabilities[label]))
        return replace(self, uncertain=True, candidates=ranked if everything_possible else self.candidates)

    def event(self, span: Span, model: str, *, final: bool = True, revision: int = 0) -> Emotion:
        """Return the event that says so.

        Args:
            span: Where the utterance lies.
            model: Name of the bundle that answered.
            final: False while the speaker still talks.
            revision: How many answers for this utterance came before.
        """
        return Emotion(
            utterance=span.utterance,
            start_s=span.start_s,
            end_s=span.end_s,
            emotion=self.emotion,
            confidence=self.confidence,
            probabilities=self.probabilities,
            uncertain=self.uncertain,
            candidates=self.candidates,
            attributes=self.attributes,
            model=model,
            latency_ms=self.latency_ms,
            text_used=self.text_used,
            voice_utterances=self.voice_utterances,
            final=final,
            revision=revision,
        )
