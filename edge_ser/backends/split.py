"""A large system's graphs: speech, text and fusion, with the text's features kept for the next time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_ser.backends.onnx_graph import check_answers, open_session, run_session
from edge_ser.backends.onnx_providers import CPU, Execution, runtime_name
from edge_ser.bundle import Bundle
from edge_ser.errors import BundleError
from edge_ser.graph_io import FRAMES_NAME

if TYPE_CHECKING:
    import onnxruntime

Arrays = dict[str, NDArray[Any]]

KEPT_TEXTS = 32
"""Latest sentences whose features are kept: each is read by the text graph once."""

_MASK = "_mask"


class SplitGraphs:
    """Runs `speech`, then `text` where there are words, then `fusion`; several threads may share it."""

    def __init__(self, bundle: Bundle, threads: int, execution: Execution = CPU) -> None:
        """Open the graphs.

        Args:
            bundle: The bundle whose graphs `speech`, `fusion` and perhaps `text` are opened.
            threads: Threads for one utterance.
            execution: Where they run.

        Raises:
            BackendUnavailableError: ONNX Runtime is not installed, too old, or does not run there.
            BundleError: A graph does not open or does not fit the others.
        """
        graphs = bundle.manifest.graphs
        self._bundle = bundle
        self._threads = threads
        self._execution = execution
        self._sessions = {
            name: open_session(bundle, bundle.read(graphs[name]), threads, name, execution) for name in graphs
        }
        self._texts: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._texts_lock = threading.Lock()
        self._keeps_frames = any(output.name == FRAMES_NAME for output in bundle.manifest.outputs)
        _check_chain(bundle, self._sessions)

    @property
    def name(self) -> str:
        """ONNX Runtime and its version."""
        return runtime_name()

    @property
    def provider(self) -> str:
        """Where they run, and on the CPU with how many threads."""
        return self._execution.told(self._threads)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return the answers by name, and `frames` where the manifest lists them.

        Raises:
            BundleError: A graph fails, or answers in another shape than the manifest says.
        """
        speech = self._sessions["speech"]
        heard = self._run(speech, _with_masks(speech, inputs))
        if not self._keeps_frames:
            return self._fused({**inputs, **heard})
        # Masked frames have no say in the fusion, and without them no mask need be kept.
        frames = heard["speech"][:, heard["speech_mask"][0] > 0]
        return {**self._fused({**inputs, "speech": frames}), FRAMES_NAME: frames}

    def fuse(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return the same answers, but for `frames`, from the `frames` of an earlier run.

        Raises:
            BundleError: A graph fails, or answers in another shape than the manifest says.
        """
        return self._fused({**inputs, "speech": inputs[FRAMES_NAME]})

    def _fused(self, told: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        fusion = self._sessions["fusion"]
        text = {"text": self._text(told)} if "text" in self._sessions else {}
        answers = self._run(fusion, _with_masks(fusion, {**told, **text}))
        check_answers(self._bundle, answers)
        return answers

    def _text(self, told: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the features of the words (1, tokens, ...), read once; zeros where there are none."""
        inputs = {item.kind: told[item.name] for item in self._bundle.manifest.inputs if item.kind.startswith("text")}
        if not inputs["text_mask"].any():
            node = next(node for node in self._sessions["fusion"].get_inputs() if node.name == "text")
            return np.zeros((1, inputs["text_mask"].shape[1], *node.shape[2:]), np.float32)
        key = inputs["text_ids"].tobytes() + inputs["text_mask"].tobytes()
        with self._texts_lock:
            if key in self._texts:
                self._texts.move_to_end(key)
                return self._texts[key]
        text = self._run(self._sessions["text"], inputs)["text"]
        with self._texts_lock:
            self._texts[key] = text
            while len(self._texts) > KEPT_TEXTS:
                self._texts.popitem(last=False)
        return text

    def _run(self, session: onnxruntime.InferenceSession, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        return run_session(session, self._bundle, inputs, [node.name for node in session.get_outputs()])


def _with_masks(session: onnxruntime.InferenceSession, told: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return what a graph takes; an utterance alone has no padding, so that masks that are not told are ones."""
    inputs: Arrays = {}
    for node in session.get_inputs():
        if node.name in told:
            inputs[node.name] = told[node.name]
        else:
            inputs[node.name] = np.ones(told[node.name.removesuffix(_MASK)].shape[:2], np.float32)
    return inputs


def _check_chain(bundle: Bundle, sessions: Mapping[str, onnxruntime.InferenceSession]) -> None:
    known = {item.name for item in bundle.manifest.inputs}
    for name in ("speech", "text", "fusion"):
        if name not in sessions:
            continue
        wanted = {node.name for node in sessions[name].get_inputs()}
        missing = sorted(name for name in wanted - known if name.removesuffix(_MASK) not in known)
        if missing:
            raise _misfit(bundle, f"the graph '{name}' takes {', '.join(missing)}, which nothing gives")
        known |= {node.name for node in sessions[name].get_outputs()}
    absent = sorted({output.name for output in bundle.manifest.outputs} - known - {FRAMES_NAME})
    if absent:
        raise _misfit(bundle, f"no graph answers with {', '.join(absent)}")


def _misfit(bundle: Bundle, got: str) -> BundleError:
    return BundleError(
        f"{bundle.folder}: {got}; need graphs that fit the manifest; "
        "export the bundle again: python export/to_onnx.py --help"
    )
