"""Reading JSON from outside: every key that is missing or of the wrong type is a plain error."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from edge_ser.errors import EdgeSerError

_MOST_LEVELS = 50
"""Of objects and lists in each other; Python itself gives up at some hundreds, here or where the value is written."""
_MOST_DIGITS = 1000
_LARGEST_COUNT = 10**15


@dataclass(frozen=True)
class JsonObject:
    """One JSON object, read key by key."""

    plain: dict[str, object]
    """The parsed object."""
    where: str
    """Where it stands, for messages: a file, then the keys that lead to it."""
    remedy: str
    """What its reader can do about an object that does not fit."""
    error: type[EdgeSerError]
    """The error to raise."""

    @staticmethod
    def parse(text: bytes, where: str, remedy: str, error: type[EdgeSerError]) -> JsonObject:
        """Return the object that UTF-8 `text` holds.

        Raises:
            EdgeSerError: An `error`: the text is not JSON, not an object, or holds what could not be written as JSON.
        """
        try:
            plain = json.loads(
                text.decode("utf-8"), parse_constant=_refuse_constant, parse_int=_whole, parse_float=_finite
            )
            _check_levels(plain)
            # Half a surrogate pair, which JSON can spell, is no text that a file or a terminal takes.
            json.dumps(plain, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as problem:
            raise error(f"{where} is not valid JSON ({problem}); {remedy}") from None
        return JsonObject({}, where, remedy, error).child(plain, where)

    def fail(self, problem: str) -> NoReturn:
        """Raise the error: where, the problem, the remedy."""
        raise self.error(f"{self.where}: {problem}; {self.remedy}")

    def value(self, key: str) -> object:
        """Return whatever `key` holds."""
        if key not in self.plain:
            self.fail(f"the key '{key}' is missing")
        return self.plain[key]

    def text(self, key: str) -> str:
        """Return text that is not blank."""
        value = self.value(key)
        if not isinstance(value, str) or not value.strip():
            self._mistyped(key, value, "text")
        return value

    def number(self, key: str, fits: Callable[[float], bool] = math.isfinite, words: str = "a finite number") -> float:
        """Return a number for which `fits`; `words` says which numbers do."""
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_float(value) or not fits(value):
            self._mistyped(key, value, words)
        return float(value)

    def count(self, key: str, minimum: int = 0, maximum: int = _LARGEST_COUNT) -> int:
        """Return a whole number from `minimum` to `maximum`."""
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            self._mistyped(key, value, f"a whole number, {minimum} or more")
        if value > maximum:
            self._mistyped(key, value, f"a whole number, at most {maximum}")
        return value

    def texts(self, key: str, at_least: int = 0) -> tuple[str, ...]:
        """Return a list of different, non-blank texts without control characters, which a terminal would obey."""
        values = [v for v in self._list(key) if isinstance(v, str) and v.strip() and v.isprintable()]
        if len(values) != len(self._list(key)) or len(set(values)) != len(values) or len(values) < at_least:
            self._mistyped(key, self.value(key), f"a list of {at_least} or more different texts")
        return tuple(values)

    def free(self, key: str) -> dict[str, object]:
        """Return an object of any content."""
        value = self.value(key)
        if not isinstance(value, dict):
            self._mistyped(key, value, "an object")
        return value

    def named_texts(self, key: str) -> dict[str, str]:
        """Return an object of non-blank texts."""
        return {name: self.nested(key).text(name) for name in self.free(key)}

    def nested(self, key: str) -> JsonObject:
        """Return an object to read key by key."""
        return self.child(self.value(key), f"{self.where}: {key}")

    def objects(self, key: str) -> list[JsonObject]:
        """Return a list of objects to read key by key."""
        return [self.child(item, f"{self.where}: {key}[{index}]") for index, item in enumerate(self._list(key))]

    def shape(self, key: str) -> tuple[int | str, ...]:
        """Return a shape: whole numbers, and names for what varies."""
        sizes = [size for size in self._list(key) if isinstance(size, (int, str)) and not isinstance(size, bool)]
        if not sizes or len(sizes) != len(self._list(key)):
            self._mistyped(key, self.value(key), 'a shape such as [1, "samples"]')
        return tuple(sizes)

    def child(self, value: object, where: str) -> JsonObject:
        """Return `value`, which must be an object and stands at `where`."""
        if not isinstance(value, dict):
            raise self.error(f"{where}: got {_name(value)}, need an object; {self.remedy}")
        return JsonObject(value, where, self.remedy, self.error)

    def _list(self, key: str) -> list[object]:
        value = self.value(key)
        if not isinstance(value, list):
            self._mistyped(key, value, "a list")
        return value

    def _mistyped(self, key: str, value: object, need: str) -> NoReturn:
        self.fail(f"'{key}' is {_name(value)}, need {need}")


def _is_float(value: int | float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _name(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits is too long")
    return int(text)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _check_levels(plain: object) -> None:
    level = [plain]
    for _ in range(_MOST_LEVELS):
        level = [
            inner
            for value in level
            if isinstance(value, (dict, list))
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    if level:
        raise ValueError(f"it is nested more than {_MOST_LEVELS} levels deep")
