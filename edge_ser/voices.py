"""The voices kept on this machine: a private folder with a file per name, shared by the processes that learn them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_ser.errors import ConfigError
from edge_ser.private_file import sync_folder
from edge_ser.user_folder import user_folder
from edge_ser.voice import VoiceProfile

_SUFFIX = ".voice"
_LOCK_NAME = ".lock"
_LONGEST_NAME_BYTES = 200
_LOCK_TIMEOUT_S = 5.0
_LOCK_RETRY_S = 0.01


@dataclass(frozen=True)
class StoredVoice:
    """One voice of the store, as it is listed."""

    name: str
    """The name it is opened by."""
    path: str
    """Its file."""
    size_bytes: int
    """Bytes."""
    changed_at: float
    """Seconds since 1970, UTC, of the last save."""
    utterances: int | None
    """How many utterances were heard; None if it is damaged."""
    space: str | None
    """Id of the embedding space of the model it was learnt with; None if it is damaged or fresh."""
    problem: str | None
    """Why it cannot be opened, or None."""


def default_folder() -> Path:
    """Return where voices are kept: `$EDGE_SER_VOICES`, else `edge-ser/voices` in the user's data folder.

    Raises:
        ConfigError: The user has no home folder.
    """
    return user_folder("voices", variable="EDGE_SER_VOICES", xdg="XDG_DATA_HOME", default=".local/share")


def checked_name(name: str) -> str:
    """Return the name of a voice as it is stored.

    Raises:
        ConfigError: It is no name: letters, digits, dots, dashes and underscores, the first a letter or a digit.
    """
    stored = unicodedata.normalize("NFC", name)
    is_name = (
        stored[:1].isalnum()
        and all(letter in "._-" or unicodedata.category(letter)[0] in "LMN" for letter in stored)
        and len(stored.encode()) <= _LONGEST_NAME_BYTES
    )
    if not is_name:
        raise ConfigError(
            f"{name!r} is no name for a voice; need letters, digits, dots, dashes and underscores, the first a letter "
            f"or a digit, at most {_LONGEST_NAME_BYTES} bytes; type a name such as anna"
        )
    return stored


class VoiceStore:
    """Voices by name.

    Processes may share it. Each change replaces a whole file, so a reader or a crash never meets half of one; changes
    take turns by a lock on the folder, which the system releases if its holder dies.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        """Look after a folder; nothing is made before something is saved.

        Args:
            folder: Where the voices lie; None takes the user's own, `default_folder`.

        Raises:
            ConfigError: The user has no home folder.
        """
        self.folder = default_folder() if folder is None else Path(folder)

    def path(self, name: str) -> Path:
        """Return the file of a voice, whether there is one or not.

        Raises:
            ConfigError: It is no name.
        """
        return self.folder / f"{checked_name(name)}{_SUFFIX}"

    def has(self, name: str) -> bool:
        """Return whether there is a voice of that name, damaged or not.

        Raises:
            ConfigError: It is no name, or the folder cannot be read.
        """
        try:
            os.lstat(self.path(name))
        except FileNotFoundError:
            return False
        except OSError as problem:
            raise self._unusable(problem) from None
        return True

    def open(self, name: str) -> VoiceProfile:
        """Return a voice.

        Raises:
            ConfigError: There is none of that name, or it is damaged.
        """
        if not self.has(name):
            raise self._missing(name)
        return VoiceProfile.open(self.path(name))

    def save(self, name: str, profile: VoiceProfile) -> None:
        """Keep a voice; one of that name is replaced.

        Raises:
            ConfigError: It is no name, or it cannot be written; the old one is then still there.
        """
        with self.locked():
            self.replace(name, profile)

    def list(self) -> tuple[StoredVoice, ...]:
        """Return the voices by name; one that is damaged is listed with its problem.

        Raises:
            ConfigError: The folder cannot be read.
        """
        try:
            with os.scandir(self.folder) as entries:
                paths = sorted(Path(entry) for entry in entries if _is_voice(entry.name))
        except FileNotFoundError:
            return ()
        except OSError as problem:
            raise self._unusable(problem) from None
        return tuple(voice for path in paths if (voice := _listed(path)) is not None)

    def delete(self, *names: str) -> None:
        """Remove voices, and what a crash may have left of them; either all of them are there, or none is removed.

        Raises:
            ConfigError: One of them is not there, or cannot be removed.
        """
        for name in names:
            if not self.has(name):
                raise self._missing(name)
        with self.locked():
            try:
                for name in names:
                    self.path(name).unlink(missing_ok=True)
                    self._remove_leftovers(name)
                sync_folder(self.folder)
            except OSError as problem:
                raise self._unusable(problem) from None

    def merge(self, names: Sequence[str], into: str) -> VoiceProfile:
        """Keep as `into` what several voices have heard together, and return it; the others stay as they are.

        Args:
            names: Two or more different voices, learnt with the same model.
            into: A new name, or one of `names`.

        Raises:
            ConfigError: One is not there or damaged, they belong to different models, or `into` is another voice.
        """
        wanted = [checked_name(name) for name in names]
        target = checked_name(into)
        if len(wanted) < 2 or len(set(wanted)) != len(wanted):
            raise ConfigError(f"got {', '.join(names) or 'no voices'} to merge; need two or more different voices")
        with self.locked():
            if target not in wanted and self.has(target):
                raise ConfigError(
                    f"there is a voice '{into}' already, it would be lost; need a new name or one of the merged; "
                    f"to be rid of it first, type: edge-ser voices --delete {into}"
                )
            whole = VoiceProfile()
            for name in wanted:
                whole = whole.merged(self.open(name))
            self.replace(target, whole)
        return whole

    def replace(self, name: str, profile: VoiceProfile) -> None:
        """Write a voice while the store is `locked`; `save` locks it itself.

        Raises:
            ConfigError: It is no name, or it cannot be written.
        """
        path = self.path(name)
        # What an earlier writer left when it was killed: whoever holds the lock is the only one who writes.
        with contextlib.suppress(OSError):
            self._remove_leftovers(name)
        profile.save(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the store; the folder is made if there is none.

        Raises:
            ConfigError: The folder cannot be written, or another process holds the lock for 5 s.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self.folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as problem:
            raise self._unusable(problem) from None
        try:
            self._wait_for(handle)
            yield
        finally:
            os.close(handle)

    def _wait_for(self, handle: int) -> None:
        deadline_s = time.monotonic() + _LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise ConfigError(
                        f"another process has been writing to {self.folder} for {_LOCK_TIMEOUT_S:g} s; need it to "
                        f"finish; find it: fuser {self.folder / _LOCK_NAME}"
                    ) from None
                time.sleep(_LOCK_RETRY_S)
            except OSError as problem:
                raise self._unusable(problem) from None

    def _remove_leftovers(self, name: str) -> None:
        for leftover in self.folder.glob(f".{self.path(name).name}-????????"):
            leftover.unlink(missing_ok=True)

    def _missing(self, name: str) -> ConfigError:
        names = ", ".join(voice.name for voice in self.list()) or "none"
        return ConfigError(f"there is no voice '{name}' in {self.folder}; there is: {names}; type: edge-ser voices")

    def _unusable(self, problem: OSError) -> ConfigError:
        return ConfigError(
            f"voices cannot be kept in {self.folder} ({problem.strerror}); need a folder of your own with some free "
            "space; type: export EDGE_SER_VOICES=FOLDER"
        )


def _is_voice(file_name: str) -> bool:
    return file_name.endswith(_SUFFIX) and not file_name.startswith(".")


def _listed(path: Path) -> StoredVoice | None:
    """Return what is to be said of a file; None if it has just gone."""
    name = path.name.removesuffix(_SUFFIX)
    utterances = space = problem = None
    try:
        status = os.lstat(path)
        if checked_name(name) != name:
            raise ConfigError(f"{path} is not the file of '{checked_name(name)}'; rename it")
        profile = VoiceProfile.open(path)
        utterances, space = profile.utterances, profile.space
    except FileNotFoundError:
        return None
    except ConfigError as error:
        if not os.path.lexists(path):
            return None
        problem = str(error)
    return StoredVoice(name, str(path), status.st_size, status.st_mtime, utterances, space, problem)
