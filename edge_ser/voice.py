"""What is remembered of a voice: running statistics of the speaker's embedding; no audio, no words."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_ser.errors import ConfigError
from edge_ser.json_object import JsonObject

_FORMAT_VERSION = 1
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
            ConfigError: The profile is bound to another space or size, or a value is not finite.
        """
        values = np.asarray(embedding, dtype=np.float64)
        if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
            raise ConfigError(f"got an embedding of shape {values.shape}; need finite numbers of shape (size,)")
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

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the profile to a file that only its owner may read; a crash leaves the old file whole.

        Raises:
            ConfigError: The file cannot be written.
        """
        target = Path(path)
        content = self._to_dict()
        try:
            handle, temporary = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump({**content, "sha256": _digest(content)}, file)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, target)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError as problem:
            raise ConfigError(
                f"cannot write the voice to {target} ({problem.strerror}); need a file in an existing, writable folder"
            ) from None

    @staticmethod
    def open(path: str | os.PathLike[str]) -> VoiceProfile:
        """Return the profile that `save` wrote.

        Raises:
            ConfigError: There is no such file, or it is damaged.
        """
        try:
            text = Path(path).read_bytes()
        except OSError as problem:
            raise ConfigError(
                f"cannot read a voice from {path} ({problem.strerror}); need a file that VoiceProfile.save wrote"
            ) from None
        fields = JsonObject.parse(text, str(path), _REMEDY, ConfigError)
        if fields.count("format_version") != _FORMAT_VERSION:
            fields.fail(f"format version {fields.count('format_version')}, need {_FORMAT_VERSION}")
        content = {key: value for key, value in fields.plain.items() if key != "sha256"}
        if fields.text("sha256") != _digest(content):
            fields.fail("the content does not match its checksum")
        profile = VoiceProfile()
        if fields.count("utterances") > 0:
            profile._restore(fields)
        return profile

    def _restore(self, fields: JsonObject) -> None:
        size = fields.count("embedding_size", minimum=1)
        self._space = fields.text("space")
        self._utterances = fields.count("utterances")
        self._weight = fields.number("weight", lambda value: value > 0, "a number above 0")
        self._mean = _decode(fields, "mean", size)
        self._squares = _decode(fields, "squares", size)

    def _to_dict(self) -> dict[str, object]:
        return {
            "format_version": _FORMAT_VERSION,
            "space": self._space,
            "embedding_size": self._mean.size,
            "utterances": self._utterances,
            "weight": self._weight,
            "mean": _encode(self._mean),
            "squares": _encode(self._squares),
        }

    def _check_fit(self, embedding_size: int, space: str | None) -> None:
        if self._space is None:
            return
        if space not in (None, self._space) or embedding_size != self._mean.size:
            wanted = "" if space is None else f" of '{space}'"
            raise ConfigError(
                f"this voice was learnt as {self._mean.size} numbers of '{self._space}', the model needs "
                f"{embedding_size}{wanted}; pass a fresh edge_ser.VoiceProfile(), or the model it was learnt with"
            )


def _encode(values: NDArray[np.float64]) -> str:
    return base64.b64encode(values.astype("<f8").tobytes()).decode("ascii")


def _decode(fields: JsonObject, key: str, size: int) -> NDArray[np.float64]:
    try:
        data = base64.b64decode(fields.text(key), validate=True)
    except (binascii.Error, ValueError):
        fields.fail(f"'{key}' is not base64")
    if len(data) != 8 * size:
        fields.fail(f"'{key}' holds {len(data)} bytes, need {8 * size}")
    values = np.frombuffer(data, dtype="<f8").astype(np.float64)
    if not np.isfinite(values).all():
        fields.fail(f"'{key}' holds values that are not finite")
    return values


def _digest(content: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
