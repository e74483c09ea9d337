"""The gradient of one effective batch, however many passes and processes share it.

A loss such as CCC is no mean over utterances: averaging it over parts of a batch trains another objective. So the loss
is always taken over the outputs of the whole effective batch, in three steps:

1. Each process runs its share, in one or several micro-batches, and the outputs are gathered. With several
   micro-batches this pass keeps no graph, which is what saves memory.
2. The loss of all outputs is differentiated with respect to the outputs alone: g = dL/d(output).
3. Each micro-batch runs again, under the random state of its first pass so that dropout repeats, and sends its rows of
   g back to the parameters. By the chain rule dL/dw is the sum over utterances of g_i d(output_i)/dw, so the sum over
   micro-batches and processes is the gradient of one large batch, exactly.

Batch normalisation is the one layer that mixes utterances before the output; it sees micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from train.examples import Example, collate
from train.systems import Output, System

Loss = Callable[[Output, Mapping[str, Tensor]], Tensor]
"""Outputs and targets of a batch to a scalar."""


@dataclass(frozen=True)
class Share:
    """What one process runs of an effective batch."""

    micro: list[list[Example]]
    """Micro-batches; never empty, since every process has to take part."""
    sizes: list[int]
    """Utterances of each process in order; 0 where there are more processes than utterances."""
    rank: int
    """Which of them this process is."""

    @classmethod
    def of(cls, batch: Sequence[Example], parts: int, rank: int, processes: int) -> Share:
        """Return the share of process `rank`, cut into at most `parts` micro-batches of about one size."""
        pieces = _cut(list(batch), processes)
        mine = pieces[rank]
        return cls([piece for piece in _cut(mine or list(batch[:1]), parts) if piece], [len(p) for p in pieces], rank)


class EffectiveBatch:
    """Runs effective batches of a system through a loss, forwards and backwards."""

    def __init__(self, system: System, loss: Loss, accelerator: Accelerator) -> None:
        self.system = system
        self.loss = loss
        self.accelerator = accelerator

    def backward(self, batch: Sequence[Example], parts: int = 1) -> float:
        """Leave the gradient of the batch's loss in the parameters of every process and return the loss.

        Args:
            batch: The effective batch, the same in every process.
            parts: Micro-batches that each process makes of its share.
        """
        share = Share.of(batch, parts, self.accelerator.process_index, self.accelerator.num_processes)
        inputs = [on_device(collate(examples)[0], self.accelerator.device) for examples in share.micro]
        replay = len(inputs) > 1
        outputs, states = self._first_pass(inputs, keep_graph=not replay)
        leaves = _leaves(self._gather(outputs, share.sizes))
        loss = self.loss(leaves, on_device(targets_of(batch), self.accelerator.device))
        self._scaled(loss).backward()
        if self.accelerator.process_index:
            # A parameter that the loss itself uses has its whole gradient in every process: it counts once.
            self.system.zero_grad(set_to_none=True)
        start = sum(share.sizes[: share.rank])
        for place, examples in enumerate(share.micro):
            if replay:
                _set_random_state(states[place], self.accelerator.device)
                outputs[place] = self._forward(inputs[place])
            end = start + (len(examples) if share.sizes[share.rank] else 0)
            _send_back(outputs[place], leaves, start, end)
            start = end
        self._sum_over_processes()
        return float(loss.detach())

    def _first_pass(
        self, inputs: list[dict[str, Tensor]], *, keep_graph: bool
    ) -> tuple[list[Output], list[tuple[Tensor, Tensor | None]]]:
        outputs, states = [], []
        with torch.set_grad_enabled(keep_graph), _same_buffers(self.system, restore=not keep_graph):
            for micro in inputs:
                states.append(_random_state(self.accelerator.device))
                outputs.append(self._forward(micro))
        return outputs, states

    def _forward(self, inputs: dict[str, Tensor]) -> Output:
        with self.accelerator.autocast():
            return in_float32(self.system(inputs))

    def _gather(self, outputs: list[Output], sizes: list[int]) -> Output:
        return gather_outputs(self.accelerator, joined(outputs), sizes)

    def _scaled(self, loss: Tensor) -> Tensor:
        scaler = self.accelerator.scaler
        return loss if scaler is None else scaler.scale(loss)

    def _sum_over_processes(self) -> None:
        if self.accelerator.num_processes == 1:
            return
        parameters = [p for p in self.system.parameters() if p.requires_grad]
        touched = torch.tensor([p.grad is not None for p in parameters], device=self.accelerator.device).float()
        # A parameter that no process touched keeps no gradient, so that Adam leaves it alone as with one process.
        used = [p for p, n in zip(parameters, self.accelerator.reduce(touched, "sum").tolist(), strict=True) if n]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in used])
        summed = self.accelerator.reduce(flat, "sum")
        for parameter, gradient in zip(used, summed.split([p.numel() for p in used]), strict=True):
            parameter.grad = gradient.view_as(parameter).clone()


def on_device(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return the tensors on a device."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}


def targets_of(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Return the targets of a batch without gathering its features."""
    return collate([Example(e.path, e.speaker, e.corpus, {}, e.emotion, e.gender, e.attributes) for e in examples])[1]


def in_float32(output: Output) -> Output:
    """Return the output in float32, in which losses and metrics are taken."""
    gender = None if output.gender is None else output.gender.float()
    return Output(output.logits.float(), output.embedding.float(), gender)


def joined(outputs: Sequence[Output]) -> Output:
    """Return the outputs of consecutive batches as one, without their graph."""
    genders = [output.gender.detach() for output in outputs if output.gender is not None]
    return Output(
        torch.cat([output.logits.detach() for output in outputs]),
        torch.cat([output.embedding.detach() for output in outputs]),
        torch.cat(genders) if genders else None,
    )


def gather_outputs(accelerator: Accelerator, output: Output, sizes: Sequence[int]) -> Output:
    """Return what all processes put out, in their order; `sizes` says how many rows each has."""
    if accelerator.num_processes == 1:
        return output

    def everywhere(rows: Tensor) -> Tensor:
        longest = max(sizes)
        padded = torch.zeros(longest, *rows.shape[1:], device=rows.device)
        mine = sizes[accelerator.process_index]
        padded[:mine] = rows[:mine]
        blocks = accelerator.gather(padded).split(longest)
        return torch.cat([block[:size] for block, size in zip(blocks, sizes, strict=True)])

    gender = None if output.gender is None else everywhere(output.gender)
    return Output(everywhere(output.logits), everywhere(output.embedding), gender)


def _cut(items: list[Example], parts: int) -> list[list[Example]]:
    base, extra = divmod(len(items), parts)
    ends = [(place + 1) * base + min(place + 1, extra) for place in range(parts)]
    return [items[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _leaves(output: Output) -> Output:
    gender = None if output.gender is None else output.gender.requires_grad_()
    return Output(output.logits.requires_grad_(), output.embedding.requires_grad_(), gender)


def _send_back(output: Output, leaves: Output, start: int, end: int) -> None:
    pairs = [
        (tensor, leaf.grad)
        for tensor, leaf in (
            (output.logits, leaves.logits),
            (output.embedding, leaves.embedding),
            (output.gender, leaves.gender),
        )
        if tensor is not None and leaf is not None and leaf.grad is not None and tensor.requires_grad
    ]
    rows = [gradient[start:end] if end > start else torch.zeros_like(tensor) for tensor, gradient in pairs]
    if pairs:
        torch.autograd.backward([tensor for tensor, _ in pairs], rows)


@contextmanager
def _same_buffers(system: System, *, restore: bool) -> Iterator[None]:
    # The pass that is repeated must not count twice in running statistics.
    kept = {name: buffer.clone() for name, buffer in system.named_buffers()} if restore else {}
    yield
    with torch.no_grad():
        for name, buffer in system.named_buffers():
            if name in kept:
                buffer.copy_(kept[name])


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
