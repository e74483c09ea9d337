"""Labelled samples of a target: nested k-shot supports, nested fractions, nested subsets, and who is left to judge."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from edge_ser.errors import ConfigError
from train.folds import Places, Recording, check_apart, clip_order, speaker_order

_TRIES = 200


@dataclass(frozen=True)
class Support:
    """Nested sets to adapt with, and one set of clips that judges them all."""

    nested: Mapping[float, Places]
    """By size (shots, share or number of clips), ascending: places of the clips; each holds the one before it."""
    query: Places
    """Every clip that is in no set."""
    unheard: Places
    """The part of the query whose speakers are in no set; empty where every speaker is in one."""

    @property
    def largest(self) -> Places:
        """The set that holds all others."""
        return self.nested[max(self.nested)]


def draw_shots(
    clips: Sequence[Recording],
    labels: Sequence[int],
    shots: Sequence[int],
    *,
    seed: int,
    per: str = "class",
    pool: str = "half",
) -> Support:
    """Return k-shot supports of one corpus: the smaller is always a part of the larger.

    The speakers of the support are drawn by seed and are at most half of all speakers, so that the query keeps speakers
    that nobody adapted to.

    Args:
        clips: The whole target corpus.
        labels: Class index of each clip.
        shots: Wanted sizes; 0 needs no clips and is left out. Nothing but 0 leaves the whole corpus to the query.
        seed: Seed of the draw.
        per: `class` draws k of each class, `total` k in all, as even over the classes as k allows.
        pool: Whose clips are drawn: those of `half` of the speakers, of as `few` as can give so many, or of `all`,
            which may leave no unheard speaker.

    Raises:
        ConfigError: The corpus has too few clips of a class, or a switch is unknown.
    """
    if per not in ("class", "total") or pool not in ("half", "few", "all"):
        raise ConfigError(f"got shots_per {per!r}, pool {pool!r}; need class or total; half, few or all")
    sizes = sorted({size for size in shots if size > 0})
    classes = sorted(set(labels))
    if not shots or min(shots) < 0 or len({clip.corpus for clip in clips}) != 1:
        raise ConfigError("got no shots or several corpora; need at least one k from 0 and one corpus at a time")
    if not sizes:
        return _support(clips, {})
    most = {c: sizes[-1] if per == "class" else math.ceil(sizes[-1] / len(classes)) for c in classes}
    speakers = _support_speakers(clips, labels, most, seed, pool)
    queues: dict[int, list[int]] = {c: [] for c in classes}
    for place in clip_order(clips, seed):
        if clips[place].speaker in speakers:
            queues[labels[place]].append(place)
    nested: dict[float, Places] = {}
    for size in sizes:
        share = {c: size for c in classes} if per == "class" else _even(size, classes, seed)
        nested[size] = tuple(sorted(place for c in classes for place in queues[c][: share[c]]))
    return _support(clips, nested)


def draw_fractions(
    clips: Sequence[Recording], labels: Sequence[int], fractions: Sequence[float], *, unit: str, draw: int
) -> Support:
    """Return nested shares of one corpus.

    Args:
        clips: The whole target corpus.
        labels: Class index of each clip.
        fractions: Shares in (0, 1).
        unit: `speaker` takes all clips of a share of the speakers, at least one; `utterance` a share of each class,
            whoever speaks, so that speakers stand on both sides.
        draw: Which draw. Of speakers, every set of the largest size comes once before any comes again.

    Raises:
        ConfigError: A share or the unit is wrong, or nothing is left to judge.
    """
    if unit not in ("speaker", "utterance") or not fractions or not all(0 < share < 1 for share in fractions):
        raise ConfigError(
            f"got unit {unit!r} and shares {list(fractions)}; need speaker or utterance, shares in (0, 1)"
        )
    nested: dict[float, Places] = {}
    order = _speaker_draw(clips, max(fractions), draw) if unit == "speaker" else []
    by_class = {c: [place for place in clip_order(clips, draw) if labels[place] == c] for c in sorted(set(labels))}
    for share in sorted(set(fractions)):
        if unit == "speaker":
            chosen = set(order[: max(1, round(share * _speakers(clips)))])
            nested[share] = tuple(place for place, clip in enumerate(clips) if clip.speaker in chosen)
        else:
            taken = [places[: max(1, round(share * len(places)))] for places in by_class.values()]
            nested[share] = tuple(sorted(place for places in taken for place in places))
    return _support(clips, nested, disjoint=unit == "speaker")


def nested_subsets(clips: Sequence[Recording], sizes: Sequence[int], *, seed: int) -> dict[int, Places]:
    """Return subsets from one seeded permutation: each size holds the smaller ones; a size above all takes all."""
    if not sizes or min(sizes) < 1:
        raise ConfigError(f"got sizes {list(sizes)}; need numbers of clips above 0")
    order = clip_order(clips, seed)
    return {size: tuple(sorted(order[:size])) for size in sorted(set(sizes))}


def _support(clips: Sequence[Recording], nested: dict[float, Places], disjoint: bool = False) -> Support:
    largest = set(nested[max(nested)]) if nested else set()
    query = tuple(place for place in range(len(clips)) if place not in largest)
    heard = {clips[place].speaker for place in largest}
    unheard = tuple(place for place in query if clips[place].speaker not in heard)
    if not query:
        raise ConfigError(f"got {len(clips)} clips, all of them in the support; need some to judge; take less")
    check_apart("file", {"support": {clips[p].path for p in largest}, "query": {clips[p].path for p in query}})
    held = unheard if not disjoint else query
    check_apart("speaker", {"support": heard, "query": {clips[p].speaker for p in held}})
    smaller: set[int] = set()
    for size in sorted(nested):
        if not smaller <= set(nested[size]):
            raise ConfigError(f"the support of {size} lacks clips of the one before; need nested supports")
        smaller = set(nested[size])
    return Support(nested, query, unheard)


def _support_speakers(
    clips: Sequence[Recording], labels: Sequence[int], most: Mapping[int, int], seed: int, pool: str
) -> set[str]:
    everybody = sorted({clip.speaker for clip in clips})
    if pool == "all" or len(everybody) == 1:
        _enough(clips, labels, set(everybody), most)
        return set(everybody)
    owned = {
        name: [label for clip, label in zip(clips, labels, strict=True) if clip.speaker == name] for name in everybody
    }
    best: set[str] = set()
    for attempt in range(_TRIES):
        # Where a speaker has one emotion only, most draws cannot give every class; the first that can is taken.
        order = speaker_order(clips, seed if attempt == 0 else seed + 7919 * attempt)
        chosen = set(order[: max(1, len(order) // 2)]) if pool == "half" else _few(order, owned, most)
        rest = [label for name in everybody if name not in chosen for label in owned[name]]
        gives = _gives(owned, chosen, most)
        if gives and set(rest) == set(most) and len(chosen) <= len(everybody) / 2:
            return chosen
        if gives and (not best or len(chosen) < len(best)):
            best = chosen
    if not best:
        best = _few(speaker_order(clips, seed), owned, most)
        _enough(clips, labels, best, most)
    return best


def _few(order: Sequence[str], owned: Mapping[str, list[int]], most: Mapping[int, int]) -> set[str]:
    """Return the first speakers of an order that bring what is still lacking, until nothing is."""
    chosen: set[str] = set()
    for name in order:
        lacking = [c for c in most if sum(owned[other].count(c) for other in chosen) < most[c]]
        if any(c in owned[name] for c in lacking):
            chosen.add(name)
    return chosen


def _gives(owned: Mapping[str, list[int]], chosen: set[str], most: Mapping[int, int]) -> bool:
    return all(sum(owned[name].count(c) for name in chosen) >= count for c, count in most.items())


def _enough(clips: Sequence[Recording], labels: Sequence[int], chosen: set[str], most: Mapping[int, int]) -> None:
    for c, count in most.items():
        found = sum(label == c and clip.speaker in chosen for clip, label in zip(clips, labels, strict=True))
        if found < count:
            raise ConfigError(f"{clips[0].corpus} has {found} clip(s) of class {c}; need {count}; take fewer shots")


def _even(size: int, classes: Sequence[int], seed: int) -> dict[int, int]:
    order = list(classes)
    random.Random(seed).shuffle(order)
    return {c: size // len(order) + (place < size % len(order)) for place, c in enumerate(order)}


def _speakers(clips: Sequence[Recording]) -> int:
    return len({clip.speaker for clip in clips})


def _speaker_draw(clips: Sequence[Recording], share: float, draw: int) -> list[str]:
    everybody = sorted({clip.speaker for clip in clips})
    count = max(1, round(share * len(everybody)))
    if count >= len(everybody):
        raise ConfigError(f"got {len(everybody)} speakers and a share of {share}; need somebody left; take less")
    ways = math.comb(len(everybody), count)
    if ways > 1000:
        return speaker_order(clips, draw)[:count]
    every = list(combinations(everybody, count))
    random.Random(0).shuffle(every)
    chosen = list(every[draw % ways])
    random.Random(draw).shuffle(chosen)
    return chosen
