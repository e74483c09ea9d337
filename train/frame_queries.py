"""How an utterance's own vector weighs the frames of its speech encoder. L frames of width W."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.layers import masked_softmax


class PositionQuery(nn.Module):
    """Equations 2 and 3: one weight for each absolute frame, from the utterance's vectors alone."""

    def __init__(self, inputs: int, positions: int, *, norm: bool) -> None:
        """Build for an utterance's vector of `inputs`; weights are layer-normalised, or a softmax without `norm`."""
        super().__init__()
        self.up = nn.Linear(inputs, positions)
        # Eq. 3 has the symbol of eq. 2 for another layer, L to L.
        self.mix = nn.Linear(positions, positions)
        self.norm = nn.LayerNorm(positions) if norm else None

    def forward(self, joint: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return q and sigma(u), both (B, L), of [x_m, x_s] (B, 2T); q is 0 and without influence where mask is 0."""
        envelope = torch.relu(self.up(joint))
        scores = torch.relu(self.mix(envelope))
        if self.norm is None:
            return masked_softmax(scores.float(), mask), envelope
        scores, valid = scores.float(), mask.sum(1, keepdim=True).clamp(min=1.0)
        centred = (scores - (scores * mask).sum(1, keepdim=True) / valid) * mask
        deviation = torch.sqrt((centred * centred).sum(1, keepdim=True) / valid + self.norm.eps)
        return (centred / deviation * self.norm.weight + self.norm.bias) * mask, envelope


class ContentQuery(nn.Module):
    """q_i = softmax_i((W_k x_i) . (W_c [x_m, x_s]) / sqrt(d)): any number of frames, no L x L layer."""

    def __init__(self, inputs: int, speech_width: int, width: int) -> None:
        """Build for an utterance's vector of `inputs` and frames of `speech_width`; they meet in `width`, d."""
        super().__init__()
        self.key = nn.Linear(speech_width, width, bias=False)
        self.ask = nn.Linear(inputs, width, bias=False)

    def forward(self, joint: Tensor, speech: Tensor, mask: Tensor | None) -> Tensor:
        """Return q (B, L): 1 in sum over valid frames of speech (B, L, W), 0 elsewhere."""
        # The same product in the cheaper order: no frame is projected.
        wanted = torch.matmul(self.ask(joint), self.key.weight).unsqueeze(-1)  # (B, W, 1)
        scores = torch.matmul(speech, wanted).squeeze(-1) * self.key.out_features**-0.5
        return masked_softmax(scores.float(), mask)
