"""MHA fusion: one multi-head attention per modality, over itself or over the other one, then statistics of the two.

Frames of wav2vec 2.0 and tokens of RoBERTa enter; seven emotions come out. The head knows no positions. Its statistics
(mean and deviation over the two modalities) are symmetric: it cannot tell which modality said what except through what
the projections make of each; `pool="concat"` keeps them apart.

With `attention="cross"` and nothing else the model has no answer to a missing transcript: audio then reads from no key
and every frame becomes the constant `b_o`. Where text can be missing, use `residual_ln` or `cross_fallback`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge_ser.errors import ConfigError
from train.layers import Attention, mask_of, masked_mean, sequence
from train.systems import Inputs, Output, System, drop_modalities

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "attention": ("self", "cross"),
    "pool": ("stat", "concat"),
    "text": ("sequence", "cls"),
    "modalities": ("both", "text", "audio"),
    "crop": ("start", "random"),
}


@dataclass(frozen=True)
class MhaFusionConfig:
    """Switches and sizes; the defaults are the published model on wav2vec 2.0 base and RoBERTa large."""

    speech_width: int = 768
    """Width of the speech frames; another width than `width` adds a projection."""
    text_width: int = 1024
    """Width of the text tokens, projected to `width` in either attention."""
    width: int = 768
    """Width of both attentions; `heads` must divide it."""
    heads: int = 6
    """Attention heads."""
    hidden: int = 256
    """Width of the layer before the classifier."""
    classes: int = 7
    """Emotions."""
    dropout: float = 0.1
    """Dropout of attention weights and before the classifier."""
    attention: str = "self"
    """`self`: each modality over itself; `cross`: each over the other one."""
    pool: str = "stat"
    """`stat`: mean and deviation over the two modalities; `concat`: both side by side (noSP)."""
    text: str = "sequence"
    """`sequence`: all tokens; `cls`: the first position alone."""
    modalities: str = "both"
    """`both`, or `text` or `audio` alone with self-attention."""
    residual_ln: bool = False
    """Whether an attention is followed by a residual and a layer norm; not published."""
    cross_fallback: bool = False
    """Whether a modality whose other one is missing attends to itself, through the same weights."""
    mask: bool = True
    """Whether padding is masked; False is the literal model, which averages over padding up to full length."""
    std_unbiased: bool = False
    """Whether the deviation over two modalities divides by 1 (unbiased) instead of 2."""
    text_len: int = 128
    """Longest text in tokens; 129 is the published count (128 word pieces and `<s>`) and goes with the feature's option
    `tokens = 129`."""
    frames: int = 499
    """Longest speech in frames, as they arrive: 499 are 10 s that no `pool` has averaged."""
    crop: str = "start"
    """Which frames of longer speech: the first ones, or in training (`random`) any. `random` reads whole clips, the
    feature's `length` being `as_is`: what is cut before it is encoded leaves nothing to choose from."""
    modality_dropout: float = 0.15
    """Share of training rows that lose their text, and of those that lose their speech; never both, so at most 0.5."""

    def __post_init__(self) -> None:
        """Check what a type cannot say.

        Raises:
            ConfigError: Heads do not divide the width, or a switch has no such value.
        """
        if self.width % self.heads:
            raise ConfigError(
                f"width is {self.width} and heads {self.heads}; need heads that divide the width; "
                "set width = 768 with 6 heads as published, or other heads"
            )
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; need one of {', '.join(choices)}")
        if not 0 <= self.modality_dropout <= 0.5:
            raise ConfigError(f"modality_dropout is {self.modality_dropout}; need 0 to 0.5, a row loses one of two")
        if self.modalities != "both" and self.attention == "cross":
            raise ConfigError(
                f"attention is 'cross' with modalities {self.modalities!r}; need both; set attention = 'self'"
            )


PRESETS: dict[str, MhaFusionConfig] = {
    "paper": MhaFusionConfig(),
    "paper-cross": MhaFusionConfig(attention="cross"),
    # For 384-wide Whisper frames and a small text encoder on two cores.
    "desk": MhaFusionConfig(
        speech_width=384, text_width=192, width=192, hidden=128, classes=4, frames=250, residual_ln=True
    ),
    "tiny": MhaFusionConfig(
        speech_width=12, text_width=16, width=12, heads=3, hidden=8, classes=4, text_len=12, frames=24
    ),
}
"""Configurations by name."""


class MissingVectors(nn.Module):
    """What stands for a modality that is missing: one learned vector each, in place of its pooled vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.text = nn.Parameter(torch.randn(width) * 0.02)
        self.speech = nn.Parameter(torch.randn(width) * 0.02)


def statistics(text: Tensor, speech: Tensor, unbiased: bool) -> Tensor:
    """Return mean and deviation over the two vectors (B, D) as one (B, 2D).

    The deviation of two values is |a - b| / 2, or |a - b| / sqrt(2) unbiased: without a square root in the graph its
    gradient is finite where both are equal.
    """
    spread = (text - speech).abs()
    return torch.cat([(text + speech) / 2, spread * 2**-0.5 if unbiased else spread / 2], dim=-1)


class MhaFusion(System):
    """Self- or cross-attention over text and audio."""

    reads = ("speech", "text")

    def __init__(self, config: MhaFusionConfig) -> None:
        super().__init__()
        self.config = config
        uses_text, uses_speech = config.modalities != "audio", config.modalities != "text"
        if uses_text:
            self.project_text = nn.Linear(config.text_width, config.width)
            self.attention_text = Attention(config.width, config.heads, config.dropout)
        if uses_speech:
            if config.speech_width != config.width:
                self.project_speech = nn.Linear(config.speech_width, config.width)
            self.attention_speech = Attention(config.width, config.heads, config.dropout)
        if config.residual_ln:
            self.norms = nn.ModuleDict(
                {
                    name: nn.LayerNorm(config.width)
                    for name, used in (("text", uses_text), ("speech", uses_speech))
                    if used
                }
            )
        pooled = 2 * config.width if config.modalities == "both" else config.width
        self.hidden = nn.Linear(pooled, config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(config.hidden, config.classes)
        if config.modalities == "both":
            self.missing_modality = MissingVectors(config.width)

    def forward(self, inputs: Inputs) -> Output:
        """Return logits (B, C) and z (B, 2D), or (B, D) of a single modality.

        Raises:
            ConfigError: The batch has none of the features that the model reads.
        """
        z = self.pooled(inputs)
        return Output(self.classify(self.dropout(torch.relu(self.hidden(z)))), z)

    def pooled(self, inputs: Inputs) -> Tensor:
        """Return z: the statistics of both pooled modalities, or the one pooled modality."""
        config = self.config
        if config.modalities == "both":
            text, speech, text_mask, speech_mask = self._both(inputs)
            return self._fuse(text, speech, text_mask, speech_mask)
        name = "text" if config.modalities == "text" else "speech"
        if name not in inputs:
            raise ConfigError(f"the batch has no {name}; need it for modalities = {config.modalities!r}; add it")
        x, mask, _ = self._prepared(name, *self._read(inputs, name))
        return masked_mean(self._attend(name, x, x, mask), mask)

    def _both(self, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if not any(name in inputs for name in self.reads):
            raise ConfigError("the batch has neither speech nor text; need one of them; check the features")
        read = {name: self._read(inputs, name) for name in self.reads}
        masks = {name: mask for name, (_, mask) in read.items()}
        masks = drop_modalities(masks, self.config.modality_dropout, self.training)
        text, text_mask, has_text = self._prepared("text", read["text"][0], masks["text"])
        speech, speech_mask, has_speech = self._prepared("speech", read["speech"][0], masks["speech"])
        # A missing modality is no key even for the literal model, which otherwise masks nothing.
        return text, speech, text_mask * has_text, speech_mask * has_speech

    def _read(self, inputs: Inputs, name: str) -> tuple[Tensor, Tensor]:
        """Return a modality's frames, zero where masked, and their mask; the literal model sees padding as it is."""
        x, mask = sequence(inputs, name, (self.config.text_width if name == "text" else self.config.speech_width,))
        if self.config.mask or name not in inputs:
            return x, mask
        return inputs[name], mask_of(inputs, name)

    def _prepared(self, name: str, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a modality at width D, cropped, with its mask (B, T) and whether it is there at all (B, 1)."""
        config = self.config
        limit = config.text_len if name == "text" else config.frames
        if name == "speech" and config.crop == "random" and self.training:
            x, mask = _random_crop(x, mask, limit)
        x, mask = x[:, :limit], mask[:, :limit]
        if name == "text" and config.text == "cls":
            x, mask, limit = x[:, :1], mask[:, :1], 1
        there = mask.amax(1, keepdim=True)
        if not config.mask:
            x = nn.functional.pad(x, (0, 0, 0, limit - x.shape[1]))
            mask = x.new_ones(x.shape[:2])
        projection = getattr(self, f"project_{name}", None)
        return x if projection is None else projection(x), mask, there

    def _fuse(self, text: Tensor, speech: Tensor, text_mask: Tensor, speech_mask: Tensor) -> Tensor:
        if self.config.attention == "self":
            read_text = self._attend("text", text, text, text_mask)
            read_speech = self._attend("speech", speech, speech, speech_mask)
        else:
            read_text = self._attend("text", text, *self._other(text, speech, text_mask, speech_mask))
            read_speech = self._attend("speech", speech, *self._other(speech, text, speech_mask, text_mask))
        has_text, has_speech = text_mask.amax(1, keepdim=True), speech_mask.amax(1, keepdim=True)
        pooled_text = has_text * masked_mean(read_text, text_mask) + (1 - has_text) * self.missing_modality.text
        pooled_speech = (
            has_speech * masked_mean(read_speech, speech_mask) + (1 - has_speech) * self.missing_modality.speech
        )
        if self.config.pool == "concat":
            return torch.cat([pooled_text, pooled_speech], dim=-1)
        return statistics(pooled_text, pooled_speech, self.config.std_unbiased)

    def _attend(self, name: str, queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        attention = self.attention_text if name == "text" else self.attention_speech
        read = attention(queries, keys, mask)
        return self.norms[name](queries + read) if self.config.residual_ln else read

    def _other(self, own: Tensor, other: Tensor, own_mask: Tensor, other_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and their mask in cross-attention: the other modality or, where it is missing, the own one."""
        if not self.config.cross_fallback:
            return other, other_mask
        alone = 1 - other_mask.amax(1, keepdim=True)
        return torch.cat([other, own], dim=1), torch.cat([other_mask, own_mask * alone], dim=1)


def _random_crop(x: Tensor, mask: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return `length` neighbouring frames of each row, anywhere within its valid ones; shorter rows as they are."""
    if x.shape[1] <= length:
        return x, mask
    spare = (mask.sum(1) - length).clamp(min=0)
    # Rounding may lift a draw just below 1 to the frame after the last start.
    start = torch.minimum((torch.rand(len(x), device=x.device) * (spare + 1)).floor(), spare).long()
    places = start[:, None] + torch.arange(length, device=x.device)
    return x.gather(1, places[:, :, None].expand(-1, -1, x.shape[2])), mask.gather(1, places)
