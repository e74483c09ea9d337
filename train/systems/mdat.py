"""MDAT: multimodal dual-attention transformer.

Speech frames and text tokens of two frozen multilingual encoders pass graph attention over both, co-attention between
them and one transformer layer each; the pooled halves go to a classifier. Source: "Cross-Language Speech Emotion
Recognition Using Multimodal Dual Attention Transformers". Axes: B batch, T_s speech frames, T_t text tokens, D_s and
D_t their widths, U width after graph attention, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge_ser.errors import ConfigError
from train.layers import LayerMix, TransformerLayer, fit_length, mean_neighbours, sequence, sinusoids
from train.systems import Inputs, Output, System, drop_modalities
from train.systems.dual_attention import ACTIVATIONS, CoAttention, GraphAttention, Pool

MODALITIES = ("speech", "text")

_MODULES = ("gat", "coattn", "te")

_CHOICES = {
    "align": ("independent", "common"),
    "gat": ("v1", "v2", "literal"),
    "gat_act": ("none", "elu"),
    "graph_scope": ("joint", "per_modality"),
    "coattn": ("cross", "gate", "channel"),
    "activation": tuple(ACTIVATIONS),
    "pos": ("none", "sinusoidal"),
    "pool": ("mean", "attn", "max", "flatten"),
    "modalities": ("both", *MODALITIES),
}


@dataclass(frozen=True)
class MdatConfig:
    """Sizes and switches; the defaults are the paper preset."""

    classes: int = 4
    speech_width: int = 1024
    """D_s: width of a speech frame, and of text after its projection."""
    text_width: int = 768
    """D_t: width of a text token."""
    speech_layers: int = 1
    """Encoder layers in a speech frame; several are mixed by learned weights."""
    text_layers: int = 1
    """Encoder layers in a text token; several are mixed by learned weights."""
    speech_pool: int = 1
    """Neighbouring speech frames that are averaged into one before anything else."""
    align: str = "independent"
    """`independent` keeps both lengths; `common` pads or crops both to `common_length`."""
    common_length: int = 256
    """N: frames and tokens under `align = common`; 256 goes with `speech_pool = 2`."""
    unit: int = 1024
    """U; without graph attention it is D_s instead."""
    gat: str = "v1"
    """Score of a pair: `v1` (Velickovic et al. 2018), `v2` (Brody et al. 2022), `literal` (the sender's alone)."""
    gat_act: str = "none"
    gat_heads: int = 1
    """Heads whose outputs, U / heads wide, stand side by side."""
    gat_residual: bool = False
    """Whether the input is added; needs U = D_s."""
    graph_scope: str = "joint"
    """`joint`: every node hears every node; `per_modality`: only those of its own modality."""
    share_weights: bool = True
    """Under `per_modality`: one graph attention for both modalities."""
    coattn: str = "cross"
    """`cross` reads the other modality, `gate` weighs the own one, `channel` mixes channels of a common length."""
    coattn_scale: bool = True
    activation: str = "tanh"
    """Of the dense layers of the co-attention."""
    te_layers: int = 1
    te_heads: int = 8
    feed_forward: int = 2048
    te_share: bool = False
    pos: str = "none"
    pool: str = "mean"
    modules: tuple[str, ...] = _MODULES
    """Which of graph attention, co-attention and transformer encoder stand; a removed one is an identity."""
    modalities: str = "both"
    """`speech` or `text` alone has nothing to co-attend to: its frames go on U wide."""
    modality_dropout: float = 0.15
    """Share of complete utterances whose speech, and of those whose text, is hidden in training; at most 0.5."""
    dropout: float = 0.1
    classifier_width: int = 256
    classifier_dropout: float = 0.3

    def __post_init__(self) -> None:
        """Check that the switches fit together.

        Raises:
            ConfigError: They do not.
        """
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; need one of {', '.join(choices)}")
        if min(self.speech_pool, self.te_layers, self.te_heads, self.gat_heads) < 1:
            raise ConfigError("speech_pool, te_layers, te_heads and gat_heads start at 1")
        whole = self.pool == "flatten" or (self.co_attends and self.coattn == "channel")
        split = "te" in self.modules and self.joined % self.te_heads
        for wrong, message in (
            (set(self.modules) - set(_MODULES), f"modules is {self.modules}; need some of {', '.join(_MODULES)}"),
            (not 0 <= self.modality_dropout <= 0.5, f"modality_dropout is {self.modality_dropout}; need 0 to 0.5"),
            (whole and self.align != "common", "coattn channel and pool flatten need one length; set align = common"),
            (self.gat_residual and self.unit != self.speech_width, "gat_residual adds the input; need U = D_s"),
            (self.unit % self.gat_heads, f"gat_heads is {self.gat_heads}; it has to divide unit, {self.unit}"),
            (split, f"te_heads is {self.te_heads}; it has to divide {self.joined}, what enters the transformer"),
            (self.pos != "none" and self.joined % 2, f"pos sinusoidal needs an even width, got {self.joined}"),
        ):
            if wrong:
                raise ConfigError(message)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the modalities in use."""
        return MODALITIES if self.modalities == "both" else (self.modalities,)

    @property
    def co_attends(self) -> bool:
        """Return whether there is a co-attention and another modality to attend to."""
        return "coattn" in self.modules and self.modalities == "both"

    @property
    def graph_width(self) -> int:
        """Return U as it is after the graph attention, if any."""
        return self.unit if "gat" in self.modules else self.speech_width

    @property
    def joined(self) -> int:
        """Return the width of a frame after the co-attention, if any."""
        return 2 * self.graph_width if self.co_attends else self.graph_width

    @property
    def pooled(self) -> int:
        """Return the width of one modality after pooling."""
        return self.joined * (self.common_length if self.pool == "flatten" else 1)


PRESETS = {
    "paper": MdatConfig(),
    "paper-common": MdatConfig(align="common", speech_pool=2),
    "edge-head": MdatConfig(unit=256, feed_forward=1024),
    "desk": MdatConfig(speech_width=384, text_width=256, speech_pool=2, unit=96, feed_forward=384),
    "tiny": MdatConfig(
        speech_width=16, text_width=12, common_length=24, unit=8, te_heads=2, feed_forward=16, classifier_width=16
    ),
}
"""`desk` is for frames of Whisper tiny and a small text encoder, trained on two cores."""

ABLATIONS: dict[str, tuple[str, ...]] = {
    "1": _MODULES,
    "2": ("gat", "coattn"),
    "3": ("gat",),
    "4": ("coattn",),
    "5": ("te",),
    "6": ("coattn", "te"),
    "7": ("gat", "te"),
}
"""`modules` of each model of the source's ablation table."""


class ModalityGraph(nn.Module):
    """Graph attention over the nodes of all modalities, or of each by itself."""

    def __init__(self, config: MdatConfig) -> None:
        super().__init__()
        self.config = config
        alone = config.graph_scope == "per_modality" and not config.share_weights
        self.heads = nn.ModuleDict({name: self._heads() for name in (config.names if alone else ("shared",))})

    def _heads(self) -> nn.ModuleList:
        config = self.config
        width = config.unit // config.gat_heads
        return nn.ModuleList(GraphAttention(config.speech_width, width, config.gat) for _ in range(config.gat_heads))

    def forward(self, frames: dict[str, Tensor], masks: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return every modality's nodes (B, T, U)."""
        if self.config.graph_scope == "per_modality":
            return {name: self.listen(frames[name], masks[name], name=name) for name in frames}
        nodes = self.listen(torch.cat(list(frames.values()), dim=1), torch.cat(list(masks.values()), dim=1))
        sizes = [x.shape[1] for x in frames.values()]
        return dict(zip(frames, nodes.split(sizes, dim=1), strict=True))

    def listen(self, nodes: Tensor, mask: Tensor, adjacency: Tensor | None = None, *, name: str = "shared") -> Tensor:
        """Return nodes (B, T, U) after every head, the activation and the residual; masked ones are zeros."""
        heads = self.heads[name if name in self.heads else "shared"]
        assert isinstance(heads, nn.ModuleList)
        out = torch.cat([head(nodes, mask, adjacency) for head in heads], dim=-1)
        if self.config.gat_act == "elu":
            out = nn.functional.elu(out)
        return out + nodes * mask.unsqueeze(-1) if self.config.gat_residual else out


class Transformers(nn.Module):
    """A stack of transformer layers for each modality, or one stack for all."""

    def __init__(self, config: MdatConfig) -> None:
        super().__init__()
        self.positions = config.pos == "sinusoidal"
        self.stacks = nn.ModuleDict(
            {
                name: nn.ModuleList(
                    TransformerLayer(config.joined, config.te_heads, config.feed_forward, config.dropout)
                    for _ in range(config.te_layers)
                )
                for name in (("shared",) if config.te_share else config.names)
            }
        )

    def forward(self, x: Tensor, mask: Tensor, name: str) -> Tensor:
        """Return the frames x (B, T, W) of a modality after its layers."""
        stack = self.stacks[name if name in self.stacks else "shared"]
        assert isinstance(stack, nn.ModuleList)
        if self.positions:
            x = x + sinusoids(x)
        for layer in stack:
            x = layer(x, mask)
        return x


class Mdat(System):
    """The fusion head over features of a speech and a text encoder.

    Reads `speech` (B, T_s, D_s) and `text` (B, T_t, D_t), or (B, T, L, D) where several layers are mixed, with masks. A
    modality without a valid position, or absent, takes a learned vector in its half of what is classified.
    """

    reads = MODALITIES

    def __init__(self, config: MdatConfig) -> None:
        super().__init__()
        self.config = config
        names, both = config.names, config.modalities == "both"
        layers = {"speech": config.speech_layers, "text": config.text_layers}
        self.layer_mix = nn.ModuleDict({name: LayerMix(layers[name]) for name in names if layers[name] > 1})
        self.align_text = nn.Linear(config.text_width, config.speech_width) if "text" in names else None
        self.graph = ModalityGraph(config) if "gat" in config.modules else None
        self.co_attention = (
            CoAttention(config.graph_width, config.coattn, config.activation, config.coattn_scale)
            if config.co_attends
            else None
        )
        self.transformers = Transformers(config) if "te" in config.modules else None
        self.pool = nn.ModuleDict({name: Pool(config.pool, config.joined) for name in names})
        self.missing_modality = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(config.pooled)) for name in names if both}
        )
        self.classifier = nn.Sequential(
            nn.Linear(len(names) * config.pooled, config.classifier_width),
            nn.ReLU(),
            nn.Dropout(config.classifier_dropout),
            nn.Linear(config.classifier_width, config.classes),
        )

    def parts(self) -> dict[str, int]:
        """Return parameters by part, without the parts that these switches leave empty."""
        return {name: count for name, count in super().parts().items() if count}

    def forward(self, inputs: Inputs) -> Output:
        """Return logits (B, C) and what enters the classifier: (B, 4U) in the paper's arrangement."""
        frames, masks = self.nodes(inputs)
        frames = self.graph(frames, masks) if self.graph is not None else frames
        if self.co_attention is not None:
            speech, text = self.co_attention(frames["speech"], frames["text"], masks["speech"], masks["text"])
            frames = {"speech": speech, "text": text}
        halves = [self._half(name, frames[name], masks[name]) for name in frames]
        embedding = torch.cat(halves, dim=-1)
        return Output(self.classifier(embedding), embedding)

    def nodes(self, inputs: Inputs) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return every modality's frames (B, T, D_s), with the text projected, and masks (B, T)."""
        config = self.config
        frames, masks = {}, {}
        for name in config.names:
            layers, width = getattr(config, f"{name}_layers"), getattr(config, f"{name}_width")
            frames[name], masks[name] = sequence(inputs, name, (layers, width) if layers > 1 else (width,))
        if config.modalities == "both":
            masks = drop_modalities(masks, config.modality_dropout, self.training)
        for name in config.names:
            x, mask = frames[name], masks[name]
            x = self.layer_mix[name](x) if name in self.layer_mix else x
            if name == "speech":
                x, mask = mean_neighbours(x, mask, config.speech_pool)
            if config.align == "common":
                x, mask = fit_length(x, config.common_length), fit_length(mask, config.common_length)
            frames[name] = self.align_text(x) if name == "text" and self.align_text is not None else x
            masks[name] = mask
        return frames, masks

    def _half(self, name: str, x: Tensor, mask: Tensor) -> Tensor:
        """Return the pooled modality, or the learned vector in rows that have none of it."""
        x = self.transformers(x, mask, name) if self.transformers is not None else x
        pooled: Tensor = self.pool[name](x, mask)
        if name not in self.missing_modality:
            return pooled
        present = mask.amax(dim=1, keepdim=True)
        return present * pooled + (1.0 - present) * self.missing_modality[name]
