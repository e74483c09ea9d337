"""MDAT's fusion in its edge size: graph attention over words and frames, co-attention, one transformer layer each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.layers import TransformerLayer, masked_deviation, masked_mean
from train.students.config import StudentConfig
from train.students.fusion import Fusion, Heard
from train.students.small_encoders import TextEncoder
from train.systems.dual_attention import CoAttention, GraphAttention


class MdatFusion(Fusion):
    """Dual attention over speech frames and the words of a transcript, where there is one."""

    reads = ("text_ids", "text_mask")

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        unit, joined = config.unit, 2 * config.unit
        self.text = TextEncoder(
            vocabulary=config.vocabulary,
            width=config.text_width,
            max_tokens=config.max_tokens,
            dropout=config.dropout,
        )
        self.align_text = nn.Linear(config.text_width, config.told_width)
        self.graph = GraphAttention(config.told_width, unit)
        self.co_attention = CoAttention(unit)
        self.speech_layer = TransformerLayer(joined, config.heads, config.feed_forward, config.dropout)
        self.text_layer = TransformerLayer(joined, config.heads, config.feed_forward, config.dropout)
        self.no_text = nn.Parameter(torch.zeros(joined))
        # Mean and deviation of the frames go around the attention: what an utterance is like as a whole.
        self.classifier = nn.Sequential(
            nn.Linear(2 * joined + 2 * config.told_width, 128),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(128, config.classes),
        )

    def forward(self, heard: Heard, told: dict[str, Tensor]) -> Tensor:
        """Return logits (B, C); a row of `text_mask` without a token takes the learned vector for missing text."""
        frames, text_mask = heard.told, told["text_mask"].to(heard.told.dtype)
        text = self.text(told["text_ids"], text_mask)
        speech_mask = torch.ones_like(frames[:, :, 0])
        nodes = torch.cat([frames, self.align_text(text)], dim=1)
        graph = self.graph(nodes, torch.cat([speech_mask, text_mask], dim=1))
        graph_speech, graph_text = graph[:, : frames.shape[1]], graph[:, frames.shape[1] :]
        speech, words = self.co_attention(graph_speech, graph_text, speech_mask, text_mask)
        speech = self.speech_layer(speech, None)
        words = self.text_layer(words, text_mask)
        has_text = text_mask.amax(dim=1, keepdim=True)
        pooled_text = has_text * masked_mean(words, text_mask) + (1.0 - has_text) * self.no_text
        mean = frames.mean(1)
        around = [mean, masked_deviation(frames, mean, None)]
        return self.classifier(torch.cat([speech.mean(1), pooled_text, *around], dim=-1))
