"""What the small encoder makes of the clips that the second stage learns voices and a first opinion from."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray

from train.augment import Augmenter, Wave, add_room
from train.students.bank import Bank, Item
from train.students.run_settings import StudentSettings
from train.students.student import Student

Rows = dict[int, NDArray[np.float32]]
_BATCH = 32


@torch.no_grad()
def embeddings_of(student: Student, bank: Bank, augmenter: Augmenter, settings: StudentSettings) -> Rows:
    """Return what the encoder makes of each recording whose emotion is known, (variants, D).

    A third of the variants is as it is, a third has been through the augmenter, a third in a room: on validation
    speakers worth half a point in rooms alone and nothing against the speaker's mean (train/LOG.md, 52). Of an actor's
    other voices it is the first variant alone, at its own speed.
    """
    items = _known(bank)
    rng = np.random.default_rng(settings.seed)
    student.eval()
    rows: Rows = {}
    # Those of one length are heard together.
    order = sorted(range(len(items)), key=lambda place: items[place].samples)
    for _, alike in groupby(order, key=lambda place: items[place].samples):
        places = list(alike)
        for first in range(0, len(places), _BATCH):
            batch = places[first : first + _BATCH]
            waves = [_touched(bank.wave(items[n], 0, items[n].frames), augmenter, rng) for n in batch]
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bfloat16"):
                embeddings = student.listen(torch.from_numpy(np.stack(waves)))[3].float().numpy()
            rows |= zip(batch, embeddings, strict=True)
    found: dict[int, list[NDArray[np.float32]]] = {}
    for place, item in enumerate(items):
        found.setdefault(item.recording, []).append(rows[place])
    return {n: np.stack(found[n]) for n in sorted(found)}


def _touched(wave: Wave, augmenter: Augmenter, rng: np.random.Generator) -> Wave:
    chance = rng.random()
    if chance < 1 / 3 and augmenter.has_rooms:
        return add_room(wave, augmenter.room(rng))
    return augmenter(wave, rng) if chance < 2 / 3 else wave


def _known(bank: Bank) -> list[Item]:
    """Return items with a label, and the first of each changed voice's recording whose actor's emotion is known."""
    items, seen = [], set()
    for item in bank.items:
        acted = bank.recordings[item.recording].acted >= 0 and item.recording not in seen
        if item.label >= 0 or acted:
            items.append(item)
            seen.add(item.recording)
    return items
