"""One audio stream: chunks of any size in, events out, every sample accounted for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_ser.answering import Answering
from edge_ser.audio import SAMPLE_RATE_HZ, as_samples
from edge_ser.errors import ConfigError, EdgeSerError
from edge_ser.events import DeviceLost, DeviceRestored, Emotion, Event, Overflow, Summary
from edge_ser.ledger import AudioLedger
from edge_ser.segmenter import Decision, Segmenter, Silence, SpeechOnset, Utterance
from edge_ser.segmenter_options import SegmenterOptions, options_within
from edge_ser.vad import is_graded
from edge_ser.voice import VoiceProfile

if TYPE_CHECKING:
    from edge_ser.recognizer import EmotionRecognizer
    from edge_ser.vad import SpeechDetector

Source = Iterable[NDArray[np.generic] | Overflow | DeviceLost | DeviceRestored]
"""Where audio comes from: chunks as `Stream.push` takes them and, between them, what happened to the device."""


class Stream:
    """Listens to one audio stream and says how each utterance was said.

    The size of the chunks never changes an event. The work is done inside the call, on the caller's thread; a stream
    has one owner, while the recognizer may be shared.
    """

    def __init__(
        self,
        recognizer: EmotionRecognizer,
        *,
        detector: SpeechDetector,
        voice: VoiceProfile | None = None,
        partials: bool = False,
        risk: float | None = None,
        options: SegmenterOptions | None = None,
    ) -> None:
        """Start a stream at 0 s.

        Args:
            recognizer: Judges the utterances.
            detector: Finds speech; it belongs to this stream from now on.
            voice: The speaker's profile, used and updated; None starts a fresh one.
            partials: Whether to answer while the speaker still talks, too: after 0.8 s of speech, and every 0.8 s.
                Their risk is not promised: thresholds are fitted on whole utterances.
            risk: How often an answer that is not `uncertain` may be wrong, in (0, 1); None takes the model's default.
            options: When an utterance begins, ends and is cut; None takes defaults that fit the model.

        Raises:
            ConfigError: The voice belongs to another model.
        """
        self._recognizer = recognizer
        self._detector = detector
        voice = VoiceProfile() if voice is None else voice
        recognizer.check_voice(voice)
        self._answering = Answering(recognizer, voice, risk, graded=is_graded(detector))
        self._partials = partials
        self._segmenter = Segmenter(options or options_within(recognizer.max_duration_s))
        self._pending: NDArray[np.float32] = np.empty(0, np.float32)
        self._account = AudioLedger()
        self._pushed_samples = 0
        self._is_finished = False

    @property
    def voice(self) -> VoiceProfile:
        """The profile of whoever speaks; the one that is set when an utterance ends is used and learns from it."""
        return self._answering.voice

    @voice.setter
    def voice(self, profile: VoiceProfile) -> None:
        self._recognizer.check_voice(profile)
        self._answering.voice = profile

    @property
    def ledger(self) -> AudioLedger:
        """Where every settled sample went."""
        # Counted from what came in and what is still held, never from the accounts: only so can a loss show.
        settled = self._pushed_samples - self._pending.size - self._segmenter.undecided_samples
        return replace(self._account, captured_samples=settled + self._account.dropped_samples)

    def may_answer(self, samples: int) -> bool:
        """Return whether pushing so many samples may judge an utterance; else it takes a fraction of a millisecond.

        For whoever owns an event loop and wants to leave it for the long calls only.
        """
        if self._partials and self._segmenter.is_open:
            return True
        return self._segmenter.may_end_within(self._pending.size + samples)

    def push(self, samples: NDArray[np.generic]) -> list[Event]:
        """Take the next samples and return the events that they settle.

        Args:
            samples: Mono at 16 kHz, shape (n,), any n: float in [-1, 1] or int16.

        Raises:
            AudioFormatError: The array is no such audio; the stream is as before the call.
            ConfigError: The stream is finished.
        """
        self._require_unfinished()
        chunk = as_samples(samples)
        self._pushed_samples += chunk.size
        self._pending = np.concatenate([self._pending, chunk])
        events = self._take_frames()
        # Copied, so that a few waiting samples do not keep the whole chunk alive.
        self._pending = self._pending.copy()
        return events

    def finish(self) -> list[Event]:
        """Close the open utterance and return the last events, the `Summary` at the end; a second call returns none."""
        if self._is_finished:
            return []
        events = self._settle()
        self._is_finished = True
        ledger = self.ledger
        duration_s = ledger.captured_samples / SAMPLE_RATE_HZ
        summary = Summary(
            model=self._recognizer.model, utterances=self._answering.utterances, duration_s=duration_s, ledger=ledger
        )
        return [*events, summary]

    def revise(self, utterance: int, transcript: str | None = None, voice: VoiceProfile | None = None) -> Emotion:
        """Return the answer for an utterance again, now that more is known of it.

        The last 32 utterances with an emotion can be revised, after `finish` too. Neither the audio nor the ledger is
        touched, and no voice learns from an utterance a second time.

        Args:
            utterance: Number of the utterance, as in its final `Emotion`.
            transcript: What was said; None leaves the words as they were, blank takes them away. A model that reads no
                text gives its answer again, with `text_used` False.
            voice: Who said it, where that is known only now; None leaves the voice as it was.

        Raises:
            ConfigError: The utterance is unknown, rejected, not ended or too long ago, or the voice is another model's.
        """
        return self._answering.revise(utterance, transcript, voice)

    def record_overflow(self, dropped_samples: int, estimated_s: float = 0.0) -> list[Event]:
        """Account for audio that was lost before it reached the stream, and return the events.

        The open utterance is closed first: what follows does not continue it.

        Args:
            dropped_samples: Samples at 16 kHz known to be lost.
            estimated_s: Seconds that the device says it lost, where nobody could count samples.
        """
        self._require_unfinished()
        if dropped_samples < 0 or estimated_s < 0:
            raise ConfigError(f"{dropped_samples} dropped samples, {estimated_s} s: a loss needs values of 0 or more.")
        events = self._settle()
        at_s = self._clock_s()
        self._segmenter.skip(dropped_samples)
        self._account = replace(
            self._account,
            dropped_samples=self._account.dropped_samples + dropped_samples,
            overflow_estimated_s=self._account.overflow_estimated_s + estimated_s,
        )
        return [*events, Overflow(at_s, dropped_samples, estimated_s)]

    def listen(self, source: Source) -> Iterator[Event]:
        """Yield the events of a whole source as they happen, `finish` included.

        If the source fails, the open utterance is closed and the `Summary` comes before the error goes on. After a
        `KeyboardInterrupt` it is the caller who calls `finish`.

        Args:
            source: Chunks, and `Overflow`, `DeviceLost` and `DeviceRestored` where they happened; these are accounted
                for and passed on, on this stream's clock.
        """
        try:
            for item in source:
                yield from self.push(item) if isinstance(item, np.ndarray) else self._record(item)
        except EdgeSerError:
            yield from self.finish()
            raise
        yield from self.finish()

    def _record(self, happened: Overflow | DeviceLost | DeviceRestored) -> list[Event]:
        if isinstance(happened, Overflow):
            return self.record_overflow(happened.dropped_samples, happened.estimated_s)
        self._require_unfinished()
        events = self._settle()
        if isinstance(happened, DeviceRestored):
            gap_s = self._account.device_gap_s + happened.gap_s
            self._account = replace(self._account, device_gap_s=gap_s)
        return [*events, replace(happened, at_s=self._clock_s())]

    def _clock_s(self) -> float:
        return (self._pushed_samples + self._account.dropped_samples) / SAMPLE_RATE_HZ

    def _require_unfinished(self) -> None:
        if self._is_finished:
            raise ConfigError("This stream is finished and takes no more audio. Start another: recognizer.stream()")

    def _take_frames(self) -> list[Event]:
        events: list[Event] = []
        while self._pending.size >= self._detector.frame_samples:
            frame, rest = np.split(self._pending, [self._detector.frame_samples])
            decisions = self._segmenter.push(frame.copy(), self._detector(frame))
            self._pending = rest
            events += self._report(decisions)
            if self._partials and self._segmenter.is_open:
                events += self._early_answer()
        return events

    def _early_answer(self) -> list[Emotion]:
        if not self._answering.early_is_due(self._segmenter.speech_samples):
            return []
        return self._answering.early(self._segmenter.so_far())

    def _settle(self) -> list[Event]:
        """Decide about all audio that waits; what follows is not contiguous with it."""
        events = self._take_frames()  # there are some only if an error or an interrupt ended a push early
        decisions: list[Decision] = []
        if self._pending.size:
            # The detector sees the last, shorter frame filled up with zeros; nobody else does.
            missing = self._detector.frame_samples - self._pending.size
            probability = self._detector(np.pad(self._pending, (0, missing)))
            decisions += self._segmenter.push(self._pending, probability)
            self._pending = np.empty(0, np.float32)
        decisions += self._segmenter.finish()
        self._detector.reset()
        return events + self._report(decisions)

    def _report(self, decisions: list[Decision]) -> list[Event]:
        events: list[Event] = []
        for decision in decisions:
            self._book(decision)
        waiting = deque(decisions)
        try:
            while waiting:
                events += self._say(waiting.popleft())
        except BaseException:  # Ctrl-C too
            # What was found together with the utterance that failed is told to nobody, but it is counted.
            for decision in waiting:
                self._answering.skip(decision)
            raise
        return events

    def _book(self, decision: Decision) -> None:
        account = self._account
        if isinstance(decision, Silence):
            silence = decision.end_sample - decision.start_sample
            self._account = replace(account, silence_samples=account.silence_samples + silence)
        elif isinstance(decision, Utterance):
            # It counts as rejected until it is answered: an error loses the answer, never the samples.
            self._account = replace(account, rejected_samples=account.rejected_samples + decision.samples.size)

    def _say(self, decision: Decision) -> list[Event]:
        if isinstance(decision, SpeechOnset):
            return [self._answering.begin(decision)]
        if isinstance(decision, Silence):
            return []
        event = self._answering.final(decision)
        if isinstance(event, Emotion):
            size, account = decision.samples.size, self._account
            self._account = replace(
                account,
                rejected_samples=account.rejected_samples - size,
                classified_samples=account.classified_samples + size,
            )
        # Silero's confidence decays on long streams. At a cut the speech goes on, and so does its state.
        if not self._segmenter.is_open:
            self._detector.reset()
        return [event]
