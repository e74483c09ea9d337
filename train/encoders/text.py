"""Text encoders: RoBERTa and XLM-R."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edge_ser.errors import ConfigError
from train.encoders.base import Encoder


class TextEncoder(Encoder):
    """RoBERTa or XLM-R, without its pooler."""

    modality = "text"

    def __init__(self, model: Any, family: str) -> None:
        super().__init__(model, family, model.config.hidden_size)
        # Position numbers start after the one of padding.
        self.max_tokens = model.config.max_position_embeddings - model.config.pad_token_id - 1
        """The longest sentence, special tokens included."""

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers."""
        return self.model.encoder.layer

    def start(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the embeddings of token ids (B, n), with the token mask twice."""
        if inputs.shape[1] > self.max_tokens:
            raise ConfigError(f"got {inputs.shape[1]} tokens; this encoder takes {self.max_tokens}; cut the sentence")
        padding = torch.full_like(inputs, self.model.config.pad_token_id)
        x = self.model.embeddings(input_ids=torch.where(mask > 0, inputs, padding))
        return x, mask.to(x.dtype), mask.to(x.dtype)

    def layer(self, number: int, x: Tensor, hidden: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """Return the output of layer `number`."""
        output = self.layers[number](x, hidden)
        return output[0] if isinstance(output, tuple) else output
