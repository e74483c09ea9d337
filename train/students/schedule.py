"""How weights move: the learning rate of a step, the running average that is kept, and what is decayed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def learning_rate(step: int, *, steps: int, warmup: int, peak: float) -> float:
    """Return the rate of a step: linear warm-up, then half a cosine to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(steps - warmup, 1)
    return peak * 0.5 * (1.0 + math.cos(math.pi * done))


def running_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Return how a running average of weights moves; early on quickly, or it remembers the random start for ever."""

    def blend(average: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
        keep = min(decay, (1.0 + float(steps)) / (10.0 + float(steps)))
        return average * keep + current * (1.0 - keep)

    return blend


def adamw(parameters: Iterable[nn.Parameter], rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Return the optimiser of the parameters that learn; only matrices decay."""
    learnt = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in learnt if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in learnt if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Let the next step use a rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate
