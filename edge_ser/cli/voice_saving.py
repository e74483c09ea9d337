"""`--voice NAME`: the voice that `listen` opens, and saves as it learns."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from edge_ser.cli.text import report
from edge_ser.errors import ConfigError

if TYPE_CHECKING:
    from edge_ser.kept_voice import KeptVoice
    from edge_ser.recognizer import EmotionRecognizer
    from edge_ser.stream import Stream

SAVED_EVERY_UTTERANCES = 3
"""A crash loses fewer utterances than this."""


def open_voice(name: str, recognizer: EmotionRecognizer) -> KeptVoice:
    """Return a voice of the user's store, or a fresh one, for a recognizer to learn.

    Raises:
        ConfigError: The model hears no voice, or the voice is damaged, another model's, or cannot be kept.
    """
    from edge_ser.kept_voice import KeptVoice
    from edge_ser.voices import VoiceStore

    needed = recognizer.bundle.manifest.input_of("voice")
    if needed is None:
        raise ConfigError(f"{recognizer.model} hears no voice, --voice needs a model that does; leave out --voice")
    voice = KeptVoice(VoiceStore(), name)
    space = voice.profile.space
    if space not in (None, needed.space):
        raise ConfigError(
            f"the voice '{name}' was learnt with another model ('{space}'), {recognizer.model} needs '{needed.space}'; "
            "type --model with the model it was learnt with, or --voice with a new name"
        )
    return voice


class VoiceSaving:
    """Saves the voice of a stream every few utterances and when it is left; where it cannot, says so once."""

    def __init__(self, voice: KeptVoice | None, stream: Stream) -> None:
        """Save the voice that a stream uses and teaches; None keeps nothing."""
        self._voice = voice
        self._stream = stream
        self._tried_at = 0
        self._said: set[str] = set()
        self._is_listening = True
        self.has_failed = False
        """Whether the last save failed."""

    def follow(self) -> None:
        """Save if enough was heard since the last time."""
        if self._voice is None or self._voice.unsaved_utterances < SAVED_EVERY_UTTERANCES:
            return
        if self._voice.profile.utterances != self._tried_at:
            self._save(self._voice)

    def __enter__(self) -> VoiceSaving:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_listening = False
        # A second Ctrl-C may have struck in the middle of a save: nobody knows whether those utterances were written.
        if self._voice is not None and kind is not KeyboardInterrupt:
            self._save(self._voice)

    def _save(self, voice: KeptVoice) -> None:
        self._tried_at = voice.profile.utterances
        try:
            voice.save()
        except ConfigError as problem:
            self.has_failed = True
            if str(problem) not in self._said:
                self._said.add(str(problem))
                report(f"{problem} (listening goes on)" if self._is_listening else problem)
            return
        self.has_failed = False
        self._stream.voice = voice.profile
