"""The five published fusion systems, one readable file each, and what they have in common.

A system turns the features of a batch of utterances into logits. What it reads is named: `speech` (frames of a speech
encoder), `text` (tokens of a text encoder), `mfcc`, `prosody`, `spectrogram` or, where the encoder is trained too,
`audio` (the waveform). A sequence comes with its mask under `<name>_mask`, 1 where a frame is real.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from edge_ser.errors import ConfigError

Inputs = Mapping[str, Tensor]
"""Features by name, float32: a sequence (B, T, ...) with its mask `<name>_mask` (B, T), a vector (B, D) without."""

Targets = Mapping[str, Tensor]
"""`emotion` int64 (B,), `gender` int64 (B,) 0 female, 1 male, -1 unknown; `attributes` float32 (B, 3) in [0, 1], NaN
where unknown: arousal, valence, dominance."""


@dataclass(frozen=True)
class Output:
    """What a system makes of a batch."""

    logits: Tensor
    """(B, C): class logits or, for attributes, the three values themselves."""
    embedding: Tensor
    """(B, E): what enters the classifier."""
    gender: Tensor | None = None
    """(B, 1) or (B, 2) logits where the system learns gender too."""


class System(nn.Module):
    """A fusion system: features in, logits out."""

    reads: ClassVar[tuple[str, ...]]
    """Names of the features that it can read."""

    def forward(self, inputs: Inputs) -> Output:
        """Return logits and embedding of a batch."""
        raise NotImplementedError

    def loss(self, output: Output, targets: Targets) -> Tensor:
        """Return the training loss, a scalar in float32; cross-entropy unless the system has its own."""
        return nn.functional.cross_entropy(output.logits.float(), targets["emotion"])

    def parts(self) -> dict[str, int]:
        """Return parameters by part, as the literature counts them; their sum is every parameter of the system."""
        return {name: count_parameters(part) for name, part in self.named_children()}

    def __call__(self, inputs: Inputs) -> Output:
        """Return logits and embedding of a batch."""
        output = super().__call__(inputs)
        assert isinstance(output, Output)
        return output


def count_parameters(module: nn.Module) -> int:
    """Return how many numbers a module learns or holds frozen as parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def configure(config: type[Any], presets: Mapping[str, Any], preset: str, overrides: Mapping[str, Any]) -> Any:
    """Return a preset of a system's configuration with some fields replaced.

    Raises:
        ConfigError: No such preset or field.
    """
    if preset not in presets:
        raise ConfigError(f"preset is {preset!r}; need one of {', '.join(sorted(presets))}")
    unknown = sorted(set(overrides) - set(config.__dataclass_fields__))
    if unknown:
        raise ConfigError(
            f"no setting {', '.join(unknown)}; {config.__name__} has {', '.join(config.__dataclass_fields__)}"
        )
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in overrides.items()}
    return config(**{**presets[preset].__dict__, **values})


def lacks(inputs: Inputs, name: str) -> bool:
    """Return whether a batch comes without a feature altogether."""
    return name not in inputs


def drop_modality(mask: Tensor, share: float, training: bool) -> Tensor:
    """Return the mask (B, T), in training with a share of its rows emptied: as if their feature were missing."""
    if not training or share <= 0:
        return mask
    keep = (torch.rand(len(mask), 1, device=mask.device) >= share).to(mask.dtype)
    return mask * keep
