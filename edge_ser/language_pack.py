"""A language pack: two small matrices that teach a model one language; without them it answers as ever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from edge_ser.array_file import arrays_from_bytes, arrays_to_bytes
from edge_ser.errors import BundleError
from edge_ser.manifest import PACK_NAME

if TYPE_CHECKING:
    from edge_ser.bundle import Bundle

PACK_KINDS = ("pack_down", "pack_up")
"""Kinds of the inputs that carry a pack, in the order of the matrices."""

_VERSION = 1


@dataclass(frozen=True, eq=False)
class LanguagePack:
    """A low-rank adapter over a frozen model: what the model reads goes down to a few numbers and up again."""

    down: NDArray[np.float32]
    """Shape (read, rank)."""
    up: NDArray[np.float32]
    """Shape (rank, changed)."""

    def to_bytes(self) -> bytes:
        """Return the file that keeps it."""
        arrays = {"down": self.down, "up": self.up, "version": np.array([_VERSION])}
        return arrays_to_bytes({name: values.astype(np.float32) for name, values in arrays.items()})

    @staticmethod
    def from_bytes(content: bytes, where: str) -> LanguagePack:
        """Return the pack that a file keeps.

        Args:
            content: The file.
            where: Its path, for messages.

        Raises:
            BundleError: It is no such file.
        """
        try:
            arrays = arrays_from_bytes(content, ("down", "up", "version"))
        except ValueError as problem:
            _fail(where, str(problem))
        if arrays["version"].tolist() != [_VERSION]:
            _fail(where, f"its version is {arrays['version'].tolist()}, {[_VERSION]} is known here")
        for name in ("down", "up"):
            if arrays[name].ndim != 2:
                _fail(where, f"'{name}' is missing or no matrix")
        return LanguagePack(arrays["down"].astype(np.float32), arrays["up"].astype(np.float32))


def pack_inputs(bundle: Bundle) -> dict[str, NDArray[np.float32]]:
    """Return the inputs that carry the bundle's language pack: zeros where it has none, nothing where it takes none.

    Raises:
        BundleError: The pack is damaged, or does not fit the graph.
    """
    manifest = bundle.manifest
    inputs = [item for kind in PACK_KINDS if (item := manifest.input_of(kind)) is not None]
    if PACK_NAME not in manifest.files:
        return {item.name: np.zeros([int(size) for size in item.shape], np.float32) for item in inputs}
    where = str(bundle.path(PACK_NAME))
    pack = LanguagePack.from_bytes(bundle.read(PACK_NAME), where)
    base = bundle.base
    fits = base is not None and (manifest.inputs, manifest.labels) == (base.manifest.inputs, base.manifest.labels)
    if not fits or [(1, *matrix.shape) for matrix in (pack.down, pack.up)] != [item.shape for item in inputs]:
        _fail(where, "it does not fit the inputs and labels of the model under it")
    return {item.name: matrix[np.newaxis] for item, matrix in zip(inputs, (pack.down, pack.up), strict=True)}


def _fail(where: str, problem: str) -> NoReturn:
    raise BundleError(f"{where} is no language pack ({problem}); learn it again: python -m train.language_pack --help")
