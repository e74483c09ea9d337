"""Folds, supports and subsets: who is learnt from, who chooses, who judges, the same on every machine.

Everything is a list of places in the clips that were given, drawn by seed from sorted speakers or files, so that
neither the order of the clips nor the machine matters. Every function checks what it returns for leaks: no file on two
sides ever, no speaker on two sides where a protocol promises unheard speakers.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_ser.errors import ConfigError


class Spoken(Protocol):
    """What a split must know of a clip."""

    @property
    def path(self) -> Path:
        """The audio file."""

    @property
    def speaker(self) -> str:
        """Id of the speaker, unique over all corpora."""

    @property
    def corpus(self) -> str:
        """Name of the corpus."""

    @property
    def gender(self) -> str:
        """`f`, `m` or empty."""


class Recording(Spoken, Protocol):
    """What a fold must know of a clip."""

    @property
    def session(self) -> str:
        """Id of the recording session within the corpus, or empty."""


Places = tuple[int, ...]
"""Places of clips in the list that was given, ascending."""


@dataclass(frozen=True)
class Fold:
    """One way to divide clips into three sides."""

    name: str
    """Names the fold: its number, speaker or session."""
    train: Places
    """What a system learns from."""
    validation: Places
    """What chooses its weights."""
    test: Places
    """What judges it."""


def speaker_folds(
    clips: Sequence[Recording], folds: int, *, seed: int = 0, validation_fraction: float = 0.0
) -> list[Fold]:
    """Return folds whose test speakers are heard nowhere else in the fold, balanced by number of clips.

    As GroupKFold does, the speaker with the most clips goes to the lightest fold next; speakers with equally many go in
    an order drawn by `seed`.

    Args:
        clips: All clips; fewer speakers than folds make as many folds as speakers.
        folds: How many folds.
        seed: Seed of the draw.
        validation_fraction: Share of the other speakers (at least one) that choose the weights; 0 takes the next fold
            for that.

    Raises:
        ConfigError: There are fewer than three speakers.
    """
    counts = Counter(clip.speaker for clip in clips)
    _need(len(counts) >= 3, f"{len(counts)} speaker(s)", "three, one for each side", "add clips of other speakers")
    groups: list[set[str]] = [set() for _ in range(min(folds, len(counts)))]
    _need(len(groups) >= 3, f"{folds} folds", "at least 3", "set folds = 3 or more")
    loads = [0] * len(groups)
    for speaker in sorted(counts, key=lambda name: (-counts[name], _rank(seed, name))):
        lightest = loads.index(min(loads))
        groups[lightest].add(speaker)
        loads[lightest] += counts[speaker]
    result = []
    for number, held in enumerate(groups):
        chosen = (
            _some_speakers(clips, held, validation_fraction, seed)
            if validation_fraction
            else groups[(number + 1) % len(groups)]
        )
        result.append(_by_speaker(clips, str(number), chosen, held))
    return check_folds(clips, result)


def leave_one_speaker_out(clips: Sequence[Recording], *, seed: int = 0, validation_fraction: float = 0.1) -> list[Fold]:
    """Return one fold a speaker, who judges; a share of the others, at least one, chooses the weights."""
    speakers = sorted({clip.speaker for clip in clips})
    _need(len(speakers) >= 3, f"{len(speakers)} speaker(s)", "three, one for each side", "add clips of others")
    folds = [
        _by_speaker(clips, speaker, _some_speakers(clips, {speaker}, validation_fraction, seed), {speaker})
        for speaker in speakers
    ]
    return check_folds(clips, folds)


def leave_one_session_out(clips: Sequence[Recording], *, seed: int = 0, validation_fraction: float = 0.1) -> list[Fold]:
    """Return one fold a session, whose speakers judge; a share of the others chooses the weights.

    Raises:
        ConfigError: A clip has no session, or there is only one.
    """
    sessions = _sessions(clips)
    _need(len(sessions) >= 2, f"{len(sessions)} session", "at least two", "use folds by speaker")
    folds = []
    for session, held in sessions.items():
        folds.append(_by_speaker(clips, session, _some_speakers(clips, held, validation_fraction, seed), held))
    return check_folds(clips, folds)


def session_partner_folds(clips: Sequence[Recording]) -> list[Fold]:
    """Return one fold a speaker of dialogues: the speaker judges, the partner in the session chooses the weights.

    With five sessions of a woman and a man each, every fold learns from four women and four men.

    Raises:
        ConfigError: A session has not exactly two speakers.
    """
    folds = []
    for session, speakers in _sessions(clips).items():
        _need(
            len(speakers) == 2,
            f"session {session} with {len(speakers)} speaker(s)",
            "two speakers in every session",
            "use folds by speaker",
        )
        for speaker in sorted(speakers):
            folds.append(_by_speaker(clips, speaker, speakers - {speaker}, {speaker}))
    return check_folds(clips, folds)


def shuffled_folds(clips: Sequence[Recording], folds: int = 5, *, seed: int = 0) -> list[Fold]:
    """Return folds of shuffled clips, speakers on all sides: 80 / 10 / 10 with five folds.

    Each fold holds one part out, half of it to choose the weights and half to judge; over all folds, each clip is held
    out once. This is how some published figures came about; it measures known speakers.
    """
    _need(len(clips) >= 2 * folds >= 4, f"{len(clips)} clips", f"at least {2 * folds}, folds at least 2", "add clips")
    order = clip_order(clips, seed)
    result = []
    for number in range(folds):
        held = order[number::folds]
        validation, test = held[::2], held[1::2]
        train = set(range(len(clips))) - set(held)
        result.append(Fold(str(number), tuple(sorted(train)), tuple(sorted(validation)), tuple(sorted(test))))
    return check_folds(clips, result, speaker_independent=False, held_out_halves=True)


def source_fold(clips: Sequence[Recording], *, validation_fraction: float, seed: int = 0) -> Fold:
    """Return training and validation of source corpora: of each corpus, a share of its speakers (at least one) chooses.

    Nobody is held for a test: the target is another corpus.
    """
    chosen: set[str] = set()
    for corpus in sorted({clip.corpus for clip in clips}):
        own = [clip for clip in clips if clip.corpus == corpus]
        chosen |= _some_speakers(own, set(), validation_fraction, seed)
    fold = _by_speaker(clips, "source", chosen, set())
    return check_folds(clips, [fold], covers=False)[0]


def split_speakers(
    clips: Sequence[Spoken], *, validation_fraction: float, test_fraction: float, seed: int = 0
) -> tuple[set[str], set[str]]:
    """Return who chooses the weights and who judges: of each corpus the same share of its speakers, genders in turn.

    The order of speakers is a hash of seed and id, so neither the order of the clips nor other corpora move anybody.

    Args:
        clips: Of one or several corpora.
        validation_fraction: Share that chooses, at least one speaker.
        test_fraction: Share that judges, at least one speaker; 0 is nobody.
        seed: Seed of the order.

    Raises:
        ConfigError: A corpus has too few speakers to give one to each side.
    """
    validation: set[str] = set()
    test: set[str] = set()
    for corpus in sorted({clip.corpus for clip in clips}):
        order = _in_turn(_by_gender([clip for clip in clips if clip.corpus == corpus], seed))
        held = max(1, round(len(order) * test_fraction)) if test_fraction > 0 else 0
        both = held + max(1, round(len(order) * validation_fraction))
        if len(order) <= both:
            raise ConfigError(
                f"{corpus} has {len(order)} speaker(s); need more than {both}; add speakers or lower the fractions"
            )
        test |= set(order[:held])
        validation |= set(order[held:both])
    return validation, test


def split_fold(clips: Sequence[Recording], *, validation_fraction: float, test_fraction: float, seed: int = 0) -> Fold:
    """Return the division by speaker of `split_speakers`."""
    sides = split_speakers(clips, validation_fraction=validation_fraction, test_fraction=test_fraction, seed=seed)
    return check_folds(clips, [_by_speaker(clips, "split", *sides)], covers=False)[0]


def check_folds(
    clips: Sequence[Recording],
    folds: list[Fold],
    *,
    speaker_independent: bool = True,
    covers: bool = True,
    held_out_halves: bool = False,
) -> list[Fold]:
    """Return the folds if they leak nothing.

    Args:
        clips: What the folds point into.
        folds: To be checked.
        speaker_independent: No speaker may stand on two sides of a fold.
        covers: Every clip must judge in exactly one fold.
        held_out_halves: Every clip must choose or judge in exactly one fold, instead.

    Raises:
        ConfigError: A file, its copy by hash or a speaker on two sides, an empty side, a clip in no fold or several.
    """
    judged: Counter[int] = Counter()
    for fold in folds:
        sides = {"train": fold.train, "validation": fold.validation, "test": fold.test}
        for side in ("train", "validation", *(("test",) if covers else ())):
            _need(bool(sides[side]), f"no clip for {side} in fold {fold.name}", "some on every side", "add speakers")
        check_apart("file", {side: {clips[place].path for place in places} for side, places in sides.items()})
        check_apart("content", {side: contents(clips[p] for p in places) for side, places in sides.items()})
        if speaker_independent:
            check_apart("speaker", {side: {clips[place].speaker for place in places} for side, places in sides.items()})
        judged.update(fold.test)
        judged.update(fold.validation if held_out_halves else ())
    if covers and judged != Counter(range(len(clips))):
        raise ConfigError(f"the folds judge {len(judged)} of {len(clips)} clips once; need each exactly once")
    return folds


def check_apart(what: str, sides: dict[str, set[Path]] | dict[str, set[str]]) -> None:
    """Raise ConfigError if a file or speaker stands on two sides."""
    owner: dict[Hashable, str] = {}
    for side, values in sides.items():
        for value in sorted(values, key=str):
            if value in owner:
                raise ConfigError(f"{what} {value} is in {owner[value]} and in {side}; need it on one side")
            owner[value] = side


def fold_hash(clips: Sequence[Recording], fold: Fold) -> str:
    """Return a short hash of which clips stand on which side of a fold."""
    sides = [sorted(_clip_name(clips[place]) for place in side) for side in (fold.train, fold.validation, fold.test)]
    return hashlib.sha256(repr(sides).encode()).hexdigest()[:8]


def _clip_name(clip: Recording) -> str:
    return "/".join((clip.corpus, *clip.path.parts[-2:], str(getattr(clip, "start_s", None) or 0.0)))


def contents(clips: Iterable[object]) -> set[str]:
    """Return the hashes of the clips' files, of those that have one."""
    return {found for clip in clips if (found := str(getattr(clip, "sha256", "")))}


def speaker_order(clips: Sequence[Recording], seed: int) -> list[str]:
    """Return the speakers in an order drawn by seed, genders in turn, so that any first few are mixed."""
    queues = _by_gender(clips, seed)
    queues.sort(key=lambda queue: _rank(seed, *queue))
    return _in_turn(queues)


def clip_order(clips: Sequence[Recording], seed: int) -> list[int]:
    """Return the places of all clips in an order drawn by seed, whatever their order was."""
    # The folder's name tells files of one name apart; folders further up differ from machine to machine.
    return sorted(range(len(clips)), key=lambda p: _rank(seed, clips[p].speaker, *clips[p].path.parts[-2:]))


def _by_gender(clips: Sequence[Spoken], seed: int) -> list[list[str]]:
    """Return the speakers of each gender in an order drawn by seed."""
    genders: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        genders[clip.gender].add(clip.speaker)
    return [sorted(genders[gender], key=lambda name: _rank(seed, name)) for gender in sorted(genders)]


def _in_turn(queues: Sequence[Sequence[str]]) -> list[str]:
    return [queue[place] for place in range(max(map(len, queues))) for queue in queues if place < len(queue)]


def _some_speakers(clips: Sequence[Recording], without: set[str], fraction: float, seed: int) -> set[str]:
    others = [clip for clip in clips if clip.speaker not in without]
    order = speaker_order(others, seed) if others else []
    count = max(1, round(len(order) * fraction))
    _need(len(order) > count, f"{len(order)} speaker(s) to learn from", f"more than {count}", "lower the fraction")
    return set(order[:count])


def _by_speaker(clips: Sequence[Recording], name: str, validation: set[str], test: set[str]) -> Fold:
    def places(speakers: set[str]) -> Places:
        return tuple(place for place, clip in enumerate(clips) if clip.speaker in speakers)

    everybody = {clip.speaker for clip in clips}
    return Fold(name, places(everybody - validation - test), places(validation), places(test))


def _sessions(clips: Sequence[Recording]) -> dict[str, set[str]]:
    sessions: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        _need(bool(clip.session), f"no session for {clip.path.name}", "one for every clip", "use folds by speaker")
        sessions[clip.session].add(clip.speaker)
    return dict(sorted(sessions.items()))


def _rank(seed: int, *names: str) -> str:
    return hashlib.sha256(":".join([str(seed), *names]).encode()).hexdigest()


def _need(holds: bool, got: str, need: str, do: str) -> None:
    if not holds:
        raise ConfigError(f"got {got}; need {need}; {do}")
