"""One audio stream: chunks of any size in, events out, every sample accounted for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_ser.audio import SAMPLE_RATE_HZ, as_samples
from edge_ser.errors import ConfigError, EdgeSerError
from edge_ser.events import DeviceLost, DeviceRestored, Emotion, Event, Overflow, Rejected, SpeechStarted, Summary
from edge_ser.ledger import AudioLedger
from edge_ser.segmenter import Decision, Segmenter, SegmenterOptions, Silence, SpeechOnset, Utterance
from edge_ser.voice import VoiceProfile

if TYPE_CHECKING:
    from edge_ser.recognizer import EmotionRecognizer, Judgement
    from edge_ser.vad import SpeechDetector

_SHORTEST_LIMIT_S = 0.2

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
        risk: float | None = None,
        options: SegmenterOptions | None = None,
    ) -> None:
        """Start a stream at 0 s.

        Args:
            recognizer: Judges the utterances.
            detector: Finds speech; it belongs to this stream from now on.
            voice: The speaker's profile, used and updated; None starts a fresh one.
            risk: How often an answer that is not `uncertain` may be wrong, in (0, 1); None takes the model's default.
            options: When an utterance begins, ends and is cut; None takes defaults that fit the model.
        """
        self._recognizer = recognizer
        self._detector = detector
        self._voice = VoiceProfile() if voice is None else voice
        self._risk = risk
        self._segmenter = Segmenter(options or _options_within(recognizer.max_duration_s))
        self._pending: NDArray[np.float32] = np.empty(0, np.float32)
        self._account = AudioLedger()
        self._pushed_samples = 0
        self._utterances = 0
        self._is_finished = False

    @property
    def voice(self) -> VoiceProfile:
        """The profile of the voice heard so far."""
        return self._voice

    @property
    def ledger(self) -> AudioLedger:
        """Where every settled sample went."""
        # Counted from what came in and what is still held, never from the accounts: only so can a loss show.
        settled = self._pushed_samples - self._pending.size - self._segmenter.undecided_samples
        return replace(self._account, captured_samples=settled + self._account.dropped_samples)

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
            model=self._recognizer.model, utterances=self._utterances, duration_s=duration_s, ledger=ledger
        )
        return [*events, summary]

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
        return events

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
        silence = sum(item.end_sample - item.start_sample for item in decisions if isinstance(item, Silence))
        self._account = replace(self._account, silence_samples=self._account.silence_samples + silence)
        waiting = deque(decisions)
        try:
            while waiting:
                events += self._say(waiting.popleft())
        except BaseException:
            # Their events are lost with the call; the account must not be.
            for decision in waiting:
                if isinstance(decision, SpeechOnset):
                    self._utterances += 1
                elif isinstance(decision, Utterance):
                    self._reject(decision, "error")
            raise
        return events

    def _say(self, decision: Decision) -> list[Event]:
        if isinstance(decision, SpeechOnset):
            self._utterances += 1
            return [SpeechStarted(self._utterances, decision.start_sample / SAMPLE_RATE_HZ)]
        if isinstance(decision, Silence):
            return []
        event = self._judge(decision)
        # Silero's confidence decays on long streams. At a cut the speech goes on, and so does its state.
        if not self._segmenter.is_open:
            self._detector.reset()
        return [event]

    def _judge(self, utterance: Utterance) -> Event:
        if utterance.too_short:
            return self._reject(utterance, "too_short")
        try:
            judgement = self._recognizer.judge(utterance.samples, voice=self._voice, risk=self._risk)
        except BaseException:  # Ctrl-C too
            self._reject(utterance, "error")  # the event is lost with the call; the account must not be
            raise
        if judgement.rejection is not None:
            return self._reject(utterance, judgement.rejection)
        classified = self._account.classified_samples + utterance.samples.size
        self._account = replace(self._account, classified_samples=classified)
        return self._emotion(utterance, judgement)

    def _reject(self, utterance: Utterance, reason: str) -> Rejected:
        rejected = self._account.rejected_samples + utterance.samples.size
        self._account = replace(self._account, rejected_samples=rejected)
        start_s, end_s = utterance.start_sample / SAMPLE_RATE_HZ, utterance.end_sample / SAMPLE_RATE_HZ
        return Rejected(self._utterances, start_s, end_s, reason)

    def _emotion(self, utterance: Utterance, judgement: Judgement) -> Emotion:
        return Emotion(
            utterance=self._utterances,
            start_s=utterance.start_sample / SAMPLE_RATE_HZ,
            end_s=utterance.end_sample / SAMPLE_RATE_HZ,
            emotion=judgement.emotion,
            confidence=judgement.confidence,
            probabilities=judgement.probabilities,
            uncertain=judgement.uncertain,
            candidates=judgement.candidates,
            attributes=judgement.attributes,
            model=self._recognizer.model,
            latency_ms=judgement.latency_ms,
            text_used=judgement.text_used,
            voice_utterances=judgement.voice_utterances,
        )


def _options_within(longest_s: float) -> SegmenterOptions:
    """Return the default options, scaled down as far as a model that takes at most `longest_s` seconds needs it."""
    if longest_s < _SHORTEST_LIMIT_S:
        raise ConfigError(
            f"The model takes {longest_s:g} s at most, a stream needs {_SHORTEST_LIMIT_S:g} s. Use another model."
        )
    default = SegmenterOptions()
    spare_s = 0.06  # a little more than the options need between each other
    room_s = longest_s - spare_s
    pre_roll_s = min(default.pre_roll_s, room_s / 4)
    min_speech_s = min(default.min_speech_s, (room_s - pre_roll_s - spare_s) / 2)
    return replace(
        default,
        max_utterance_s=min(default.max_utterance_s, longest_s),
        pre_roll_s=pre_roll_s,
        min_speech_s=min_speech_s,
        # Enough speech lies before the search, else the first piece of long speech would be too short to judge.
        cut_search_s=min(default.cut_search_s, room_s - pre_roll_s - min_speech_s),
    )
