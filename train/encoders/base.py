"""What every encoder has in common. Axes: B batch, n samples or ids, T frames or tokens, D width."""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from edge_ser.errors import ConfigError
from train.layers import NEG
from train.lora import lora_layers, refuse_merged

Mode = Literal["frozen", "finetuned", "lora"]
MODES: tuple[Mode, ...] = ("frozen", "finetuned", "lora")

# Fields of a configuration that say where weights came from, or how they are run, not what they are.
_INCIDENTAL = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures", "_attn_implementation")


class Encoder(nn.Module):
    """A pretrained encoder: waveforms or token ids in, the output of every layer out.

    The forward pass is this project's own, layer by layer through the published modules: every projection is called as
    a module (so that adapters act), later layers need not run, and neither SpecAugment nor layer drop is applied.
    """

    modality: ClassVar[Literal["speech", "text"]]
    """What it reads."""

    def __init__(self, model: Any, family: str, width: int) -> None:
        super().__init__()
        self.model: Any = model
        """The model as transformers builds it."""
        self.family = family
        """Transformers' name of the architecture."""
        self.width = width
        """D of every layer."""
        self.padding_invariant = True
        """Whether padding inside a batch leaves valid frames as they are; where not, `encode` avoids the padding."""
        self.mode: Mode = "finetuned"
        """What of it learns; see `set_mode`."""
        self.set_mode("frozen")

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers."""
        raise NotImplementedError

    @property
    def layer_count(self) -> int:
        """How many layers there are."""
        return len(self.layers)

    @property
    def front_end(self) -> list[nn.Module]:
        """The convolutions before the first layer, which `freeze_cnn` keeps."""
        return []

    def encode(self, inputs: Tensor, mask: Tensor, last: int | None = None) -> tuple[list[Tensor], Tensor]:
        """Return what each layer makes of a batch.

        Args:
            inputs: Waveforms, float32 (B, n) in [-1, 1] at 16 kHz, or token ids, int64 (B, n), padded at the end.
            mask: (B, n), 1 where `inputs` is real; a row of zeros is a missing modality.
            last: The last layer that is needed; later ones do not run. None runs all.

        Returns:
            The input of the first layer and then the output of each, (B, T, D), zero in padding; the output of the
            model's very last layer has passed the model's final norm (transformers' `last_hidden_state`). The frame
            mask, float32 (B, T).

        Raises:
            ConfigError: No such layer, or an input longer than the encoder takes.
        """
        wanted = self.layer_count if last is None else last
        if not 0 <= wanted <= self.layer_count:
            raise ConfigError(f"got layer {wanted}; this {self.family} has 0 (its input) to {self.layer_count}")
        learns = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.parameters())
        with torch.set_grad_enabled(learns):
            return self._encode(inputs, mask, wanted)

    def frames_of(self, samples: int) -> int:
        """Return how many frames it makes of a clip of so many samples by itself."""
        raise NotImplementedError

    def _encode(self, inputs: Tensor, mask: Tensor, last: int) -> tuple[list[Tensor], Tensor]:
        x, frames, attended = self.start(inputs, mask)
        # Additive, with a finite number: a row without any valid key stays finite.
        hidden = ((1.0 - attended) * NEG)[:, None, None, :]
        memory: dict[str, Tensor] = {}
        states = [x]
        for number in range(last):
            x = self.layer(number, x, hidden, memory)
            states.append(x)
        if last and last == self.layer_count:
            states[-1] = self.finish(states[-1])
        return [state * frames.unsqueeze(-1) for state in states], frames

    def start(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the input of the first layer (B, T, D), the frame mask (B, T) and the frames that are attended to."""
        raise NotImplementedError

    def layer(self, number: int, x: Tensor, hidden: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """Return the output of layer `number` (from 0).

        Args:
            number: Which layer.
            x: Its input (B, T, D).
            hidden: Added to the scores, (B, 1, 1, T): 0 for a valid key, very negative for padding.
            memory: What layers of one pass share.
        """
        raise NotImplementedError

    def finish(self, x: Tensor) -> Tensor:
        """Return the last layer's output after the model's final norm, where it has one."""
        return x

    def cut(self, layers: int) -> Encoder:
        """Drop the layers after the first `layers`, and with them the final norm; return this encoder."""
        if not 0 < layers <= self.layer_count:
            raise ConfigError(f"cannot keep {layers} layers; this {self.family} has {self.layer_count}")
        if layers < self.layer_count:
            del self.layers[layers:]
            self.drop_final_norm()
        return self

    def drop_final_norm(self) -> None:
        """Replace the final norm, where there is one, by the identity."""

    def set_mode(self, mode: Mode, *, freeze_cnn: bool = True) -> Encoder:
        """Choose what learns and return this encoder.

        Args:
            mode: `frozen`: nothing, and it stays in eval mode; `finetuned`: all of it; `lora`: only its adapters,
                while the base stays in eval mode.
            freeze_cnn: Keep the front end's convolutions when fine-tuning.

        Raises:
            ConfigError: No such mode.
        """
        if mode not in MODES:
            raise ConfigError(f"mode of an encoder is {mode!r}; need one of {', '.join(MODES)}")
        self.mode = mode
        self.requires_grad_(mode == "finetuned")
        for layer in lora_layers(self):
            layer.adapters_learn(mode == "lora")
        if mode == "finetuned":
            self._keep_fixed(freeze_cnn)
        return self.train(self.training)

    def _keep_fixed(self, freeze_cnn: bool) -> None:
        for part in self.front_end if freeze_cnn else []:
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> Encoder:
        """Set training mode as far as the encoder's mode allows it."""
        super().train(mode and self.mode == "finetuned")
        self.training = mode
        if self.mode == "lora":
            for layer in lora_layers(self):
                layer.train(mode)
        return self

    def settings(self) -> dict[str, object]:
        """Return what, besides the weights, decides the values that come out."""
        described = self.model.config.to_dict()
        return {name: value for name, value in described.items() if name not in _INCIDENTAL}

    def fingerprint(self) -> str:
        """Return a hash of weights and settings, 64 hexadecimal digits: equal fingerprints give equal features.

        Adapters count while they act; an encoder whose adapters rest has the fingerprint that it had without them.

        Raises:
            ConfigError: Adapters are merged into the weights.
        """
        refuse_merged(self)
        key = hashlib.sha256(json.dumps(self.settings(), sort_keys=True, default=str).encode())
        wrapped = lora_layers(self)
        acting = wrapped[0].active if wrapped else ()
        tensors = {
            name.replace(".base.", "."): tensor
            for name, tensor in self.state_dict().items()
            if ".lora_" not in name or name.rpartition(".")[2] in acting
        }
        for name, tensor in sorted(tensors.items()):
            key.update(name.encode())
            key.update(tensor.detach().cpu().contiguous().numpy().data)
        return key.hexdigest()


class WholeEncoder(nn.Module):
    """An encoder as one module for export: inputs and mask in, one layer's output and the frame mask out."""

    def __init__(self, encoder: Encoder, layer: int | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.layer_number = encoder.layer_count if layer is None else layer

    def forward(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the layer's output (B, T, D) and the frame mask (B, T)."""
        states, frames = self.encoder.encode(inputs, mask, self.layer_number)
        return states[-1], frames
