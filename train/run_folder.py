"""The folder of a training run: what it was, how it went, and everything needed to go on.

config.json holds the settings, the seed and the versions of the packages; split.json which speakers are on which side;
metrics.jsonl one line an epoch; last.safetensors the state after the last whole epoch; best.safetensors the best
weights so far; report.json the final figures, with confusion.png and curves.png beside it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edge_ser.errors import ConfigError
from train.checkpoint import read_checkpoint, save_checkpoint
from train.examples import Example
from train.lora import refuse_merged

_PACKAGES = ("edge-ser", "torch", "numpy", "scipy", "transformers", "accelerate", "safetensors")
_MAY_CHANGE = ("epochs", "device")
"""Settings with which a run may go on although they differ."""


def stored_state(system: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that a checkpoint holds: all but those of encoders that stay as they were loaded.

    Raises:
        ConfigError: Adapters are merged into the weights.
    """
    refuse_merged(system)
    left_out = _frozen_encoder_tensors(system)
    return {name: tensor for name, tensor in system.state_dict().items() if name not in left_out}


def load_stored_state(system: nn.Module, tensors: Mapping[str, Tensor], origin: Path | str) -> None:
    """Put back what `stored_state` returned.

    Raises:
        ConfigError: The tensors are those of another system.
    """
    expected = stored_state(system)
    differing = [name for name in tensors if name in expected and tensors[name].shape != expected[name].shape]
    wrong = sorted({*expected.keys() ^ tensors.keys(), *differing})
    if wrong:
        raise ConfigError(
            f"{origin} is of another system: {', '.join(wrong[:3])}{' ...' if len(wrong) > 3 else ''} differ; "
            "need the same [model] settings"
        )
    system.load_state_dict(dict(tensors), strict=False)


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def fingerprint(train: Sequence[Example], validation: Sequence[Example]) -> str:
    """Return a hash of which utterances are learnt from and which choose, with their labels, in order."""
    key = hashlib.sha256()
    for side in (train, validation):
        for example in side:
            rated = "" if example.attributes is None else f"|{example.attributes}"
            key.update(f"{example.corpus}|{example.speaker}|{example.path.name}|{example.emotion}{rated}\n".encode())
        key.update(b"--\n")
    return key.hexdigest()[:16]


def plain(value: Any) -> Any:
    """Return a value of mappings, lists and numbers with NaN and infinity as None: JSON has neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value


def write_json(path: Path, content: object) -> None:
    """Write a JSON file; a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(plain(content), indent=1, default=str) + "\n", encoding="utf-8")
    partial.replace(path)


class RunFolder:
    """Reads and writes one run's files; only one process writes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, line: Mapping[str, object]) -> None:
        """Add an epoch's line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(line)) + "\n")

    def history(self, epochs: int) -> list[dict[str, float]]:
        """Return the lines of metrics.jsonl up to an epoch; a line that was cut off is no line."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        history = []
        for line in lines[:epochs]:
            try:
                found = json.loads(line)
            except json.JSONDecodeError:
                break
            history.append({name: math.nan if value is None else value for name, value in found.items()})
        return history

    def cut(self, history: Sequence[Mapping[str, object]]) -> None:
        """Make metrics.jsonl hold these lines alone: those of epochs that the checkpoint has not seen go."""
        self.path.mkdir(parents=True, exist_ok=True)
        partial = self.path / ".metrics.partial"
        partial.write_text("".join(json.dumps(plain(line)) + "\n" for line in history), encoding="utf-8")
        partial.replace(self.path / "metrics.jsonl")

    def save_last(self, tensors: Mapping[str, Tensor], header: Mapping[str, object]) -> None:
        """Write last.safetensors."""
        save_checkpoint(self.path / "last.safetensors", tensors, header)

    def save_best(self, tensors: Mapping[str, Tensor], header: Mapping[str, object]) -> None:
        """Write best.safetensors."""
        save_checkpoint(self.path / "best.safetensors", tensors, header)

    def read_last(self, settings: Mapping[str, Any], data: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return tensors and header of last.safetensors, or None where the run has not begun.

        Raises:
            ConfigError: The run was begun with other settings or other utterances.
        """
        path = self.path / "last.safetensors"
        if not path.is_file():
            return None
        tensors, header = read_checkpoint(path)
        stored = header.get("settings")
        assert isinstance(stored, dict)
        current = json.loads(json.dumps(dict(settings)))
        changed = sorted(name for name in {*current, *stored} - {*_MAY_CHANGE} if current.get(name) != stored.get(name))
        changed += ["choice of utterances"] if header.get("data") != data else []
        if changed:
            raise ConfigError(
                f"{self.path} was begun with another {', '.join(changed)}; need the same settings and data to go on; "
                "choose another --run or remove that folder"
            )
        return tensors, header

    def read_best(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and header of best.safetensors."""
        return read_checkpoint(self.path / "best.safetensors")


def _frozen_encoder_tensors(system: nn.Module) -> set[str]:
    left_out: set[str] = set()
    for prefix, module in system.named_modules():
        # By its attribute and not by its class, so that checkpoints need no encoder library.
        if not hasattr(module, "layer_count") or not callable(getattr(module, "encode", None)):
            continue
        trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
        # Buffers of an encoder that is trained in part (batch statistics) move with it.
        parameters = {name for name, _ in module.named_parameters()}
        names = parameters - trained if trained else set(module.state_dict())
        left_out |= {f"{prefix}.{name}" if prefix else name for name in names}
    return left_out
