"""The NVIDIA GPU of this machine, asked of its driver: no package is needed to know that there is none."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from typing import Any

from edge_ser.errors import BackendUnavailableError

_DRIVER = "libcuda.so.1"
_SHARES_MEMORY, _CAPABILITY_MAJOR, _CAPABILITY_MINOR = 18, 75, 76
"""Numbers of CUdevice_attribute."""
_NAME_BYTES = 256


@dataclass(frozen=True)
class Gpu:
    """The first GPU that CUDA sees."""

    name: str
    """As its driver says it, such as `Orin`."""
    capability: str
    """Compute capability, such as `8.7`."""
    memory_bytes: int
    """Bytes; on a Jetson those of the whole machine."""
    shares_memory: bool
    """True where processor and GPU have one memory, as on a Jetson: nothing needs to be copied between them."""

    @property
    def slug(self) -> str:
        """The name as part of a file's name, such as `nvidia-h100-80gb-hbm3`."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-") or "gpu"


def find_gpu() -> Gpu:
    """Return the GPU.

    Raises:
        BackendUnavailableError: There is no driver, or it has no GPU.
    """
    driver = _open_driver()
    status = driver.cuInit(0)
    count = ctypes.c_int()
    if status == 0:
        status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0 or count.value == 0:
        code = f" (the driver answers {status})" if status else ""
        raise BackendUnavailableError(
            f"the NVIDIA driver has no GPU for this process{code}; need one; look at nvidia-smi and "
            "CUDA_VISIBLE_DEVICES, or use --provider cpu"
        )
    name = ctypes.create_string_buffer(_NAME_BYTES)
    memory = ctypes.c_size_t()
    driver.cuDeviceGetName(name, _NAME_BYTES, 0)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), 0)
    major, minor = _attribute(driver, _CAPABILITY_MAJOR), _attribute(driver, _CAPABILITY_MINOR)
    shares = bool(_attribute(driver, _SHARES_MEMORY))
    return Gpu(name.value.decode("utf-8", "replace"), f"{major}.{minor}", memory.value, shares)


def _open_driver() -> Any:
    try:
        return ctypes.CDLL(_DRIVER)
    except OSError:
        raise BackendUnavailableError(
            f"there is no NVIDIA driver ({_DRIVER}) here; need one and its GPU (in a container: docker run "
            "--runtime nvidia); or use --provider cpu"
        ) from None


def _attribute(driver: Any, number: int) -> int:
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), number, 0)
    return value.value
