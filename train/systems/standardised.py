"""A system whose frames are brought to mean 0 and deviation 1 first, channel by channel, as the training set has them.

Frozen encoders put out channels whose offsets and scales differ by more than ten times; a fusion head that begins with
a linear map spends its first epochs, and its stability, on undoing them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from train.examples import Example
from train.standardise import Standardise
from train.systems import Inputs, Output, System, Targets


class Standardised(System):
    """Another system behind the statistics of some of its sequences; masked frames stay zeros."""

    def __init__(self, system: System, shapes: dict[str, tuple[int, ...]]) -> None:
        """Build around a system.

        Args:
            system: What reads the standardised features.
            shapes: Shape of one frame of each feature that is standardised: (D,), or (L, D) for several layers.
        """
        super().__init__()
        self.system = system
        self.standards = nn.ModuleDict({name: Standardise(shape) for name, shape in shapes.items()})

    def forward(self, inputs: Inputs) -> Output:
        """Return what the system makes of the standardised features."""
        ready = dict(inputs)
        for name, standard in self.standards.items():
            if name in ready:
                ready[name] = _masked(standard(ready[name]), ready.get(f"{name}_mask"))
        return self.system(ready)

    def loss(self, output: Output, targets: Targets) -> Tensor:
        """Return the system's own loss."""
        return self.system.loss(output, targets)

    def parts(self) -> dict[str, int]:
        """Return the system's own parts: statistics are no parameters."""
        return self.system.parts()

    # What only some systems have is as absent here as there: a property that fails with AttributeError is no attribute.

    @property
    def temperature(self) -> Tensor:
        """What the system divides its logits by to be calibrated."""
        temperature: Tensor = self._of_system("temperature")
        return temperature

    @property
    def fit_temperature(self) -> Callable[[Tensor, Tensor], float]:
        """How the system finds its temperature, from held-out logits (n, C) and classes (n,)."""
        fit: Callable[[Tensor, Tensor], float] = self._of_system("fit_temperature")
        return fit

    @property
    def adapting_parameters(self) -> Callable[[], Iterator[nn.Parameter]]:
        """What of the system learns in a transfer."""
        adapting: Callable[[], Iterator[nn.Parameter]] = self._of_system("adapting_parameters")
        return adapting

    @property
    def begin(self) -> Callable[[str], None]:
        """How the system begins the stage of a language."""
        begin: Callable[[str], None] = self._of_system("begin")
        return begin

    def _of_system(self, name: str) -> Any:
        return getattr(self.system, name)

    def fit_statistics(self, examples: Sequence[Example]) -> None:
        """Take mean and deviation from the examples' frames, and let the system take its own."""
        for name, standard in self.standards.items():
            assert isinstance(standard, Standardise)
            standard.fit([example.features[name] for example in examples if name in example.features])
        own: Callable[[Sequence[Example]], None] | None = getattr(self.system, "fit_statistics", None)
        if own is not None:
            own(examples)


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask.reshape(*mask.shape, *(1,) * (x.ndim - 2))
