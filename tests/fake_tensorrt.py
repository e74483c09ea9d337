"""Fakes of `tensorrt`, `cuda.bindings.runtime` and the driver that really compute: engines run their ONNX on the CPU.

Memory is real memory, a stream does its work at once unless it records, and everything asked for is kept in `calls`.
"""

from __future__ import annotations

import ctypes
import enum
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from edge_ser.backends import choice, gpu_packages
from edge_ser.backends.gpu import Gpu

ORIN = Gpu("Orin", "8.7", 8_000_000_000, shares_memory=True)
DESK = Gpu("NVIDIA RTX 4000 Ada", "8.9", 20_000_000_000, shares_memory=False)
_MARK = b"FAKE ENGINE\n"
_DTYPES = {1: np.float32, 7: np.int64}


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorStreamCaptureUnsupported = 900


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


class FakeCuda:
    """The CUDA runtime of one stream."""

    cudaError_t = cudaError_t
    cudaMemcpyKind = cudaMemcpyKind
    cudaStreamCaptureMode = cudaStreamCaptureMode
    cudaHostAllocDefault, cudaHostAllocMapped, cudaStreamNonBlocking = 0, 2, 1

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.free_bytes = 4_000_000_000
        self.can_capture = True
        self.memory: dict[int, Any] = {}
        self._recording: list[Callable[[], None]] | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Do what is queued, or record it."""
        if self._recording is None:
            work()
        else:
            self._recording.append(work)

    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        return self._answer("cudaSetDevice")

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        return self._answer("cudaStreamCreateWithFlags", 77)

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        return self._answer("cudaStreamDestroy")

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        return self._answer("cudaStreamSynchronize")

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:
        return self._allocate("cudaHostAlloc", size)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        return self._allocate("cudaMalloc", size)

    def cudaHostGetDevicePointer(self, host: int, flags: int) -> tuple[Any, ...]:
        assert host in self.memory
        return self._answer("cudaHostGetDevicePointer", host)

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        del self.memory[address]
        return self._answer("cudaFree")

    def cudaFreeHost(self, address: int) -> tuple[Any, ...]:
        del self.memory[address]
        return self._answer("cudaFreeHost")

    def cudaMemGetInfo(self) -> tuple[Any, ...]:
        return self._answer("cudaMemGetInfo", self.free_bytes, 2 * self.free_bytes)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> tuple[Any, ...]:
        self.do(lambda: ctypes.memmove(target, source, size) and None)
        return self._answer(f"cudaMemcpyAsync {cudaMemcpyKind(kind).name}")

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:
        self._recording = []
        return self._answer("cudaStreamBeginCapture")

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        recording, self._recording = self._recording, None
        if not self.can_capture:
            return (cudaError_t.cudaErrorStreamCaptureUnsupported, None)
        return self._answer("cudaStreamEndCapture", recording)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:
        return self._answer("cudaGraphInstantiate", graph)

    def cudaGraphDestroy(self, graph: Any) -> tuple[Any, ...]:
        return self._answer("cudaGraphDestroy")

    def cudaGraphExecDestroy(self, graph: Any) -> tuple[Any, ...]:
        return self._answer("cudaGraphExecDestroy")

    def cudaGraphLaunch(self, graph: Any, stream: int) -> tuple[Any, ...]:
        for work in graph:
            work()
        return self._answer("cudaGraphLaunch")

    def _allocate(self, name: str, size: int) -> tuple[Any, ...]:
        if size > self.free_bytes:
            return (cudaError_t.cudaErrorMemoryAllocation, None)
        memory = (ctypes.c_byte * size)()
        self.memory[ctypes.addressof(memory)] = memory
        return self._answer(name, ctypes.addressof(memory))

    def _answer(self, name: str, *values: Any) -> tuple[Any, ...]:
        self.calls.append(name)
        return (cudaError_t.cudaSuccess, *values)


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class BuilderFlag(enum.IntEnum):
    TF32 = 7


class ProfilingVerbosity(enum.IntEnum):
    DETAILED = 2


class LayerInformationFormat(enum.IntEnum):
    JSON = 1


class ExecutionContextAllocationStrategy(enum.IntEnum):
    ON_PROFILE_CHANGE = 1


class TensorIOMode(enum.IntEnum):
    INPUT = 1
    OUTPUT = 2


@dataclass
class ITensor:
    name: str
    shape: tuple[int, ...]


@dataclass
class ParserError:
    _said: str

    def desc(self) -> str:
        return self._said

    def node_name(self) -> str:
        return "/some/node"


@dataclass
class INetworkDefinition:
    _flags: int
    _graph: bytes = b""

    @property
    def num_inputs(self) -> int:
        return len(_inputs(self._graph))

    def get_input(self, index: int) -> ITensor:
        return _inputs(self._graph)[index]


@dataclass
class IOptimizationProfile:
    _shapes: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)

    def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:
        assert all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True))
        self._shapes[input] = [min, opt, max]


@dataclass
class ITimingCache:
    _data: bytes

    def serialize(self) -> bytes:
        return self._data + b"timed;"


class IBuilderConfig:
    def __init__(self) -> None:
        self.profiling_verbosity = None
        self._flags = {BuilderFlag.TF32}
        self._pools: dict[int, int] = {}
        self._profiles: list[IOptimizationProfile] = []
        self._cache: ITimingCache | None = None

    def set_memory_pool_limit(self, pool: int, pool_size: int) -> None:
        self._pools[pool] = pool_size

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(flag)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._cache = cache
        return True

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1


class FakeTensorrt:
    """The module."""

    ILogger = ILogger
    NetworkDefinitionCreationFlag = NetworkDefinitionCreationFlag
    MemoryPoolType = MemoryPoolType
    BuilderFlag = BuilderFlag
    ProfilingVerbosity = ProfilingVerbosity
    LayerInformationFormat = LayerInformationFormat
    TensorIOMode = TensorIOMode
    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy

    def __init__(self, cuda: FakeCuda, version: str) -> None:
        self.__version__ = version
        self.cuda = cuda
        self.log: Any = None
        self.network: INetworkDefinition | None = None
        self.config: IBuilderConfig | None = None
        self.spoil: Callable[[str, NDArray[Any]], NDArray[Any]] = lambda name, values: values
        """What is done to every output."""
        self.parser_says = ""
        """Why the parser refuses, if it does."""
        self.builder_says = ""
        """Why the builder gives up, if it does."""
        self.no_kernel_for: set[str] = set()
        """Nodes that the builder cannot run behind Q/DQ pairs."""
        self.starts = True
        self.layers: list[Any] = [{"LayerType": "CaskGemmConvolution", "Inputs": [{"Format/Datatype": "Int8"}]}]
        self.contexts = 0

    def nptype(self, trt_type: Any) -> Any:
        return trt_type

    def Builder(self, logger: Any) -> Builder:
        return Builder(self, self._started(logger))

    def Runtime(self, logger: Any) -> Runtime:
        return Runtime(self, self._started(logger))

    def OnnxParser(self, network: INetworkDefinition, logger: Any) -> OnnxParser:
        return OnnxParser(self, network)

    def _started(self, logger: Any) -> Any:
        self.log = logger
        if not self.starts:
            logger.log(ILogger.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return logger


@dataclass
class OnnxParser:
    _module: FakeTensorrt
    _network: INetworkDefinition

    @property
    def num_errors(self) -> int:
        return 1 if self._module.parser_says else 0

    def parse(self, model: bytes) -> bool:
        onnx.checker.check_model(onnx.load_from_string(model))
        self._network._graph = model
        return not self._module.parser_says

    def get_error(self, index: int) -> ParserError:
        return ParserError(self._module.parser_says)


@dataclass
class Builder:
    _module: FakeTensorrt
    _logger: Any

    def create_network(self, flags: int) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        self._module.network, self._module.config = network, config
        nodes = onnx.load_from_string(network._graph).graph.node
        makers = {name: node.op_type for node in nodes for name in node.output}
        for node in nodes:
            behind_pairs = "DequantizeLinear" in [makers.get(name) for name in node.input]
            if behind_pairs and node.name in self._module.no_kernel_for:
                said = f"Could not find any implementation for node w_quantized + {node.name} + PWN(/relu/Relu)."
                self._logger.log(ILogger.ERROR, f"Error Code 10: Internal Error ({said} In computeCosts)")
                return None
        if self._module.builder_says:
            self._logger.log(ILogger.ERROR, self._module.builder_says)
            return None
        head = {"version": self._module.__version__, "profiles": [profile._shapes for profile in config._profiles]}
        return _MARK + json.dumps(head).encode() + b"\n" + network._graph


@dataclass
class Runtime:
    _module: FakeTensorrt
    _logger: Any

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        head, _, graph = serialized_engine.removeprefix(_MARK).partition(b"\n")
        if not serialized_engine.startswith(_MARK) or json.loads(head)["version"] != self._module.__version__:
            self._logger.log(ILogger.ERROR, "Serialization assertion failed: version tag does not match")
            return None
        return ICudaEngine(self._module, graph, json.loads(head)["profiles"])


class ICudaEngine:
    def __init__(self, module: FakeTensorrt, graph: bytes, profiles: list[dict[str, list[list[int]]]]) -> None:
        self._module = module
        self._profiles = profiles
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._shapes = {item.name: item.shape for item in _inputs(graph)}
        self._outputs = [node.name for node in self._session.get_outputs()]
        model = onnx.load_from_string(graph)
        self._dtypes = {
            item.name: _DTYPES[item.type.tensor_type.elem_type] for item in [*model.graph.input, *model.graph.output]
        }
        self.num_io_tensors = len(self._dtypes)
        self.num_optimization_profiles = len(profiles)

    def get_tensor_name(self, index: int) -> str:
        return [*self._shapes, *self._outputs][index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._shapes else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return self._dtypes[name]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[list[int]]:
        return self._profiles[profile_index][name]

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> IExecutionContext:
        self._module.contexts += 1
        return IExecutionContext(self)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self._module)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._given: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._profile = 0

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._profile = profile_index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if -1 in self._engine._shapes[name]:
            low, _, high = self._engine._profiles[self._profile][name]
            assert all(a <= size <= b for size, a, b in zip(shape, low, high, strict=True))
        self._given[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._answer({item: np.ones(shape, self._dtype(item)) for item, shape in self._given.items()})[
            name
        ].shape

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert set(self._addresses) == {*self._engine._shapes, *self._engine._outputs}
        self._engine._module.cuda.do(self._work(dict(self._given)))
        return True

    def _work(self, given: dict[str, tuple[int, ...]]) -> Callable[[], None]:
        def work() -> None:
            inputs = {name: self._memory(name, shape) for name, shape in given.items()}
            for name, values in self._answer(inputs).items():
                self._memory(name, values.shape)[...] = self._engine._module.spoil(name, values)

        return work

    def _memory(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        size = int(np.prod(shape)) * np.dtype(self._dtype(name)).itemsize
        memory: Any = (ctypes.c_byte * size).from_address(self._addresses[name])
        return np.frombuffer(memory, self._dtype(name)).reshape(shape)

    def _dtype(self, name: str) -> Any:
        return self._engine._dtypes[name]

    def _answer(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return dict(zip(self._engine._outputs, self._engine._session.run(self._engine._outputs, inputs), strict=True))


class EngineInspector:
    def __init__(self, module: FakeTensorrt) -> None:
        self._module = module
        self.execution_context: IExecutionContext | None = None

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        assert self.execution_context is not None and self.execution_context._given
        return json.dumps({"Layers": self._module.layers})


def _inputs(graph: bytes) -> list[ITensor]:
    model = onnx.load_from_string(graph)
    return [
        ITensor(item.name, tuple(d.dim_value or -1 for d in item.type.tensor_type.shape.dim))
        for item in model.graph.input
    ]


def install(monkeypatch: pytest.MonkeyPatch, gpu: Gpu = DESK, version: str = "10.3.0") -> FakeTensorrt:
    """Let this machine have a GPU, CUDA and TensorRT, and return the fake of TensorRT; its `cuda` is the other one."""
    cuda = FakeCuda()
    module = FakeTensorrt(cuda, version)
    found = {"tensorrt": module, "cuda.bindings.runtime": cuda}
    monkeypatch.setattr(gpu_packages, "importlib", SimpleNamespace(import_module=found.__getitem__))
    for place in (choice, gpu_packages):
        monkeypatch.setattr(place, "has_tensorrt", lambda: True)
    for name in ("edge_ser.backends.choice", "export.trt_plan", "export.build_trt"):
        monkeypatch.setattr(f"{name}.find_gpu", lambda: gpu)
    return module
