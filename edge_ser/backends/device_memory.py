"""The GPU's memory and its queue of work, through the few calls of the CUDA runtime that an engine needs."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edge_ser.backends.gpu_packages import import_cuda
from edge_ser.errors import BackendUnavailableError


class DeviceQueue:
    """A CUDA stream, and memory for what goes through it."""

    def __init__(self, shares_memory: bool) -> None:
        """Open a stream on the first GPU.

        Args:
            shares_memory: Whether the GPU works in the processor's memory, so that nothing is copied.

        Raises:
            BackendUnavailableError: `cuda.bindings` is missing, or CUDA does not start.
        """
        self._cuda = import_cuda()
        self._shares_memory = shares_memory
        self._addresses: list[tuple[int, int | None]] = []
        self._done(self._cuda.cudaSetDevice(0))
        self._stream = self._done(self._cuda.cudaStreamCreateWithFlags(self._cuda.cudaStreamNonBlocking))

    @property
    def handle(self) -> int:
        """The stream, as TensorRT takes it."""
        return int(self._stream)

    def tensor(self, dtype: DTypeLike, most: int) -> DeviceTensor:
        """Return memory for at most so many numbers, pinned, and its twin on the GPU where that has memory of its own.

        Raises:
            BackendUnavailableError: The memory is used up.
        """
        size = max(1, most) * np.dtype(dtype).itemsize
        cuda = self._cuda
        flags = cuda.cudaHostAllocMapped if self._shares_memory else cuda.cudaHostAllocDefault
        host = int(self._allocated(cuda.cudaHostAlloc(size, flags), size))
        if self._shares_memory:
            device, own = int(self._done(cuda.cudaHostGetDevicePointer(host, 0))), None
        else:
            device = own = int(self._allocated(cuda.cudaMalloc(size), size))
        self._addresses.append((host, own))
        return DeviceTensor(host, device, np.dtype(dtype), most)

    def upload(self, tensor: DeviceTensor, numbers: int) -> None:
        """Queue the copy of the first numbers to the GPU; nothing is queued where it shares the memory."""
        if not self._shares_memory:
            kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
            size = numbers * tensor.dtype.itemsize
            self._done(self._cuda.cudaMemcpyAsync(tensor.device, tensor.host, size, kind, self._stream))

    def download(self, tensor: DeviceTensor, numbers: int) -> None:
        """Queue the copy of the first numbers from the GPU; nothing is queued where it shares the memory."""
        if not self._shares_memory:
            kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
            size = numbers * tensor.dtype.itemsize
            self._done(self._cuda.cudaMemcpyAsync(tensor.host, tensor.device, size, kind, self._stream))

    def wait(self) -> None:
        """Wait until all that is queued is done.

        Raises:
            BackendUnavailableError: The GPU failed.
        """
        self._done(self._cuda.cudaStreamSynchronize(self._stream))

    def record(self, work: Callable[[], None]) -> Any:
        """Return what `work` queues, to be launched as one; nothing of it is done.

        Raises:
            BackendUnavailableError: It holds work that cannot be recorded.
        """
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._done(self._cuda.cudaStreamBeginCapture(self._stream, mode))
        try:
            work()
        finally:
            # Also after a failure: until then the stream would go on recording.
            ended = self._cuda.cudaStreamEndCapture(self._stream)
        graph = self._done(ended)
        launchable = self._done(self._cuda.cudaGraphInstantiate(graph, 0))
        self._done(self._cuda.cudaGraphDestroy(graph))
        return launchable

    def launch(self, graph: Any) -> None:
        """Queue all that was recorded."""
        self._done(self._cuda.cudaGraphLaunch(graph, self._stream))

    def forget(self, graph: Any) -> None:
        """Give back a recording."""
        self._done(self._cuda.cudaGraphExecDestroy(graph))

    def close(self) -> None:
        """Give everything back; the tensors must not be used any more."""
        while self._addresses:
            host, device = self._addresses.pop()
            self._cuda.cudaFreeHost(host)
            if device is not None:
                self._cuda.cudaFree(device)
        if self._stream is not None:
            self._cuda.cudaStreamDestroy(self._stream)
            self._stream = None

    def _allocated(self, answer: tuple[Any, ...], size: int) -> Any:
        if answer[0] == self._cuda.cudaError_t.cudaErrorMemoryAllocation:
            raise BackendUnavailableError(
                f"the GPU's memory is used up ({size / 1e6:.1f} MB more were needed, {free_mb(self._cuda)} MB are "
                "free); close what else uses it, or use --provider cpu"
            )
        return self._done(answer)

    def _done(self, answer: tuple[Any, ...]) -> Any:
        """Return what a call of CUDA answered; it answers an error code, then the value if there is one."""
        code, *values = answer
        if code != self._cuda.cudaError_t.cudaSuccess:
            raise BackendUnavailableError(
                f"CUDA failed with {getattr(code, 'name', code)}; need a GPU that works, and a driver that is as new "
                "as cuda.bindings; look at nvidia-smi, or use --provider cpu"
            )
        return values[0] if values else None


class DeviceTensor:
    """One input or output: numbers in pinned memory, and where the GPU finds them."""

    def __init__(self, host: int, device: int, dtype: np.dtype[Any], most: int) -> None:
        """Look at memory that `DeviceQueue.tensor` has set aside."""
        self.host = host
        self.device = device
        self.dtype = dtype
        size = max(1, most) * dtype.itemsize
        memory: Any = (ctypes.c_byte * size).from_address(host)
        self._numbers: NDArray[Any] = np.frombuffer(memory, dtype=dtype)

    def put(self, values: NDArray[Any]) -> None:
        """Copy values in."""
        self._numbers[: values.size] = values.reshape(-1)

    def take(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return a copy of the first numbers: the next run overwrites them."""
        values: NDArray[Any] = self._numbers[: math.prod(shape)].reshape(shape).copy()
        return values


def free_mb(cuda: ModuleType) -> int:
    """Return how many megabytes of the GPU's memory are free; 0 where CUDA does not say."""
    code, free_bytes, _ = cuda.cudaMemGetInfo()
    return int(free_bytes) // 1_000_000 if code == cuda.cudaError_t.cudaSuccess else 0
