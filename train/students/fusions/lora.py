"""Multilingual LoRA in its edge size: attentive statistics over the frames, low-rank packs for further languages."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.attribute_head import AttentivePooling
from train.students.config import StudentConfig
from train.students.fusion import Fusion, Heard


class LoraFusion(Fusion):
    """Attentive statistics pooling, a hidden layer and classes; a language pack changes what the pooling is given."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        width = config.told_width
        self.pooling = AttentivePooling(width, config.unit)
        self.hidden = nn.Linear(2 * width, 128)
        self.dropout = nn.Dropout(0.3)
        self.out = nn.Linear(128, config.classes)

    def forward(self, heard: Heard, told: dict[str, Tensor]) -> Tensor:
        """Return logits (B, C)."""
        pooled = self.pooling(heard.told, None)
        return self.out(self.dropout(torch.relu(self.hidden(pooled))))
