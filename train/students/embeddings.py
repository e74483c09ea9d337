"""What the small encoder makes of the clips that the second stage learns voices and a first opinion from."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from train.augment import Augmenter
from train.students.bank import Bank
from train.students.run_settings import StudentSettings
from train.students.student import Student


@torch.no_grad()
def embeddings_of(
    student: Student, bank: Bank, augmenter: Augmenter, settings: StudentSettings
) -> dict[int, NDArray[np.float32]]:
    """Return what the encoder makes of each recording whose emotion is known, (variants, D), half of it with noise.

    Of an actor's other voices it is the first variant alone, at its own speed.
    """
    rng = np.random.default_rng(settings.seed)
    student.eval()
    found: dict[int, list[NDArray[np.float32]]] = {}
    for item in bank.items:
        acted = bank.recordings[item.recording].acted >= 0 and item.recording not in found
        if item.label < 0 and not acted:
            continue
        wave = bank.wave(item, 0, item.frames)
        if rng.random() < 0.5:
            wave = augmenter(wave, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bfloat16"):
            embedding = student.listen(torch.from_numpy(wave).unsqueeze(0))[3]
        found.setdefault(item.recording, []).append(embedding[0].float().numpy())
    return {n: np.stack(found[n]) for n in sorted(found)}
