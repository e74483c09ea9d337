"""What a pretrained speech encoder makes of a clip: the pooled vector that a student's embedding learns to predict.

Only the vectors are used, in training; none of the encoder's tensors enter a student.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from edge_ser.errors import ConfigError
from train.audio_cache import AudioCache
from train.augment import SAMPLE_RATE_HZ

LAYERS = (2, 3)
"""Layers that are pooled; the middle ones carry the most emotion."""


def teacher_vectors(
    encoder_folder: Path, paths: Sequence[Path], audio: AudioCache, cache: Path
) -> dict[Path, NDArray[np.float32]]:
    """Return one vector a clip: mean and deviation over time of the chosen layers, standardised over the clips.

    Args:
        encoder_folder: A Whisper encoder as transformers saves it.
        paths: The clips that will be trained on; they alone set mean and deviation.
        audio: Where the clips' samples are.
        cache: Folder in which the vectors are kept for the next time.

    Raises:
        ConfigError: The folder holds no such encoder, or one with tensors missing.
    """
    ordered = sorted(set(paths))
    key = hashlib.sha256((encoder_folder / "model.safetensors").read_bytes())
    key.update(json.dumps([str(path) for path in ordered]).encode())
    target = cache / f"teacher-{key.hexdigest()[:16]}.npy"
    if not target.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        np.save(target, _encode(encoder_folder, ordered, audio))
    vectors = np.load(target)
    standard = (vectors - vectors.mean(0)) / (vectors.std(0) + 1e-6)
    return dict(zip(ordered, standard.astype(np.float32), strict=True))


@torch.no_grad()
def _encode(folder: Path, paths: Sequence[Path], audio: AudioCache) -> NDArray[np.float32]:
    encoder = _open_encoder(folder)
    features = WhisperFeatureExtractor.from_pretrained(folder)
    rows = []
    for path in tqdm(paths, desc="teacher", unit="clip", disable=not sys.stderr.isatty()):
        mel = features(audio[path], sampling_rate=SAMPLE_RATE_HZ, padding="do_not_pad", return_tensors="pt")
        layers = hidden_states(encoder, mel.input_features)
        pooled = [statistic for layer in LAYERS for statistic in (layers[layer].mean(1), layers[layer].std(1))]
        rows.append(torch.cat(pooled, dim=-1)[0].numpy())
    return np.array(rows, dtype=np.float32)


def hidden_states(encoder: WhisperEncoder, mel: Tensor) -> list[Tensor]:
    """Return the input of the first layer and the output of each, (1, T, D), without padding to 30 s."""
    x = torch.nn.functional.gelu(encoder.conv1(mel))
    x = torch.nn.functional.gelu(encoder.conv2(x)).transpose(1, 2)
    states = [x + encoder.embed_positions.weight[: x.shape[1]]]
    for layer in encoder.layers:
        output = layer(states[-1], None)
        states.append(output[0] if isinstance(output, tuple) else output)
    return states


class FrameTeacher:
    """A Whisper encoder's layers for one wave, two neighbouring frames averaged: 25 a second."""

    def __init__(self, folder: Path, layers: Sequence[int] = LAYERS) -> None:
        """Open the encoder.

        Args:
            folder: A Whisper encoder as transformers saves it.
            layers: Layers whose outputs are given, side by side.

        Raises:
            ConfigError: The folder holds no such encoder, or one with tensors missing.
        """
        self._encoder = _open_encoder(folder)
        self._encoder.layers = self._encoder.layers[: max(layers)]
        self._layers = tuple(layers)
        features = WhisperFeatureExtractor.from_pretrained(folder)
        self._filters = torch.tensor(features.mel_filters.T, dtype=torch.float32)
        self._window = torch.hann_window(features.n_fft)
        self._hop_samples = features.hop_length
        weights = (folder / "model.safetensors").read_bytes()
        self.digest = hashlib.sha256(weights + json.dumps([self._layers, "pairs"]).encode()).hexdigest()
        self.size = len(self._layers) * self._encoder.config.d_model

    @torch.no_grad()
    def __call__(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return frames, float32 (samples / 640, layers x width), of a wave at 16 kHz."""
        with torch.autocast("cpu", torch.bfloat16):
            states = hidden_states(self._encoder, self._mel(torch.from_numpy(np.ascontiguousarray(wave))))
        chosen = torch.cat([states[layer] for layer in self._layers], dim=-1)[0].float()
        pairs = len(chosen) // 2
        frames: NDArray[np.float32] = chosen[: 2 * pairs].reshape(pairs, 2, -1).mean(1).numpy()
        return frames

    def _mel(self, wave: Tensor) -> Tensor:
        """Return what WhisperFeatureExtractor makes of the wave, (1, mels, frames), an even number of frames."""
        padding = len(self._window)
        spectrum = torch.stft(wave, padding, self._hop_samples, window=self._window, return_complex=True)[:, :-1]
        mel = (self._filters @ spectrum.abs() ** 2).clamp(min=1e-10).log10()
        mel = torch.maximum(mel, mel.max() - 8.0)
        return ((mel + 4.0) / 4.0)[None, :, : mel.shape[1] // 4 * 4]


def _open_encoder(folder: Path) -> WhisperEncoder:
    encoder, about = WhisperEncoder.from_pretrained(folder, output_loading_info=True)
    if about["missing_keys"]:
        raise ConfigError(f"{folder} lacks {sorted(about['missing_keys'])[:3]}; need every tensor of a Whisper encoder")
    return encoder.float().eval()
