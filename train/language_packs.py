"""A language in one small file: an adapter and its own head, to be laid over a model that stays as it is."""

from __future__ import annotations

from pathlib import Path

import torch

from edge_ser.errors import ConfigError
from train import lora
from train.checkpoint import read_checkpoint, save_checkpoint
from train.encoders import Encoder
from train.systems.lora_multilingual import LoraSer

_KIND = "language-pack"
_ADAPTER = "adapter."
_HEAD = "head."
_MUST_FIT = ("encoder", "rank", "alpha", "layer", "task", "outputs", "head_mode")


def save_pack(path: Path, system: LoraSer, language: str, *, half: bool = True) -> None:
    """Write a language's adapter and head as safetensors.

    Args:
        path: The file.
        system: A system that has learnt the language.
        language: Which.
        half: Keep the adapter in float16, half as large; the head stays in float32.

    Raises:
        ConfigError: The language has no adapter.
    """
    encoder = _encoder(system)
    adapter = lora.adapter_state(encoder, language)
    head = _head(system, language)
    dtype = torch.float16 if half else torch.float32
    tensors = {_ADAPTER + name: tensor.to(dtype) for name, tensor in adapter.items()}
    tensors |= {_HEAD + name: tensor for name, tensor in system.heads[head].state_dict().items()}
    save_checkpoint(path, tensors, {"kind": _KIND, "language": language, **_identity(system)})


def load_pack(path: Path, system: LoraSer) -> str:
    """Lay a language pack over a system and return its language, which then answers; see `LoraSer.use`.

    Raises:
        ConfigError: No pack, one for another model, or a language that the system does not list.
    """
    tensors, header = read_checkpoint(path)
    if header.get("kind") != _KIND:
        raise ConfigError(f"{path} is no language pack; need a file that save_pack wrote")
    own = _identity(system)
    differing = [name for name in _MUST_FIT if header.get(name) != own[name]]
    if differing:
        raise ConfigError(
            f"{path} was trained over another model (other {', '.join(differing)}); load it over that one"
        )
    language = str(header["language"])
    system.begin(language)
    adapter = {name[len(_ADAPTER) :]: tensor for name, tensor in tensors.items() if name.startswith(_ADAPTER)}
    lora.load_adapter_state(_encoder(system), language, adapter)
    head = {name[len(_HEAD) :]: tensor for name, tensor in tensors.items() if name.startswith(_HEAD)}
    system.heads[_head(system, language)].load_state_dict(head)
    return language


def _identity(system: LoraSer) -> dict[str, object]:
    """Return what a pack and the model under it must agree on."""
    encoder = _encoder(system)
    acting, pooling = system.acting, system.pooling
    lora.set_active(encoder, ())
    base = encoder.fingerprint()
    system.pool(acting, pooling)
    config = system.config
    sizes = {"rank": config.rank, "alpha": config.alpha, "layer": config.layer}
    return {"encoder": base, **sizes, "task": config.task, "outputs": config.outputs, "head_mode": config.head_mode}


def _head(system: LoraSer, language: str) -> str:
    return language if language in system.heads else "shared"


def _encoder(system: LoraSer) -> Encoder:
    if system.encoder is None:
        raise ConfigError("this system has no encoder that a language pack could adapt")
    return system.encoder
