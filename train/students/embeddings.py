"""What the small encoder makes of the clips that the second stage learns voices and a first opinion from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from train.augment import Augmenter, Wave
from train.students.bank import Bank, Item
from train.students.run_settings import StudentSettings
from train.students.student import Student

Rows = dict[int, NDArray[np.float32]]
_TOUCHED_SHARE = 2 / 3
"""Of the embeddings: through noise and rooms. All as they are, half, or each as it is, with noise and in a room: within
half a point of each other on validation speakers, the last best against the speaker's mean in rooms and noise."""
_BATCH = 32


@torch.no_grad()
def embeddings_of(student: Student, bank: Bank, augmenter: Augmenter, settings: StudentSettings) -> Rows:
    """Return what the encoder makes of each recording whose emotion is known, (variants, D), a third of it untouched.

    The rest has been through noise and rooms. Of an actor's other voices it is the first variant alone, at its own
    speed.
    """
    items = _known(bank)
    rng = np.random.default_rng(settings.seed)
    student.eval()
    rows: Rows = {}
    waiting: dict[int, list[tuple[int, Wave]]] = {}
    for place, item in enumerate(items):
        wave = bank.wave(item, 0, item.frames)
        if rng.random() < _TOUCHED_SHARE:
            wave = augmenter(wave, rng)
        # Those of one length are heard together.
        alike = waiting.setdefault(len(wave), [])
        alike.append((place, wave))
        if len(alike) == _BATCH:
            rows |= _heard(student, waiting.pop(len(wave)), settings)
    for alike in waiting.values():
        rows |= _heard(student, alike, settings)
    found: dict[int, list[NDArray[np.float32]]] = {}
    for place, item in enumerate(items):
        found.setdefault(item.recording, []).append(rows[place])
    return {n: np.stack(found[n]) for n in sorted(found)}


def _known(bank: Bank) -> list[Item]:
    """Return items with a label, and the first of each changed voice's recording whose actor's emotion is known."""
    items, seen = [], set()
    for item in bank.items:
        acted = bank.recordings[item.recording].acted >= 0 and item.recording not in seen
        if item.label >= 0 or acted:
            items.append(item)
            seen.add(item.recording)
    return items


def _heard(student: Student, alike: Sequence[tuple[int, Wave]], settings: StudentSettings) -> Rows:
    """Return embeddings (D,) by place, of waves of one length."""
    waves = torch.from_numpy(np.stack([wave for _, wave in alike]))
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bfloat16"):
        embeddings = student.listen(waves)[3].float().numpy()
    return {place: embedding for (place, _), embedding in zip(alike, embeddings, strict=True)}
