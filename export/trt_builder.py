"""From a graph to an engine: the only file that builds with TensorRT, one way for versions 10.3 to 11."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from edge_ser.backends.device_memory import free_mb
from edge_ser.backends.engine_log import last_problem, open_log, started
from edge_ser.backends.gpu_packages import import_cuda
from edge_ser.errors import BackendUnavailableError, ConfigError
from export.qdq_rules import quantised_nodes
from export.trt_plan import Plan

_NO_KERNEL = "could not find any implementation"
_MOVERS = ("constant", "noop", "reformat", "shuffle", "signal", "wait")
"""Kinds of layers that compute nothing."""
_TYPES = {"int8": ("int8",), "fp16": ("half", "fp16"), "fp32": ("float", "fp32")}


class NoKernelError(ConfigError):
    """TensorRT has no kernel for a part of the graph."""

    def __init__(self, message: str, products: tuple[str, ...]) -> None:
        """Say so, and name the INT8 products of that part."""
        super().__init__(message)
        self.products = products


@dataclass(frozen=True)
class Built:
    """What TensorRT has made."""

    engine: bytes
    """The serialised engine."""
    timings: bytes
    """The timing cache, with what this build has timed."""


def build(tensorrt: ModuleType, plan: Plan, timings: bytes) -> Built:
    """Return the engine of a plan.

    Args:
        tensorrt: The module.
        plan: What to build.
        timings: What earlier builds on this GPU have timed; nothing at the first.

    Raises:
        BackendUnavailableError: The GPU's memory does not suffice.
        ConfigError: TensorRT refuses the graph; a `NoKernelError`: it has no kernel for a part of it.
    """
    log = open_log(tensorrt)
    builder = started(tensorrt.Builder, log)
    # TensorRT 11 knows no other networks, and ignores the flag.
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(tensorrt, log, network, plan.graph.SerializeToString())
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, plan.workspace_mb << 20)
    # Floats of 32 bits shall be just that: answers must not depend on the GPU's generation.
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    # Without it the inspector would not tell what runs in INT8.
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED
    cache = config.create_timing_cache(timings)
    config.set_timing_cache(cache, False)
    _add_profiles(builder, network, config, plan)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise _not_built(last_problem(log), plan)
    return Built(bytes(engine), bytes(cache.serialize()))


def _parse(tensorrt: ModuleType, log: Any, network: Any, graph: bytes) -> None:
    parser = tensorrt.OnnxParser(network, log)
    if not parser.parse(graph):
        problems = [parser.get_error(place) for place in range(parser.num_errors)]
        said = "; ".join(f"{problem.desc()} (node {problem.node_name()})" for problem in problems[:2])
        raise ConfigError(
            f"TensorRT {tensorrt.__version__} does not read the graph: {said or last_problem(log)}; need operators "
            "that it knows; see python export/qdq_rules.py --help"
        )


def _add_profiles(builder: Any, network: Any, config: Any, plan: Plan) -> None:
    inputs = [network.get_input(place) for place in range(network.num_inputs)]
    varying = [item.name for item in inputs if -1 in tuple(item.shape)]
    for shapes in plan.profiles:
        profile = builder.create_optimization_profile()
        for name in varying:
            profile.set_shape(name, shapes[name].smallest, shapes[name].usual, shapes[name].largest)
        if config.add_optimization_profile(profile) < 0:
            raise ConfigError(f"TensorRT takes no profile of {shapes}; need sizes that fit the graph")


def _not_built(said: str, plan: Plan) -> Exception:
    if "memory" in said.lower():
        return BackendUnavailableError(
            f"the GPU's memory does not suffice to build the engine ({said}; {free_mb(import_cuda())} MB are free); "
            "close what else uses it, or give --workspace-mb less"
        )
    parts = set(re.split(r"[\s+()\[\]{},]+", said)) if _NO_KERNEL in said.lower() else set()
    return NoKernelError(
        f"TensorRT builds no engine of '{plan.bundle.manifest.name}' in {plan.precision} ({said}); where a layer "
        "has no kernel in INT8, use --precision fp16",
        tuple(node.name for node in quantised_nodes(plan.graph) if node.name in parts),
    )


def inspected(tensorrt: ModuleType, engine: Any, context: Any) -> dict[str, int]:
    """Return how many layers of an engine run in INT8, in halves, in floats, and how many compute no such thing.

    Args:
        tensorrt: The module.
        engine: The engine.
        context: A context with shapes: without them the inspector does not know the types of what varies.
    """
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context
    return count_layers(inspector.get_engine_information(tensorrt.LayerInformationFormat.JSON))


def count_layers(information: str) -> dict[str, int]:
    """Return layers by the narrowest type that they compute from, of what the inspector says in JSON.

    TensorRT 10 tells the types under `Format/Datatype`, 11 in fields of their own; kernels that were fused name them
    in their tactic.
    """
    counts = dict.fromkeys((*_TYPES, "other"), 0)
    for layer in json.loads(information)["Layers"]:
        counts[_type_of(layer) if isinstance(layer, dict) else "other"] += 1
    return counts


def _type_of(layer: dict[str, Any]) -> str:
    kind = str(layer.get("LayerType", "")).lower()
    if any(mover in kind for mover in _MOVERS):
        return "other"
    told = [
        str(value).lower()
        for tensor in layer.get("Inputs", [])
        for key, value in tensor.items()
        if "type" in key.lower() or "format" in key.lower()
    ]
    tactic = str(layer.get("TacticName", "")).lower()
    if "i8i8" in tactic or "imma" in tactic:
        return "int8"
    return next((name for name, words in _TYPES.items() if any(w in text for text in told for w in words)), "other")
