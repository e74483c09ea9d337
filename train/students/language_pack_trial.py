"""What a language pack is worth on speakers that it has not heard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ser.errors import ConfigError
from edge_ser.language_pack import LanguagePack
from edge_ser.metrics import confusion_matrix, unweighted_accuracy
from train.students.language_pack import FRESH, WARM, Listened, PackSettings, joined, learn_pack, logits_of
from train.students.student import Student

FOLDS = 5

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Held:
    """What was said to clips of speakers that the pack had not heard: first with a fresh voice, then with a known."""

    truth: NDArray[np.int64]
    """(n,)."""
    before: tuple[Floats, Floats]
    """Logits (n, C) without a pack."""
    after: tuple[Floats, Floats]
    """Logits (n, C) with it."""

    @property
    def gain(self) -> float:
        """How much more is recognised with the pack, in UA, the mean of both voices."""
        return float(np.mean([self._ua(logits) for logits in self.after]) - np.mean(list(map(self._ua, self.before))))

    def to_plain(self) -> dict[str, Any]:
        """Return UA without and with the pack, by voice, as plain data."""
        pairs = zip(("cold", "warm"), self.before, self.after, strict=True)
        return {name: [round(self._ua(before), 4), round(self._ua(after), 4)] for name, before, after in pairs}

    def _ua(self, logits: Floats) -> float:
        return unweighted_accuracy(confusion_matrix(self.truth, logits.argmax(1), logits.shape[1]))


def judged(student: Student, heard: Listened, pack: LanguagePack) -> Held:
    """Return what is said to clips without and with a pack."""
    before, after = (
        (logits_of(student, heard, one, FRESH), logits_of(student, heard, one, WARM)) for one in (None, pack)
    )
    return Held(heard.labels.numpy(), before, after)


def leave_speakers_out(
    student: Student, heard: Listened, noise: Listened, settings: PackSettings, seed: int = 0
) -> Held:
    """Return what packs of the other speakers are worth to each speaker.

    Args:
        student: Whom the packs are for.
        heard: Labelled clips.
        noise: Sound that is nobody's speech, which a pack must not find an emotion in.
        settings: How they learn.
        seed: Of the groups in which speakers are left out, and of the packs.

    Raises:
        ConfigError: The clips are of one speaker.
    """
    parts = []
    for held in speaker_groups(heard, FOLDS, seed):
        others = sorted(set(range(len(heard.labels))) - set(held))
        parts.append(
            judged(student, heard.at(held), learn_pack(student, joined(heard.at(others), noise), settings, seed))
        )
    truth = np.concatenate([part.truth for part in parts])
    (cold, warm), (cold_after, warm_after) = (
        tuple(np.concatenate([getattr(part, when)[voice] for part in parts]) for voice in (0, 1))
        for when in ("before", "after")
    )
    return Held(truth, (cold, warm), (cold_after, warm_after))


def speaker_groups(heard: Listened, groups: int, seed: int) -> list[list[int]]:
    """Return places of clips in groups that share no speaker, as many as there are speakers at most.

    Raises:
        ConfigError: There is one speaker only.
    """
    names = np.random.default_rng(seed).permutation(np.unique(heard.speakers))
    if len(names) < 2:
        raise ConfigError(
            f"got clips of {len(names)} speaker; need two or more, to say what a pack is worth to one that it has not "
            "heard; record another, or adapt to the one: edge-ser adapt --help"
        )
    owner = {str(name): place % groups for place, name in enumerate(names)}
    whose = np.array([owner[str(name)] for name in heard.speakers])
    return [np.flatnonzero(whose == group).tolist() for group in range(min(groups, len(names)))]
