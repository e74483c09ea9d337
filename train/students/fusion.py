"""What a student's fusion is given, and what it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn


@dataclass(frozen=True)
class Heard:
    """An utterance as the speech encoder hears it; T frames, 25 a second."""

    mel: Tensor
    """(B, mels, 4 T): log-mel features, 100 a second."""
    early: Tensor
    """(B, T, W): frames before the transformer layers."""
    frames: Tensor
    """(B, T, W)."""
    embedding: Tensor
    """(B, 2 W): mean and deviation of the frames; it knows nothing of words or voice."""
    told: Tensor
    """(B, T, U): frames in the light of the voice."""
    opinion: Tensor
    """(B, C): a first opinion in the light of the voice, which the fusion's logits are added to."""
    apart: Tensor
    """(B, 2 W): how far the embedding is from everybody's, or from the speaker's own the better the voice is known."""


class Fusion(nn.Module):
    """A system's own part of a student: what was heard and what is told beside it -> logits."""

    reads: ClassVar[tuple[str, ...]] = ()
    """Names of the graph's inputs that it takes beside audio and voice."""
    hears: ClassVar[tuple[str, ...]] = ("told",)
    """What it takes of `Heard`."""

    def forward(self, heard: Heard, told: dict[str, Tensor]) -> Tensor:
        """Return logits (B, C), to be added to the first opinion."""
        raise NotImplementedError
