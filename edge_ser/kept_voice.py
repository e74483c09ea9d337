"""A voice of the store while it is learnt."""

from __future__ import annotations

from edge_ser.errors import ConfigError
from edge_ser.voice import VoiceProfile
from edge_ser.voices import VoiceStore


class KeptVoice:
    """One voice of a store, learnt here and perhaps by other processes at the same time.

    Each save adds what was heard here since the last one to what the file holds by then, so nobody's learning is lost
    and nobody has to wait for the other to end. A voice that is deleted meanwhile stays deleted.
    """

    def __init__(self, store: VoiceStore, name: str) -> None:
        """Open a voice of the store, or begin one.

        Args:
            store: Where it is kept; its folder is made if there is none.
            name: Its name.

        Raises:
            ConfigError: It is no name, the voice is damaged, or the store cannot be written.
        """
        self._store = store
        self._name = name
        with store.locked():
            self._is_stored = store.has(name)
            self._profile = store.open(name) if self._is_stored else VoiceProfile()
        self._saved = self._profile.copy()

    @property
    def profile(self) -> VoiceProfile:
        """What is known of the voice, for a stream to use and teach; after a `save` it may be another object."""
        return self._profile

    @property
    def unsaved_utterances(self) -> int:
        """How many utterances were heard here since the last save."""
        return self._profile.utterances - self._saved.utterances

    def save(self) -> None:
        """Write what was heard since the last save, and take over what other processes have heard.

        Raises:
            ConfigError: It cannot be written, or the file was deleted, damaged or learnt with another model meanwhile;
                the file stays as it is.
        """
        if self.unsaved_utterances == 0:
            return
        with self._store.locked():
            is_there = self._store.has(self._name)
            if self._is_stored and not is_there:
                raise ConfigError(
                    f"the voice '{self._name}' was deleted meanwhile, what is heard now is not kept; "
                    f"to begin it afresh, start again: edge-ser listen --voice {self._name}"
                )
            stored = self._store.open(self._name) if is_there else VoiceProfile()
            # Where nobody else wrote, the profile goes on as it is: keeping a voice never changes an answer.
            alone = stored == self._saved
            whole = self._profile if alone else stored.merged(self._profile.since(self._saved))
            self._store.replace(self._name, whole)
        self._profile, self._saved, self._is_stored = whole, whole.copy(), True
