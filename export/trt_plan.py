"""What would be built of a bundle: known without TensorRT and without a GPU."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnx

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.backends.engine_record import EngineKey
from edge_ser.backends.engine_store import EngineStore, graph_sha256
from edge_ser.backends.gpu import Gpu, find_gpu
from edge_ser.backends.gpu_packages import import_tensorrt
from edge_ser.backends.shape_ranges import ShapeRange, sample_limits, shape_ranges, told
from edge_ser.bundle import Bundle
from edge_ser.errors import BackendUnavailableError, ConfigError
from export.qdq_rules import quantised_products
from export.trt_graph import prepared
from export.trt_parity import BUDGETS, Budget

BUCKETS_S = (1.0, 2.0, 4.0)
"""Seconds at which one range of lengths ends and the next begins."""
WORKSPACE_MB = 1024


@dataclass(frozen=True)
class Wanted:
    """What was asked for."""

    precision: str | None = None
    """`int8`, `fp16` or `fp32`; None takes `int8` for an INT8 bundle and `fp16` for one of floats."""
    batch: int = 1
    """Most utterances at once."""
    buckets_s: Sequence[float] = BUCKETS_S
    """Seconds at which one range of lengths ends and the next begins."""
    workspace_mb: int = WORKSPACE_MB
    """Megabytes of the GPU's memory that a kernel may work in."""


@dataclass(frozen=True)
class Plan:
    """What would be built."""

    bundle: Bundle
    """Of what."""
    precision: str
    """`int8`, `fp16` or `fp32`."""
    graph: onnx.ModelProto
    """What TensorRT would read."""
    profiles: tuple[dict[str, ShapeRange], ...]
    """Shapes of every input, by range of lengths."""
    workspace_mb: int
    """Megabytes."""
    kept_float: tuple[str, ...] = ()
    """INT8 products that went back to float, since this GPU's TensorRT has no kernel for them."""

    @property
    def budget(self) -> Budget:
        """How far the answers may be from the bundle's; without its pairs an INT8 graph answers a little else, too."""
        return BUDGETS["int8" if self.bundle.manifest.precision == "int8" else self.precision]

    def key(self, gpu: str, tensorrt: str) -> EngineKey:
        """Return what the engine would be bound to on a GPU."""
        return EngineKey(self.bundle.manifest.name, gpu, tensorrt, self.precision)

    def profiles_told(self) -> list[dict[str, Any]]:
        """Return the profiles as plain data: their seconds, and every input's shapes as trtexec writes them."""
        return [
            {
                "seconds": " to ".join(f"{seconds:g}" for seconds in _seconds(self.bundle, profile)),
                **{
                    name: {"min": told(shapes.smallest), "opt": told(shapes.usual), "max": told(shapes.largest)}
                    for name, shapes in profile.items()
                },
            }
            for profile in self.profiles
        ]

    def to_dict(self, store: EngineStore) -> dict[str, Any]:
        """Return it as `--plan` prints it, with what of it this machine has."""
        gpu, version, missing = _here()
        key = self.key(gpu.slug if gpu else "GPU", version or "VERSION")
        return {
            "bundle": self.bundle.manifest.name,
            "precision": self.precision,
            "engine": str(store.folder / key.file_name),
            "timing_cache": str(store.timing_cache(key.gpu, key.tensorrt)),
            "graph_sha256": graph_sha256(self.bundle),
            "network": {
                "strongly_typed": True,
                "nodes": len(self.graph.graph.node),
                "products_to_run_in_int8": quantised_products(self.graph),
            },
            "profiles": self.profiles_told(),
            "workspace_mb": self.workspace_mb,
            "budget": asdict(self.budget),
            "here": {"gpu": gpu.name if gpu else None, "tensorrt": version, "missing": missing},
        }


def make_plan(bundle: Bundle, wanted: Wanted) -> Plan:
    """Return what would be built of a bundle.

    Args:
        bundle: The bundle; of one that is adapted, its base.
        wanted: What was asked for.

    Raises:
        ConfigError: It cannot be built in that precision or batch.
    """
    bundle = bundle.base or bundle
    if "model" not in bundle.manifest.graphs:
        raise ConfigError(
            f"'{bundle.manifest.name}' is split into {', '.join(bundle.manifest.graphs)}; engines are built of bundles "
            "with one graph; run this one with --provider cuda"
        )
    precision = wanted.precision or ("int8" if bundle.manifest.precision == "int8" else "fp16")
    graph = prepared(bundle.read(bundle.manifest.graphs["model"]), precision)
    _check_batch(graph, wanted.batch)
    fewest, most = sample_limits(bundle)
    edges = sorted({round(seconds * SAMPLE_RATE_HZ) for seconds in wanted.buckets_s})
    edges = [fewest, *(edge for edge in edges if fewest < edge < most), most]
    profiles = [shape_ranges(bundle, low, high, wanted.batch) for low, high in itertools.pairwise(edges)]
    return Plan(bundle, precision, graph, tuple(profiles), wanted.workspace_mb)


def _check_batch(graph: onnx.ModelProto, batch: int) -> None:
    fixed = [item.name for item in graph.graph.input if item.type.tensor_type.shape.dim[0].dim_value == 1]
    if batch > 1 and fixed:
        raise ConfigError(
            f"got --batch {batch}, but the graph takes one utterance at a time ({', '.join(fixed)}); need --batch 1, "
            "or a bundle whose graph has a free batch"
        )


def _here() -> tuple[Gpu | None, str | None, list[str]]:
    """Return this machine's GPU and TensorRT, and what is missing."""
    gpu, version, missing = None, None, []
    try:
        gpu = find_gpu()
    except BackendUnavailableError as problem:
        missing.append(str(problem).partition(";")[0])
    try:
        version = str(import_tensorrt().__version__)
    except BackendUnavailableError as problem:
        missing.append(str(problem).partition(";")[0])
    return gpu, version, missing


def _seconds(bundle: Bundle, profile: dict[str, ShapeRange]) -> list[float]:
    audio = next(item.name for item in bundle.manifest.inputs if item.kind == "audio")
    return [shape[1] / SAMPLE_RATE_HZ for shape in (profile[audio].smallest, profile[audio].largest)]
