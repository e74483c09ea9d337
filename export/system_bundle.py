"""A published system as a bundle of up to three graphs, each checked against what training's own path says."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from edge_ser.bundle import Bundle, Input, Manifest, Output
from edge_ser.calibration import Calibration
from edge_ser.environment import environment
from edge_ser.errors import ConfigError
from edge_ser.graph_io import FRAMES_NAME
from edge_ser.manifest import TOKENIZER_NAME
from export.split_graphs import LARGEST_FILE_BYTES, SAMPLE_RATE_HZ, GraphChain, Part, batch_of, export_part, files_of

Array = NDArray[Any]

LENGTHS_S = (0.4, 0.5, 1.0, 2.0, 4.0, 8.0)
MIN_DURATION_S = 0.4
ATTRIBUTES = ("arousal", "valence", "dominance")
_TOKENS = (0, 1, 23)
_SMALLEST_ID, _LARGEST_ID = 4, 250


class Graphs(Protocol):
    """What the press has to know of a system."""

    @property
    def name(self) -> str:
        """Name of the bundle."""
        ...

    @property
    def system_name(self) -> str:
        """Which of the published systems."""
        ...

    @property
    def rates(self) -> bool:
        """Whether it says attributes."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Emotions in the order of the logits."""
        ...

    @property
    def temperature(self) -> float:
        """What logits are divided by."""
        ...

    @property
    def max_duration_s(self) -> float:
        """Seconds of a window."""
        ...

    @property
    def max_tokens(self) -> int:
        """Tokens of a transcript."""
        ...

    @property
    def padding_invariant(self) -> bool:
        """Whether utterances of different lengths may stand in one batch."""
        ...

    @property
    def parameters(self) -> dict[str, int]:
        """Parameters by part."""
        ...

    def parts(self) -> Mapping[str, Part]:
        """Return the graphs by name."""
        ...

    def features(self, samples: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return what is computed outside of any graph."""
        ...

    def feature_inputs(self) -> list[Input]:
        """Return how the runtime computes the same."""
        ...

    def reference(self, samples: NDArray[np.float32], ids: Sequence[int]) -> dict[str, NDArray[np.float32]]:
        """Return what training's path makes of one utterance alone."""
        ...


@dataclass(frozen=True)
class Utterance:
    """One made-up utterance."""

    samples: NDArray[np.float32]
    """Shape (n,), at 16 kHz."""
    ids: tuple[int, ...]
    """Tokens of its words; none is no transcript."""


def made_up(seconds: float, tokens: int, rng: np.random.Generator) -> Utterance:
    """Return noise and ids."""
    noise = rng.standard_normal(round(seconds * SAMPLE_RATE_HZ)).astype(np.float32)
    return Utterance(noise * np.float32(0.1), tuple(rng.integers(_SMALLEST_ID, _LARGEST_ID, tokens).tolist()))


def batches(lengths_s: Sequence[float], longest_s: float, together: bool) -> Iterator[list[Utterance]]:
    """Yield utterances of every length alone, then three as one batch; some have words, some one, some none.

    Args:
        lengths_s: Seconds.
        longest_s: What the system takes; longer ones are left out.
        together: Whether those of the batch are of different lengths.
    """
    rng = np.random.default_rng(0)
    fitting = [seconds for seconds in lengths_s if seconds <= longest_s] or [longest_s]
    for place, seconds in enumerate(fitting):
        yield [made_up(seconds, _TOKENS[-1 - place % len(_TOKENS)], rng)]
    chosen = [fitting[-1], fitting[0], fitting[len(fitting) // 2]] if together else [fitting[0]] * 3
    yield [made_up(seconds, tokens, rng) for seconds, tokens in zip(chosen, _TOKENS, strict=True)]


def told(graphs: Graphs, utterances: Sequence[Utterance]) -> dict[str, Array]:
    """Return utterances as one batch of what goes into the graphs."""
    return batch_of(
        [{"audio": u.samples, "text_ids": np.array(u.ids, np.int64), **graphs.features(u.samples)} for u in utterances]
    )


def export_graphs(graphs: Graphs, folder: Path, largest_bytes: int = LARGEST_FILE_BYTES) -> dict[str, Path]:
    """Write every graph into a folder of its own below `folder` and return the files by name."""
    seconds = min(1.0, graphs.max_duration_s)
    rng = np.random.default_rng(1)
    values = told(graphs, [made_up(seconds, 5, rng), made_up(seconds, 0, rng)])
    written = {}
    for name, part in graphs.parts().items():
        path = folder / name / f"{name}.onnx"
        path.parent.mkdir()
        export_part(part, values, path, largest_bytes)
        with torch.no_grad():
            answer = part.module(*(torch.from_numpy(values[key]) for key in part.inputs))
        answers = answer if isinstance(answer, tuple) else (answer,)
        values |= {key: value.numpy() for key, value in zip(part.outputs, answers, strict=True)}
        written[name] = path
    return written


def largest_difference(graphs: Graphs, files: Mapping[str, Path], lengths_s: Sequence[float] = LENGTHS_S) -> float:
    """Return the largest absolute difference of any answer to that of training's path, utterance by utterance."""
    chain = GraphChain(files)
    worst = 0.0
    for utterances in batches(lengths_s, graphs.max_duration_s, graphs.padding_invariant):
        got = chain(told(graphs, utterances))
        for place, utterance in enumerate(utterances):
            for name, expected in graphs.reference(utterance.samples, utterance.ids).items():
                worst = max(worst, float(np.abs(got[name][place] - expected).max()))
    return worst


def build_manifest(graphs: Graphs, shapes: Mapping[str, tuple[int, ...]], about: Mapping[str, Any]) -> Manifest:
    """Return the manifest.

    Args:
        graphs: The system.
        shapes: Of one utterance's answers, batch axis included, by name.
        about: `licence` and `provenance`.
    """
    parts = graphs.parts()
    inputs = [Input("audio", "audio", "float32", (1, "samples"))]
    outputs = [
        Output(name, "float32", shapes[name]) for name in ("logits", "embedding", "attributes") if name in shapes
    ]
    if "text" in parts:
        inputs.append(Input("text_ids", "text_ids", "int64", (1, "tokens"), {"max_tokens": graphs.max_tokens}))
        inputs.append(Input("text_mask", "text_mask", "int64", (1, "tokens")))
        outputs.append(Output(FRAMES_NAME, "float32", (1, "frames", *shapes["speech"][2:])))
    return Manifest(
        name=graphs.name,
        system=graphs.system_name,
        precision="fp32",
        labels=graphs.labels,
        attributes=ATTRIBUTES if graphs.rates else (),
        min_duration_s=min(MIN_DURATION_S, graphs.max_duration_s),
        max_duration_s=graphs.max_duration_s,
        graphs={name: f"{name}.onnx" for name in parts},
        inputs=(*inputs, *graphs.feature_inputs()),
        outputs=tuple(outputs),
        calibration=Calibration(graphs.temperature, 0.15, ()),
        licence=str(about["licence"]),
        training_data=(),
        provenance={
            **about["provenance"],
            "parameters": sum(graphs.parameters.values()),
            "parameters_by_part": graphs.parameters,
            "environment": environment("torch", "transformers", "onnxruntime", "numpy"),
        },
    )


def export_system(
    graphs: Graphs,
    out: Path,
    about: Mapping[str, Any],
    tokenizer: bytes | None,
    tolerance: float,
    lengths_s: Sequence[float] = LENGTHS_S,
    largest_bytes: int = LARGEST_FILE_BYTES,
) -> float:
    """Write the bundle and return the largest difference to PyTorch.

    Args:
        graphs: The system.
        out: The bundle's folder.
        about: `licence` and `provenance`.
        tokenizer: Content of tokenizer.json; None where the system reads no text.
        tolerance: Largest difference allowed.
        lengths_s: Seconds at which the graphs are compared.
        largest_bytes: What one file may hold; weights of larger graphs lie beside them.

    Raises:
        ConfigError: The graphs differ from PyTorch by more than `tolerance`; nothing is written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
        paths = export_graphs(graphs, Path(folder), largest_bytes)
        worst = largest_difference(graphs, paths, lengths_s)
        if not worst <= tolerance:
            raise ConfigError(
                f"ONNX differs from PyTorch by {worst:.2e}; need at most {tolerance:.0e}; nothing written"
            )
        one = GraphChain(paths)(told(graphs, [made_up(min(1.0, graphs.max_duration_s), 3, np.random.default_rng(2))]))
        provenance = {**about["provenance"], "onnx_largest_difference": worst}
        manifest = build_manifest(
            graphs, {name: value.shape for name, value in one.items()}, {**about, "provenance": provenance}
        )
        files: dict[str, bytes | Path] = {}
        for path in paths.values():
            files |= files_of(path)
        if tokenizer is not None:
            files[TOKENIZER_NAME] = tokenizer
        Bundle.write(out, manifest, files)
    return worst
