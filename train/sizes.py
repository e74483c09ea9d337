"""Prints how many parameters each system has at true size, part by part, as the literature counts them.

    python -m train.sizes                          # a table of everything
    python -m train.sizes --system mdat --format json

Everything is built with random weights on a device without memory, so it takes seconds and downloads nothing. A `head`
is what is trained on top of the encoders; the learned vectors for a missing modality are a part of their own, and in
neither `head` nor `total`. A part of a part, such as `lora: one layer`, stands beside it and is in no sum of its own.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from rich.console import Console
from rich.table import Table

from edge_ser.errors import ConfigError
from train.attribute_head import PooledHead
from train.encoders import TRUE_SIZE, Encoder, random_encoder
from train.lora import ATTENTION_TARGETS, LoraLinear
from train.systems import System, count_parameters
from train.systems.baselines import PRESETS as BILSTM
from train.systems.baselines import BiLstm
from train.systems.camulenet import PRESETS as CAMULENET
from train.systems.camulenet import Camulenet
from train.systems.hump_cat import PRESETS as HUMP_CAT
from train.systems.hump_cat import HumpCat, MeanPool
from train.systems.lora_multilingual import PRESETS as LORA
from train.systems.lora_multilingual import LoraSer
from train.systems.mdat import PRESETS as MDAT
from train.systems.mdat import Mdat
from train.systems.mdre import PRESETS as MDRE
from train.systems.mdre import Mdre
from train.systems.mha_fusion import PRESETS as MHA
from train.systems.mha_fusion import MhaFusion
from train.systems.pooled_encoder import PRESETS as POOLED
from train.systems.pooled_encoder import PooledEncoder

XLS_R, XLM_R, ROBERTA = "facebook/wav2vec2-xls-r-300m", "xlm-roberta-base", "roberta-base"
HUBERT, WHISPER = "facebook/hubert-base-ls960", "openai/whisper-medium"
WAV2VEC2, ROBERTA_LARGE = "facebook/wav2vec2-base-960h", "roberta-large"


@dataclass(frozen=True)
class Size:
    """One number."""

    system: str
    """Which system, or `encoders`."""
    preset: str
    """Its preset, or the hub id of an encoder."""
    part: str
    """What is counted: a part by name, `head`, `total` ...; `whole: a part of it`."""
    parameters: int
    """How many numbers it holds."""


@functools.cache
def encoder_parameters(hub_id: str, layers: int = 0) -> int:
    """Return the parameters of a published encoder, or of one cut after its first `layers` (0: whole)."""
    encoder = unreal_encoder(hub_id)
    return count_parameters(encoder.cut(layers) if layers else encoder)


def unreal_encoder(hub_id: str) -> Encoder:
    """Return a published encoder without memory for its weights."""
    with torch.device("meta"):
        return random_encoder(TRUE_SIZE[hub_id])


def head_sizes(name: str, preset: str, build: Callable[[], System]) -> list[Size]:
    """Return the parts of a head and their sum, without and beside the vectors for a missing modality."""
    with torch.device("meta"):
        parts = {part: count for part, count in build().parts().items() if count}
    head = sum(count for part, count in parts.items() if "missing" not in part)
    return [*(Size(name, preset, part, count) for part, count in parts.items()), Size(name, preset, "head", head)]


def _under(encoders: Mapping[str, int], head: Sequence[Size], preset: str | None = None) -> list[Size]:
    """Return encoders and the total that go with a head, under its preset or another name of it."""
    name, preset = head[-1].system, preset or head[-1].preset
    total = head[-1].parameters + sum(encoders.values())
    rows = [Size(name, preset, part, count) for part, count in encoders.items()]
    return [*rows, Size(name, preset, "total", total)]


def mdat_sizes() -> list[Size]:
    """Return MDAT's sizes: both heads, and the paper's with either text encoder."""
    paper, edge = (head_sizes("mdat", name, functools.partial(Mdat, MDAT[name])) for name in ("paper", "edge-head"))
    speech = {"speech_encoder": encoder_parameters(XLS_R)}
    multilingual, english = ({**speech, "text_encoder": encoder_parameters(text)} for text in (XLM_R, ROBERTA))
    english_head = [replace(size, preset="paper-roberta-base") for size in paper]
    return [*paper, *_under(multilingual, paper), *english_head, *_under(english, english_head), *edge]


def bilstm_sizes() -> list[Size]:
    """Return the size of MDAT's comparator."""
    return head_sizes("bilstm", "paper", functools.partial(BiLstm, BILSTM["paper"]))


def hump_cat_sizes() -> list[Size]:
    """Return HuMP-CAT's sizes: over nine layers of HuBERT, over all twelve, and without any encoder."""
    head = head_sizes("hump-cat", "paper", functools.partial(HumpCat, HUMP_CAT["paper"]))
    nine, twelve = encoder_parameters(HUBERT, 9), encoder_parameters(HUBERT)
    whole = [replace(size, preset="paper-12-layers") for size in head]
    small = head_sizes("hump-cat", "prosody-mfcc", functools.partial(HumpCat, HUMP_CAT["prosody-mfcc"]))
    return [
        *head,
        *_under({"speech_encoder": nine}, head),
        *whole,
        *_under({"speech_encoder": twelve}, whole),
        *small,
        *_under({}, small),
    ]


def mean_pool_sizes() -> list[Size]:
    """Return the size of HuMP-CAT's comparator."""
    return head_sizes("mean-pool", "paper", functools.partial(MeanPool, HUMP_CAT["paper"]))


def camulenet_sizes() -> list[Size]:
    """Return CAMuLeNet's sizes: each way of taking the spectrogram and the MFCCs, and short windows."""
    rows = []
    for preset in ("paper", "published-flattened", "pool-tap", "five-second"):
        head = head_sizes("camulenet", preset, functools.partial(Camulenet, CAMULENET[preset]))
        query = sum(size.parameters for size in head if size.part in ("w_ms", "w_q"))
        rows += [*head, Size("camulenet", preset, "head: position query, w_ms and w_q", query)]
        rows += _under({"speech_encoder": encoder_parameters(WHISPER)}, head)
    return rows


def pooled_encoder_sizes() -> list[Size]:
    """Return the sizes of CAMuLeNet's single-encoder baselines."""
    encoders = {
        "whisper-medium": WHISPER,
        "whisper-base": "openai/whisper-base",
        "wav2vec2-base": "facebook/wav2vec2-base",
        "hubert-base": HUBERT,
        "wavlm-base": "microsoft/wavlm-base",
    }
    rows = []
    for preset, hub_id in encoders.items():
        head = head_sizes("pooled-encoder", preset, functools.partial(PooledEncoder, POOLED[preset]))
        rows += [*head, *_under({"speech_encoder": encoder_parameters(hub_id)}, head)]
    return rows


def mha_sizes() -> list[Size]:
    """Return the sizes of the attention fusion, self and cross."""
    encoders = {
        "speech_encoder": encoder_parameters(WAV2VEC2),
        "text_encoder": encoder_parameters(ROBERTA_LARGE),
    }
    rows = []
    for preset in ("paper", "paper-cross"):
        head = head_sizes("mha", preset, functools.partial(MhaFusion, MHA[preset]))
        rows += [*head, *_under(encoders, head)]
    return rows


def mdre_sizes() -> list[Size]:
    """Return the sizes of the recurrent comparator of the attention fusion."""
    return [
        size
        for preset in ("paper", "ssl")
        for size in head_sizes("mdre", preset, functools.partial(Mdre, MDRE[preset]))
    ]


def lora_sizes() -> list[Size]:
    """Return the sizes of multilingual LoRA over either encoder, in the stage of its second language."""
    rows = []
    for preset in ("paper", "paper-hubert"):
        with torch.device("meta"):
            system = LoraSer(LORA[preset], unreal_encoder(LORA[preset].encoder))
            system.begin(LORA[preset].languages[1])
        parts = system.parts()
        sums = {
            "encoder_and_lora": parts["encoder"] + parts["lora"],
            "total": count_parameters(system),
            "trainable": sum(parameter.numel() for parameter in system.parameters() if parameter.requires_grad),
        }
        rows += [Size("lora", preset, part, count) for part, count in (parts | sums | _inside(system)).items()]
    return rows


def _inside(system: LoraSer) -> dict[str, int]:
    """Return what the head and the adapter of multilingual LoRA are made of."""
    head = next(iter(system.heads.values()))
    assert isinstance(head, PooledHead)
    assert system.encoder is not None
    attention, feed_forward = 0, 0
    for name, layer in system.encoder.layers[0].named_modules():
        if isinstance(layer, LoraLinear):
            count = count_parameters(layer.lora_a) + count_parameters(layer.lora_b)
            attended = name.endswith(ATTENTION_TARGETS)
            attention, feed_forward = attention + count * attended, feed_forward + count * (not attended)
    return {
        "head: attentive pooling": count_parameters(head.pooling),
        "head: layers": count_parameters(head.hidden) + count_parameters(head.out),
        "lora: one layer": attention + feed_forward,
        "lora: one layer's attention": attention,
        "lora: one layer's feed-forward": feed_forward,
    }


def encoder_sizes() -> list[Size]:
    """Return every published encoder, as it is used: without decoder, pooler or any task's head."""
    rows = [Size("encoders", hub_id, "encoder", encoder_parameters(hub_id)) for hub_id in TRUE_SIZE]
    large = next(row for row in rows if row.preset == ROBERTA_LARGE)
    with torch.device("meta"):
        pooler = count_parameters(torch.nn.Linear(1024, 1024))
    return [*rows, replace(large, part="encoder_with_pooler", parameters=large.parameters + pooler)]


SYSTEMS: dict[str, Callable[[], list[Size]]] = {
    "mdat": mdat_sizes,
    "bilstm": bilstm_sizes,
    "hump-cat": hump_cat_sizes,
    "mean-pool": mean_pool_sizes,
    "camulenet": camulenet_sizes,
    "pooled-encoder": pooled_encoder_sizes,
    "mha": mha_sizes,
    "mdre": mdre_sizes,
    "lora": lora_sizes,
    "encoders": encoder_sizes,
}
"""What counts each system."""


def sizes(system: str = "") -> list[Size]:
    """Return the sizes of one system, or of all.

    Raises:
        ConfigError: No such system.
    """
    if system and system not in SYSTEMS:
        raise ConfigError(f"no system {system}; need one of {', '.join(SYSTEMS)}")
    return [size for name, count in SYSTEMS.items() if not system or name == system for size in count()]


def _table(rows: Iterable[Size]) -> Table:
    table = Table("system", "preset", "part")
    table.add_column("parameters", justify="right")
    for row in rows:
        table.add_row(row.system, row.preset, row.part, f"{row.parameters:,}")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m train.sizes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--system", choices=tuple(SYSTEMS), default="", help="only this one")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    chosen = parser.parse_args(arguments)
    logging.getLogger("train.image_encoders").setLevel(logging.ERROR)  # random weights are the point
    rows = sizes(chosen.system)
    if chosen.format == "json":
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        Console().print(_table(rows))


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has seen enough; nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
