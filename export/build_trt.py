"""Build a bundle's TensorRT engine on the device that shall run it, and keep it only if it answers as the bundle does.

    python export/build_trt.py mdat-int8
    python export/build_trt.py mdat-int8 --plan        # what would be built, on any machine

The engine and its receipt go to the user's cache (--engine-dir), named after bundle, GPU, TensorRT and precision;
`edge-ser listen` finds it there. An engine is bound to GPU and TensorRT: it is never copied to another machine. What is
built already is left as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
if importlib.util.find_spec("onnx") is None:
    raise SystemExit(
        "build_trt: the package onnx is not here; need it to read the graph; type: pip install 'onnx>=1.16'"
    )

import onnxruntime

from edge_ser.backends import open_backend
from edge_ser.backends.engine import Engine
from edge_ser.backends.engine_record import EngineRecord
from edge_ser.backends.engine_store import PRECISIONS, EngineStore, StoredEngine, graph_sha256
from edge_ser.backends.gpu import Gpu, find_gpu
from edge_ser.backends.gpu_packages import import_cuda, import_tensorrt
from edge_ser.bundle import find_bundle
from edge_ser.cli.options import positive_int, utterance_seconds
from edge_ser.environment import environment
from edge_ser.errors import ConfigError, EdgeSerError
from export.qdq_rules import quantised_products
from export.trt_builder import Built, NoKernelError, build, inspected
from export.trt_graph import in_float
from export.trt_parity import LENGTHS_S, SOUND, Parity, Run, compare, stored_inputs
from export.trt_plan import BUCKETS_S, WORKSPACE_MB, Plan, Wanted, make_plan

_ONE_S = LENGTHS_S[2]


def build_engine(plan: Plan, store: EngineStore, sound: Path, again: bool = False) -> tuple[Path, EngineRecord]:
    """Build the engine of a plan, unless it is there, and return where it is and its record.

    Args:
        plan: What to build.
        store: Where it goes.
        sound: What the answers are compared on.
        again: Whether to build it even if it is there.

    Raises:
        BackendUnavailableError: TensorRT, CUDA, the GPU or its memory is missing.
        ConfigError: The engine cannot be built, or answers otherwise than the bundle; nothing is kept.
        EngineMismatchError: TensorRT does not take its own engine.
    """
    tensorrt, gpu = import_tensorrt(), find_gpu()
    import_cuda()
    key = plan.key(gpu.slug, str(tensorrt.__version__))
    there = [record for record in store.records(key.bundle) if record.key == key]
    if there and there[0].graph_sha256 == graph_sha256(plan.bundle) and not again:
        store.read(there[0])
        return store.folder / key.file_name, there[0]
    check_graph(plan, sound)
    began_s = time.perf_counter()
    print(f"building {key.file_name} on {gpu.name}, which takes minutes at the first time", file=sys.stderr)
    timings = store.timing_cache(key.gpu, key.tensorrt)
    plan, built = _built(tensorrt, plan, store.read_timing_cache(timings))
    store.write_timing_cache(timings, built.timings)
    record = EngineRecord(
        key,
        gpu.name,
        gpu.capability,
        graph_sha256(plan.bundle),
        hashlib.sha256(built.engine).hexdigest(),
    )
    stored = _measured(tensorrt, plan, StoredEngine(record, built.engine), gpu, sound)
    receipt = {**stored.record.receipt, "build_s": round(time.perf_counter() - began_s, 1)}
    record = EngineRecord(**{**vars(stored.record), "receipt": receipt})
    return store.write(StoredEngine(record, built.engine)), record


def _built(tensorrt: ModuleType, plan: Plan, timings: bytes) -> tuple[Plan, Built]:
    """Return the engine, and the plan that it follows: a product that has no kernel in INT8 goes back to float.

    Raises:
        BackendUnavailableError: The GPU's memory does not suffice.
        ConfigError: TensorRT refuses the graph, or has no kernel for something that is no INT8 product.
    """
    while True:
        try:
            return plan, build(tensorrt, plan, timings)
        except NoKernelError as problem:
            if not problem.products:
                raise
            print(f"no kernel in INT8, back to float: {', '.join(problem.products)}", file=sys.stderr)
            kept = (*plan.kept_float, *problem.products)
            plan = replace(plan, graph=in_float(plan.graph, problem.products), kept_float=kept)


def _measured(tensorrt: ModuleType, plan: Plan, stored: StoredEngine, gpu: Gpu, sound: Path) -> StoredEngine:
    """Return the engine with its receipt.

    Raises:
        ConfigError: No layer runs in INT8 though it should, or the answers are out of budget.
    """
    engine = Engine(plan.bundle, stored, gpu, threads=1)
    inputs = stored_inputs(plan.bundle, sound)
    some = inputs.get(_ONE_S) or next(iter(inputs.values()))
    layers = inspected(tensorrt, engine.engine, engine.context_for(some[0]))
    if plan.precision == "int8" and layers["int8"] == 0:
        raise ConfigError(
            f"TensorRT runs none of the engine's {sum(layers.values())} layers in INT8; nothing is kept; "
            "use --precision fp16"
        )
    parity = compare(open_backend(plan.bundle, "cpu", threads=1).run, engine.run, inputs, times=3)
    _check(parity, plan, "the engine")
    receipt = {
        "precision": plan.precision,
        "layers": layers,
        "products_to_run_in_int8": quantised_products(plan.graph),
        "products_back_to_float": list(plan.kept_float),
        "parity": parity.to_dict(),
        "profiles": plan.profiles_told(),
        "bytes": len(stored.data),
        "gpu_memory_mb": gpu.memory_bytes // 1_000_000,
        "environment": {**environment("onnxruntime", "numpy"), "tensorrt": stored.record.key.tensorrt},
    }
    return StoredEngine(EngineRecord(**{**vars(stored.record), "receipt": receipt}), stored.data)


def check_graph(plan: Plan, sound: Path) -> Parity:
    """Return how near the graph that TensorRT would read is to the bundle's own, both on the CPU.

    Raises:
        ConfigError: It is out of budget.
    """
    parity = compare(
        open_backend(plan.bundle, "cpu", threads=1).run,
        in_onnx_runtime(plan.graph.SerializeToString()),
        stored_inputs(plan.bundle, sound),
    )
    _check(parity, plan, "the graph for it")
    return parity


def in_onnx_runtime(graph: bytes) -> Run:
    """Return what runs a serialised graph on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _check(parity: Parity, plan: Plan, what: str) -> None:
    if not parity.fits(plan.budget):
        raise ConfigError(
            f"{what} answers otherwise than '{plan.bundle.manifest.name}': {parity}; need a cosine of "
            f"{plan.budget.cosine} and a shift of {plan.budget.shift} at every length; nothing is kept; try another "
            "--precision"
        )


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="a bundled name or a bundle's folder")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: int8 for an INT8 bundle, else fp16")
    parser.add_argument("--plan", action="store_true", help="print as JSON what would be built; needs no GPU")
    parser.add_argument("--engine-dir", metavar="DIR", help="where engines lie (default: your cache folder)")
    parser.add_argument("--batch", type=positive_int, default=1, metavar="N", help="most utterances at once")
    parser.add_argument(
        "--buckets", type=utterance_seconds, nargs="*", default=BUCKETS_S, metavar="S", help="ends of ranges of lengths"
    )
    parser.add_argument("--workspace-mb", type=positive_int, default=WORKSPACE_MB, metavar="MB", help="for a kernel")
    parser.add_argument("--sound", type=Path, default=SOUND, metavar="FILE", help="what the answers are compared on")
    parser.add_argument("--again", action="store_true", help="build it even if it is there")
    options = parser.parse_args(argv)
    try:
        store = EngineStore(options.engine_dir)
        wanted = Wanted(options.precision, options.batch, options.buckets, options.workspace_mb)
        if not options.plan:
            import_tensorrt()
        plan = make_plan(find_bundle(options.bundle), wanted)
        if options.plan:
            print(json.dumps(plan.to_dict(store), indent=1))
            return 0
        path, record = build_engine(plan, store, options.sound, options.again)
    except EdgeSerError as error:
        print(f"build_trt: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"engine": str(path), **record.receipt}, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
