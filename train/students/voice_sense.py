"""How a student hears an utterance in the light of the voice that it has heard so far."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_FARTHEST = 16.0
"""Squared deviations; what is farther off counts no more."""


class VoiceSense(nn.Module):
    """Frames, and the same frames relative to the speaker's own in their place the better the voice is known.

    A voice is `(utterances n, running mean of the embedding, running deviation)`; the embedding is mean and deviation
    of an utterance's frames. With trust t = g n / (n + k), k learned, a frame f becomes

        (1 - t) A f + t (B (f - m) / s + C v),

    where m and s are the speaker's mean and deviation of frames, and v the speaker's statistics relative to
    everybody's. A fresh profile has t = 0: the unadapted model, whose answer no voice can spoil. The gate g, in (0, 1),
    closes where the utterance lies too far from the voice to be of the same speaker.
    """

    everybody: Tensor
    spread: Tensor

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.register_buffer("everybody", torch.zeros(2 * width))
        self.register_buffer("spread", torch.ones(2 * width))
        self.own = nn.Linear(width, out)
        self.relative = nn.Linear(width, out, bias=False)
        self.portrait = nn.Linear(4 * width, out, bias=False)
        self.log_patience = nn.Parameter(torch.tensor(0.7))
        # One number each: a weight for every channel would shut the gate for good in the first few steps.
        self.openness = nn.Parameter(torch.tensor(3.0))
        self.strictness = nn.Parameter(torch.tensor(0.7))
        nn.init.zeros_(self.portrait.weight)

    def forward(self, frames: Tensor, voice: Tensor) -> Tensor:
        """Return frames (B, T, out) for frames (B, T, D) and voice (B, 4 D + 1)."""
        width = frames.shape[-1]
        heard = voice[:, :1]
        patience = torch.exp(self.log_patience)
        mean, deviation = voice[:, 1 : 1 + 2 * width], voice[:, 1 + 2 * width :]
        known = (heard > 0).to(frames.dtype)
        # Where nothing was heard, everybody stands for the speaker: finite numbers, multiplied by a trust of 0.
        mean = known * mean + (1.0 - known) * self.everybody
        centre, own_spread = mean[:, :width], mean[:, width:].clamp(min=0.0) + 0.1
        distance = ((frames.mean(1) - centre) / self.spread[:width]).square().clamp(max=_FARTHEST).mean(1, keepdim=True)
        trust = heard / (heard + patience) * torch.sigmoid(self.openness - self.strictness * distance)
        relative = (frames - centre.unsqueeze(1)) / own_spread.unsqueeze(1)
        portrait = torch.cat([(mean - self.everybody) / self.spread, deviation / self.spread], dim=-1)
        told = self.relative(relative) + self.portrait(portrait).unsqueeze(1)
        trust = trust.unsqueeze(1)
        return (1.0 - trust) * self.own(frames) + trust * told

    @torch.no_grad()
    def learn_everybody(self, embeddings: Tensor) -> None:
        """Store mean and deviation of many speakers' embeddings (n, 2 D)."""
        self.everybody.copy_(embeddings.mean(0))
        self.spread.copy_(embeddings.std(0) + 1e-3)
