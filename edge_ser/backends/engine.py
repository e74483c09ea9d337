"""A TensorRT engine, run on the GPU that it was built on."""

from __future__ import annotations

import math
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_ser.backends.device_memory import DeviceQueue, DeviceTensor
from edge_ser.backends.engine_log import last_problem, open_log, started
from edge_ser.backends.engine_store import StoredEngine
from edge_ser.backends.gpu import Gpu
from edge_ser.backends.gpu_packages import import_tensorrt
from edge_ser.backends.onnx_graph import OnnxFusion
from edge_ser.bundle import Bundle
from edge_ser.errors import BackendUnavailableError, EngineMismatchError

Shapes: TypeAlias = tuple[tuple[int, ...], ...]

_MOST_RECORDINGS = 8
"""Each keeps the working memory of one execution context on the GPU."""
_MOST_SEEN = 4096


@dataclass(frozen=True, eq=False)
class _Pass:
    """A context that is set up for certain shapes."""

    context: Any
    outputs: dict[str, tuple[int, ...]]
    graph: Any = None


class Engine:
    """Runs one engine; shapes that come again are launched as one recorded CUDA graph."""

    def __init__(self, bundle: Bundle, stored: StoredEngine, gpu: Gpu, threads: int) -> None:
        """Hand the engine to TensorRT.

        Args:
            bundle: The bundle whose graph it was built from.
            stored: The engine.
            gpu: The GPU of this machine.
            threads: Processor threads for judging an utterance again, which needs no GPU.

        Raises:
            BackendUnavailableError: TensorRT, CUDA or memory is missing.
            EngineMismatchError: TensorRT does not take it, or it does not fit the bundle.
        """
        self._tensorrt = import_tensorrt()
        self._record = stored.record
        self._gpu = gpu
        self._log = open_log(self._tensorrt)
        self._runtime = started(self._tensorrt.Runtime, self._log)
        self._engine = self._runtime.deserialize_cuda_engine(stored.data)
        if self._engine is None:
            raise EngineMismatchError(
                f"TensorRT {self._tensorrt.__version__} does not take the engine {stored.record.key.file_name} "
                f"({last_problem(self._log)}); build it again: "
                f"python export/build_trt.py {stored.record.key.bundle} --again"
            )
        self._inputs = [item.name for item in bundle.manifest.inputs]
        self._wanted = [item.name for item in bundle.manifest.outputs]
        self._outputs = self._checked_outputs()
        self._limits = [self._limits_of(profile) for profile in range(self._engine.num_optimization_profiles)]
        self._queue = DeviceQueue(gpu.shares_memory)
        weakref.finalize(self, self._queue.close)
        self._contexts: dict[int, Any] = {}
        self._tensors = self._set_aside()
        self._seen: set[Shapes] = set()
        self._recordings: OrderedDict[Shapes, _Pass] = OrderedDict()
        self._can_record = True
        self._lock = threading.Lock()
        self._fusion = OnnxFusion(bundle, threads)

    @property
    def name(self) -> str:
        """TensorRT and its version."""
        return f"TensorRT {self._tensorrt.__version__}"

    @property
    def provider(self) -> str:
        """The GPU and the engine's precision."""
        return f"{self._gpu.name}, {self._record.key.precision} engine"

    @property
    def engine(self) -> Any:
        """TensorRT's own object, to be inspected."""
        return self._engine

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return the graph's outputs by name; one utterance at a time, whoever calls.

        Raises:
            BackendUnavailableError: The GPU failed.
            EngineMismatchError: The engine was not built for an utterance of this length.
        """
        shapes = tuple(inputs[name].shape for name in self._inputs)
        self._profile(shapes)
        with self._lock:
            for name in self._inputs:
                self._tensors[name].put(inputs[name])
            ready = self._recordings.get(shapes)
            if ready is not None:
                self._recordings.move_to_end(shapes)
                self._queue.launch(ready.graph)
            elif self._can_record and shapes in self._seen:
                ready = self._again(shapes)
            else:
                ready = self._first(shapes)
            self._queue.wait()
            return {name: self._tensors[name].take(ready.outputs[name]) for name in self._wanted}

    def fuse(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return the same outputs, but for `frames`, from the `frames` of an earlier run, on the processor.

        What stands behind the frames is small, so the bundle's own graph is faster there than a way to the GPU.

        Raises:
            BundleError: The graph's file has changed since it was opened, or it needs more than its frames.
        """
        return self._fusion.fuse(inputs)

    def context_for(self, inputs: Mapping[str, NDArray[Any]]) -> Any:
        """Return an execution context with the shapes of these inputs, to be inspected.

        Raises:
            EngineMismatchError: The engine was not built for them.
        """
        with self._lock:
            return self._set_up(tuple(inputs[name].shape for name in self._inputs), own=True).context

    def _checked_outputs(self) -> list[str]:
        """Return the engine's outputs; those of the manifest must be among them, and its inputs the manifest's."""
        mode = self._tensorrt.TensorIOMode.INPUT
        names = [self._engine.get_tensor_name(place) for place in range(self._engine.num_io_tensors)]
        inputs = {name for name in names if self._engine.get_tensor_mode(name) == mode}
        if inputs != set(self._inputs) or not set(self._wanted) <= set(names) - inputs:
            raise EngineMismatchError(
                f"the engine {self._record.key.file_name} has {', '.join(sorted(names))}; the manifest says "
                f"{', '.join([*self._inputs, *self._wanted])}; build it again: "
                f"python export/build_trt.py {self._record.key.bundle} --again"
            )
        return [name for name in names if name not in inputs]

    def _limits_of(self, profile: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Return the smallest and the largest shape of every input."""
        limits = []
        for name in self._inputs:
            shape = tuple(self._engine.get_tensor_shape(name))
            smallest, largest = shape, shape
            if -1 in shape:
                smallest, _, largest = self._engine.get_tensor_profile_shape(name, profile)
            limits.append((tuple(smallest), tuple(largest)))
        return limits

    def _set_aside(self) -> dict[str, DeviceTensor]:
        """Set aside memory for the largest of every input and output."""
        most = {name: 0 for name in (*self._inputs, *self._outputs)}
        for profile, limits in enumerate(self._limits):
            context = self._context(profile)
            for name, (_, largest) in zip(self._inputs, limits, strict=True):
                context.set_input_shape(name, largest)
                most[name] = max(most[name], math.prod(largest))
            for name in self._outputs:
                most[name] = max(most[name], math.prod(context.get_tensor_shape(name)))
        dtypes = {name: self._tensorrt.nptype(self._engine.get_tensor_dtype(name)) for name in most}
        return {name: self._queue.tensor(dtypes[name], numbers) for name, numbers in most.items()}

    def _context(self, profile: int) -> Any:
        """Return the context of a profile that serves whatever shapes come."""
        if profile not in self._contexts:
            self._contexts[profile] = self._new_context(profile)
        return self._contexts[profile]

    def _new_context(self, profile: int) -> Any:
        # Memory for this profile's lengths; the default takes what the longest of all needs.
        context = self._engine.create_execution_context(
            self._tensorrt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        )
        if context is None or not context.set_optimization_profile_async(profile, self._queue.handle):
            raise BackendUnavailableError(
                f"TensorRT makes no execution context ({last_problem(self._log)}); most often the GPU's memory is used "
                "up; close what else uses it, or use --provider cpu"
            )
        self._queue.wait()
        return context

    def _profile(self, shapes: Shapes) -> int:
        for profile, limits in enumerate(self._limits):
            if all(
                len(shape) == len(low) and all(a <= size <= b for size, a, b in zip(shape, low, high, strict=True))
                for shape, (low, high) in zip(shapes, limits, strict=True)
            ):
                return profile
        told = ", ".join(f"{name} {list(shape)}" for name, shape in zip(self._inputs, shapes, strict=True))
        raise EngineMismatchError(
            f"the engine {self._record.key.file_name} was not built for {told}; need one for the model's whole range; "
            f"build it again: python export/build_trt.py {self._record.key.bundle} --again"
        )

    def _set_up(self, shapes: Shapes, own: bool) -> _Pass:
        """Return a context for these shapes: `own` makes one that nothing else will change."""
        profile = self._profile(shapes)
        context = self._new_context(profile) if own else self._context(profile)
        for name, shape in zip(self._inputs, shapes, strict=True):
            context.set_input_shape(name, shape)
        for name, tensor in self._tensors.items():
            context.set_tensor_address(name, tensor.device)
        return _Pass(context, {name: tuple(context.get_tensor_shape(name)) for name in self._outputs})

    def _enqueue(self, ready: _Pass, shapes: Shapes) -> None:
        for name, shape in zip(self._inputs, shapes, strict=True):
            self._queue.upload(self._tensors[name], math.prod(shape))
        if not ready.context.execute_async_v3(self._queue.handle):
            raise BackendUnavailableError(
                f"TensorRT fails to run {self._record.key.file_name} ({last_problem(self._log)}); look at nvidia-smi, "
                "or use --provider cpu"
            )
        for name in self._wanted:
            self._queue.download(self._tensors[name], math.prod(ready.outputs[name]))

    def _first(self, shapes: Shapes) -> _Pass:
        ready = self._set_up(shapes, own=False)
        self._enqueue(ready, shapes)
        if len(self._seen) > _MOST_SEEN:
            self._seen.clear()
        self._seen.add(shapes)
        return ready

    def _again(self, shapes: Shapes) -> _Pass:
        """Run shapes that have come before, and record the run for the next time."""
        ready = self._set_up(shapes, own=True)
        # Once plainly: TensorRT does part of its work at the first run with new shapes.
        self._enqueue(ready, shapes)
        self._queue.wait()
        try:
            graph = self._queue.record(lambda: self._enqueue(ready, shapes))
        except BackendUnavailableError:
            self._can_record = False
            return self._first(shapes)
        self._recordings[shapes] = _Pass(ready.context, ready.outputs, graph)
        if len(self._recordings) > _MOST_RECORDINGS:
            _, oldest = self._recordings.popitem(last=False)
            self._queue.forget(oldest.graph)
        return ready
