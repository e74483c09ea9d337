"""The plain comparator of MDAT: a bidirectional LSTM for each modality."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge_ser.errors import ConfigError
from train.layers import masked_mean, sequence
from train.systems import Inputs, Output, System, Targets, drop_modalities

_MODALITIES = ("speech", "text")


@dataclass(frozen=True)
class BiLstmConfig:
    """Sizes and switches; the defaults are the paper preset."""

    classes: int = 4
    speech_width: int = 1024
    text_width: int = 768
    hidden: int = 128
    """Width of an LSTM in one direction."""
    dense: int = 128
    pool: str = "mean"
    """`mean` over valid frames, or `last`: the last state of either direction."""
    modalities: str = "both"
    modality_dropout: float = 0.15
    """Share of complete utterances that lose their speech in training, and of those that lose their text: MDAT's."""
    dropout: float = 0.3
    weight_penalty: float = 1e-4
    """Factor of the squared weights of the dense layer in the loss."""

    def __post_init__(self) -> None:
        """Check the switches.

        Raises:
            ConfigError: One of them has no such value.
        """
        if self.pool not in ("mean", "last"):
            raise ConfigError(f"pool is {self.pool!r}; need mean or last")
        if self.modalities not in ("both", *_MODALITIES):
            raise ConfigError(f"modalities is {self.modalities!r}; need both, speech or text")
        if not 0 <= self.modality_dropout <= 0.5:
            raise ConfigError(f"modality_dropout is {self.modality_dropout}; need 0 to 0.5, a row loses one of two")

    @property
    def names(self) -> tuple[str, ...]:
        """Return the modalities in use."""
        return _MODALITIES if self.modalities == "both" else (self.modalities,)


PRESETS = {
    "paper": BiLstmConfig(),
    "desk": BiLstmConfig(speech_width=384, text_width=256, hidden=96),
    "tiny": BiLstmConfig(speech_width=16, text_width=12, hidden=8, dense=16),
}


class BiLstm(System):
    """A BiLSTM per modality over the same features as MDAT; a missing modality is a vector of zeros.

    It learns under MDAT's modality dropout, so that what differs in a comparison is the fusion. MDAT's learned vectors
    for a missing modality have no counterpart, and the squared weights of the dense layer stand for weight decay.
    """

    reads = _MODALITIES

    def __init__(self, config: BiLstmConfig) -> None:
        super().__init__()
        self.config = config
        widths = {"speech": config.speech_width, "text": config.text_width}
        self.recurrent = nn.ModuleDict(
            {name: nn.LSTM(widths[name], config.hidden, batch_first=True, bidirectional=True) for name in config.names}
        )
        self.dense = nn.Linear(2 * config.hidden * len(config.names), config.dense)
        self.classifier = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(config.dense, config.classes))

    def forward(self, inputs: Inputs) -> Output:
        """Return logits (B, C) and what enters the classifier (B, dense)."""
        frames, masks = {}, {}
        for name in self.config.names:
            width = self.config.speech_width if name == "speech" else self.config.text_width
            frames[name], masks[name] = sequence(inputs, name, (width,))
        if self.config.modalities == "both":
            masks = drop_modalities(masks, self.config.modality_dropout, self.training)
        halves = [self._read(name, x, masks[name]) for name, x in frames.items()]
        embedding = torch.relu(self.dense(torch.cat(halves, dim=-1)))
        return Output(self.classifier(embedding), embedding)

    def loss(self, output: Output, targets: Targets) -> Tensor:
        """Return cross-entropy plus the weight penalty of the dense layer."""
        return super().loss(output, targets) + self.config.weight_penalty * self.dense.weight.float().square().sum()

    def _read(self, name: str, x: Tensor, mask: Tensor) -> Tensor:
        """Return frames x (B, T, D), valid ones first, as one vector (B, 2 hidden)."""
        # Packing lets the backward direction start at the last valid frame; an empty row needs a length all the same.
        lengths = mask.sum(1).clamp(min=1).long().cpu()
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states, (last, _) = self.recurrent[name](packed)
        if self.config.pool == "last":
            return torch.cat([last[0], last[1]], dim=-1) * mask[:, :1]
        frames, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])
        return masked_mean(frames, mask)
