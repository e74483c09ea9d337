"""Which utterances the words of a speech-to-text service belong to."""

from __future__ import annotations

from edge_ser.answering import REVISABLE
from edge_ser.events import Emotion, Event, Rejected, SpeechStarted

WORDS_WITHIN_S = 10.0
"""Seconds of audio after an utterance within which words that arrive still belong to it."""


class Turn:
    """What was said between two silences of the speech-to-text service.

    Such services answer at their own pace: once for several utterances, or several times for one. So the words that
    came belong together to every utterance of the turn, and a turn ends when somebody speaks after its words came.
    """

    def __init__(self) -> None:
        """Begin before anything was said."""
        self._utterances: list[int] = []
        self._words: list[str] = []
        self._is_open = False
        self._emotion: Emotion | None = None

    @property
    def transcript(self) -> str:
        """The words of the turn so far."""
        return " ".join(self._words)

    @property
    def emotion(self) -> Emotion | None:
        """The latest answer for the turn, None before the first."""
        return self._emotion

    def hear(self, event: Event) -> list[int]:
        """Take an event of the stream and return the utterances to revise with `transcript`."""
        if isinstance(event, SpeechStarted):
            if self._words:
                self._utterances, self._words, self._emotion = [], [], None
            self._is_open = True
        elif isinstance(event, Rejected):
            self._is_open = False
        elif isinstance(event, Emotion):
            self._emotion = event
            if event.final and event.utterance not in self._utterances:
                self._is_open = False
                self._utterances = [*self._utterances, event.utterance][-REVISABLE:]
                return [event.utterance] if self._words else []
        return []

    def read(self, transcript: str, at_s: float) -> list[int]:
        """Take words as they arrive and return the utterances to revise with `transcript`.

        Args:
            transcript: The words; blank ones change nothing.
            at_s: Seconds of audio heard so far. Words long after the last utterance are of speech that was not heard.
        """
        if not transcript.strip():
            return []
        if self._emotion is not None and not self._is_open and at_s - self._emotion.end_s > WORDS_WITHIN_S:
            self._utterances, self._words, self._emotion = [], [], None
        if not (self._is_open or self._utterances):
            return []
        self._words.append(transcript.strip())
        return list(self._utterances)
