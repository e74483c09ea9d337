"""Switches and sizes of LoRA-SER: which stages there are, what learns in each, and the presets."""

from __future__ import annotations

from dataclasses import dataclass

from edge_ser.errors import ConfigError

LOW_RESOURCE_SIZES = (1_000, 2_000, 5_000, 10_000, 20_000)
"""Utterances of the second language in the published low-resource runs; `supports.nested_subsets` draws them."""

STAGES: dict[str, tuple[str, ...]] = {
    "off_the_shelf": ("head",),
    "finetuned": ("encoder",),
    "lora": ("adapter", "adapter"),
    "ft_dual": ("encoder", "encoder"),
    "ft_lora": ("encoder", "adapter"),
    "packs": ("head", "adapter"),
}
"""What learns besides the head, by mode: for the first language and for every further one. `packs` is ours: the encoder
stays as it was pretrained, and each further language is an adapter over it."""

SHARED = "shared"
"""The one head of all languages."""

_CHOICES = {
    "mode": tuple(STAGES),
    "head_mode": (SHARED, "per_language"),
    "task": ("attributes", "emotion"),
    "out": ("linear", "sigmoid"),
}
_ATTRIBUTES = 3


@dataclass(frozen=True)
class LoraSerConfig:
    """Switches and sizes; the defaults are the published model on WavLM large."""

    encoder: str = "microsoft/wavlm-large"
    """Speech encoder: hub id, folder, `tiny:NAME` or `random:HUB_ID`. Empty: frames come as the feature `speech`."""
    speech_width: int = 1024
    """Width of the frames where there is no encoder."""
    mode: str = "ft_lora"
    """What learns in which stage; see `STAGES`."""
    languages: tuple[str, ...] = ("en", "zh")
    """The first language and the further ones, in the order of their stages; names are letters."""
    layer: int = 0
    """Take the output of this layer, and drop the later ones; 0 takes the last."""
    freeze_cnn: bool = True
    """Keep the convolutions when the encoder is fine-tuned."""
    rank: int = 32
    """r of an adapter."""
    alpha: float = 64.0
    """Scale of an adapter, divided by r."""
    lora_dropout: float = 0.05
    """Dropout before an adapter."""
    targets: tuple[str, ...] = ()
    """Names of the wrapped matrices; empty is all six of each layer."""
    head_mode: str = SHARED
    """`shared`: the head moves on (published); `per_language`: an adapter takes a copy of the first head."""
    task: str = "attributes"
    """`attributes`: arousal, valence, dominance under 1 - CCC; `emotion`: classes under cross-entropy."""
    classes: int = _ATTRIBUTES
    """Classes of the task `emotion`; attributes are always three."""
    bottleneck: int = 128
    """Width within the attentive pooling."""
    head_hidden: int = 128
    """Width of the hidden layer; the other size considered is 1024."""
    dropout: float = 0.1
    """Dropout before the outputs."""
    out: str = "linear"
    """`linear`, or `sigmoid` to keep attributes in (0, 1)."""
    crop_s: float = 12.0
    """In training, longer clips are cut to so many seconds at a random place; 0 keeps them."""

    @property
    def outputs(self) -> int:
        """How many outputs the head has."""
        return _ATTRIBUTES if self.task == "attributes" else self.classes


PRESETS: dict[str, LoraSerConfig] = {
    "paper": LoraSerConfig(),
    "paper-hubert": LoraSerConfig(encoder="facebook/hubert-large-ll60k"),
    "edge-head": LoraSerConfig(
        encoder="openai/whisper-tiny",
        mode="packs",
        layer=2,
        rank=8,
        alpha=16.0,
        head_mode="per_language",
        task="emotion",
        classes=4,
    ),
    "tiny": LoraSerConfig(encoder="tiny:wavlm", rank=4, alpha=8.0, lora_dropout=0.0, bottleneck=8, head_hidden=8),
}


def check(config: LoraSerConfig) -> None:
    """Raise a ConfigError for a setting that is no choice."""
    for name, choices in _CHOICES.items():
        if getattr(config, name) not in choices:
            raise ConfigError(f"{name} is {getattr(config, name)!r}; need one of {', '.join(choices)}")
    if not config.languages or len(set(config.languages)) != len(config.languages):
        raise ConfigError(f"languages are {config.languages}; need at least one, each once")
    if not config.encoder and config.mode != "off_the_shelf":
        raise ConfigError(f"mode {config.mode} trains through an encoder; name one, or take off_the_shelf")
