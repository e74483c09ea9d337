"""The bundle's graph on the CPU, run by ONNX Runtime."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from edge_ser.backends.onnx_cut import cut_after
from edge_ser.bundle import Bundle, Input, Output
from edge_ser.errors import BackendUnavailableError, BundleError
from edge_ser.graph_io import FRAMES_NAME

if TYPE_CHECKING:
    import onnxruntime

_GRAPH_TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)"}
_ERRORS_ONLY = 3
# A tensor whose numbers lie in another file has a protobuf string field 1 of 8 bytes that says "location".
_EXTERNAL_DATA = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)location")
_EXTERNAL_DATA_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxGraph:
    """An ONNX Runtime session whose inputs and outputs are those of the manifest."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        """Open the graph.

        Args:
            bundle: The bundle whose graph `model` is opened.
            threads: Threads for one utterance.

        Raises:
            BackendUnavailableError: ONNX Runtime is not installed.
            BundleError: The graph does not open or does not fit the manifest.
        """
        self._session = _open_session(bundle, bundle.read(bundle.manifest.graphs["model"]), threads)
        self._fusion: onnxruntime.InferenceSession | None = None
        self._fusion_lock = threading.Lock()
        self._bundle = bundle
        self._outputs = [output.name for output in bundle.manifest.outputs]
        self._threads = threads
        _check_fit(self._session, bundle)

    @property
    def name(self) -> str:
        """ONNX Runtime and its version."""
        import onnxruntime

        return f"onnxruntime {onnxruntime.__version__}"

    @property
    def provider(self) -> str:
        """CPU and the number of threads."""
        return f"CPU, {self._threads} thread{'s' if self._threads > 1 else ''}"

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return the graph's outputs by name.

        Raises:
            BundleError: The graph fails, or answers in another shape than the manifest says.
        """
        return _run(self._session, self._bundle, inputs)

    def fuse(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return the same outputs, but for `frames`, from the `frames` of an earlier run in the place of its audio.

        The part of the graph behind `frames` is cut out and opened at the first call, which takes some 0.1 s.

        Raises:
            BundleError: The graph's file has changed since it was opened, needs more than its frames, fails, or
                answers in another shape than the manifest says.
        """
        session = self._opened_fusion()
        return _run(session, self._bundle, {node.name: inputs[node.name] for node in session.get_inputs()})

    def _opened_fusion(self) -> onnxruntime.InferenceSession:
        with self._fusion_lock:
            if self._fusion is None:
                answers = [name for name in self._outputs if name != FRAMES_NAME]
                audio = {item.name for item in self._bundle.manifest.inputs if item.kind == "audio"}
                # The logits first: whatever else there is, they must follow from the frames.
                answers.sort(key=lambda name: name != "logits")
                graph = cut_after(_read_unchanged(self._bundle), FRAMES_NAME, answers, audio)
                self._fusion = _open_session(self._bundle, graph, self._threads)
            return self._fusion


def _read_unchanged(bundle: Bundle) -> bytes:
    name = bundle.manifest.graphs["model"]
    graph = bundle.read(name)
    if hashlib.sha256(graph).hexdigest() != bundle.manifest.files[name]:
        raise BundleError(f"{bundle.path(name)} has changed since it was opened; need the same file; load it again")
    return graph


def _open_session(bundle: Bundle, graph: bytes, threads: int) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
    except ImportError as problem:
        raise BackendUnavailableError(
            f"onnxruntime is not importable here ({problem}); need it for every model; pip install onnxruntime"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    # ONNX Runtime would read such a file without its hash being checked. Newer ones can be sent where there is none.
    options.add_session_config_entry(_EXTERNAL_DATA_FOLDER, os.devnull)
    path = bundle.path(bundle.manifest.graphs["model"])
    if b"location" in graph and _EXTERNAL_DATA.search(graph):  # the first look is 20 times faster
        raise BundleError(
            f"{path} keeps weights in another file, which no hash protects; need one file; "
            "export the bundle again: python export/to_onnx.py --help"
        )
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # ONNX Runtime's errors share no base but Exception.
        raise BundleError(
            f"{path} does not open in ONNX Runtime ({str(problem).splitlines()[0]}); need an ONNX graph; "
            "export the bundle again: python export/to_onnx.py --help"
        ) from None


def _run(
    session: onnxruntime.InferenceSession, bundle: Bundle, inputs: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.float32]]:
    given = {node.name for node in session.get_outputs()}
    outputs = [output for output in bundle.manifest.outputs if output.name in given]
    try:
        answers = session.run([output.name for output in outputs], dict(inputs))
    except Exception as problem:  # ONNX Runtime's errors share no base but Exception.
        raise BundleError(
            f"the graph of {bundle.folder} fails ({str(problem).splitlines()[0]}); need one that takes any utterance; "
            "export the bundle again: python export/to_onnx.py --help"
        ) from None
    for output, values in zip(outputs, answers, strict=True):
        if len(values.shape) != len(output.shape) or any(
            isinstance(wanted, int) and size != wanted for size, wanted in zip(values.shape, output.shape, strict=True)
        ):
            _misfit(bundle, f"'{output.name}' came in shape {list(values.shape)}", str(list(output.shape)))
    return {output.name: values for output, values in zip(outputs, answers, strict=True)}


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
