"""HuMP-CAT in its edge size: two depths of the encoder, MFCCs and prosody through two cross-attention transformers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.layers import masked_deviation
from train.recurrent import MaskedBiGru
from train.students.cepstrum import Cepstrum
from train.students.config import StudentConfig
from train.students.fusion import Fusion, Heard
from train.systems.hump_cat import CosineClassifier
from train.systems.hump_cat_branches import LayerAttention
from train.systems.hump_cat_fusion import CrossTransformer, SelfAttentionLayer, Tokens

PROSODY_WIDTH = 103
_MFCCS = 13
_TOKENS_EVERY = 12
"""Frames of 10 ms in one token of MFCCs."""


class HumpCatFusion(Fusion):
    """Hand-crafted features first among themselves, then with the encoder's frames, then all; cosines to classes."""

    reads = ("prosody",)
    hears = ("mel", "early", "told")
    everybody: Tensor
    spread: Tensor

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        width = config.unit
        self.early = nn.Linear(config.speech_width, config.told_width)
        self.layer_fusion = LayerAttention(config.told_width, 32)
        self.speech = nn.Conv1d(config.told_width, width, 4, stride=2, padding=1)
        self.cepstrum = Cepstrum(config.mels, _MFCCS, derivatives=True, every=_TOKENS_EVERY)
        self.norm_mfcc = nn.LayerNorm(self.cepstrum.width)
        self.gru = MaskedBiGru(self.cepstrum.width, width // 2, layers=1, dropout=0.0)
        self.prosody = nn.Sequential(nn.Linear(PROSODY_WIDTH, width), nn.ReLU(), nn.Linear(width, width))
        self.register_buffer("everybody", torch.zeros(PROSODY_WIDTH))
        self.register_buffer("spread", torch.ones(PROSODY_WIDTH))
        self.inner = CrossTransformer(width, config.heads, config.feed_forward, config.dropout)
        self.outer = CrossTransformer(width, config.heads, config.feed_forward, config.dropout)
        self.self_attention = nn.ModuleList(SelfAttentionLayer(width, config.heads, config.dropout) for _ in range(2))
        self.dropout = nn.Dropout(0.2)
        self.classifier = CosineClassifier(2 * width + 2 * config.told_width, config.classes, 16.0)

    def forward(self, heard: Heard, told: dict[str, Tensor]) -> Tensor:
        """Return logits (B, C): cosines times 16."""
        both = torch.stack([self.early(heard.early), heard.told], dim=2)
        speech = torch.relu(self.speech(self.layer_fusion(both).transpose(1, 2))).transpose(1, 2)
        mfcc = self.norm_mfcc(self.cepstrum(heard.mel))
        mfcc = self.gru(mfcc, None)
        # Far-off values of a stranger's prosody are worth no more than far-off ones that were trained on.
        numbers = ((told["prosody"] - self.everybody) / self.spread).clamp(-3.0, 3.0)
        prosody = self.prosody(numbers).unsqueeze(1)
        inner = self.inner(Tokens(mfcc), Tokens(prosody))
        x = self.outer(Tokens(speech), inner).x
        for layer in self.self_attention:
            x = layer(x)
        z = torch.cat([*_statistics(x), *_statistics(heard.told)], dim=-1)
        return self.classifier(self.dropout(z))

    @torch.no_grad()
    def learn_prosody(self, numbers: Tensor) -> None:
        """Store mean and deviation of many utterances' prosody (n, 103)."""
        self.everybody.copy_(numbers.mean(0))
        self.spread.copy_(numbers.std(0) + 1e-3)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = x.mean(1)
    return mean, masked_deviation(x, mean, None)
