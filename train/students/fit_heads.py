"""Heads for an encoder that was kept without them: what it hears is given, so each is a ridge regression."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from train.students.bank import Bank
from train.students.pooled_teacher import FEWEST_FRAMES, PooledTeacher, pooled_item
from train.students.small_encoders import SpeechEncoder

_RIDGE = 1e-3
"""Of the mean square of what is regressed on."""


class _Regression:
    """Sums that a regression of targets (n, K) on inputs (n, D) needs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.square = torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64)
        self.cross = torch.zeros(inputs + 1, outputs, dtype=torch.float64)

    def add(self, inputs: Tensor, targets: Tensor) -> None:
        rows = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1).double()
        self.square += rows.T @ rows
        self.cross += rows.T @ targets.double()

    def give(self, head: nn.Linear) -> None:
        """Put weights and biases into a head."""
        price = self.square.diagonal().mean() * _RIDGE * torch.eye(len(self.square), dtype=torch.float64)
        price[-1, -1] = 0.0
        solved = torch.linalg.solve(self.square + price, self.cross).float()
        head.weight.copy_(solved[:-1].T)
        head.bias.copy_(solved[-1])


@torch.no_grad()
def fit_heads(
    speech: SpeechEncoder,
    pooled: PooledTeacher,
    heads: tuple[nn.Linear, nn.Linear, nn.Linear],
    bank: Bank,
    *,
    seed: int,
) -> None:
    """Fit the heads of frames, vectors and emotions (train.students.encoder_distiller) to a bank.

    Args:
        speech: The encoder of width D; its weights stay, and it is in eval mode afterwards.
        pooled: What the teacher's frames are turned into, already learnt.
        heads: Frames (D) -> the teacher's (K); embedding (2 D) -> vector (2 K); embedding -> discriminants (2 C).
        bank: What is heard, and what the teacher made of it.
        seed: Chooses 3,000 items of it.
    """
    sums = [_Regression(head.in_features, head.out_features) for head in heads]
    speech.eval()
    chosen = np.random.default_rng(seed).permutation(len(bank.items))[:3000]
    for item in (bank.items[int(n)] for n in sorted(chosen)):
        frames = speech(torch.from_numpy(bank.wave(item, 0, item.frames))[None])[2]
        sums[0].add(frames[0], torch.from_numpy(bank.frames(item, 0, item.frames)))
        if bank.spoken(item, 0, item.frames).sum() >= FEWEST_FRAMES:
            embedding, targets = speech.pooled(frames), pooled(torch.from_numpy(pooled_item(bank, item))[None])
            sums[1].add(embedding, targets.vector)
            sums[2].add(embedding, targets.emotion)
    for part, head in zip(sums, heads, strict=True):
        part.give(head)
