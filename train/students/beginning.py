"""What a run of the first stage may begin with: another run's weights, or a kept encoder's, which has no heads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from edge_ser.errors import ConfigError
from train.checkpoint import read_checkpoint
from train.students.keep import OPINION
from train.students.run_settings import EncoderSettings

_SIZES = ("width", "mels", "blocks", "layers")
_SPEECH = ("model.speech.", "average.module.speech.")


@dataclass(frozen=True)
class Beginning:
    """Weights to begin with."""

    tensors: Mapping[str, Tensor]
    """Named as a run's last.safetensors names them."""
    lacks_heads: bool
    """Whether only the encoder's are there."""

    def gives(self, name: str) -> bool:
        """Return whether a tensor of this name must be among them.

        Of the shares for going through the layers once more none need be, and a kept encoder has no heads.
        """
        return ".speech.again." not in name and (not self.lacks_heads or name.startswith(_SPEECH))


def read_beginning(folder: Path, settings: EncoderSettings, speakers: Mapping[str, list[str]]) -> Beginning:
    """Return the weights in the folder of a run, or in one where `train.keep` has put its encoder.

    Args:
        folder: Such as `runs/encoder` or `train/checkpoints/clean`.
        settings: Of the run that is to begin.
        speakers: Its speakers, by side.

    Raises:
        ConfigError: Nothing is there, of another size, going through its layers more often, or of speakers that are no
            training speakers of this run: they choose or judge here, or carry another licence.
    """
    whole, kept = folder / "last.safetensors", folder / "encoder.safetensors"
    if not whole.is_file() and not kept.is_file():
        raise ConfigError(f"{folder} holds neither {whole.name} nor {kept.name}; need a first stage's folder")
    lacks_heads = not whole.is_file()
    tensors, header = read_checkpoint(kept if lacks_heads else whole)
    about: Any = json.loads(json.dumps(header))
    _check_sizes(folder, about["settings"], settings)
    _check_speakers(folder, about["speakers"]["train"], speakers)
    if lacks_heads:
        own = {name: value for name, value in tensors.items() if not name.startswith(OPINION)}
        tensors = {f"{side}{name}": value for side in _SPEECH for name, value in own.items()}
    return Beginning(tensors, lacks_heads)


def _check_sizes(folder: Path, made: Mapping[str, Any], settings: EncoderSettings) -> None:
    for name in _SIZES:
        if made[name] != getattr(settings, name):
            raise ConfigError(
                f"{folder} has {name} = {made[name]}, this run {getattr(settings, name)}; need the same; "
                "change the settings or begin with another"
            )
    passes = made.get("passes", 1)
    if passes > settings.passes:
        raise ConfigError(
            f"{folder} goes through its layers {passes} times, this run {settings.passes}; need at least as "
            f"many: passes = {passes} in the settings"
        )


def _check_speakers(folder: Path, heard: list[str], speakers: Mapping[str, list[str]]) -> None:
    leaked = sorted(set(heard) & {*speakers["validation"], *speakers["test"]})
    if leaked:
        raise ConfigError(f"{folder} has heard {', '.join(leaked[:3])}, who must be unheard here; use the same seed")
    strangers = sorted(set(heard) - set(speakers["train"]))
    if strangers:
        raise ConfigError(
            f"{folder} has heard {', '.join(strangers[:3])}, of no corpus of this run; need one whose corpora are "
            "among this run's, for it carries their licences"
        )
