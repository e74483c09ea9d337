"""Multilingual LoRA in its edge size: attentive statistics over the frames, low-rank packs for further languages."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.attribute_head import AttentivePooling
from train.students.config import StudentConfig
from train.students.fusion import Fusion, Heard

_HIDDEN = 128
_FARTHEST = 4.0
"""Deviations; what sets an utterance farther apart tells a language pack no more."""


class LoraFusion(Fusion):
    """Attentive statistics pooling, a hidden layer and classes; a language pack changes the last two.

    A pack is two matrices: what sets the embedding apart, z, adds (z D) U to the hidden layer and to the logits. Zeros
    are no pack, and leave every answer as it is.
    """

    reads = ("pack_down", "pack_up")

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        width = config.told_width
        self.pooling = AttentivePooling(width, config.unit)
        self.hidden = nn.Linear(2 * width, _HIDDEN)
        self.dropout = nn.Dropout(0.3)
        self.out = nn.Linear(_HIDDEN, config.classes)
        self.pack_shapes = {
            "pack_down": (2 * config.speech_width, config.rank),
            "pack_up": (config.rank, _HIDDEN + config.classes),
        }

    def forward(self, heard: Heard, told: dict[str, Tensor]) -> Tensor:
        """Return logits (B, C); `pack_down` (B, 2 W, r) and `pack_up` (B, r, H + C) may be absent."""
        hidden = self.hidden(self.pooling(heard.told, None))
        if "pack_down" not in told:
            return self.classify(hidden)
        return self.classify(hidden, self.learnt(heard.apart, told["pack_down"], told["pack_up"]))

    @staticmethod
    def learnt(apart: Tensor, down: Tensor, up: Tensor) -> Tensor:
        """Return what a pack adds, (B, H + C), for (B, 2 W), (B, 2 W, r) and (B, r, H + C)."""
        return (apart.clamp(-_FARTHEST, _FARTHEST).unsqueeze(1) @ down @ up).squeeze(1)

    def classify(self, hidden: Tensor, learnt: Tensor | None = None) -> Tensor:
        """Return logits (B, C) of the hidden layer (B, H) and of what a pack adds (B, H + C)."""
        if learnt is None:
            return self.out(self.dropout(torch.relu(hidden)))
        return self.out(self.dropout(torch.relu(hidden + learnt[:, :_HIDDEN]))) + learnt[:, _HIDDEN:]
