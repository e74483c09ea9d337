"""The press against optimum's exporter: both write the same random encoder of true size, both graphs hear the same.

    python -m venv build/optimum && build/optimum/bin/pip install -e ".[optimum]"
    build/optimum/bin/python benchmarks/optimum_check.py [--encoder facebook/wav2vec2-xls-r-300m] [--tiny]

optimum-onnx needs transformers 4, hence the environment of its own. Graphs are written by other code (optimum traces
transformers' own forward pass, the press the workshop's) and run by ONNX Runtime on utterances of three lengths; what
is printed is the largest difference between the last layers. With --tiny, encoders of two layers: seconds instead of
minutes. Nothing is downloaded. Figures go to benchmarks/results/optimum-check.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
import onnxruntime
import torch
from torch import nn

from edge_ser.environment import environment
from export.split_graphs import export_part
from train.encoders import Encoder, LogMelEncoder, WholeEncoder, load_encoder
from train.encoders.text import TextEncoder
from train.whisper_graph import GraphWhisper

RESULTS = ROOT / "benchmarks" / "results" / "optimum-check.json"
ENCODERS = {
    "facebook/wav2vec2-xls-r-300m": "xls-r",
    "xlm-roberta-base": "xlm-roberta",
    "facebook/hubert-base-ls960": "hubert-base",
    "facebook/wav2vec2-base-960h": "wav2vec2-base",
    "roberta-large": "roberta",
    "microsoft/wavlm-large": "wavlm",
    "openai/whisper-medium": "whisper",
}
"""Encoders of the five systems at paper size, and the tiny stand-in of each."""
SECONDS = (0.5, 1.0, 3.0)
TOKENS = (3, 16, 60)
WHISPER_S = 30.0


@dataclass(frozen=True)
class Whole:
    """An encoder as the press exports it."""

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...] = ("frames", "mask")

    @property
    def free(self) -> dict[str, dict[int, str]]:
        """Every axis of time and batch."""
        return {name: {0: "batch", 1: "time"} for name in (*self.inputs, *self.outputs)}


def ours(encoder: Encoder, path: Path) -> onnxruntime.InferenceSession:
    """Return a session of the press's graph."""
    if isinstance(encoder, LogMelEncoder):
        encoder = GraphWhisper(encoder)
    example = inputs_of(encoder, 1)
    export_part(Whole(WholeEncoder(encoder).eval(), tuple(example)), example, path)
    return session(path)


def theirs(encoder: Encoder, folder: Path) -> onnxruntime.InferenceSession:
    """Return a session of optimum's graph."""
    from optimum.exporters.onnx import main_export

    is_whisper = isinstance(encoder, LogMelEncoder)
    whole = _with_decoder(encoder.model) if is_whisper else encoder.model
    whole.save_pretrained(folder / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main_export(
            str(folder / "model"),
            folder / "onnx",
            task="automatic-speech-recognition" if is_whisper else "feature-extraction",
            opset=17,
            do_validation=False,
            no_post_process=True,
        )
    return session(folder / "onnx" / ("encoder_model.onnx" if is_whisper else "model.onnx"))


def _with_decoder(encoder: Any) -> nn.Module:
    # optimum exports whole Whispers alone; the decoder is as small as it gets.
    from transformers import WhisperForConditionalGeneration

    config = encoder.config
    config.decoder_layers, config.decoder_ffn_dim, config.decoder_attention_heads = 1, 64, 1
    whole = WhisperForConditionalGeneration(config)
    whole.model.encoder.load_state_dict(encoder.state_dict())
    return whole


def session(path: Path) -> onnxruntime.InferenceSession:
    """Return a session on one thread of the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def inputs_of(encoder: Encoder, place: int) -> dict[str, np.ndarray]:
    """Return two utterances of one of the lengths, as the press's graph is told."""
    rng = np.random.default_rng(place)
    if isinstance(encoder, TextEncoder):
        ids = rng.integers(4, 250, (2, TOKENS[place]))
        return {"ids": ids, "ids_mask": np.ones(ids.shape, np.float32)}
    audio = 0.1 * rng.standard_normal((2, round(SECONDS[place] * 16_000))).astype(np.float32)
    return {"audio": audio, "audio_mask": np.ones_like(audio)}


def translated(encoder: Encoder, told: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the same utterances as optimum's graph is told: after transformers' own preparation."""
    if isinstance(encoder, TextEncoder):
        return {"input_ids": told["ids"], "attention_mask": np.ones_like(told["ids"])}
    audio = told["audio"]
    if isinstance(encoder, LogMelEncoder):
        features = encoder.features(list(audio), sampling_rate=16_000, return_tensors="np")
        return {"input_features": features["input_features"].astype(np.float32)}
    if getattr(encoder, "normalise", False):
        audio = (audio - audio.mean(1, keepdims=True)) / np.sqrt(audio.var(1, keepdims=True) + 1e-7)
    return {"input_values": audio.astype(np.float32)}


def difference(source: str) -> dict[str, object]:
    """Return the largest difference between both graphs of an encoder, over all lengths."""
    encoder = load_encoder(source, whisper_pad_s=WHISPER_S if "whisper" in source else 0.0)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "ours").mkdir()
        other = theirs(encoder, Path(folder))
        own = ours(encoder, Path(folder) / "ours" / "encoder.onnx")
        worst, largest = 0.0, 0.0
        for place in range(len(SECONDS)):
            told = inputs_of(encoder, place)
            frames, _ = own.run(None, told)
            known = {node.name for node in other.get_inputs()}
            given = {name: value for name, value in translated(encoder, told).items() if name in known}
            (expected,) = other.run(["last_hidden_state"], given)
            # The mask of a clip followed by silence leaves its own frames alone to be compared.
            valid = np.abs(frames).sum(-1) > 0
            worst = max(worst, float(np.abs(frames - expected)[valid].max()))
            largest = max(largest, float(np.abs(expected).max()))
    return {"encoder": source, "largest_difference": worst, "largest_value": round(largest, 2)}


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", choices=tuple(ENCODERS), action="append", help="only this one")
    parser.add_argument("--tiny", action="store_true", help="two random layers of each family")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rows = []
    for name in options.encoder or ENCODERS:
        rows.append(difference(f"tiny:{ENCODERS[name]}" if options.tiny else f"random:{name}"))
        row = rows[-1]
        print(f"{row['encoder']:<40} {row['largest_difference']:.1e} of {row['largest_value']}", flush=True)
    if not options.tiny and options.encoder is None:
        about = environment("optimum", "optimum-onnx", "transformers", "torch", "onnxruntime")
        RESULTS.write_text(json.dumps({"environment": about, "encoders": rows}, indent=1) + "\n", encoding="utf-8")
    return 0 if all(float(str(row["largest_difference"])) < 1e-3 for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
