"""CAMuLeNet in its edge size: spectrogram and MFCCs weigh the encoder's frames; emotion, and gender while training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.frame_queries import ContentQuery
from train.image_encoders import SmallImageEncoder
from train.layers import masked_deviation
from train.recurrent import MaskedBiGru
from train.students.cepstrum import Cepstrum
from train.students.config import StudentConfig
from train.students.fusion import Fusion, Heard

_MFCCS = 40
_TOKENS_EVERY = 8
"""Frames of 10 ms in one step of the GRU."""


class CamulenetFusion(Fusion):
    """Co-attention: what picture and cepstrum say about the whole utterance decides which frames count."""

    hears = ("mel", "told")

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        unit, width = config.unit, config.told_width
        self.image = SmallImageEncoder((8, 16, 32, 64))
        self.cepstrum = Cepstrum(config.mels, _MFCCS, derivatives=False, every=_TOKENS_EVERY)
        self.norm_mfcc = nn.LayerNorm(self.cepstrum.width)
        self.mfcc = MaskedBiGru(self.cepstrum.width, unit // 2, layers=2, dropout=config.dropout)
        self.to_s = nn.Linear(self.image.width, unit)
        self.to_m = nn.Linear(unit, unit)
        self.query = ContentQuery(2 * unit, width, 32)
        self.refine = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(width, width), nn.ReLU(), nn.LayerNorm(width))
        self.trunk = nn.Sequential(
            nn.Dropout(0.2),
            nn.Linear(3 * width + 2 * unit, 128),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.ReLU(),
        )
        self.emotion = nn.Linear(64, config.classes)
        # Learnt beside the emotion and never exported: a training aid, and a liability on a device.
        self.gender = nn.Linear(64, 1)

    def forward(self, heard: Heard, told: dict[str, Tensor]) -> Tensor:
        """Return the emotion's logits (B, C)."""
        return self.emotion(self.see(heard))

    def with_gender(self, heard: Heard) -> tuple[Tensor, Tensor]:
        """Return the emotion's logits (B, C) and the gender's logit (B,), for training."""
        seen = self.see(heard)
        return self.emotion(seen), self.gender(seen).squeeze(-1)

    def see(self, heard: Heard) -> Tensor:
        """Return what both heads read, (B, 64)."""
        frames = heard.told
        mfcc = self.norm_mfcc(self.cepstrum(heard.mel))
        steps = self.mfcc(mfcc, None)
        x_m, x_s = torch.relu(self.to_m(steps.mean(1))), torch.relu(self.to_s(self.image(heard.mel.unsqueeze(1))))
        joint = torch.cat([x_m, x_s], dim=-1)
        weights = self.query(joint, frames, None)
        attended = torch.matmul(weights.to(frames.dtype).unsqueeze(1), frames).squeeze(1)
        mean = frames.mean(1)
        around = [mean, masked_deviation(frames, mean, None)]
        return self.trunk(torch.cat([self.refine(attended), joint, *around], dim=-1))
