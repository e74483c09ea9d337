"""Which way of running a bundle is taken, and why."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edge_ser.backends.engine_store import EngineStore
from edge_ser.backends.gpu import Gpu, find_gpu
from edge_ser.backends.gpu_packages import has_tensorrt, import_tensorrt
from edge_ser.backends.onnx_providers import (
    CPU,
    CUDA_NAME,
    GPU_BUILD,
    TENSORRT_NAME,
    Execution,
    cuda_execution,
    providers,
    tensorrt_execution,
)
from edge_ser.backends.shape_ranges import sample_limits, shape_ranges
from edge_ser.bundle import Bundle
from edge_ser.errors import BackendUnavailableError, EdgeSerError

if TYPE_CHECKING:
    from edge_ser.backends import Backend


def open_chosen(
    bundle: Bundle, provider: str, threads: int, engine_dir: str | os.PathLike[str] | None
) -> tuple[Backend, str]:
    """Return what runs a bundle that has graphs of its own, and why it was chosen.

    Raises:
        BackendUnavailableError: What was asked for cannot run here.
        BundleError: A graph does not open or does not fit the manifest.
        ConfigError: The folder of the engines is open to others.
        EngineMismatchError: There is an engine, but for another GPU, TensorRT or graph.
    """
    if provider == "auto":
        return _best(bundle, threads, engine_dir)
    if provider == "cuda":
        backend = _on_cuda(bundle, threads, find_gpu())
    elif provider == "tensorrt":
        backend = _on_tensorrt(bundle, threads, find_gpu(), EngineStore(engine_dir))
    else:
        backend = _in_onnx(bundle, threads, CPU)
    return backend, f"asked for: {provider}"


def _best(bundle: Bundle, threads: int, engine_dir: str | os.PathLike[str] | None) -> tuple[Backend, str]:
    """Return an engine that is built, else CUDA for a graph of floats, else the CPU; nothing is built here."""
    try:
        has_engines = has_tensorrt() and bool(EngineStore(engine_dir).records(bundle.manifest.name))
        has_cuda = CUDA_NAME in providers()
        if not has_engines and not has_cuda:
            return _on_cpu(bundle, threads, "no engine is built, and this ONNX Runtime is the one for the CPU")
        gpu = find_gpu()
    except EdgeSerError as problem:
        return _on_cpu(bundle, threads, _short(problem))
    reasons = []
    if has_engines:
        try:
            return _on_tensorrt(bundle, threads, gpu, EngineStore(engine_dir)), "auto: an engine for this GPU is built"
        except EdgeSerError as problem:
            reasons.append(_short(problem))
    if has_cuda and bundle.manifest.precision == "int8":
        reasons.append("CUDA within ONNX Runtime has no integer kernels, build an engine with export/build_trt.py")
    elif has_cuda:
        try:
            return _on_cuda(bundle, threads, gpu), "auto: a GPU is here and the model is one of floats"
        except BackendUnavailableError as problem:
            reasons.append(_short(problem))
    return _on_cpu(bundle, threads, "; ".join(reasons))


def _on_cpu(bundle: Bundle, threads: int, reason: str) -> tuple[Backend, str]:
    return _in_onnx(bundle, threads, CPU), f"auto: {reason}"


def _on_cuda(bundle: Bundle, threads: int, gpu: Gpu) -> Backend:
    if CUDA_NAME not in providers():
        raise BackendUnavailableError(
            f"this ONNX Runtime is the one for the CPU; need onnxruntime-gpu for {gpu.name}; type: {GPU_BUILD}; or use "
            "--provider cpu"
        )
    return _in_onnx(bundle, threads, cuda_execution(gpu))


def _on_tensorrt(bundle: Bundle, threads: int, gpu: Gpu, store: EngineStore) -> Backend:
    """Return an engine of TensorRT itself, or what ONNX Runtime builds where only that is here."""
    if "model" not in bundle.manifest.graphs:
        raise BackendUnavailableError(
            f"'{bundle.manifest.name}' is split into {', '.join(bundle.manifest.graphs)}; need a bundle of one graph "
            "for TensorRT; use --provider cuda or --provider cpu"
        )
    if has_tensorrt():
        version = str(import_tensorrt().__version__)
        record = store.find(bundle, gpu.slug, version)
        if record is not None:
            # Late: TensorRT and CUDA are looked for only where there is an engine to run.
            from edge_ser.backends.engine import Engine

            return Engine(bundle, store.read(record), gpu, threads)
    if TENSORRT_NAME in providers():
        ranges = shape_ranges(bundle, *sample_limits(bundle))
        return _in_onnx(bundle, threads, tensorrt_execution(bundle, gpu, store, ranges))
    import_tensorrt()
    raise BackendUnavailableError(
        f"there is no engine of '{bundle.manifest.name}' for {gpu.name} in {store.folder}; need one built here; type: "
        f"python export/build_trt.py {bundle.manifest.name}; or use --provider cpu"
    )


def _in_onnx(bundle: Bundle, threads: int, execution: Execution) -> Backend:
    # Late, so that importing edge_ser does not load ONNX Runtime.
    if "model" not in bundle.manifest.graphs:
        from edge_ser.backends.split import SplitGraphs

        return SplitGraphs(bundle, threads, execution)
    from edge_ser.backends.onnx_graph import OnnxGraph

    return OnnxGraph(bundle, threads, execution)


def _short(problem: EdgeSerError) -> str:
    return str(problem).partition(";")[0]
