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
"""Features by name, float32: a sequence (B, T, ...), and a vector (B, D) that some rows lack, with its mask
`<name>_mask`, (B, T) or (B, 1), 1 where it is there. Without a mask all of it is there; without the feature, none."""

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


def drop_modalities(masks: Mapping[str, Tensor], share: float, training: bool) -> dict[str, Tensor]:
    """Return the masks (B, T) of all modalities, in training with some rows emptied: as if a feature were missing.

    Args:
        masks: By modality.
        share: Of the rows that have every modality, how many lose the first, the second ...; of M, at most 1 / M. A row
            that has not all of them keeps what it has, so that nothing is ever learnt from nothing.
        training: Whether anything is dropped at all.
    """
    if not training or share <= 0:
        return dict(masks)
    present = torch.stack([mask.amax(1) for mask in masks.values()])  # (M, B)
    complete = present.amin(0)
    draw = torch.rand(len(complete), device=complete.device)
    kept = {}
    for place, (name, mask) in enumerate(masks.items()):
        lost = ((draw >= place * share) & (draw < (place + 1) * share)).to(mask.dtype) * complete
        kept[name] = mask * (1.0 - lost)[:, None]
    return kept
