"""MDRE: the dual recurrent encoder of 2018, a comparator: one GRU over audio, one over tokens, their last states.

`kind="classic"` reads 39 MFCCs every 10 ms (option `hop_ms` of the feature `mfcc39`) and the prosody vector, both
brought to mean 0 and deviation 1 of the training set: prosody is in hertz and decibels, a GRU's state within +-1.
`kind="ssl"` reads the frames of a speech encoder in their place. Text is a sequence of token vectors, or of ids where
the model learns the vectors itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from edge_ser.errors import ConfigError
from train.examples import Example
from train.layers import sequence
from train.standardise import Standardise
from train.systems import Inputs, Output, System

_CHOICES = {"kind": ("classic", "ssl"), "modalities": ("both", "speech", "text")}


@dataclass(frozen=True)
class MdreConfig:
    """Sizes; the defaults are the classic model."""

    kind: str = "classic"
    """`classic`: MFCC and prosody; `ssl`: frames of a speech encoder."""
    modalities: str = "both"
    """`both`, or `speech` or `text` alone."""
    speech_width: int = 768
    """Width of the speech frames of `ssl`."""
    mfcc_width: int = 39
    """Coefficients per frame of `classic`."""
    prosody_width: int = 103
    """Prosody values of `classic`."""
    text_width: int = 1024
    """Width of the text tokens where `vocabulary` is 0."""
    vocabulary: int = 0
    """Size of an own table of token vectors; `text` then holds ids, (B, T, 1). 0: `text` holds vectors."""
    embedding: int = 300
    """Width of token vectors of `classic`; others are projected to it."""
    hidden: int = 200
    """Width of both GRUs."""
    classes: int = 7
    """Emotions."""
    dropout: float = 0.3
    """Dropout before the classifier."""
    audio_steps: int = 750
    """Longest audio in frames: 7.5 s of MFCCs every 10 ms."""
    text_len: int = 128
    """Longest text in tokens."""

    def __post_init__(self) -> None:
        """Check the switches.

        Raises:
            ConfigError: No such kind, or no such modalities.
        """
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; need {' or '.join(choices)}; change [model]")


_TINY = MdreConfig(speech_width=12, text_width=16, embedding=10, hidden=8, classes=4, audio_steps=24, text_len=12)

PRESETS: dict[str, MdreConfig] = {
    "paper": MdreConfig(),
    "ssl": MdreConfig(kind="ssl"),
    "desk": MdreConfig(kind="ssl", speech_width=384, text_width=192, classes=4),
    "tiny": _TINY,
    "tiny-ssl": MdreConfig(**{**_TINY.__dict__, "kind": "ssl"}),
}
"""Configurations by name; `paper` is the classic one."""


class LastState(nn.Module):
    """A GRU that returns its state after the last valid step."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, hidden, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (B, H) of x (B, T, D), padded at the end: a causal network never sees padding before it is done.

        A row without a valid step gives zeros.
        """
        states, _ = self.gru(x)
        last = torch.cumsum(mask, 1) * mask == mask.sum(1, keepdim=True)
        return torch.matmul((last * mask)[:, None], states)[:, 0]


class Mdre(System):
    """Two GRUs, concatenated; or one of them."""

    reads = ("speech", "mfcc", "prosody", "text")

    def __init__(self, config: MdreConfig) -> None:
        super().__init__()
        self.config = config
        self.sides = ("speech", "text") if config.modalities == "both" else (config.modalities,)
        classic = config.kind == "classic"
        if "text" in self.sides:
            token = config.embedding if classic or config.vocabulary else config.text_width
            if config.vocabulary:
                self.embed_text: nn.Module = nn.Embedding(config.vocabulary, config.embedding)
            elif token != config.text_width:
                self.embed_text = nn.Linear(config.text_width, config.embedding)
            self.text = LastState(token, config.hidden)
        if "speech" in self.sides:
            if classic:
                self.standard_mfcc = Standardise((config.mfcc_width,))
                self.standard_prosody = Standardise((config.prosody_width,))
            self.audio = LastState(config.mfcc_width if classic else config.speech_width, config.hidden)
            self.mix_audio = nn.Linear(config.hidden + (config.prosody_width if classic else 0), config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(len(self.sides) * config.hidden, config.classes)

    def forward(self, inputs: Inputs) -> Output:
        """Return logits (B, C) and the vectors of the sides (B, 2H), or (B, H) of one; text that is missing is zeros.

        Raises:
            ConfigError: The batch lacks the audio features of this kind, or the text of a model of text alone.
        """
        if "speech" not in self.sides and "text" not in inputs:
            raise ConfigError("the batch has no text; need it for modalities = 'text'; add [features.text]")
        rows = []
        if "speech" in self.sides:
            rows.append(self._audio(inputs))
        if "text" in self.sides:
            rows.append(torch.zeros_like(rows[0]) if "text" not in inputs else self._text(inputs))
        z = torch.cat(rows, dim=-1)
        return Output(self.classify(self.dropout(z)), z)

    @torch.no_grad()
    def fit_statistics(self, examples: Sequence[Example]) -> None:
        """Store mean and deviation of MFCCs and prosody over a training set; call it once, before training.

        They are buffers: a checkpoint carries them, and a transfer keeps those of the source. `ssl` has none.

        Raises:
            ConfigError: No example has one of the two.
        """
        if self.config.kind != "classic" or "speech" not in self.sides:
            return
        for name, standard in (("mfcc", self.standard_mfcc), ("prosody", self.standard_prosody)):
            present = [np.asarray(e.features[name]) for e in examples if len(e.features.get(name, ()))]
            if not present:
                raise ConfigError(f"no example has {name}; need it to fit statistics; add [features.{name}]")
            standard.fit([np.stack(present)] if name == "prosody" else present)

    def _audio(self, inputs: Inputs) -> Tensor:
        name = "mfcc" if self.config.kind == "classic" else "speech"
        needed = (name, "prosody") if self.config.kind == "classic" else (name,)
        absent = [feature for feature in needed if feature not in inputs]
        if absent:
            raise ConfigError(
                f"the batch has no {', '.join(absent)}; need {' and '.join(needed)} for kind = {self.config.kind!r}; "
                "add them under [features]"
            )
        classic, steps = self.config.kind == "classic", self.config.audio_steps
        x, mask = sequence(inputs, name, (self.config.mfcc_width if classic else self.config.speech_width,))
        x, mask = x[:, :steps], mask[:, :steps]
        if not classic:
            return torch.relu(self.mix_audio(self.audio(x, mask)))
        prosody = self.standard_prosody(inputs["prosody"])
        if "prosody_mask" in inputs:
            prosody = prosody * inputs["prosody_mask"].reshape(-1, 1)
        state = self.audio(self.standard_mfcc(x), mask)
        return torch.relu(self.mix_audio(torch.cat([state, prosody], dim=-1)))

    def _text(self, inputs: Inputs) -> Tensor:
        tokens, mask = sequence(inputs, "text", (1,) if self.config.vocabulary else (self.config.text_width,))
        tokens, mask = tokens[:, : self.config.text_len], mask[:, : self.config.text_len]
        if self.config.vocabulary:
            tokens = self.embed_text(tokens[..., 0].long())
        elif hasattr(self, "embed_text"):
            tokens = self.embed_text(tokens)
        return self.text(tokens, mask)
