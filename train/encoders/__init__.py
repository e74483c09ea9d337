"""Pretrained encoders of speech and text behind one interface.

`load_encoder` takes a hub id (which transformers downloads), a folder that transformers saved, `tiny:wavlm` (two random
layers of width 32, for tests) or `random:facebook/hubert-base-ls960` (random weights in the published size). `encode`
then returns the input of the first layer and what each layer makes of it, with a frame mask.
"""

from __future__ import annotations

from train.encoders.architectures import FAMILIES, TINY, TRUE_SIZE, Architecture
from train.encoders.base import Encoder, WholeEncoder
from train.encoders.layer_choice import EncoderSpec, build_encoder, layer_numbers
from train.encoders.loading import load_encoder, load_tokenizer, parameter_count, random_encoder
from train.encoders.speech import CONVOLUTIONS, LogMelEncoder, WaveformEncoder, frame_count
from train.encoders.text import TextEncoder

__all__ = [
    "CONVOLUTIONS",
    "FAMILIES",
    "TINY",
    "TRUE_SIZE",
    "Architecture",
    "Encoder",
    "EncoderSpec",
    "LogMelEncoder",
    "TextEncoder",
    "WaveformEncoder",
    "WholeEncoder",
    "build_encoder",
    "frame_count",
    "layer_numbers",
    "load_encoder",
    "load_tokenizer",
    "parameter_count",
    "random_encoder",
]
