"""What is remembered of a voice: running statistics of the speaker's embedding; no audio, no words."""

from __future__ import annotations

import base64
import binascii
import copy
import errno
import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_ser.errors import ConfigError
from edge_ser.json_object import JsonObject
from edge_ser.private_file import read_regular_file, replace_file

# By format version, how a number is written. The second is for embeddings whose file would pass 10 kB in the first.
_NUMBERS = {1: "<f8", 2: "<f4"}
_LARGEST_IN_VERSION_1 = 400
_LARGEST_FILE_BYTES = 1_000_000
_LARGEST_COUNT = 10**15
_LARGEST_VALUE = 1e12
_REMEDY = "delete the file to start this voice afresh"


class VoiceProfile:
    """Running mean and deviation of one speaker's embeddings.

    A fresh profile fits any model; the first update binds it to that model's embedding space. It has one owner at a
    time: a stream that holds it updates it.
    """

    def __init__(self) -> None:
        """Start with nothing heard."""
        self._space: str | None = None
        self._utterances = 0
        self._weight = 0.0
        self._mean = np.zeros(0)
        self._squares = np.zeros(0)

    def __eq__(self, other: object) -> bool:
        """Return whether both have heard the same."""
        return isinstance(other, VoiceProfile) and self._to_dict() == other._to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return how much was heard, and in which space."""
        return f"VoiceProfile(utterances={self._utterances}, space={self._space!r})"

    @property
    def utterances(self) -> int:
        """How many utterances were heard."""
        return self._utterances

    @property
    def space(self) -> str | None:
        """Id of the embedding space it is bound to; None while fresh."""
        return self._space

    def update(self, embedding: NDArray[np.floating], space: str, weight: float = 1.0) -> None:
        """Hear one more utterance.

        Args:
            embedding: Shape (size,).
            space: Id of the embedding space.
            weight: How much this utterance counts, above 0.

        Raises:
            ConfigError: The profile is bound to another space or size, or a value is not finite or beyond all sense.
        """
        values = np.asarray(embedding, dtype=np.float64)
        if values.ndim != 1 or values.size == 0 or not (np.abs(values) <= _LARGEST_VALUE).all():
            raise ConfigError(
                f"got an embedding of shape {values.shape}; need finite numbers of shape (size,), "
                f"none larger than {_LARGEST_VALUE:g}"
            )
        if not (math.isfinite(weight) and weight > 0):
            raise ConfigError(f"got a weight of {weight}; need a finite number above 0, such as 1.0")
        self._check_fit(values.size, space)
        if self._space is None:
            self._space, self._mean, self._squares = space, np.zeros(values.size), np.zeros(values.size)
        self._utterances += 1
        self._weight += weight
        # Welford's update: it never subtracts two large sums.
        difference = values - self._mean
        self._mean = self._mean + difference * (weight / self._weight)
        self._squares = self._squares + weight * difference * (values - self._mean)

    def as_input(self, embedding_size: int, space: str | None = None) -> NDArray[np.float32]:
        """Return what a model is told: utterances, mean and population deviation; zeros while fresh.

        Args:
            embedding_size: Size of the model's embedding.
            space: Id of the model's embedding space; None leaves it unchecked.

        Returns:
            float32, shape (1, 2 * embedding_size + 1).

        Raises:
            ConfigError: The profile is bound to another space or size.
        """
        self._check_fit(embedding_size, space)
        if self._space is None:
            return np.zeros((1, 2 * embedding_size + 1), dtype=np.float32)
        deviation = np.sqrt(np.maximum(self._squares, 0.0) / self._weight)
        return np.concatenate([[self._utterances], self._mean, deviation]).astype(np.float32)[np.newaxis]

    def copy(self) -> VoiceProfile:
        """Return a profile that has heard the same and goes its own way from now on."""
        # No update changes an array in place.
        return copy.copy(self)

    def merged(self, other: VoiceProfile) -> VoiceProfile:
        """Return the profile that has heard what both have heard; the order does not matter, both stay as they are.

        Raises:
            ConfigError: They belong to different models.
        """
        if self._space is None or other._space is None:
            return (other if self._space is None else self).copy()
        self._check_same_model(other)
        whole = self.copy()
        whole._utterances = self._utterances + other._utterances
        whole._weight = self._weight + other._weight
        # Chan's pooled statistics: like Welford's, they never subtract two large sums.
        difference = other._mean - self._mean
        whole._mean = self._mean + difference * (other._weight / whole._weight)
        between = difference**2 * (self._weight * other._weight / whole._weight)
        whole._squares = self._squares + other._squares + between
        return whole

    def since(self, earlier: VoiceProfile) -> VoiceProfile:
        """Return the profile that has heard only what came after `earlier`; merged with it, it is this one again.

        Args:
            earlier: A copy of this profile, taken before.

        Raises:
            ConfigError: It is no earlier state of this profile.
        """
        if earlier._space is None:
            return self.copy()
        self._check_same_model(earlier)
        if earlier._utterances == self._utterances:
            return VoiceProfile()
        weight = self._weight - earlier._weight
        if self._utterances < earlier._utterances or weight <= 0:
            raise ConfigError(f"got {earlier!r} as an earlier state of {self!r}; need a copy that was taken before")
        news = self.copy()
        news._utterances = self._utterances - earlier._utterances
        news._weight = weight
        news._mean = self._mean + (self._mean - earlier._mean) * (earlier._weight / weight)
        between = (news._mean - earlier._mean) ** 2 * (earlier._weight * weight / self._weight)
        news._squares = np.maximum(self._squares - earlier._squares - between, 0.0)
        return news

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the profile to a file that only its owner may read; a crash leaves the old file whole.

        Raises:
            ConfigError: The file cannot be written.
        """
        target = Path(path)
        content = self._to_dict()
        data = json.dumps({**content, "sha256": _digest(content)}).encode()
        try:
            replace_file(target, data)
        except OSError as problem:
            full = problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            need = "10 kB of free space" if full else "a file in an existing, writable folder"
            raise ConfigError(f"cannot write the voice to {target} ({problem.strerror}); need {need}") from None

    @staticmethod
    def open(path: str | os.PathLike[str]) -> VoiceProfile:
        """Return the profile that `save` wrote.

        Raises:
            ConfigError: There is no such file, or it is damaged.
        """
        try:
            text = read_regular_file(path, _LARGEST_FILE_BYTES)
        except (OSError, ValueError) as problem:  # ValueError: a name that no file can have.
            reason = problem.strerror if isinstance(problem, OSError) else problem
            raise ConfigError(
                f"cannot read a voice from {path} ({reason}); need a file that VoiceProfile.save wrote"
            ) from None
        if len(text) > _LARGEST_FILE_BYTES:
            raise ConfigError(f"{path} is larger than {_LARGEST_FILE_BYTES} bytes, no voice is; {_REMEDY}")
        fields = JsonObject.parse(text, str(path), _REMEDY, ConfigError)
        if fields.count("format_version") not in _NUMBERS:
            fields.fail(f"format version {fields.count('format_version')}, need {' or '.join(map(str, _NUMBERS))}")
        content = {key: value for key, value in fields.plain.items() if key != "sha256"}
        if fields.text("sha256") != _digest(content):
            fields.fail("the content does not match its checksum")
        profile = VoiceProfile()
        if fields.count("utterances") > 0:
            profile._restore(fields)
        return profile

    def _restore(self, fields: JsonObject) -> None:
        size = fields.count("embedding_size", minimum=1)
        number_type = _NUMBERS[fields.count("format_version")]
        self._space = fields.text("space")
        if not self._space.isprintable():
            fields.fail("'space' holds letters that cannot be printed")
        self._utterances = fields.count("utterances")
        self._weight = fields.number("weight", lambda value: 0 < value <= _LARGEST_COUNT, "above 0 and at most 1e15")
        self._mean = _decode(fields, "mean", size, number_type)
        self._squares = _decode(fields, "squares", size, number_type)
        if not self._is_usable():
            fields.fail("it holds numbers that no voice gives")

    def _is_usable(self) -> bool:
        if (self._squares < 0).any():
            return False
        with np.errstate(over="ignore"):
            return bool(np.isfinite(self.as_input(self._mean.size)).all())

    def _to_dict(self) -> dict[str, object]:
        version = 1 if self._mean.size <= _LARGEST_IN_VERSION_1 else 2
        return {
            "format_version": version,
            "space": self._space,
            "embedding_size": self._mean.size,
            "utterances": self._utterances,
            "weight": self._weight,
            "mean": _encode(self._mean, _NUMBERS[version]),
            "squares": _encode(self._squares, _NUMBERS[version]),
        }

    def _check_same_model(self, other: VoiceProfile) -> None:
        if (self._space, self._mean.size) != (other._space, other._mean.size):
            raise ConfigError(
                f"one voice was learnt as {self._mean.size} numbers of '{self._space}', the other as "
                f"{other._mean.size} of '{other._space}'; need voices that were learnt with the same model"
            )

    def _check_fit(self, embedding_size: int, space: str | None) -> None:
        if self._space is None:
            return
        if space not in (None, self._space) or embedding_size != self._mean.size:
            wanted = "" if space is None else f" of '{space}'"
            raise ConfigError(
                f"this voice was learnt as {self._mean.size} numbers of '{self._space}', the model needs "
                f"{embedding_size}{wanted}; pass a fresh edge_ser.VoiceProfile(), or the model it was learnt with"
            )


def _encode(values: NDArray[np.float64], number_type: str) -> str:
    return base64.b64encode(values.astype(number_type).tobytes()).decode("ascii")


def _decode(fields: JsonObject, key: str, size: int, number_type: str) -> NDArray[np.float64]:
    try:
        data = base64.b64decode(fields.text(key), validate=True)
    except (binascii.Error, ValueError):
        fields.fail(f"'{key}' is not base64")
    need = np.dtype(number_type).itemsize * size
    if len(data) != need:
        fields.fail(f"'{key}' holds {len(data)} bytes, need {need}")
    values = np.frombuffer(data, dtype=number_type).astype(np.float64)
    if not np.isfinite(values).all():
        fields.fail(f"'{key}' holds values that are not finite")
    return values


def _digest(content: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
