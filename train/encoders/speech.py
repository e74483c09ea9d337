"""Speech encoders: waveform models (wav2vec 2.0, XLS-R, HuBERT, WavLM) and Whisper's encoder over log-mel."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import WhisperFeatureExtractor

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.errors import ConfigError
from train.encoders.base import Encoder

CONVOLUTIONS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
"""Kernel and stride of each convolution of the waveform models, all sizes."""

MIN_SAMPLES = 400
"""What one frame of a waveform model sees (25 ms); shorter clips are extended with zeros to it."""

_HOP = 160
_VARIANCE_FLOOR = 1e-7


def frame_count(samples: int, convolutions: Sequence[tuple[int, int]] = CONVOLUTIONS) -> int:
    """Return how many frames a waveform model makes of so many samples: n <- floor((n - k) / s) + 1, never below 0."""
    for kernel, stride in convolutions:
        samples = max(0, (samples - kernel) // stride + 1)
    return samples


def _at_least(inputs: Tensor, samples: int) -> Tensor:
    return nn.functional.pad(inputs, (0, max(0, samples - inputs.shape[1])))


def valid_samples(mask: Tensor) -> Tensor:
    """Return the valid samples of each row, int64; what is there but shorter than a frame counts as a frame."""
    counted = mask.sum(1).long()
    return torch.where(counted > 0, counted.clamp(min=MIN_SAMPLES), counted)


def until(lengths: Tensor, width: int) -> Tensor:
    """Return a mask (B, width), 1 in the first `lengths` places of each row, float32."""
    return (torch.arange(width, device=lengths.device)[None, :] < lengths[:, None]).float()


class WaveformEncoder(Encoder):
    """wav2vec 2.0, XLS-R, HuBERT or WavLM.

    The base sizes normalise their first convolution over time, so padding would change valid frames even under a mask:
    they are not `padding_invariant`, and `encode` runs rows of equal length together, without padding.
    """

    modality = "speech"

    def __init__(self, model: Any, family: str, *, normalise: bool) -> None:
        super().__init__(model, family, model.config.hidden_size)
        self.normalise = normalise
        """Whether each waveform is brought to zero mean and unit variance over its valid samples."""
        self.padding_invariant = model.config.feat_extract_norm == "layer"
        self.convolutions: tuple[tuple[int, int], ...] = tuple(
            zip(model.config.conv_kernel, model.config.conv_stride, strict=True)
        )
        """Kernel and stride of each convolution."""

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers."""
        return self.model.encoder.layers

    @property
    def front_end(self) -> list[nn.Module]:
        """The seven convolutions."""
        return [self.model.feature_extractor]

    def settings(self) -> dict[str, object]:
        """Return what, besides the weights, decides the values that come out."""
        return {**super().settings(), "normalise": self.normalise}

    def frames_of(self, samples: int) -> int:
        """Return how many frames the convolutions make of so many samples; what is shorter than a frame gives one."""
        return frame_count(max(samples, MIN_SAMPLES), self.convolutions)

    def _encode(self, inputs: Tensor, mask: Tensor, last: int) -> tuple[list[Tensor], Tensor]:
        if self.padding_invariant or torch.onnx.is_in_onnx_export() or torch.compiler.is_exporting():
            return super()._encode(inputs, mask, last)
        return self._by_length(inputs, mask, last)

    def _by_length(self, inputs: Tensor, mask: Tensor, last: int) -> tuple[list[Tensor], Tensor]:
        lengths = mask.sum(1).long().tolist()
        frames = max(1, frame_count(max(inputs.shape[1], MIN_SAMPLES), self.convolutions))
        whole = [inputs.new_zeros(len(inputs), frames, self.width) for _ in range(last + 1)]
        frame_mask = inputs.new_zeros(len(inputs), frames)
        for length in sorted(set(lengths) - {0}):
            rows = torch.tensor([row for row, own in enumerate(lengths) if own == length], device=inputs.device)
            states, valid = super()._encode(inputs[rows, :length], mask[rows, :length], last)
            frame_mask[rows, : valid.shape[1]] = valid
            padding = (0, 0, 0, frames - valid.shape[1])
            whole = [
                state.index_add(0, rows, nn.functional.pad(part, padding))
                for state, part in zip(whole, states, strict=True)
            ]
        return whole, frame_mask

    def start(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the first layer's input from waveforms (B, n), with the frame mask twice."""
        x = _at_least(self._normalised(inputs, mask), MIN_SAMPLES)[:, None]
        for convolution in self.model.feature_extractor.conv_layers:
            x = convolution(x)
        projected = self.model.feature_projection(x.transpose(1, 2))
        x = projected[0] if isinstance(projected, tuple) else projected
        lengths = valid_samples(mask)
        for kernel, stride in self.convolutions:
            lengths = (torch.div(lengths - kernel, stride, rounding_mode="floor") + 1).clamp(min=0)
        frames = until(lengths, x.shape[1])
        x = x * frames.unsqueeze(-1)
        x = x + self.model.encoder.pos_conv_embed(x)
        if not self.model.config.do_stable_layer_norm:
            x = self.model.encoder.layer_norm(x)
        return self.model.encoder.dropout(x), frames, frames

    def layer(self, number: int, x: Tensor, hidden: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """Return the output of layer `number`."""
        block: Any = self.layers[number]
        if self.family != "wavlm":
            output = block(x, attention_mask=hidden)
            return output[0] if isinstance(output, tuple) else output
        if "bias" not in memory:
            memory["bias"] = self.model.encoder.layers[0].attention.compute_bias(x.shape[1], x.shape[1])
        if self.model.config.do_stable_layer_norm:
            mixed = wavlm_attention(block.attention, block.layer_norm(x), memory["bias"], hidden)
            x = x + block.dropout(mixed)
            return x + block.feed_forward(block.final_layer_norm(x))
        mixed = wavlm_attention(block.attention, x, memory["bias"], hidden)
        x = block.layer_norm(x + block.dropout(mixed))
        return block.final_layer_norm(x + block.feed_forward(x))

    def finish(self, x: Tensor) -> Tensor:
        """Return the last layer's output; the large models end with a layer norm."""
        return self.model.encoder.layer_norm(x) if self.model.config.do_stable_layer_norm else x

    def drop_final_norm(self) -> None:
        """Replace the final norm of the large models by the identity."""
        if self.model.config.do_stable_layer_norm:
            self.model.encoder.layer_norm = nn.Identity()

    def fold_weight_norm(self) -> None:
        """Replace the positional convolution's weight norm by its product, as an exporter wants it."""
        nn.utils.parametrize.remove_parametrizations(self.model.encoder.pos_conv_embed.conv, "weight")

    def _normalised(self, inputs: Tensor, mask: Tensor) -> Tensor:
        real = mask.to(inputs.dtype)
        if not self.normalise:
            return inputs * real
        count = real.sum(1, keepdim=True).clamp(min=1.0)
        mean = (inputs * real).sum(1, keepdim=True) / count
        centred = (inputs - mean) * real
        variance = (centred**2).sum(1, keepdim=True) / count
        return centred / torch.sqrt(variance + _VARIANCE_FLOOR)


def wavlm_attention(attention: Any, x: Tensor, bias: Tensor, hidden: Tensor) -> Tensor:
    """Return WavLM's attention with gated relative position bias (Chen et al. 2022, eq. 1-4), each projection called.

    The published module hands its projections' weights to a fused function and never calls them, which would leave an
    adapter around them without effect.

    Args:
        attention: Transformers' attention of one layer.
        x: (B, T, D).
        bias: Relative position bias (H, T, T), shared by the layers.
        hidden: Added to the scores, (B, 1, 1, T).
    """
    batch, frames, width = x.shape
    heads = attention.num_heads
    split = (batch, frames, heads, width // heads)
    by_head = x.view(split).transpose(1, 2)
    gates = attention.gru_rel_pos_linear(by_head).view(batch, heads, frames, 2, 4).sum(-1)
    update, reset = torch.sigmoid(gates).chunk(2, dim=-1)
    gate = update * (reset * attention.gru_rel_pos_const - 1.0) + 2.0
    query = attention.q_proj(x).view(split).transpose(1, 2) * (width // heads) ** -0.5
    key = attention.k_proj(x).view(split).transpose(1, 2)
    value = attention.v_proj(x).view(split).transpose(1, 2)
    scores = torch.matmul(query, key.transpose(-2, -1)) + gate * bias + hidden
    weights = nn.functional.dropout(torch.softmax(scores, dim=-1), attention.dropout, attention.training)
    mixed = torch.matmul(weights, value).transpose(1, 2).reshape(batch, frames, width)
    return attention.out_proj(mixed)


class LogMelEncoder(Encoder):
    """Whisper's encoder over the log-mel of the clip itself, without the padding to 30 s.

    The position table is cut to the clip's length, and padding inside a batch is masked everywhere, so it is padding
    invariant. With `pad_s` each clip is extended by silence to so many seconds, to which all frames attend, as the
    published model does with 30; the frame mask still marks the clip alone.
    """

    modality = "speech"

    def __init__(self, model: Any, features: WhisperFeatureExtractor, *, pad_s: float = 0.0) -> None:
        super().__init__(model, "whisper", model.config.d_model)
        self.features = features
        """Transformers' log-mel for this model."""
        # transformers 4 asks for a mask of heads.
        asked = inspect.signature(model.layers[0].forward).parameters
        self._unused = {"layer_head_mask": None} if "layer_head_mask" in asked else {}
        self.pad_s = pad_s
        """Seconds to which clips are padded; 0 for none."""
        self.max_samples: int = 2 * model.config.max_source_positions * _HOP
        """The longest clip: 30 s."""
        if not 0 <= pad_s * SAMPLE_RATE_HZ <= self.max_samples:
            raise ConfigError(f"whisper_pad_s is {pad_s}; need 0 (none) to {self.max_samples / SAMPLE_RATE_HZ:g}")

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers."""
        return self.model.layers

    @property
    def front_end(self) -> list[nn.Module]:
        """The two convolutions."""
        return [self.model.conv1, self.model.conv2]

    def settings(self) -> dict[str, object]:
        """Return what, besides the weights, decides the values that come out."""
        # The decoder's fields say nothing about an encoder, and a saved encoder may lack them.
        own = {name: value for name, value in super().settings().items() if name.startswith(("d_model", "encoder_"))}
        return {**own, "mels": self.features.feature_size, "pad_s": self.pad_s}

    def frames_of(self, samples: int) -> int:
        """Return how many frames of 20 ms stand for so many samples; at least one."""
        return (max(samples, MIN_SAMPLES) // _HOP + 1) // 2

    def start(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the first layer's input from waveforms (B, n), the clip's frames and the frames attended to."""
        lengths = valid_samples(mask)
        longest = int(lengths.max())
        limit = round(self.pad_s * SAMPLE_RATE_HZ) or self.max_samples
        if longest > limit:
            raise ConfigError(
                f"got a clip of {longest / SAMPLE_RATE_HZ:.1f} s; this encoder takes {limit / SAMPLE_RATE_HZ:g} s at a "
                "time; cut it"
            )
        rows = _at_least(inputs, max(longest, limit if self.pad_s else MIN_SAMPLES))
        heard = torch.full_like(lengths, limit) if self.pad_s else lengths.clamp(min=MIN_SAMPLES)
        mel, mel_frames = self._log_mel(rows, mask, heard.tolist())
        x = self.from_mel(mel, mel_frames)
        halved = torch.div(mel_frames + 1, 2, rounding_mode="floor")
        frames = torch.div(torch.div(lengths, _HOP, rounding_mode="floor") + 1, 2, rounding_mode="floor")
        return x, until(frames, x.shape[1]), until(halved, x.shape[1])

    def from_mel(self, mel: Tensor, mel_frames: Tensor) -> Tensor:
        """Return the first layer's input (B, T, D) from log-mel (B, M, frames) and each row's valid frames (B,)."""
        x = nn.functional.gelu(self.model.conv1(mel))
        # What follows the clip is silence to the second convolution, as it is for a clip alone.
        x = x * until(mel_frames, mel.shape[-1])[:, None, :]
        x = nn.functional.gelu(self.model.conv2(x)).transpose(1, 2)
        x = x + self.model.embed_positions.weight[: x.shape[1]]
        return nn.functional.dropout(x, self.model.dropout, self.model.training)

    def layer(self, number: int, x: Tensor, hidden: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """Return the output of layer `number`."""
        output = self.layers[number](x, hidden, **self._unused)
        return output[0] if isinstance(output, tuple) else output

    def finish(self, x: Tensor) -> Tensor:
        """Return the last layer's output after the final layer norm."""
        return self.model.layer_norm(x)

    def drop_final_norm(self) -> None:
        """Replace the final norm by the identity."""
        self.model.layer_norm = nn.Identity()

    def _keep_fixed(self, freeze_cnn: bool) -> None:
        super()._keep_fixed(freeze_cnn)
        # A table of sinusoids, which its authors did not train.
        self.model.embed_positions.requires_grad_(False)

    def _log_mel(self, rows: Tensor, mask: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
        """Return log-mel (B, mels, M), zero after each row's end, and the frames of each row; no gradient."""
        clean = rows.detach().clone()
        clean[:, : mask.shape[1]] *= mask.to(rows.dtype)
        mels = []
        for row, length in zip(clean.cpu().numpy(), lengths, strict=True):
            made = self.features(row[:length], sampling_rate=SAMPLE_RATE_HZ, padding="do_not_pad", return_tensors="pt")
            mels.append(made.input_features[0].T)
        padded = nn.utils.rnn.pad_sequence(mels, batch_first=True).transpose(1, 2)
        counts = torch.tensor([len(mel) for mel in mels], device=rows.device)
        return padded.to(rows.device), counts
