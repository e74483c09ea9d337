"""A large system's graphs: written one by one, and replayed in a row as the runtime does."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from export.receipt import open_session

Array = NDArray[Any]

OPSET = 17
SAMPLE_RATE_HZ = 16_000
LARGEST_FILE_BYTES = 2**31 - 2**20
"""A protobuf message ends at 2 GiB; larger weights lie in a file beside the graph."""
DATA_SUFFIX = ".data"
ORDER = ("speech", "text", "fusion")


class Part(Protocol):
    """One graph as a traceable module."""

    @property
    def module(self) -> nn.Module:
        """Takes `inputs` in order, returns `outputs` in order."""
        ...

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what goes in."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what comes out."""
        ...

    @property
    def free(self) -> dict[str, dict[int, str]]:
        """Axes of any size, by name of an input or output."""
        ...


def export_part(part: Part, example: Mapping[str, Array], path: Path, largest_bytes: int = LARGEST_FILE_BYTES) -> None:
    """Write one graph; where it is larger than `largest_bytes`, with its weights in `path` + `.data`.

    Args:
        part: The module and what goes in and out.
        example: Inputs by name; their free axes are free in the graph.
        path: The graph's file, in a folder of its own.
        largest_bytes: What one file may hold.
    """
    # The older exporter: it names nodes after modules, which is how blocks are told apart when they are quantised.
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            part.module,
            tuple(torch.from_numpy(example[name]) for name in part.inputs),
            str(path),
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            dynamic_axes=part.free,
            opset_version=OPSET,
            dynamo=False,
        )
    if sum(file.stat().st_size for file in path.parent.iterdir()) > largest_bytes:
        gather_weights(path)


def gather_weights(path: Path) -> None:
    """Put all weights of a graph into one file beside it, and remove what else its folder holds."""
    model = onnx.load(str(path))
    for file in path.parent.iterdir():
        file.unlink()
    save_graph(model, path, 0)


def save_graph(model: onnx.ModelProto, path: Path, largest_bytes: int = LARGEST_FILE_BYTES) -> None:
    """Write a model as one file, or with its weights beside it where that file were larger than `largest_bytes`."""
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) <= largest_bytes:
        onnx.save(model, str(path))
        return
    onnx.save(
        model,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=path.name + DATA_SUFFIX,
        size_threshold=1024,
    )


def files_of(path: Path) -> dict[str, Path]:
    """Return a graph's files by the name that they have in a bundle."""
    data = path.with_name(path.name + DATA_SUFFIX)
    return {path.name: path} | ({data.name: data} if data.is_file() else {})


def batch_of(rows: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Return rows of inputs as one batch: sequences padded with zeros, ids with ones, a mask beside each.

    Every row has `audio` (n,), perhaps `text_ids` (n,), which may be empty, and features of any shape; the first axis
    of those called `mfcc` is one of time, too.
    """
    batch: dict[str, Array] = {}
    for name in rows[0]:
        arrays = [row[name] for row in rows]
        if name not in ("audio", "text_ids", "mfcc"):
            batch[name] = np.stack(arrays)
            continue
        longest = max(1, *(len(array) for array in arrays)) if len(arrays) > 1 else max(1, len(arrays[0]))
        # What stands in padding must not matter.
        padded = np.full((len(rows), longest, *arrays[0].shape[1:]), 1, arrays[0].dtype)
        mask = np.zeros((len(rows), longest), np.int64 if name == "text_ids" else np.float32)
        for place, array in enumerate(arrays):
            padded[place, : len(array)], mask[place, : len(array)] = array, 1
        batch |= {name: padded, "text_mask" if name == "text_ids" else f"{name}_mask": mask}
    return batch


class GraphChain:
    """The graphs of a bundle in a row, on the CPU."""

    def __init__(self, graphs: Mapping[str, Path]) -> None:
        """Open them; `graphs` are files by name."""
        self._sessions = [open_session(graphs[name]) for name in ORDER if name in graphs]

    def __call__(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """Return every value that comes out of any of them, by name."""
        values = dict(batch)
        for session in self._sessions:
            inputs = {node.name: values[node.name] for node in session.get_inputs()}
            names = [node.name for node in session.get_outputs()]
            values |= dict(zip(names, session.run(names, inputs), strict=True))
        return {name: value for name, value in values.items() if name not in batch}
