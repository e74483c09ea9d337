"""MDRE: the dual recurrent encoder of 2018, a comparator: one GRU over audio, one over tokens, their last states.

`kind="classic"` reads 39 MFCCs with the prosody vector, `kind="ssl"` the frames of a speech encoder in their place;
text is a sequence of token vectors, or of ids where the model learns the vectors itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge_ser.errors import ConfigError
from train.systems import Inputs, Output, System, lacks


@dataclass(frozen=True)
class MdreConfig:
    """Sizes; the defaults are the classic model."""

    kind: str = "classic"
    """`classic`: MFCC and prosody; `ssl`: frames of a speech encoder."""
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
    """Longest audio in frames."""
    text_len: int = 128
    """Longest text in tokens."""

    def __post_init__(self) -> None:
        """Check the kind.

        Raises:
            ConfigError: No such kind.
        """
        if self.kind not in ("classic", "ssl"):
            raise ConfigError(f"kind is {self.kind!r}; need classic or ssl; change [model]")


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
    """Two GRUs, concatenated."""

    reads = ("speech", "mfcc", "prosody", "text")

    def __init__(self, config: MdreConfig) -> None:
        super().__init__()
        self.config = config
        classic = config.kind == "classic"
        token = config.embedding if classic or config.vocabulary else config.text_width
        if config.vocabulary:
            self.embed_text: nn.Module = nn.Embedding(config.vocabulary, config.embedding)
        elif token != config.text_width:
            self.embed_text = nn.Linear(config.text_width, config.embedding)
        self.audio = LastState(config.mfcc_width if classic else config.speech_width, config.hidden)
        self.mix_audio = nn.Linear(config.hidden + (config.prosody_width if classic else 0), config.hidden)
        self.text = LastState(token, config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(2 * config.hidden, config.classes)

    def forward(self, inputs: Inputs) -> Output:
        """Return logits (B, C) and the vectors of both sides (B, 2H); a missing side is zeros.

        Raises:
            ConfigError: The batch lacks the audio features of this kind.
        """
        audio = self._audio(inputs)
        text = torch.zeros_like(audio) if lacks(inputs, "text") else self._text(inputs)
        both = torch.cat([audio, text], dim=-1)
        return Output(self.classify(self.dropout(both)), both)

    def _audio(self, inputs: Inputs) -> Tensor:
        name = "mfcc" if self.config.kind == "classic" else "speech"
        needed = (name, "prosody") if self.config.kind == "classic" else (name,)
        absent = [feature for feature in needed if lacks(inputs, feature)]
        if absent:
            raise ConfigError(
                f"the batch has no {', '.join(absent)}; need {' and '.join(needed)} for kind = {self.config.kind!r}; "
                "add them under [features]"
            )
        steps = self.config.audio_steps
        state = self.audio(inputs[name][:, :steps], inputs[f"{name}_mask"][:, :steps])
        if self.config.kind == "classic":
            state = torch.cat([state, inputs["prosody"]], dim=-1)
        return torch.relu(self.mix_audio(state))

    def _text(self, inputs: Inputs) -> Tensor:
        tokens, mask = inputs["text"][:, : self.config.text_len], inputs["text_mask"][:, : self.config.text_len]
        if self.config.vocabulary:
            tokens = self.embed_text(tokens[..., 0].long())
        elif hasattr(self, "embed_text"):
            tokens = self.embed_text(tokens)
        return self.text(tokens, mask)
