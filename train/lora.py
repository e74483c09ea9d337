"""Low-rank adapters: h = W0 x + b + (alpha / r) B A dropout(x), W0 and b frozen (Hu et al. 2021).

An adapter wraps a linear layer and acts when that layer is *called*. Attention that hands `.weight` to a fused function
would leave it without effect, so `LoraLinear.weight` is the composed weight and the encoders here call their modules.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from edge_ser.errors import ConfigError

ATTENTION_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
TARGETS: dict[str, tuple[str, ...]] = {
    "wav2vec2": (*ATTENTION_TARGETS, "intermediate_dense", "output_dense"),
    "hubert": (*ATTENTION_TARGETS, "intermediate_dense", "output_dense"),
    "wavlm": (*ATTENTION_TARGETS, "intermediate_dense", "output_dense"),
    "whisper": (*ATTENTION_TARGETS, "fc1", "fc2"),
    "roberta": ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"),
    "xlm-roberta": ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"),
}
"""Names of the six matrices of a transformer layer, by family: attention's four, then up and down."""


class LoraLinear(nn.Module):
    """A frozen linear layer with any number of adapters over it, of which at most one or a mean of several acts."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        if rank < 1:
            raise ConfigError(f"rank of an adapter is {rank}; need at least 1")
        self.base = base
        self.rank = rank
        self.scale = alpha / rank
        """alpha / r, which the printed equation omits and the setting alpha implies."""
        self.dropout = nn.Dropout(dropout)
        self.lora_a = nn.ParameterDict()
        self.lora_b = nn.ParameterDict()
        self.active: tuple[str, ...] = ()
        """Adapters that act: none, one, or several of which the mean acts."""
        self.merged: Tensor | None = None
        """The base weight as it was before a merge, None where nothing is merged."""

    def add(self, name: str) -> None:
        """Add an adapter that changes nothing yet: A Kaiming-uniform (a = sqrt 5), B zero."""
        weight = self.base.weight
        a = torch.empty(self.rank, self.base.in_features, device=weight.device)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        self.lora_a[name] = nn.Parameter(a)
        self.lora_b[name] = nn.Parameter(torch.zeros(self.base.out_features, self.rank, device=weight.device))

    @property
    def in_features(self) -> int:
        """Width of the input."""
        return self.base.in_features

    @property
    def out_features(self) -> int:
        """Width of the output."""
        return self.base.out_features

    @property
    def bias(self) -> Tensor | None:
        """The base's bias."""
        return self.base.bias

    @property
    def weight(self) -> Tensor:
        """W0 + (alpha / r) B A, (out, in): for a caller that uses the weight and never calls the layer."""
        return self.base.weight if self.merged is not None or not self.active else self.base.weight + self.delta()

    def delta(self) -> Tensor:
        """Return (alpha / r) B A, the mean over the acting adapters, (out, in)."""
        terms = [self.lora_b[name] @ self.lora_a[name] for name in self.active]
        return self.scale * torch.stack(terms).mean(0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output for x (..., in)."""
        y = self.base(x)
        if self.merged is not None or not self.active:
            return y
        dropped = self.dropout(x)
        for name in self.active:
            low = nn.functional.linear(dropped, self.lora_a[name])
            y = y + (self.scale / len(self.active)) * nn.functional.linear(low, self.lora_b[name])
        return y

    def adapters_learn(self, learn: bool) -> None:
        """Let the acting adapters learn, or none; what the base does is for the encoder to say."""
        for table in (self.lora_a, self.lora_b):
            for name, parameter in table.items():
                parameter.requires_grad_(learn and name in self.active)

    @torch.no_grad()
    def merge(self) -> None:
        """Fold the acting adapters into the weight, in float32; the weight before is kept for `unmerge`.

        A merged state holds the adapters twice, in the weight and by themselves: export it, but do not store it.
        """
        if self.merged is not None:
            return
        self.merged = self.base.weight.detach().clone()
        if self.active:
            self.base.weight.copy_((self.base.weight.float() + self.delta().float()).to(self.base.weight.dtype))

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put back the weight as it was, bit for bit."""
        if self.merged is not None:
            self.base.weight.copy_(self.merged)
            self.merged = None


def lora_parameters(layers: int, width: int, feed_forward: int, rank: int) -> int:
    """Return how many numbers one adapter has over six matrices a layer: layers * r * (8 D + 2 (D + F))."""
    return layers * rank * (8 * width + 2 * (width + feed_forward))


def wrap_lora(
    encoder: nn.Module, rank: int = 32, alpha: float = 64.0, dropout: float = 0.05, targets: Sequence[str] = ()
) -> list[LoraLinear]:
    """Wrap linear layers of an encoder's transformer layers in place, without any adapter yet.

    Args:
        encoder: An `Encoder`, or any module; what is frozen is for the caller to say (`Encoder.set_mode`).
        rank: r of each adapter.
        alpha: Scale of an adapter, divided by r.
        dropout: Dropout before A, in training.
        targets: Ends of the names of the layers to wrap; empty takes `TARGETS` of the encoder's family.

    Returns:
        The wrapped layers, in the order of their names in the encoder.

    Raises:
        ConfigError: Some target names no layer, or the encoder has adapters already.
    """
    wanted = tuple(targets) or TARGETS[str(getattr(encoder, "family", ""))]
    root = getattr(encoder, "layers", encoder)
    if lora_layers(encoder):
        raise ConfigError("this encoder has adapters already; add another by name to the ones that are there")
    found = [
        (name, module)
        for name, module in root.named_modules()
        if isinstance(module, nn.Linear) and any(f".{name}".endswith(f".{target}") for target in wanted)
    ]
    missing = [target for target in wanted if not any(f".{name}".endswith(f".{target}") for name, _ in found)]
    if missing or not found:
        raise ConfigError(f"no linear layer is called {', '.join(missing)}; see the names in the encoder's layers")
    wrapped = []
    for name, module in found:
        parent, _, child = name.rpartition(".")
        adapter = LoraLinear(module, rank, alpha, dropout)
        setattr(root.get_submodule(parent), child, adapter)
        wrapped.append(adapter)
    return wrapped


def lora_layers(encoder: nn.Module) -> list[LoraLinear]:
    """Return the wrapped layers of an encoder, in the order of their names."""
    return [module for module in encoder.modules() if isinstance(module, LoraLinear)]


def add_adapter(encoder: nn.Module, name: str) -> None:
    """Add an adapter of that name to every wrapped layer; it changes nothing until it has learnt."""
    if not name.isidentifier():
        raise ConfigError(f"an adapter cannot be called {name!r}; need letters, digits and underscores, as in 'it'")
    for layer in lora_layers(encoder):
        if name in layer.lora_a:
            raise ConfigError(f"there is an adapter {name} already; choose another name")
        layer.add(name)


def set_active(encoder: nn.Module, names: Iterable[str]) -> None:
    """Choose the adapters that act: none, one, or several, of which the mean acts.

    Raises:
        ConfigError: No such adapter, or the weights are merged.
    """
    chosen = tuple(names)
    layers = lora_layers(encoder)
    if any(layer.merged is not None for layer in layers):
        raise ConfigError("adapters are merged into the weights; unmerge before another is chosen")
    unknown = [name for name in chosen if layers and name not in layers[0].lora_a]
    if unknown or (chosen and not layers):
        raise ConfigError(f"no adapter {', '.join(unknown or chosen)}; add or load it first")
    for layer in layers:
        layer.active = chosen


def merge(encoder: nn.Module) -> None:
    """Fold the acting adapters into the weights: W = W0 + (alpha / r) B A. Do this before any quantisation."""
    for layer in lora_layers(encoder):
        layer.merge()


def unmerge(encoder: nn.Module) -> None:
    """Undo `merge`, bit for bit."""
    for layer in lora_layers(encoder):
        layer.unmerge()


def refuse_merged(module: nn.Module) -> None:
    """Refuse what would count adapters twice when it is read again.

    Raises:
        ConfigError: Adapters are merged into the weights.
    """
    if any(layer.merged is not None for layer in lora_layers(module)):
        raise ConfigError("adapters are merged into the weights; unmerge before anything is stored or named")


def adapter_state(encoder: nn.Module, name: str) -> dict[str, Tensor]:
    """Return the tensors of one adapter and nothing else, by the wrapped layer's name with `.a` or `.b`.

    Raises:
        ConfigError: No such adapter, or adapters are merged into the weights.
    """
    refuse_merged(encoder)
    state = {}
    for place, module in encoder.named_modules():
        if isinstance(module, LoraLinear) and name in module.lora_a:
            state[f"{place}.a"] = module.lora_a[name].detach()
            state[f"{place}.b"] = module.lora_b[name].detach()
    if not state:
        raise ConfigError(f"no adapter {name} in this encoder; add or load it first")
    return state


@torch.no_grad()
def load_adapter_state(encoder: nn.Module, name: str, state: Mapping[str, Tensor]) -> None:
    """Copy what `adapter_state` returned into the adapter of that name.

    Raises:
        ConfigError: Names or shapes are not those of this encoder's adapters.
    """
    own = adapter_state(encoder, name)
    if own.keys() != state.keys() or any(own[key].shape != state[key].shape for key in own):
        raise ConfigError(
            f"the adapter has {len(state)} tensors that do not fit the {len(own)} of this encoder; "
            "need one trained over the same encoder with the same rank and targets"
        )
    for key, tensor in own.items():
        tensor.copy_(state[key])
