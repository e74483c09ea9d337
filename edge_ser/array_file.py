"""A small file of arrays by name: numbers only, nothing that could be executed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

_LARGEST_BYTES = 4_000_000
_LARGEST_VALUE = 1e9


def arrays_to_bytes(arrays: Mapping[str, NDArray[np.floating]]) -> bytes:
    """Return the file that keeps arrays, each in its own precision."""
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def arrays_from_bytes(content: bytes, names: Iterable[str]) -> dict[str, NDArray[np.float64]]:
    """Return the arrays of these names; one that the file lacks comes empty, shape (0,).

    Raises:
        ValueError: It is no such file, too large, or holds what is no finite number.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            if sum(item.file_size for item in file.infolist()) > _LARGEST_BYTES:
                raise ValueError(f"it unpacks to more than {_LARGEST_BYTES} bytes")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            raw = {name: file[name] if name in file else np.zeros(0) for name in names}
    except Exception as problem:  # numpy and zipfile raise many kinds for damaged content.
        raise ValueError(str(problem).splitlines()[0] if str(problem) else type(problem).__name__) from None
    arrays = {}
    for name, values in raw.items():
        if values.dtype.kind != "f":
            raise ValueError(f"'{name}' holds no floating-point numbers")
        arrays[name] = values.astype(np.float64)
        if not (np.abs(arrays[name]) <= _LARGEST_VALUE).all():
            raise ValueError(f"'{name}' holds values that are not finite or beyond all sense")
    return arrays
