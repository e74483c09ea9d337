"""Adapting a fitted system to a few clips of a target: which parameters move, and for how long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from edge_ser.errors import ConfigError
from train.corpora.utterance import Utterance
from train.fit import FitSettings
from train.protocols.study import Study, Variant
from train.systems import System

ADAPT = ("full", "head", "norm_bias")
"""Which parameters move: all that training moved and that are no encoder's, the last layers, or biases and the gains
of normalisations."""

_HEADS = ("classifier", "classify", "emotion", "head", "heads", "trunk")
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class AdaptSettings:
    """How a system is adapted."""

    adapt: str = "full"
    """One of `ADAPT`."""
    learning_rate: float = 1e-4
    """Of Adam."""
    batch_size: int = 16
    """At most; a smaller support is one batch."""
    epochs: int = 50
    """At most."""
    stop_below: float = 0.01
    """Mean training loss at which adaptation ends; 0 never."""

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        if self.adapt not in ADAPT:
            raise ConfigError(f"adapt is {self.adapt!r}; need one of {', '.join(ADAPT)}")

    def of(self, clips: int, source: FitSettings, seed: int) -> FitSettings:
        """Return how a fit on a few clips runs.

        Args:
            clips: How many there are.
            source: How the source model was fitted; precision and device stay.
            seed: Of the order.

        Raises:
            ConfigError: A value that no fit takes.
        """
        return FitSettings(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=min(clips, self.batch_size),
            optimiser="adam",
            stop_below=self.stop_below,
            precision=source.precision,
            device=source.device,
            select="loss",
            statistics=False,
            seed=seed,
        )


def adapt(
    study: Study, variant: Variant, system: System, clips: Sequence[Utterance], settings: AdaptSettings, seed: int
) -> dict[str, Any]:
    """Adapt a system in place and return what is worth knowing of it; without a clip, not a bit changes.

    Statistics that normalise the inputs stay those of the source.
    """
    if not clips:
        return {"epochs": 0}
    options = settings.of(len(clips), variant.experiment.fit, seed)
    with only(system, adapted_names(system, settings.adapt)):
        return study.fit_on(variant, system, clips, options)


def adapted_names(system: System, which: str) -> set[str]:
    """Return the names of the parameters that move.

    Raises:
        ConfigError: The system has none of them.
    """
    inside = _encoder_prefixes(system)
    free = {
        name for name, parameter in system.named_parameters() if parameter.requires_grad and not name.startswith(inside)
    }
    own = getattr(system, "adapting_parameters", None)
    if which == "full" and own is not None:
        # A system whose source says what it adapts adapts that.
        chosen = {id(parameter) for parameter in own()}
        free = {name for name, parameter in system.named_parameters() if name in free and id(parameter) in chosen}
    if which == "head":
        free = {name for name in free if name.removeprefix("system.").split(".")[0] in _HEADS and "gender" not in name}
    elif which == "norm_bias":
        norms = {name for name, module in system.named_modules() if isinstance(module, _NORMS)}
        free = {name for name in free if name.endswith("bias") or name.rpartition(".")[0] in norms}
    if not free:
        raise ConfigError(f"adapt is {which!r}, but {type(system).__name__} has no such parameter; need another")
    return free


@contextmanager
def only(system: System, names: set[str]) -> Iterator[None]:
    """Let only these parameters move while the block runs."""
    before = {name: parameter.requires_grad for name, parameter in system.named_parameters()}
    for name, parameter in system.named_parameters():
        parameter.requires_grad_(name in names)
    try:
        yield
    finally:
        for name, parameter in system.named_parameters():
            parameter.requires_grad_(before[name])


def _encoder_prefixes(system: System) -> tuple[str, ...]:
    # An encoder is known by what it can do, as in checkpoints, whatever library it comes from.
    return tuple(
        f"{name}."
        for name, module in system.named_modules()
        if hasattr(module, "layer_count") and callable(getattr(module, "encode", None))
    )
