"""MHA fusion in its edge size: self-attention over frames and over words, statistics of the two modalities."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.layers import Attention, masked_deviation, masked_mean
from train.students.config import StudentConfig
from train.students.fusion import Fusion, Heard
from train.students.small_encoders import TextEncoder
from train.systems.mha_fusion import MissingVectors, statistics


class MhaFusion(Fusion):
    """Each modality reads itself; mean and deviation over the two pooled modalities are classified."""

    reads = ("text_ids", "text_mask")

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        width = 2 * config.unit
        self.text = TextEncoder(
            vocabulary=config.vocabulary,
            width=config.text_width,
            max_tokens=config.max_tokens,
            dropout=config.dropout,
        )
        self.project_text = nn.Linear(config.text_width, width)
        self.project_speech = nn.Linear(config.told_width, width)
        self.attention_text = Attention(width, config.heads, config.dropout)
        self.attention_speech = Attention(width, config.heads, config.dropout)
        self.norm_text = nn.LayerNorm(width)
        self.norm_speech = nn.LayerNorm(width)
        self.missing_modality = MissingVectors(width)
        self.hidden = nn.Linear(2 * width + 2 * config.told_width, 128)
        self.dropout = nn.Dropout(0.3)
        self.classify = nn.Linear(128, config.classes)

    def forward(self, heard: Heard, told: dict[str, Tensor]) -> Tensor:
        """Return logits (B, C); a row without a token takes the learned vector for missing text."""
        frames, text_mask = heard.told, told["text_mask"].to(heard.told.dtype)
        text = self.project_text(self.text(told["text_ids"], text_mask))
        speech = self.project_speech(frames)
        text = self.norm_text(text + self.attention_text(text, text, text_mask))
        speech = self.norm_speech(speech + self.attention_speech(speech, speech))
        has_text = text_mask.amax(dim=1, keepdim=True)
        pooled_text = has_text * masked_mean(text, text_mask) + (1.0 - has_text) * self.missing_modality.text
        z = statistics(pooled_text, speech.mean(1), unbiased=False)
        mean = frames.mean(1)
        z = torch.cat([z, mean, masked_deviation(frames, mean, None)], dim=-1)
        return self.classify(self.dropout(torch.relu(self.hidden(z))))
