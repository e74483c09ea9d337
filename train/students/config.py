"""Sizes of a student; what ships differs from the defaults by what train/configs/students says."""

from __future__ import annotations

from dataclasses import dataclass

from edge_ser.errors import ConfigError

SYSTEMS = ("mdat", "hump-cat", "camulenet", "mha", "lora")
"""The students: each a published system's fusion over small encoders."""


@dataclass(frozen=True)
class StudentConfig:
    """One student."""

    system: str
    """One of `SYSTEMS`."""
    classes: int = 4
    mels: int = 64
    speech_width: int = 224
    """W: width of a speech frame; 25 frames a second."""
    speech_blocks: int = 4
    speech_layers: int = 3
    speech_passes: int = 1
    """How often the frames go through these layers."""
    told_width: int = 96
    """Width of a frame that was heard in the light of a voice."""
    vocabulary: int = 2500
    text_width: int = 80
    max_tokens: int = 64
    unit: int = 64
    """Width of the fusion's own parts."""
    feed_forward: int = 192
    heads: int = 4
    dropout: float = 0.1
    rank: int = 8
    """Of the low-rank adapter, where the system has one."""

    def __post_init__(self) -> None:
        """Refuse a system that has no student.

        Raises:
            ConfigError: There is no such student.
        """
        if self.system not in SYSTEMS:
            raise ConfigError(f"system is {self.system!r}; need one of {', '.join(SYSTEMS)}")
