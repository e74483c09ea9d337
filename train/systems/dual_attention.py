"""What MDAT is named after: graph attention over both modalities, co-attention between them; and how frames are pooled.

Axes: B batch, T nodes, T_s speech frames, T_t text tokens, U width after graph attention.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from train.layers import NEG, masked_mean, masked_softmax

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu, "none": lambda x: x}


class GraphAttention(nn.Module):
    """One head of graph attention over the nodes of a fully connected graph with self-loops.

    e_ij = LeakyReLU(a_1 . H_i + a_2 . H_j), H = Z W (`v1`), a . LeakyReLU(W_l z_i + W_r z_j) (`v2`, memory T^2 U), or
    LeakyReLU(a . H_j), the same for every i (`literal`); G_i = sum_j softmax_j(e_ij) H_j.
    """

    def __init__(self, inputs: int, unit: int, mode: str = "v1") -> None:
        super().__init__()
        self.mode = mode
        self.project = nn.Linear(inputs, unit, bias=False)
        if mode == "v1":
            self.receive = nn.Linear(unit, 1, bias=False)
        elif mode == "v2":
            self.receive = nn.Linear(inputs, unit, bias=False)
        self.send = nn.Linear(unit, 1, bias=False)

    def attend(self, nodes: Tensor, mask: Tensor, adjacency: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return H (B, T, U) and weights (B, T, T), whose rows sum to 1 over the valid nodes that row i hears.

        Args:
            nodes: Z (B, T, D).
            mask: 1 where a node is valid (B, T).
            adjacency: 1 where node i hears node j (T, T) or (B, T, T); everywhere unless given.
        """
        hidden = self.project(nodes)
        scores = self.scores(nodes, hidden)
        heard = mask.unsqueeze(1) if adjacency is None else adjacency * mask.unsqueeze(1)
        return hidden, masked_softmax(scores, heard)

    def scores(self, nodes: Tensor, hidden: Tensor) -> Tensor:
        """Return e (B, T, T) for nodes Z (B, T, D) and H (B, T, U)."""
        if self.mode == "v2":
            pairs = self.receive(nodes).unsqueeze(2) + hidden.unsqueeze(1)  # (B, T, T, U)
            return self.send(nn.functional.leaky_relu(pairs, 0.2)).squeeze(-1)
        if self.mode == "literal":
            row = nn.functional.leaky_relu(self.send(hidden), 0.2).transpose(1, 2)
            return row.expand(-1, hidden.shape[1], -1)
        return nn.functional.leaky_relu(self.receive(hidden) + self.send(hidden).transpose(1, 2), 0.2)

    def forward(self, nodes: Tensor, mask: Tensor, adjacency: Tensor | None = None) -> Tensor:
        """Return G (B, T, U); masked nodes send nothing and come out as zeros."""
        hidden, weights = self.attend(nodes, mask, adjacency)
        return torch.matmul(weights, hidden) * mask.unsqueeze(-1)


class CoAttention(nn.Module):
    """Each modality in the light of the other.

    With C = H_s H_t^T / sqrt(U), H = activation(dense(G)), and alpha_s, alpha_t its softmax over text and over speech:
    `cross` x'_s = alpha_s G_t; `gate` x'_s[i] = T_s mean_j alpha_t[j, i] G_s[i], T_s the valid frames; the same for
    text. `channel` takes C = H_s^T H_t / sqrt(N) over a common length N, and x'_s = G_s softmax(C).
    """

    def __init__(self, unit: int, mode: str = "cross", activation: str = "tanh", scaled: bool = True) -> None:
        super().__init__()
        self.mode = mode
        self.activation = activation
        self.speech = nn.Linear(unit, unit)
        self.text = nn.Linear(unit, unit)
        self.scaled = scaled
        self.scale = unit**-0.5 if scaled else 1.0

    def weights(self, speech: Tensor, text: Tensor, speech_mask: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha_s (B, T_s, T_t) and alpha_t (B, T_t, T_s): rows sum to 1 over the other side's valid keys."""
        activation = ACTIVATIONS[self.activation]
        keys_speech, keys_text = activation(self.speech(speech)), activation(self.text(text))
        scores = torch.matmul(keys_speech, keys_text.transpose(1, 2)) * self.scale  # (B, T_s, T_t)
        to_text = masked_softmax(scores, text_mask.unsqueeze(1))
        return to_text, masked_softmax(scores.transpose(1, 2), speech_mask.unsqueeze(1))

    def channel_weights(
        self, speech: Tensor, text: Tensor, speech_mask: Tensor, text_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return alpha_s and alpha_t (B, U, U) of the mode `channel`: zeros where either side has no valid frame."""
        activation = ACTIVATIONS[self.activation]
        keys_speech = activation(self.speech(speech)) * speech_mask.unsqueeze(-1)
        keys_text = activation(self.text(text)) * text_mask.unsqueeze(-1)
        scores = torch.matmul(keys_speech.transpose(1, 2), keys_text)  # (B, U, U)
        if self.scaled:
            scores = scores * speech.shape[1] ** -0.5
        both = (speech_mask.amax(1) * text_mask.amax(1)).reshape(-1, 1, 1)
        return torch.softmax(scores, dim=-1) * both, torch.softmax(scores.transpose(1, 2), dim=-1) * both

    def forward(self, speech: Tensor, text: Tensor, speech_mask: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return both modalities at width 2U: the own nodes beside what the other makes of them."""
        if self.mode == "channel":
            mix_speech, mix_text = self.channel_weights(speech, text, speech_mask, text_mask)
            seen_speech, seen_text = torch.matmul(speech, mix_speech), torch.matmul(text, mix_text)
        else:
            to_text, to_speech = self.weights(speech, text, speech_mask, text_mask)
            if self.mode == "gate":
                seen_speech = speech * _gate(to_speech, text_mask, speech_mask)
                seen_text = text * _gate(to_text, speech_mask, text_mask)
            else:
                seen_speech, seen_text = torch.matmul(to_text, text), torch.matmul(to_speech, speech)
        return torch.cat([speech, seen_speech], dim=-1), torch.cat([text, seen_text], dim=-1)


def _gate(weights: Tensor, giver_mask: Tensor, taker_mask: Tensor) -> Tensor:
    """Return the attention (B, T, 1) that each position receives from weights (B, giver, taker), 1 on average."""
    return (masked_mean(weights, giver_mask) * taker_mask.sum(1, keepdim=True)).unsqueeze(-1)


class Pool(nn.Module):
    """Frames (B, T, W) -> one vector: their mean, attention-weighted mean, maximum, or all of them in a row."""

    def __init__(self, mode: str, width: int) -> None:
        super().__init__()
        self.mode = mode
        if mode == "attn":
            self.score = nn.Linear(width, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (B, W), or (B, T W) for `flatten`; finite without a valid frame."""
        if self.mode == "attn":
            weights = masked_softmax(self.score(x).squeeze(-1), mask)
            return torch.matmul(weights.unsqueeze(1), x).squeeze(1)
        if self.mode == "max":
            weight = mask.unsqueeze(-1)
            return (x * weight + (1.0 - weight) * NEG).amax(1) * mask.amax(1, keepdim=True)
        if self.mode == "flatten":
            return (x * mask.unsqueeze(-1)).flatten(1)
        return masked_mean(x, mask)
