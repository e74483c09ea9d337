"""Class maps: which class of a task a corpus's own label belongs to. The maps themselves are data, class_maps.toml."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edge_ser.errors import ConfigError
from train.corpora.utterance import Utterance

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NOT_IN_MAP = -1
"""Index of an utterance whose label belongs to no class."""


@dataclass(frozen=True)
class ClassMap:
    """The classes of a task and the labels that belong to them."""

    names: tuple[str, ...]
    """Classes in index order."""
    labels: Mapping[str, Mapping[str, str]]
    """Corpus -> its own label -> class, or empty for a label in no class."""
    fallback: bool
    """Whether a label that no table lists counts by the manifest's column emotion4."""


def class_names(map_name: str) -> tuple[str, ...]:
    """Return the classes of a map in index order.

    Args:
        map_name: `four`, `iemocap7`, ...; options follow a plus sign, as in `four+boredom`; `mdat` is short for that.

    Raises:
        ConfigError: No such map or option.
    """
    return class_map(map_name).names


def class_index(utterance: Utterance, map_name: str) -> int:
    """Return the class of an utterance, -1 where its label is in none.

    Raises:
        ConfigError: No such map or option.
    """
    chosen = class_map(map_name)
    name = chosen.labels.get(utterance.corpus, {}).get(utterance.emotion)
    if name is None:
        name = utterance.emotion4 if chosen.fallback else ""
    return chosen.names.index(name) if name else NOT_IN_MAP


@cache
def class_map(map_name: str) -> ClassMap:
    """Return a map by its name, with its options applied.

    Raises:
        ConfigError: No such map or option.
    """
    tables = _tables()
    name, *options = tables["aliases"].get(map_name, map_name).split("+")
    if name == "aliases" or name not in tables:
        raise ConfigError(f"class map is {map_name!r}; need one of {', '.join(map_names())}")
    table = tables[name]
    labels = {corpus: dict(entries) for corpus, entries in table.get("labels", {}).items()}
    for corpus in table.get("native", []):
        labels[corpus] = {label: label for label in table["names"]}
    for option in options:
        if option not in table.get("options", {}):
            known = ", ".join(f"{name}+{option}" for option in table.get("options", {})) or "none"
            raise ConfigError(f"class map {map_name!r} has no option {option!r}; the options of {name}: {known}")
        for corpus, entries in table["options"][option].items():
            labels[corpus] |= entries
    return ClassMap(tuple(table["names"]), labels, bool(table.get("fallback", False)))


def map_names() -> list[str]:
    """Return the names of all maps and of their short forms."""
    tables = _tables()
    return [*(name for name in tables if name != "aliases"), *tables["aliases"]]


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
