"""Turn a large system's fp32 graphs into dynamic INT8 with a receipt, or into nothing; see `export.dynamic_int8`."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ser.bundle import Bundle
from edge_ser.corpus import read_manifest
from edge_ser.environment import environment
from edge_ser.errors import ConfigError
from edge_ser.frontend import FrontEnd
from edge_ser.manifest import TOKENIZER_NAME
from edge_ser.metrics import bootstrap_interval
from edge_ser.sources import read_samples
from export.card import render_card
from export.dynamic_int8 import block_ends, dynamic_blocks, quantise_dynamic, with_outputs
from export.material import crop, progress
from export.receipt import cosine, count_operators, open_session, sqnr_db
from export.split_graphs import ORDER, SAMPLE_RATE_HZ, GraphChain, files_of
from export.trial import ua
from export.trt_parity import LENGTHS_S

Array = NDArray[Any]
Blocks = dict[str, dict[str, list[str]]]

CLIPS = 2
"""Utterances of each length, every second one with words."""
WHOLE_CLIPS = 120
"""Labelled clips over which the UA is counted, where there is a corpus."""
SPEED_S = 3.0
SPEED_ROUNDS, MOST_ROUNDS, SPEED_TIME_S = 3, 200, 1.0
_WORDS = "I did not expect that at all, and now look what has become of it"


@dataclass(frozen=True)
class Sound:
    """What a system is told to find out what integers cost."""

    lengths: dict[float, list[dict[str, Array]]]
    """Inputs by seconds."""
    whole: list[dict[str, Array]]
    """Whole labelled clips; none where there is no corpus."""
    truth: NDArray[np.int64]
    """Their label indices."""


def quantize_split(bundle: Bundle, data: Path | None, out: Path, budget: Any) -> dict[str, Any]:
    """Write the INT8 bundle and return its receipt.

    Args:
        bundle: An fp32 bundle of several graphs.
        data: The corpora's folder, whose clips measure the harm; None takes noise, which suits random weights alone.
        out: The INT8 bundle's folder.
        budget: `cosine`, the smallest allowed, `shift`, the largest mean change of a probability, and `ua_points`,
            the largest loss of UA, which is counted where there is `data`.

    Raises:
        ConfigError: No choice of blocks is within the budget; nothing is written.
    """
    sound = _sound(bundle, data)
    sources = {name: bundle.path(bundle.manifest.graphs[name]) for name in ORDER if name in bundle.manifest.graphs}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".int8-") as folder:
        results = {name: Path(folder) / path.name for name, path in sources.items()}
        press = _Press(sources, results, sound)
        rows = press.within(budget)
        receipt = press.receipt(rows)
        _write(bundle, out, results, receipt)
    return receipt


def quantize_large(bundle: Bundle, data: Path | None, out: Path, budget: Any) -> str:
    """Do what `quantize_split` does and say it in one line."""
    receipt = quantize_split(bundle, data, out, budget)
    floats = [row["name"] for row in receipt["blocks"] if row["precision"] != "int8"]
    return (
        f"{out}: smallest cosine {min(receipt['cosine'].values()):.4f}, agreement {receipt['agreement']:.3f}, "
        f"{receipt['integer_operators']} integer and {receipt['float_operators']} float products, "
        f"{receipt['speed_ratio']:.2f}x as fast, {receipt['bytes_before'] / 1e6:.1f} -> "
        f"{receipt['bytes_after'] / 1e6:.1f} MB; back to float: {', '.join(floats) or 'nothing'}"
    )


class _Press:
    """Quantises the graphs of one bundle and measures what that does."""

    def __init__(self, sources: Mapping[str, Path], results: Mapping[str, Path], sound: Sound) -> None:
        self._sources, self._results, self._sound = sources, results, sound
        self._blocks: Blocks = {name: dynamic_blocks(path) for name, path in sources.items()}
        self._before, self._logits_before = self._answers(sources)
        self._after, self._logits_after = self._before, self._logits_before

    def within(self, budget: Any) -> list[dict[str, Any]]:
        """Quantise everything, then put the most harmful block back to float until the budget holds."""
        floats: set[str] = set()
        changed = set(self._sources)
        while True:
            self._quantise(changed, floats)
            self._after, self._logits_after = self._answers(self._results)
            rows = self._rows(floats)
            cosines, shifts = self._costs()
            loss = self._loss_points()
            within = min(cosines.values()) >= budget.cosine and max(shifts.values()) <= budget.shift
            if within and loss <= budget.ua_points:
                return rows
            harmful = sorted((row for row in rows if row["precision"] == "int8"), key=lambda row: row["sqnr_db"])
            if not harmful:
                named = ", ".join(f"{row['name']} ({row['cosine']})" for row in rows) or "none"
                raise ConfigError(
                    f"no INT8 graphs within cosine {budget.cosine}, probability shift {budget.shift} and "
                    f"{budget.ua_points} points (got {min(cosines.values()):.4f}, {max(shifts.values()):.4f} and "
                    f"{loss:.2f}); blocks: {named}"
                )
            floats.add(harmful[0]["name"])
            changed = {harmful[0]["name"].partition("/")[0]}

    def receipt(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return what is known of the result."""
        cosines, shifts = self._costs()
        counts = [count_operators(path) for path in self._results.values()]
        return {
            "cosine": {f"{seconds:g}": round(value, 6) for seconds, value in cosines.items()},
            "probability_shift": {f"{seconds:g}": round(value, 5) for seconds, value in shifts.items()},
            "blocks": rows,
            "ua_before": self._score(self._logits_before),
            "ua_after": self._score(self._logits_after),
            "agreement": round(float(np.mean(self._logits_before.argmax(1) == self._logits_after.argmax(1))), 4),
            "bytes_before": _bytes(self._sources),
            "bytes_after": _bytes(self._results),
            "speed_ratio": round(self._speed_ratio(), 3),
            "integer_operators": sum(integer for integer, _ in counts),
            "float_operators": sum(floating for _, floating in counts),
            "environment": environment("onnxruntime", "onnx", "numpy"),
        }

    def _quantise(self, graphs: set[str], floats: set[str]) -> None:
        for name in graphs:
            blocks = self._blocks[name].items()
            nodes = [node for block, own in blocks if f"{name}/{block}" not in floats for node in own]
            quantise_dynamic(self._sources[name], self._results[name], nodes)

    def _answers(self, graphs: Mapping[str, Path]) -> tuple[dict[float, list[dict[str, Array]]], Array]:
        """Return every value by seconds, and logits (n, labels) of the labelled clips, or of all without any."""
        chain = GraphChain(graphs)
        said = {seconds: [chain(inputs) for inputs in items] for seconds, items in self._sound.lengths.items()}
        logits = [chain(inputs)["logits"] for inputs in progress(self._sound.whole, "clip")]
        logits = logits or [answer["logits"] for answers in said.values() for answer in answers]
        return said, np.concatenate(logits).astype(np.float64)

    def _rows(self, floats: set[str]) -> list[dict[str, Any]]:
        """Return each block's cosine and signal-to-noise where its last product ends, with all others quantised too."""
        rows = []
        # Of each length one with words.
        told = [{**items[-1], **self._before[seconds][-1]} for seconds, items in self._sound.lengths.items()]
        for name, blocks in self._blocks.items():
            ends = block_ends(self._sources[name], blocks)
            if not ends:
                continue
            reference, got = (_values(graphs[name], ends, told) for graphs in (self._sources, self._results))
            rows += [
                {
                    "name": f"{name}/{block}",
                    "cosine": round(cosine(reference[block], got[block]), 6),
                    "sqnr_db": round(sqnr_db(reference[block], got[block]), 2),
                    "precision": "fp32" if f"{name}/{block}" in floats else "int8",
                }
                for block in ends
            ]
        return rows

    def _costs(self) -> tuple[dict[float, float], dict[float, float]]:
        cosines, shifts = {}, {}
        for seconds, before in self._before.items():
            after = self._after[seconds]
            cosines[seconds] = cosine(
                *([said["embedding"][0].astype(float) for said in side] for side in (before, after))
            )
            shifts[seconds] = float(np.mean(np.abs(_softmax(before) - _softmax(after))))
        return cosines, shifts

    def _loss_points(self) -> float:
        truth = self._sound.truth
        return 100.0 * (ua(truth, self._logits_before) - ua(truth, self._logits_after)) if len(truth) else 0.0

    def _score(self, logits: Array) -> dict[str, Any] | None:
        truth = self._sound.truth
        if not len(truth):
            return None
        low, high = bootstrap_interval(ua, [truth, logits])
        return {"ua": round(ua(truth, logits), 4), "interval": [round(low, 4), round(high, 4)], "clips": len(truth)}

    def _speed_ratio(self) -> float:
        """Return how many times as fast the integers are on one thread: the median over pairs of runs in turn."""
        chains = [GraphChain(graphs) for graphs in (self._sources, self._results)]
        nearest = min(self._sound.lengths, key=lambda seconds: abs(seconds - SPEED_S))
        inputs = self._sound.lengths[nearest][-1]
        times: list[list[float]] = [[], []]
        while len(times[0]) <= SPEED_ROUNDS or (sum(times[0]) < SPEED_TIME_S and len(times[0]) <= MOST_ROUNDS):
            for chain, taken in zip(chains, times, strict=True):
                # Of the processor, not of the clock: one thread does all, and others may be at work.
                start = time.process_time()
                chain(inputs)
                taken.append(time.process_time() - start)
        return float(np.median(np.array(times[0][1:]) / np.array(times[1][1:])))


def _sound(bundle: Bundle, data: Path | None) -> Sound:
    front_end, labels = FrontEnd(bundle), bundle.manifest.labels
    longest = bundle.manifest.max_duration_s
    lengths = [seconds for seconds in LENGTHS_S if seconds <= longest] or [longest]
    rng = np.random.default_rng(0)
    if data is None:
        noise = 0.1 * rng.standard_normal((CLIPS, int(max(lengths) * SAMPLE_RATE_HZ))).astype(np.float32)
        clips = [(samples, _WORDS, -1) for samples in noise]
    else:
        clips = _labelled(data, labels, rng)

    def told(samples: NDArray[np.float32], words: str | None) -> dict[str, Array]:
        return _with_masks(front_end.inputs(samples, words))

    by_length = {
        seconds: [
            told(crop(samples, seconds), words if place % 2 else None)
            for place, (samples, words, _) in enumerate(clips[:CLIPS])
        ]
        for seconds in lengths
    }
    known = [clip for clip in clips if clip[2] >= 0]
    whole = [told(samples[: int(longest * SAMPLE_RATE_HZ)], words) for samples, words, _ in known]
    return Sound(by_length, whole, np.array([truth for _, _, truth in known], dtype=np.int64))


def _labelled(
    data: Path, labels: Sequence[str], rng: np.random.Generator
) -> list[tuple[NDArray[np.float32], str, int]]:
    """Return samples, words and label index of clips of the corpora."""
    known = [clip for clip in read_manifest(data / "speech" / "manifest.csv") if clip.emotion in labels]
    if not known:
        raise ConfigError(f"{data} has no clip of {', '.join(labels)}; need some; leave --calibration out for noise")
    chosen = [known[int(place)] for place in rng.permutation(len(known))[:WHOLE_CLIPS]]
    return [(read_samples(clip.path), clip.transcript, labels.index(clip.emotion)) for clip in chosen]


def _with_masks(inputs: dict[str, Array]) -> dict[str, Array]:
    masks = {
        f"{name}_mask": np.ones(inputs[name].shape[:2], np.float32) for name in ("audio", "mfcc") if name in inputs
    }
    return inputs | masks


def _values(graph: Path, ends: Mapping[str, str], told: Sequence[Mapping[str, Array]]) -> dict[str, list[Array]]:
    """Return the values inside a graph by block, for each of the inputs."""
    probe = graph.with_name(f".probe-{graph.name}")
    try:
        with_outputs(graph, set(ends.values()), probe)
        session = open_session(probe)
    finally:
        probe.unlink(missing_ok=True)
    names = [node.name for node in session.get_inputs()]
    found: dict[str, list[Array]] = {block: [] for block in ends}
    for item in told:
        values = session.run(list(ends.values()), {name: item[name] for name in names})
        for block, value in zip(ends, values, strict=True):
            found[block].append(value.astype(np.float64).ravel())
    return found


def _softmax(said: Sequence[Mapping[str, Array]]) -> Array:
    logits = np.stack([answer["logits"][0].astype(np.float64) for answer in said])
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    shares: Array = exponentials / exponentials.sum(1, keepdims=True)
    return shares


def _bytes(graphs: Mapping[str, Path]) -> int:
    return sum(path.stat().st_size for graph in graphs.values() for path in files_of(graph).values())


def _write(bundle: Bundle, out: Path, graphs: Mapping[str, Path], receipt: dict[str, Any]) -> None:
    manifest = replace(bundle.manifest, name=f"{bundle.manifest.name}-int8", precision="int8")
    files: dict[str, bytes | Path] = {
        "receipt.json": (json.dumps(receipt, indent=1) + "\n").encode(),
        "MODEL_CARD.md": render_card(manifest, receipt).encode(),
    }
    for graph in graphs.values():
        files |= files_of(graph)
    if TOKENIZER_NAME in bundle.manifest.files:
        files[TOKENIZER_NAME] = bundle.path(TOKENIZER_NAME)
    Bundle.write(out, manifest, files)
