"""The bundle's graph, run by ONNX Runtime."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from edge_ser.backends.onnx_cut import cut_after
from edge_ser.backends.onnx_providers import CPU, Execution, import_onnxruntime, runtime_name, start_session
from edge_ser.bundle import Bundle, Input, Output
from edge_ser.errors import BackendUnavailableError, BundleError
from edge_ser.graph_io import FRAMES_NAME

if TYPE_CHECKING:
    import onnxruntime

_GRAPH_TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)"}
_ERRORS_ONLY = 3
# A tensor whose numbers lie in another file has a protobuf string field 1 of 8 bytes that says "location".
_EXTERNAL_DATA = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)location")
DATA_SUFFIX = ".data"
"""What is added to the name of a graph's file for that of its weights, where they are too large for one file."""
_EXTERNAL_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
_SIGNED_INTEGERS = "session.qdqisint8allowed"


class OnnxGraph:
    """An ONNX Runtime session whose inputs and outputs are those of the manifest."""

    def __init__(self, bundle: Bundle, threads: int, execution: Execution = CPU) -> None:
        """Open the graph.

        Args:
            bundle: The bundle whose graph `model` is opened.
            threads: Processor threads for one utterance.
            execution: Where it runs.

        Raises:
            BackendUnavailableError: ONNX Runtime is not installed, or does not run there.
            BundleError: The graph does not open or does not fit the manifest.
        """
        graph = bundle.read(bundle.manifest.graphs["model"])
        self._session = open_session(bundle, graph, threads, execution=execution)
        self._bundle = bundle
        self._threads = threads
        self._execution = execution
        _check_fit(self._session, bundle)
        self._fusion = OnnxFusion(bundle, threads)

    @property
    def name(self) -> str:
        """ONNX Runtime and its version."""
        return runtime_name()

    @property
    def provider(self) -> str:
        """Where it runs, and on the CPU with how many threads."""
        return self._execution.told(self._threads)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return the graph's outputs by name.

        Raises:
            BundleError: The graph fails, or answers in another shape than the manifest says.
        """
        return _run(self._session, self._bundle, inputs)

    def fuse(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return the same outputs, but for `frames`, from the `frames` of an earlier run in the place of its audio.

        Raises:
            BundleError: The graph's file has changed since it was opened, needs more than its frames, fails, or
                answers in another shape than the manifest says.
        """
        return self._fusion.fuse(inputs)


class OnnxFusion:
    """The part of a bundle's graph behind its `frames`, on the CPU: it is small, wherever the whole graph runs."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        """Prepare; the part is cut out and opened at the first call, which takes some 0.1 s."""
        self._bundle = bundle
        self._threads = threads
        self._session: onnxruntime.InferenceSession | None = None
        self._lock = threading.Lock()

    def fuse(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return the outputs, but for `frames`, from the `frames` of an earlier run in the place of its audio.

        Raises:
            BundleError: The graph's file has changed since it was opened, needs more than its frames, fails, or
                answers in another shape than the manifest says.
        """
        session = self._opened()
        return _run(session, self._bundle, {node.name: inputs[node.name] for node in session.get_inputs()})

    def _opened(self) -> onnxruntime.InferenceSession:
        with self._lock:
            if self._session is None:
                manifest = self._bundle.manifest
                answers = [output.name for output in manifest.outputs if output.name != FRAMES_NAME]
                audio = {item.name for item in manifest.inputs if item.kind == "audio"}
                # The logits first: whatever else there is, they must follow from the frames.
                answers.sort(key=lambda name: name != "logits")
                graph = cut_after(_read_unchanged(self._bundle), FRAMES_NAME, answers, audio)
                self._session = open_session(self._bundle, graph, self._threads)
            return self._session


def _read_unchanged(bundle: Bundle) -> bytes:
    name = bundle.manifest.graphs["model"]
    graph = bundle.read(name)
    if hashlib.sha256(graph).hexdigest() != bundle.manifest.files[name]:
        raise BundleError(f"{bundle.path(name)} has changed since it was opened; need the same file; load it again")
    return graph


def open_session(
    bundle: Bundle, graph: bytes, threads: int, name: str = "model", execution: Execution = CPU
) -> onnxruntime.InferenceSession:
    """Return a session for a graph.

    Args:
        bundle: Whose it is.
        graph: The serialised graph.
        threads: Threads for one utterance.
        name: What the manifest calls it.
        execution: Where it runs.

    Raises:
        BackendUnavailableError: ONNX Runtime is not installed, does not run there, or is too old for weights in a file
            of their own.
        BundleError: The graph does not open, or keeps weights in a file that the manifest does not list.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    # ONNX Runtime would read such a file without its hash being checked. Newer ones can be sent where there is none.
    options.add_session_config_entry(_EXTERNAL_DATA_FOLDER, os.devnull)
    # Left alone, x86-64 makes signed integers unsigned and aarch64 does not, and each fuses other nodes: their answers
    # then differ in the third decimal. With this they are the same.
    options.add_session_config_entry(_SIGNED_INTEGERS, "0")
    path = bundle.path(bundle.manifest.graphs[name])
    weights = _listed_weights(bundle, name, options)
    if not weights and b"location" in graph and _EXTERNAL_DATA.search(graph):  # the first look is 20 times faster
        raise BundleError(
            f"{path} keeps weights in another file, which no hash protects; need one file; "
            "export the bundle again: python export/to_onnx.py --help"
        )
    try:
        return start_session(graph, options, execution)
    except BackendUnavailableError:
        raise
    except Exception as problem:  # ONNX Runtime's errors share no base but Exception.
        raise BundleError(
            f"{path} does not open in ONNX Runtime ({str(problem).splitlines()[0]}); need an ONNX graph; "
            "export the bundle again: python export/to_onnx.py --help"
        ) from None


def _listed_weights(bundle: Bundle, name: str, options: onnxruntime.SessionOptions) -> list[NDArray[np.uint8]]:
    """Hand the file of a graph's weights to the session, where the manifest lists one, and return what to keep alive.

    Weights in any other file are refused by ONNX Runtime from then on.
    """
    data = bundle.manifest.graphs[name] + DATA_SUFFIX
    if data not in bundle.manifest.files:
        return []
    if not hasattr(options, "add_external_initializers_from_files_in_memory"):
        raise BackendUnavailableError(
            f"{bundle.folder} keeps weights in {data}; need an ONNX Runtime that takes them from there; "
            "pip install --upgrade onnxruntime"
        )
    weights = np.memmap(bundle.path(data), dtype=np.uint8, mode="r")
    options.add_external_initializers_from_files_in_memory([PurePosixPath(data).name], [weights], [weights.size])
    return [weights]


def _run(
    session: onnxruntime.InferenceSession, bundle: Bundle, inputs: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.float32]]:
    given = {node.name for node in session.get_outputs()}
    outputs = [output for output in bundle.manifest.outputs if output.name in given]
    answers = run_session(session, bundle, inputs, [output.name for output in outputs])
    check_answers(bundle, answers)
    return answers


def run_session(
    session: onnxruntime.InferenceSession, bundle: Bundle, inputs: Mapping[str, NDArray[Any]], names: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Return outputs of one of a bundle's graphs by name.

    Raises:
        BundleError: The graph fails.
    """
    try:
        return dict(zip(names, session.run(list(names), dict(inputs)), strict=True))
    except Exception as problem:  # ONNX Runtime's errors share no base but Exception.
        raise BundleError(
            f"the graph of {bundle.folder} fails ({str(problem).splitlines()[0]}); need one that takes any utterance; "
            "export the bundle again: python export/to_onnx.py --help"
        ) from None


def check_answers(bundle: Bundle, answers: Mapping[str, NDArray[np.float32]]) -> None:
    """Refuse answers of another shape than the manifest says.

    Raises:
        BundleError: One is.
    """
    for output in bundle.manifest.outputs:
        if output.name not in answers:
            continue
        values = answers[output.name]
        if len(values.shape) != len(output.shape) or any(
            isinstance(wanted, int) and size != wanted for size, wanted in zip(values.shape, output.shape, strict=True)
        ):
            _misfit(bundle, f"'{output.name}' came in shape {list(values.shape)}", str(list(output.shape)))


def _check_fit(session: onnxruntime.InferenceSession, bundle: Bundle) -> None:
    manifest = bundle.manifest
    try:
        graph_inputs = {node.name: node for node in session.get_inputs()}
        graph_outputs = {node.name: node for node in session.get_outputs()}
    except UnicodeDecodeError as problem:
        _misfit(bundle, f"a name in the graph is no text ({problem})", "text")
    if set(graph_inputs) != {item.name for item in manifest.inputs}:
        _misfit(bundle, f"the graph's inputs are {_list(graph_inputs)}", _list(item.name for item in manifest.inputs))
    if not set(graph_outputs) >= {item.name for item in manifest.outputs}:
        _misfit(bundle, f"the graph's outputs are {_list(graph_outputs)}", _list(o.name for o in manifest.outputs))
    items: list[Input | Output] = [*manifest.inputs, *manifest.outputs]
    for item in items:
        node = graph_inputs.get(item.name) or graph_outputs[item.name]
        if node.type != _GRAPH_TYPES[item.dtype]:
            _misfit(bundle, f"'{item.name}' is {node.type} in the graph", _GRAPH_TYPES[item.dtype])
        if not _shapes_agree(tuple(node.shape or ()), item.shape):
            _misfit(bundle, f"'{item.name}' has shape {list(node.shape)} in the graph", str(list(item.shape)))


def _shapes_agree(graph: tuple[int | str | None, ...], manifest: tuple[int | str, ...]) -> bool:
    # What the exporter could not tell has no number, or no shape at all.
    if not graph:
        return True
    return len(graph) == len(manifest) and all(
        not isinstance(size, int) or size == wanted for size, wanted in zip(graph, manifest, strict=True)
    )


def _list(names: Any) -> str:
    return ", ".join(sorted(names))


def _misfit(bundle: Bundle, got: str, need: str) -> NoReturn:
    raise BundleError(
        f"{bundle.folder}: {got}, the manifest says {need}; export the bundle again: python export/to_onnx.py --help"
    )
