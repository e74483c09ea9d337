"""How far an utterance lies from everything that was learnt, and how much less sure an answer is there.

The embeddings of the training clips, noise and rooms included, lie close to a flat part of their space. Clips of the
same kind by people never heard lie as close to it; recordings of another world, with another language, another way to
speak, another microphone, do not, and there the emotions' logits are too sure.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

DIRECTIONS = 32
"""K. Validation clips against talk shows in Urdu: area under the curve 0.91 with 32, 0.86 with 64."""
DOUBT = 0.5
"""Per distance beyond home: as likely as the best (0.25) for validation clips as they are and in other voices, within
0.001 nats, and better for those as they are."""
FARTHEST = 8.0
"""What is farther off is doubted no more."""


class Familiarity(nn.Module):
    """By what the logits of a sound are divided: 1 up to the mean distance of training clips, more the farther off."""

    mean: Tensor
    spread: Tensor
    directions: Tensor
    typical: Tensor

    def __init__(self, size: int) -> None:
        """Make one that finds everything familiar until `learn` or `load_state_dict` tells it otherwise.

        Args:
            size: D, width of an embedding.
        """
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))
        self.register_buffer("directions", torch.zeros(size, min(DIRECTIONS, size)))
        # The mean square, by dimension, of what the directions leave out of training clips.
        self.register_buffer("typical", torch.tensor(1e4))

    def forward(self, embedding: Tensor) -> Tensor:
        """Return (B, 1), at least 1, for embeddings (B, D)."""
        standard = (embedding - self.mean) / self.spread
        residual = standard - (standard @ self.directions) @ self.directions.T
        distance = residual.square().mean(1, keepdim=True) / self.typical
        return 1.0 + DOUBT * (distance.clamp(max=FARTHEST) - 1.0).clamp(min=0.0)

    @torch.no_grad()
    def learn(self, embeddings: Tensor) -> None:
        """Fit on the embeddings (n, D) of training clips, each as often as it is to count."""
        mean, spread = embeddings.mean(0), embeddings.std(0) + 1e-3
        standard = (embeddings - mean) / spread
        basis = torch.linalg.eigh(standard.T @ standard)[1][:, -self.directions.shape[1] :]
        residual = standard - (standard @ basis) @ basis.T
        for name, value in (("mean", mean), ("spread", spread), ("directions", basis)):
            getattr(self, name).copy_(value)
        self.typical.copy_(residual.square().mean().clamp(min=1e-6))
