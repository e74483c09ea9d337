"""A bundle that listens to clips: alone, in a conversation, with somebody else's voice, changed, with words."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge_ser.corpus import Clip
from edge_ser.hearing import Heard
from edge_ser.recognizer import EmotionRecognizer, Judgement
from edge_ser.voice import VoiceProfile
from train.answers import Answers
from train.spoken import read_spoken

Wave = NDArray[np.float32]
Item = TypeVar("Item")

Span = tuple[int, int | None]

LONGEST_HISTORY = 60
"""Utterances."""
WRONG_UTTERANCES = 20
"""How much of another speaker was heard when the history is wrong."""
EVERYDAY_NEUTRAL, EVERYDAY_SHARE = 9, 0.75
"""Most neutral utterances, and their share, of a history as daily life makes them."""


@dataclass(frozen=True, eq=False)
class Recording:
    """A clip that was decoded and judged alone."""

    clip: Clip
    number: int
    """Which clip it is."""
    wave: Wave
    """Mono, shape (n,), at 16 kHz, without the silence around its speech, as `recognize` cuts it."""
    alone: Judgement
    """What was said with a fresh voice."""
    heard: Heard
    """What the graph made of it."""


class Listener:
    """Asks a bundle about clips through the runtime; what does not depend on the voice is computed once."""

    def __init__(self, recognizer: EmotionRecognizer) -> None:
        """Ask a recognizer."""
        self.recognizer = recognizer
        self._voice_input = recognizer.bundle.manifest.input_of("voice")

    def record(self, clips: Sequence[Clip], first_number: int = 0) -> list[Recording]:
        """Return the clips, decoded and judged with a fresh voice."""
        recordings = []
        for place, clip in enumerate(progress(clips, "alone")):
            wave = read_spoken(clip.path)
            recordings.append(Recording(clip, first_number + place, wave, *self.recognizer.listen(wave)))
        return recordings

    def cold(self, recordings: Sequence[Recording]) -> Answers:
        """Return what was said with a fresh voice."""
        return self._answers(recordings, [recording.alone for recording in recordings])

    def warm(self, recordings: Sequence[Recording], orders: int) -> Answers:
        """Return what is said when each speaker is heard clip after clip through one voice, in random orders.

        Args:
            recordings: Clips of one or more speakers.
            orders: How often each speaker is heard from the start, each time in another order.
        """
        told: list[Recording] = []
        said: list[Judgement] = []
        for seed in range(orders):
            voices: dict[str, VoiceProfile] = {}
            for place in progress(np.random.default_rng(seed).permutation(len(recordings)).tolist(), "in turn"):
                recording = recordings[place]
                voice = voices.setdefault(recording.clip.speaker, VoiceProfile())
                told.append(recording)
                said.append(self._known(recording, voice))
                self._teach(voice, recording)
        return self._answers(told, said)

    def stranger(self, recordings: Sequence[Recording]) -> Answers:
        """Return what is said when the voice is somebody else's; a lone speaker has nobody else."""
        rng = np.random.default_rng(0)
        speakers = sorted({recording.clip.speaker for recording in recordings})
        voices = {speaker: self.voice_of(recordings, speaker, rng) for speaker in speakers}
        told = recordings if len(speakers) > 1 else []
        said = []
        for recording in progress(told, "wrong voice"):
            others = [speaker for speaker in speakers if speaker != recording.clip.speaker]
            said.append(self._known(recording, voices[others[int(rng.integers(len(others)))]]))
        return self._answers(told, said)

    def everyday(self, recordings: Sequence[Recording]) -> Answers:
        """Return what is said when three in four utterances that the voice has heard were neutral, as in daily life.

        Histories are of the speaker's other clips, up to nine neutral ones; who has not four of them is left out.
        """
        told, said = [], []
        clips: dict[str, list[Recording]] = {}
        for recording in recordings:
            if recording.alone.rejection is None:
                clips.setdefault(recording.clip.speaker, []).append(recording)
        for recording in progress(recordings, "everyday"):
            own = clips.get(recording.clip.speaker, [])
            neutral = [other for other in own if other.clip.emotion == "neutral"]
            others = [other for other in own if other.clip.emotion != "neutral"]
            # As many whatever the clip is, which is never among them.
            count = min(len(neutral) - 1, EVERYDAY_NEUTRAL) // 3 * 3
            more = round(count * (1.0 / EVERYDAY_SHARE - 1.0))
            if not 0 < more < len(others):
                continue
            voice, rng = VoiceProfile(), np.random.default_rng(recording.number)
            for kind, most in ((neutral, count), (others, more)):
                rest = [other for other in kind if other is not recording]
                for place in rng.permutation(len(rest))[:most]:
                    self._teach(voice, rest[int(place)])
            told.append(recording)
            said.append(self._known(recording, voice))
        return self._answers(told, said)

    def after(self, asked: Sequence[Recording], told: Sequence[Recording], spans: Sequence[Span]) -> list[Answers]:
        """Return what is said about the same clips after random histories of the speaker's other clips.

        Args:
            asked: What is judged.
            told: What histories are made of; enough of every asked speaker.
            spans: Fewest and most utterances of each history; None takes 60.
        """
        return [
            self._answers(asked, [self._after(r, told, span) for r in progress(asked, str(span))]) for span in spans
        ]

    def _after(self, recording: Recording, told: Sequence[Recording], span: Span) -> Judgement:
        rng = np.random.default_rng([recording.number, span[0]])
        own = [other for other in told if other.clip.speaker == recording.clip.speaker and other is not recording]
        longest = min(len(own), LONGEST_HISTORY if span[1] is None else span[1])
        voice = VoiceProfile()
        for place in rng.permutation(len(own))[: rng.integers(span[0], longest + 1)]:
            self._teach(voice, own[int(place)])
        return self._known(recording, voice)

    def voice_of(self, recordings: Sequence[Recording], speaker: str, rng: np.random.Generator) -> VoiceProfile:
        """Return a voice that has heard up to 20 clips of a speaker, in random order."""
        own = [recording for recording in recordings if recording.clip.speaker == speaker]
        voice = VoiceProfile()
        for place in rng.permutation(len(own))[:WRONG_UTTERANCES]:
            self._teach(voice, own[int(place)])
        return voice

    def changed(self, recordings: Sequence[Recording], change: Callable[[Recording], Wave], name: str) -> Answers:
        """Return what is said with a fresh voice about changed sound."""
        said = [self.recognizer.judge(change(recording)) for recording in progress(recordings, name)]
        return self._answers(recordings, said)

    def worded(self, recordings: Sequence[Recording], words: Callable[[Recording], str]) -> Answers:
        """Return what is said with a fresh voice when a transcript is there."""
        said = [
            self.recognizer.judge(recording.wave, transcript=words(recording))
            for recording in progress(recordings, "words")
        ]
        return self._answers(recordings, said)

    def _known(self, recording: Recording, voice: VoiceProfile) -> Judgement:
        if recording.heard.windows and recording.alone.rejection is None:
            # The same answer without hearing the sound again.
            return self.recognizer.judge_again(recording.heard, voice=voice)[0]
        return self.recognizer.judge(recording.wave, voice=voice, update_voice=False)

    def _teach(self, voice: VoiceProfile, recording: Recording) -> None:
        # The embedding does not depend on the voice, so that of the clip alone teaches what the runtime would.
        if self._voice_input is not None and recording.alone.rejection is None:
            voice.update(recording.heard.outputs["embedding"], self._voice_input.space)

    def _answers(self, recordings: Sequence[Recording], said: Sequence[Judgement]) -> Answers:
        labels = self.recognizer.labels
        shares = [[item.probabilities[label] for label in labels] for item in said]
        return Answers(
            np.array([labels.index(recording.clip.emotion) for recording in recordings], dtype=np.int64),
            np.array(shares, dtype=np.float64).reshape(len(said), len(labels)),
            np.array([not item.uncertain for item in said], dtype=np.bool_),
            np.array([recording.clip.speaker for recording in recordings], dtype=np.str_),
            np.array([recording.number for recording in recordings], dtype=np.int64),
            np.array([item.voice_utterances for item in said], dtype=np.int64),
        )


def sample(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most so many of the items, the same ones every time, in their order."""
    chosen = np.random.default_rng(0).permutation(len(items))[:most]
    return [items[int(place)] for place in sorted(chosen)]


def progress(items: Sequence[Item], name: str) -> Iterable[Item]:
    """Return the items under a progress bar, shown only to a person at a terminal."""
    bar: Iterable[Item] = tqdm(items, desc=name, unit="clip", leave=False, disable=not sys.stderr.isatty())
    return bar
