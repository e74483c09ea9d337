"""Sizes of the published encoders, and of tiny stand-ins for tests, as transformers configures them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FAMILIES = ("wav2vec2", "hubert", "wavlm", "whisper", "roberta", "xlm-roberta")
"""Families by transformers' `model_type`; XLS-R is a wav2vec 2.0."""

WAVEFORM_FAMILIES = ("wav2vec2", "hubert", "wavlm")
TEXT_FAMILIES = ("roberta", "xlm-roberta")


@dataclass(frozen=True)
class Architecture:
    """What an encoder is built from when its weights are random."""

    family: str
    """One of `FAMILIES`."""
    settings: Mapping[str, Any]
    """Arguments of the family's configuration in transformers."""
    normalise: bool = False
    """Whether its processor brings every waveform to zero mean and unit variance (`do_normalize`)."""


_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
_TEXT = {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
_TEXT_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}


def _whisper(width: int, layers: int, heads: int) -> Architecture:
    return Architecture(
        "whisper",
        {"d_model": width, "encoder_layers": layers, "encoder_attention_heads": heads, "encoder_ffn_dim": 4 * width},
    )


TRUE_SIZE: dict[str, Architecture] = {
    "facebook/wav2vec2-base": Architecture("wav2vec2", {}, normalise=True),
    "facebook/wav2vec2-base-960h": Architecture("wav2vec2", {}, normalise=True),
    "facebook/hubert-base-ls960": Architecture("hubert", {}, normalise=True),
    "microsoft/wavlm-base": Architecture("wavlm", {}),
    "microsoft/wavlm-base-plus": Architecture("wavlm", {}),
    "facebook/wav2vec2-xls-r-300m": Architecture("wav2vec2", {**_LARGE, "conv_bias": True}, normalise=True),
    "facebook/hubert-large-ll60k": Architecture("hubert", {**_LARGE, "conv_bias": True}, normalise=True),
    "microsoft/wavlm-large": Architecture("wavlm", {**_LARGE, "conv_bias": False}, normalise=True),
    "openai/whisper-medium": _whisper(1024, 24, 16),
    "openai/whisper-small": _whisper(768, 12, 12),
    "openai/whisper-base": _whisper(512, 6, 8),
    "openai/whisper-tiny": _whisper(384, 4, 6),
    "openai/whisper-tiny.en": _whisper(384, 4, 6),
    "roberta-base": Architecture("roberta", {**_TEXT, "vocab_size": 50_265}),
    "roberta-large": Architecture("roberta", {**_TEXT, **_TEXT_LARGE, "vocab_size": 50_265}),
    "xlm-roberta-base": Architecture("xlm-roberta", {**_TEXT, "vocab_size": 250_002}),
    "xlm-roberta-large": Architecture("xlm-roberta", {**_TEXT, **_TEXT_LARGE, "vocab_size": 250_002}),
}
"""Published encoders by hub id; `random:HUB_ID` builds one with random weights."""

_TINY_WAVE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    # So small a model would be all noise with the published dropout of 0.1 everywhere.
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
}
_TINY_LARGE = {**_TINY_WAVE, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
_TINY_TEXT = {
    **_TEXT,
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}

TINY: dict[str, Architecture] = {
    **{family: Architecture(family, _TINY_LARGE, normalise=True) for family in WAVEFORM_FAMILIES},
    "xls-r": Architecture("wav2vec2", _TINY_LARGE, normalise=True),
    "wav2vec2-base": Architecture("wav2vec2", _TINY_WAVE, normalise=True),
    "hubert-base": Architecture("hubert", _TINY_WAVE, normalise=True),
    "wavlm-base": Architecture("wavlm", _TINY_WAVE),
    "whisper": Architecture(
        "whisper", {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64}
    ),
    "roberta": Architecture("roberta", _TINY_TEXT),
    "xlm-roberta": Architecture("xlm-roberta", _TINY_TEXT),
}
"""Two layers of width 32 by name after `tiny:`; without `-base`, the layer-norm variant of the large models."""
