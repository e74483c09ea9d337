"""How a student hears an utterance in the light of the voice that it has heard so far."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_FARTHEST = 16.0
"""Squared deviations; what is farther off counts no more."""


class VoiceSense(nn.Module):
    """Frames, and the same frames relative to the speaker's own in their place the better the voice is known.

    A voice is `(utterances n, running mean m of the embedding, running deviation)`; the embedding e is mean and
    deviation of an utterance's frames. With trust t = g n^1.5 / (n^1.5 + k), k learned, a frame f becomes

        (1 - t) A f + t (B (f - m) / s + C v),

    where m and s are the speaker's mean and deviation of frames, and v the speaker's statistics relative to
    everybody's. Beside the frames stands a first opinion, linear in the embedding, that the fusion adds to:

        (1 - t) (P e + p) + t (Q (e - m) + q),

    P and Q being what the first stage learnt of its teacher's discriminants. A fresh profile has t = 0: the unadapted
    model, whose answer no voice can spoil. The gate g, in (0, 1), closes where the utterance lies too far from the
    voice to be of the same speaker.
    """

    everybody: Tensor
    spread: Tensor

    def __init__(self, width: int, out: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("everybody", torch.zeros(2 * width))
        self.register_buffer("spread", torch.ones(2 * width))
        self.own = nn.Linear(width, out)
        self.relative = nn.Linear(width, out, bias=False)
        self.portrait = nn.Linear(4 * width, out, bias=False)
        self.alone = nn.Linear(2 * width, classes)
        self.against = nn.Linear(2 * width, classes)
        # Before the gate 0.08 after one utterance, 0.48 after 5, 0.72 after 10, 0.88 after 20. Best for validation
        # clips, as they are and in other voices: 0.15, 0.45, 0.75, 0.9; n / (n + k) rises too slowly for that.
        self.log_patience = nn.Parameter(torch.tensor(2.5))
        # One number each: a weight for every channel would shut the gate for good in the first few steps.
        self.openness = nn.Parameter(torch.tensor(4.0))
        self.strictness = nn.Parameter(torch.tensor(0.7))
        nn.init.zeros_(self.portrait.weight)

    def forward(self, frames: Tensor, embedding: Tensor, voice: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return frames (B, T, out), first opinion (B, C) and what sets the embedding apart (B, 2 D).

        Args:
            frames: (B, T, D).
            embedding: (B, 2 D), mean and deviation of the frames.
            voice: (B, 4 D + 1).
        """
        width = frames.shape[-1]
        heard = voice[:, :1]
        mean, deviation = voice[:, 1 : 1 + 2 * width], voice[:, 1 + 2 * width :]
        known = (heard > 0).to(frames.dtype)
        # Where nothing was heard, everybody stands for the speaker: finite numbers, multiplied by a trust of 0.
        mean = known * mean + (1.0 - known) * self.everybody
        centre, own_spread = mean[:, :width], mean[:, width:].clamp(min=0.0) + 0.1
        often = heard * torch.sqrt(heard)
        trust = often / (often + torch.exp(self.log_patience)) * self._gate(embedding[:, :width], centre)
        relative = (frames - centre.unsqueeze(1)) / own_spread.unsqueeze(1)
        portrait = torch.cat([(mean - self.everybody) / self.spread, deviation / self.spread], dim=-1)
        told = self.relative(relative) + self.portrait(portrait).unsqueeze(1)
        opinion = (1.0 - trust) * self.alone(embedding) + trust * self.against(embedding - mean)
        apart = (embedding - self.everybody - trust * (mean - self.everybody)) / self.spread
        trust = trust.unsqueeze(1)
        return (1.0 - trust) * self.own(frames) + trust * told, opinion, apart

    def _gate(self, utterance: Tensor, centre: Tensor) -> Tensor:
        offset = (utterance - centre) / self.spread[: centre.shape[1]]
        distance = offset.square().clamp(max=_FARTHEST).mean(1, keepdim=True)
        return torch.sigmoid(self.openness - self.strictness * distance)

    @torch.no_grad()
    def learn_everybody(self, embeddings: Tensor) -> None:
        """Store mean and deviation of many speakers' embeddings (n, 2 D)."""
        self.everybody.copy_(embeddings.mean(0))
        self.spread.copy_(embeddings.std(0) + 1e-3)

    @torch.no_grad()
    def take_opinion(self, weight: Tensor, bias: Tensor) -> None:
        """Store P above Q, (2 C, 2 D), and p before q, (2 C,)."""
        for linear, own_weight, own_bias in zip(
            (self.alone, self.against), weight.chunk(2), bias.chunk(2), strict=True
        ):
            linear.weight.copy_(own_weight)
            linear.bias.copy_(own_bias)
            linear.requires_grad_(False)
