"""MDAT: multimodal dual-attention transformer.

Graph attention over both modalities, co-attention between them, one transformer layer each, a classifier. Here in its
edge size: the same fusion over small encoders that take a waveform and, where there is one, a transcript.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from train.layers import TransformerLayer, masked_deviation, masked_mean
from train.students.small_encoders import SpeechEncoder, TextEncoder
from train.systems.dual_attention import CoAttention, GraphAttention


@dataclass(frozen=True)
class MdatConfig:
    """Sizes of the edge model; the defaults are what ships."""

    classes: int = 4
    mels: int = 64
    speech_width: int = 144
    speech_blocks: int = 4
    speech_layers: int = 2
    vocabulary: int = 6000
    text_width: int = 96
    max_tokens: int = 64
    unit: int = 96
    """Width after graph attention, U."""
    feed_forward: int = 384
    dropout: float = 0.1


class VoiceNormaliser(nn.Module):
    """Expresses speech frames relative to the voice heard so far.

    A voice is `(utterances n, running mean of the embedding, running deviation)`; the embedding is the mean and the
    deviation of an utterance's frames. Frames are standardised by a reference that moves from one learned for everybody
    (n = 0: a fresh profile, the unadapted model) towards the speaker's own with weight n / (n + k), k learned.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(width))
        self.log_deviation = nn.Parameter(torch.zeros(width))
        self.log_patience = nn.Parameter(torch.tensor(1.6))

    def forward(self, frames: Tensor, voice: Tensor) -> Tensor:
        """Return frames (B, T, D) relative to voice (B, 4 D + 1)."""
        width = frames.shape[-1]
        heard = voice[:, :1]
        trust = heard / (heard + torch.exp(self.log_patience))
        mean = trust * voice[:, 1 : width + 1] + (1.0 - trust) * self.mean
        deviation = trust * voice[:, width + 1 : 2 * width + 1] + (1.0 - trust) * torch.exp(self.log_deviation)
        return (frames - mean.unsqueeze(1)) / (deviation.unsqueeze(1) + 0.1)


class DualAttention(nn.Module):
    """The fusion head: graph attention, co-attention, one transformer layer per modality, classifier."""

    def __init__(
        self, *, speech_width: int, text_width: int, unit: int, feed_forward: int, classes: int, dropout: float
    ):
        super().__init__()
        self.align_text = nn.Linear(text_width, speech_width)
        self.graph = GraphAttention(speech_width, unit)
        self.co_attention = CoAttention(unit)
        self.speech_layer = TransformerLayer(2 * unit, 8, feed_forward, dropout)
        self.text_layer = TransformerLayer(2 * unit, 8, feed_forward, dropout)
        self.no_text = nn.Parameter(torch.zeros(2 * unit))
        self.classifier = nn.Sequential(nn.Linear(4 * unit, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, classes))

    def forward(self, speech: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        """Return logits (B, C); a row of `text_mask` without a token takes the learned vector for missing text."""
        speech_mask = torch.ones_like(speech[:, :, 0])
        nodes = torch.cat([speech, self.align_text(text)], dim=1)
        graph = self.graph(nodes, torch.cat([speech_mask, text_mask], dim=1))
        graph_speech, graph_text = graph[:, : speech.shape[1]], graph[:, speech.shape[1] :]
        speech, text = self.co_attention(graph_speech, graph_text, speech_mask, text_mask)
        speech = self.speech_layer(speech, speech_mask)
        text = self.text_layer(text, text_mask)
        has_text = text_mask.amax(dim=1, keepdim=True)
        pooled_text = has_text * masked_mean(text, text_mask) + (1.0 - has_text) * self.no_text
        return self.classifier(torch.cat([speech.mean(1), pooled_text], dim=-1))


class Mdat(nn.Module):
    """Waveform, optional transcript and voice in; logits and embedding out."""

    def __init__(self, config: MdatConfig) -> None:
        super().__init__()
        self.config = config
        self.speech = SpeechEncoder(
            width=config.speech_width,
            mels=config.mels,
            blocks=config.speech_blocks,
            layers=config.speech_layers,
            dropout=config.dropout,
        )
        self.text = TextEncoder(
            vocabulary=config.vocabulary,
            width=config.text_width,
            max_tokens=config.max_tokens,
            dropout=config.dropout,
        )
        self.voice = VoiceNormaliser(config.speech_width)
        self.fusion = DualAttention(
            speech_width=config.speech_width,
            text_width=config.text_width,
            unit=config.unit,
            feed_forward=config.feed_forward,
            classes=config.classes,
            dropout=config.dropout,
        )

    @property
    def embedding_size(self) -> int:
        """Return D: mean and deviation of the speech frames."""
        return 2 * self.config.speech_width

    def listen(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return speech frames (B, T, width) and their embedding (B, D), which knows nothing of text or voice."""
        frames = self.speech(audio)
        mask = torch.ones_like(frames[:, :, 0])
        mean = masked_mean(frames, mask)
        return frames, torch.cat([mean, masked_deviation(frames, mean, mask)], dim=-1)

    def judge(self, frames: Tensor, text_ids: Tensor, text_mask: Tensor, voice: Tensor) -> Tensor:
        """Return logits (B, C) for frames heard in the light of a transcript and a voice."""
        mask = text_mask.to(frames.dtype)
        return self.fusion(self.voice(frames, voice), self.text(text_ids, mask), mask)

    def forward(self, audio: Tensor, text_ids: Tensor, text_mask: Tensor, voice: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, C) and embedding (B, D)."""
        frames, embedding = self.listen(audio)
        return self.judge(frames, text_ids, text_mask, voice), embedding
