"""Where encoders come from: a hub id, a folder, or random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoTokenizer, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from edge_ser.errors import ConfigError
from train.encoders.architectures import FAMILIES, TEXT_FAMILIES, TINY, TRUE_SIZE, Architecture
from train.encoders.base import Encoder
from train.encoders.speech import LogMelEncoder, WaveformEncoder
from train.encoders.text import TextEncoder

Tokenize = Callable[[str], list[int]]
"""A sentence's token ids, special tokens included."""

# Only SpecAugment reads it, which is not applied here; some checkpoints were saved without it.
_UNUSED = {"masked_spec_embed"}
_CLASSES = {
    "wav2vec2": "Wav2Vec2",
    "hubert": "Hubert",
    "wavlm": "WavLM",
    "whisper": "Whisper",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
}


def load_encoder(
    source: str | Path,
    *,
    family: str | None = None,
    random_init: bool = False,
    seed: int = 0,
    whisper_pad_s: float = 0.0,
) -> Encoder:
    """Return an encoder, frozen, in eval mode, in float32, on the CPU.

    Args:
        source: A folder that transformers saved, a hub id (which transformers downloads), `tiny:NAME` for two random
            layers (`architectures.TINY`) or `random:HUB_ID` for random weights in the published size.
        family: What it has to be, one of `architectures.FAMILIES`; None takes what is there.
        random_init: Take only the configuration from the source and draw the weights.
        seed: Seed of random weights.
        whisper_pad_s: For Whisper: pad clips to so many seconds, 30 as published; 0 runs them as they are.

    Raises:
        ConfigError: Nothing such there, another family, or weights missing in the checkpoint.
    """
    text = str(source)
    if text.startswith(("tiny:", "random:")):
        encoder = random_encoder(_described(text), seed=seed, whisper_pad_s=whisper_pad_s)
    else:
        encoder = _pretrained(text, random_init, seed, whisper_pad_s)
    if family is not None and encoder.family != family:
        raise ConfigError(f"{source} is a {encoder.family} encoder; need {family}")
    return encoder


def random_encoder(architecture: Architecture, *, seed: int = 0, whisper_pad_s: float = 0.0) -> Encoder:
    """Return an encoder with random weights, the same for the same seed."""
    made = _class(architecture.family, "Config")(**architecture.settings)
    return _random(made, architecture.family, architecture.normalise, seed, whisper_pad_s)


def parameter_count(architecture: Architecture) -> int:
    """Return how many parameters an encoder has, without making them."""
    with torch.device("meta"):
        model = _build(_class(architecture.family, "Config")(**architecture.settings), architecture.family)
    return sum(parameter.numel() for parameter in model.parameters())


def load_tokenizer(source: str | Path, max_tokens: int = 512) -> Tokenize:
    """Return the tokenizer that belongs to a text encoder: a sentence in, at most `max_tokens` ids out.

    For random encoders it gives the bytes of the sentence between two special tokens.

    Raises:
        ConfigError: There is no tokenizer.
    """
    text = str(source)
    if text.startswith(("tiny:", "random:")):
        return lambda sentence: [0, *(4 + byte for byte in sentence.encode()[: max_tokens - 2]), 2]
    try:
        tokenizer = AutoTokenizer.from_pretrained(text, local_files_only=_is_local(text))
    except (OSError, ValueError) as error:
        raise ConfigError(f"no tokenizer in {text} ({error}); save it beside the encoder's weights") from error
    return lambda sentence: list(tokenizer(sentence, truncation=True, max_length=max_tokens)["input_ids"])


def _described(source: str) -> Architecture:
    kind, _, name = source.partition(":")
    table = TINY if kind == "tiny" else TRUE_SIZE
    if name not in table:
        raise ConfigError(f"no encoder {source}; need {kind}: and one of {', '.join(sorted(table))}")
    return table[name]


def _is_local(source: str) -> bool:
    return Path(source).expanduser().is_dir()


def _pretrained(source: str, random_init: bool, seed: int, whisper_pad_s: float) -> Encoder:
    local = _is_local(source)
    if not local and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise ConfigError(f"no folder {source}; need a folder with config.json and model.safetensors, or a hub id")
    place = str(Path(source).expanduser()) if local else source
    try:
        described = AutoConfig.from_pretrained(place, local_files_only=local)
        family = described.model_type
        if family not in FAMILIES:
            raise ConfigError(f"{source} is a {family} model; need one of {', '.join(FAMILIES)}")
        normalise = _normalises(place, local)
        if random_init:
            return _random(described, family, normalise, seed, whisper_pad_s)
        return _wrap(_read(place, described, local), family, normalise, _features(place, described), whisper_pad_s)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"cannot load {source}: {first}. Need a folder of transformers or a hub id") from error


def _class(family: str, kind: str) -> Any:
    return getattr(transformers, _CLASSES[family] + kind)


def _read(place: str, described: Any, local: bool) -> nn.Module:
    """Return the pretrained model, checked to be whole."""
    family = described.model_type
    bare_whisper = family == "whisper" and "WhisperEncoder" in (described.architectures or [])
    kind = WhisperEncoder if bare_whisper else _class(family, "Model")
    # Plain products that every exporter understands and any mask fits.
    options: dict[str, Any] = {"attn_implementation": "eager", "local_files_only": local, "dtype": torch.float32}
    if family in TEXT_FAMILIES:
        options["add_pooling_layer"] = False
    model, about = kind.from_pretrained(place, output_loading_info=True, **options)
    missing = set(about["missing_keys"])
    if family == "whisper" and not bare_whisper:
        missing = {key for key in missing if "encoder." in key and "decoder." not in key}
        model = model.encoder
    # Transformers would fill missing tensors with random numbers and go on.
    if missing - _UNUSED:
        named = ", ".join(sorted(missing - _UNUSED)[:3])
        raise ConfigError(f"{place} lacks tensors, {named} among them; need every tensor of a {family} encoder")
    if missing:
        nn.init.zeros_(model.masked_spec_embed)
    return model


def _random(described: Any, family: str, normalise: bool, seed: int, whisper_pad_s: float) -> Encoder:
    described._attn_implementation = "eager"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _build(described, family)
    features = WhisperFeatureExtractor(feature_size=described.num_mel_bins) if family == "whisper" else None
    return _wrap(model, family, normalise, features, whisper_pad_s)


def _build(described: Any, family: str) -> nn.Module:
    if family == "whisper":
        return WhisperEncoder(described)
    return _class(family, "Model")(described, **({"add_pooling_layer": False} if family in TEXT_FAMILIES else {}))


def _wrap(
    model: nn.Module, family: str, normalise: bool, features: WhisperFeatureExtractor | None, whisper_pad_s: float
) -> Encoder:
    model = model.float()
    encoder: Encoder
    if features is not None:
        encoder = LogMelEncoder(model, features, pad_s=whisper_pad_s)
    elif family in TEXT_FAMILIES:
        encoder = TextEncoder(model, family)
    else:
        encoder = WaveformEncoder(model, family, normalise=normalise)
    return encoder.set_mode("frozen").eval()


def _features(place: str, described: Any) -> WhisperFeatureExtractor | None:
    return WhisperFeatureExtractor.from_pretrained(place) if described.model_type == "whisper" else None


def _normalises(place: str, local: bool) -> bool:
    """Return whether the checkpoint's processor normalises each waveform; where none is saved, as published."""
    if place in TRUE_SIZE:
        return TRUE_SIZE[place].normalise
    try:
        settings, _ = transformers.FeatureExtractionMixin.get_feature_extractor_dict(place, local_files_only=local)
    except OSError:
        return True
    return bool(settings.get("do_normalize", True))
