"""Checkpoints as safetensors: tensors and a JSON header, never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from edge_ser.errors import ConfigError


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, object]) -> None:
    """Write tensors and header; a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(plain, partial, metadata={"edge_ser": json.dumps(header, sort_keys=True)})
    partial.replace(path)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Return tensors in float32 (integers as they are) and the header.

    Raises:
        ConfigError: No such file, or not one that `save_checkpoint` wrote.
    """
    if not path.is_file():
        raise ConfigError(f"no checkpoint at {path}; train one: python -m train.distill --help")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if "edge_ser" not in metadata:
            raise ConfigError(f"{path} has no edge_ser header; need a checkpoint written by train.distill")
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    floats = {name: t.to(torch.float32) if t.is_floating_point() else t for name, t in tensors.items()}
    return floats, json.loads(metadata["edge_ser"])


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's tensors under names of the form `optimizer.<parameter>.<slot>`."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{parameter}.{slot}": value
        for parameter, slots in state.items()
        for slot, value in slots.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `flatten_optimizer` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, parameter, slot = name.split(".")
            state.setdefault(int(parameter), {})[slot] = value
    full = optimizer.state_dict()
    full["state"] = state
    optimizer.load_state_dict(full)
