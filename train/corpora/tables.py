"""What is known of a corpus beforehand: the meaning of its codes and its published counts. Data in tables.toml."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from edge_ser.errors import ConfigError
from train.corpora.class_maps import class_index, class_names
from train.corpora.utterance import Utterance, to_unit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Corpus:
    """A corpus as its makers describe it; a table that it has no need of is empty."""

    name: str
    """Name in manifests, and the beginning of its speakers' ids."""
    title: str
    """Full name."""
    language: str
    """ISO 639-1 code, perhaps with a region."""
    licence: str
    """Its conditions, in short."""
    home: str
    """Where it can be had."""
    layout: tuple[str, ...]
    """Examples of the files that a reader looks for."""
    utterances: int
    """Published count."""
    speakers: int = 0
    """Published count, 0 where none is."""
    scale: tuple[float, float] = (0.0, 1.0)
    """Ends of the scale of the attributes."""
    women: tuple[str, ...] = ()
    """Speaker codes of women, where names do not tell."""
    classes: Mapping[str, int] = field(default_factory=dict)
    """Published count of each label."""
    partition_sizes: Mapping[str, int] = field(default_factory=dict)
    """Published count of each official partition."""
    emotions: Mapping[str, str] = field(default_factory=dict)
    """Code -> label."""
    sentences: Mapping[str, str] = field(default_factory=dict)
    """Code -> what is said."""
    partitions: Mapping[str, str] = field(default_factory=dict)
    """The corpus's name of a partition -> ours."""

    def utterance(self, path: Path, *, speaker: str, emotion: str, gender: str = "", **more: Any) -> Utterance:
        """Return an utterance of this corpus, with its class in `four` worked out.

        Args:
            path: The audio file.
            speaker: The corpus's own code of the speaker.
            emotion: The label, as in `classes`.
            gender: `f`, `m` or empty.
            more: Other fields of `Utterance`.
        """
        found = Utterance(
            path=path,
            speaker=f"{self.name}_{speaker}",
            gender=gender,
            emotion=emotion,
            corpus=self.name,
            language=self.language,
            licence=self.licence,
            **more,
        )
        place = class_index(found, "four")
        return found if place < 0 else replace(found, emotion4=class_names("four")[place])

    def gender(self, speaker: str) -> str:
        """Return `f` or `m` by the table of women."""
        return "f" if speaker in self.women else "m"

    def attribute(self, text: str) -> float | None:
        """Return a rating on the corpus's scale as one in [0, 1], None where the text is no number.

        A mean that lies beyond the scale, as some of IEMOCAP's do, is held at its end.
        """
        try:
            value = float(text)
        except ValueError:
            return None
        low, high = self.scale
        return to_unit(min(max(value, low), high), low, high, self.name) if value == value else None


@cache
def corpus_table(name: str) -> Corpus:
    """Return what is known of a corpus.

    Raises:
        ConfigError: No such corpus.
    """
    raw = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    if name not in raw:
        raise ConfigError(f"corpus is {name!r}; need one of {', '.join(raw)}")
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in raw[name].items()
    }
    return Corpus(name=name, **values)
