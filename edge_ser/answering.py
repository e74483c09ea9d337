"""What a stream says about its utterances: early answers, the final one, and its revisions."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.errors import ConfigError
from edge_ser.events import Emotion, Rejected, SpeechStarted
from edge_ser.hearing import Heard
from edge_ser.judgement import Judgement, Span
from edge_ser.quality import Speech, speech_in
from edge_ser.segmenter import Decision, SpeechOnset, Utterance
from edge_ser.voice import VoiceProfile

if TYPE_CHECKING:
    from edge_ser.recognizer import EmotionRecognizer

EARLY_STEP_S = 0.8
"""Seconds of speech before the first early answer, and between it and the next."""
REVISABLE = 32
"""Latest utterances with an emotion that can be revised."""

_SURE = 0.9
"""Confidence from which an utterance is answered though the detector is not sure that it is speech."""
_EARLY_STEP_SAMPLES = round(EARLY_STEP_S * SAMPLE_RATE_HZ)


@dataclass(frozen=True)
class _Answered:
    span: Span
    heard: Heard
    revision: int
    clear: bool


class Answering:
    """Numbers the utterances of one stream and answers for each; samples and their account are the stream's."""

    def __init__(self, recognizer: EmotionRecognizer, voice: VoiceProfile, risk: float | None, *, graded: bool = True):
        """Answer with a recognizer, for a voice that may be changed between two calls.

        Args:
            recognizer: Judges the utterances.
            voice: The speaker's profile.
            risk: As `Stream` takes it.
            graded: Whether the detector that finds utterances tells how sure it is; else silero hears them again.
        """
        self._graded = graded
        self.voice = voice
        self._recognizer = recognizer
        self._risk = risk
        self._utterances = 0
        self._is_open = False
        self._early_steps = 0
        self._revision = 0
        self._answered: OrderedDict[int, _Answered] = OrderedDict()

    @property
    def utterances(self) -> int:
        """How many utterances have begun."""
        return self._utterances

    def begin(self, onset: SpeechOnset) -> SpeechStarted:
        """Open the next utterance."""
        self._utterances += 1
        self._is_open = True
        self._early_steps = self._revision = 0
        return SpeechStarted(self._utterances, onset.start_sample / SAMPLE_RATE_HZ)

    def early_is_due(self, speech_samples: int) -> bool:
        """Return whether so much speech asks for an early answer that was not given yet.

        Args:
            speech_samples: Samples of speech in the open utterance so far.
        """
        steps = speech_samples // _EARLY_STEP_SAMPLES
        is_due = steps > self._early_steps
        self._early_steps = max(steps, self._early_steps)
        return is_due

    def early(self, utterance: Utterance) -> list[Emotion]:
        """Answer for the open utterance as far as it was heard; no voice learns from it.

        Returns:
            No event if what was heard cannot be judged: more may follow.
        """
        judgement, _ = self._recognizer.listen(utterance.samples, voice=self.voice, risk=self._risk, update_voice=False)
        if _rejection(utterance, judgement) is not None:
            return []
        told = _told(judgement, clear=self._is_clear(utterance))
        event = told.event(self._span(utterance), self._recognizer.model, final=False, revision=self._revision)
        self._revision += 1
        return [event]

    def final(self, utterance: Utterance) -> Emotion | Rejected:
        """Answer for the open utterance, which has ended; the voice learns from it."""
        self._is_open = False
        span = self._span(utterance)
        if utterance.too_short:
            return Rejected(span.utterance, span.start_s, span.end_s, "too_short")
        judgement, heard = self._recognizer.listen(
            utterance.samples, voice=self.voice, risk=self._risk, update_voice=not utterance.doubtful
        )
        reason = _rejection(utterance, judgement)
        if reason is not None:
            return Rejected(span.utterance, span.start_s, span.end_s, reason)
        clear = self._is_clear(utterance)
        self._answered[span.utterance] = _Answered(span, heard, self._revision, clear)
        if len(self._answered) > REVISABLE:
            self._answered.popitem(last=False)
        told = _told(judgement, clear=clear)
        return told.event(span, self._recognizer.model, revision=self._revision)

    def skip(self, decision: Decision) -> None:
        """Count what is told to nobody, because the answer before it failed."""
        if isinstance(decision, SpeechOnset):
            self.begin(decision)
        elif isinstance(decision, Utterance):
            self._is_open = False

    def revise(self, number: int, transcript: str | None, voice: VoiceProfile | None) -> Emotion:
        """Answer again for an utterance that got its final answer.

        Raises:
            ConfigError: There is no such answer, or the voice belongs to another model.
        """
        answered = self._recall(number)
        judgement, heard = self._recognizer.judge_again(
            answered.heard, transcript=transcript, voice=voice, risk=self._risk
        )
        again = _Answered(answered.span, heard, answered.revision + 1, answered.clear)
        self._answered[number] = again
        told = _told(judgement, clear=again.clear)
        return told.event(again.span, self._recognizer.model, revision=again.revision)

    def _recall(self, number: int) -> _Answered:
        if not isinstance(number, int):
            raise ConfigError(f"got utterance {number!r}; need a whole number; pass the `utterance` of an event")
        if number in self._answered:
            return self._answered[number]
        if not 1 <= number <= self._utterances:
            heard = f"{self._utterances} utterance{'' if self._utterances == 1 else 's'} so far"
            raise ConfigError(f"got utterance {number}; the stream has heard {heard}; pass the `utterance` of an event")
        if self._is_open and number == self._utterances:
            raise ConfigError(f"utterance {number} is still being spoken; need a final answer; wait for its event")
        if len(self._answered) == REVISABLE and number < next(iter(self._answered)):
            raise ConfigError(
                f"utterance {number} is too long ago; only the last {REVISABLE} answers can be revised; "
                "revise as soon as the words are there"
            )
        raise ConfigError(f"utterance {number} was rejected; need one with an emotion; pass that of an `emotion` event")

    def _is_clear(self, utterance: Utterance) -> bool:
        return utterance.clear and (self._graded or speech_in(utterance.samples) is Speech.CLEAR)

    def _span(self, utterance: Utterance) -> Span:
        return Span(self._utterances, utterance.start_sample / SAMPLE_RATE_HZ, utterance.end_sample / SAMPLE_RATE_HZ)


def _told(judgement: Judgement, *, clear: bool) -> Judgement:
    return judgement if clear else judgement.doubted()


def _rejection(utterance: Utterance, judgement: Judgement) -> str | None:
    if judgement.rejection is None and utterance.doubtful and (judgement.uncertain or judgement.confidence < _SURE):
        # Two witnesses: where the model is sure of an emotion, the detector's doubt is not enough to lose a word.
        return "not_speech"
    return judgement.rejection
