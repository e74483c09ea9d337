"""LoRA-SER: one speech encoder and one small head for several languages, a low-rank adapter for each further one.

Stage 1 trains on the first language; a later stage freezes the encoder and trains an adapter over its attention and
feed-forward matrices, and goes on with the head. No language is told at run time: the adapted model answers all. The
published equation h = W0 x + B A x leaves out the scale alpha / r that its alpha implies, and prints as its loss the
CCC itself, which is to be maximised; both are put right here.

    system = LoraSer(PRESETS["paper"])     # learns its first language: train it
    system.begin("zh")                     # adapter and head learn the second: train it again
    system.use("en")                       # what answers from now on

The published head is shared: it moves on with the second language, so that the first is not exactly restored when the
adapter is off. `head_mode="per_language"` gives each adapter its own copy, and the first language stays as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.errors import ConfigError
from train import lora
from train.attribute_head import PooledHead, ccc_loss
from train.encoders import Encoder, load_encoder
from train.systems import Inputs, Output, System, Targets, count_parameters
from train.systems.lora_config import LOW_RESOURCE_SIZES, PRESETS, SHARED, STAGES, LoraSerConfig, check

__all__ = ["LOW_RESOURCE_SIZES", "PRESETS", "STAGES", "LoraSer", "LoraSerConfig", "WholeLoraSer", "random_crop"]


class LoraSer(System):
    """Encoder, adapters and head; built ready to learn its first language."""

    reads = ("audio", "speech")

    def __init__(self, config: LoraSerConfig, encoder: Encoder | None = None) -> None:
        """Build the system.

        Args:
            config: Switches and sizes.
            encoder: Taken instead of the one that the configuration names.

        Raises:
            ConfigError: A setting that is no choice, or an encoder that does not fit.
        """
        super().__init__()
        check(config)
        self.config = config
        self.encoder = _encoder(config, encoder)
        width = config.speech_width if self.encoder is None else self.encoder.width
        first = SHARED if config.head_mode == SHARED else config.languages[0]
        head = PooledHead(width, config.bottleneck, config.head_hidden, config.outputs, config.dropout)
        self.heads = nn.ModuleDict({first: head})
        self.acting: tuple[str, ...] = ()
        """Languages that answer: one, or several that are pooled."""
        self.pooling = "weights"
        """How several answer; see `pool`."""
        self.begin(config.languages[0])

    def begin(self, language: str) -> None:
        """Begin the stage of a language: choose what learns, adding adapter and head where it is to have its own.

        Raises:
            ConfigError: The mode has no stage for it.
        """
        kind = self._stage(language)
        if kind == "adapter" and not self._has_adapter(language):
            lora.add_adapter(self._encoder(), language)
        head = self._head_name(language)
        if head not in self.heads:
            self.heads[head] = copy.deepcopy(self.heads[self.config.languages[0]])
        self.use(language)
        if self.encoder is not None:
            mode = {"head": "frozen", "encoder": "finetuned", "adapter": "lora"}[kind]
            self.encoder.set_mode(mode, freeze_cnn=self.config.freeze_cnn)  # type: ignore[arg-type]
        for name, module in self.heads.items():
            module.requires_grad_(name == head)

    def use(self, language: str) -> None:
        """Let one language's adapter and head answer; a language of a stage without adapter switches all off."""
        self.pool((language,))

    def pool(self, languages: Sequence[str], by: str = "weights") -> None:
        """Let several languages answer together, for speech whose language is not known.

        Args:
            languages: Which; one is the same as `use`.
            by: `weights`: one pass under the mean of the adapters they have, then the mean of their heads; `outputs`: a
                pass for each, and the mean of what comes out.

        Raises:
            ConfigError: One of them was never begun or loaded, or adapters are merged.
        """
        if by not in ("weights", "outputs") or not languages:
            raise ConfigError(f"cannot pool {languages} by {by!r}; need languages, and 'weights' or 'outputs'")
        for language in languages:
            lacks_adapter = self._stage(language) == "adapter" and not self._has_adapter(language)
            if lacks_adapter or self._head_name(language) not in self.heads:
                raise ConfigError(f"{language} is not learnt; begin its stage or load its language pack first")
        if self.encoder is not None:
            lora.set_active(self.encoder, [name for name in languages if self._has_adapter(name)])
        self.acting, self.pooling = tuple(languages), by

    def forward(self, inputs: Inputs) -> Output:
        """Return outputs (B, C) and embedding (B, H) from `audio` (B, n) or, without it, `speech` (B, T, D)."""
        if len(self.acting) == 1 or self.pooling == "weights":
            return self._answer(inputs)
        answers = []
        for language in self.acting:
            with self._alone(language):
                answers.append(self._answer(inputs))
        logits = torch.stack([answer.logits for answer in answers]).mean(0)
        return Output(logits, torch.stack([answer.embedding for answer in answers]).mean(0))

    def loss(self, output: Output, targets: Targets) -> Tensor:
        """Return 1 - mean CCC over the batch for attributes, cross-entropy for emotions."""
        if self.config.task == "emotion":
            return super().loss(output, targets)
        return ccc_loss(output.logits, targets["attributes"])

    def parts(self) -> dict[str, int]:
        """Return parameters of encoder, adapters and heads."""
        adapters = sum(
            parameter.numel() for name, parameter in self.named_parameters() if ".lora_a." in name or ".lora_b." in name
        )
        encoder = 0 if self.encoder is None else count_parameters(self.encoder) - adapters
        return {"encoder": encoder, "lora": adapters, "head": count_parameters(self.heads)}

    def merge(self) -> None:
        """Fold the acting adapter into the encoder's weights, as an export needs it; before any quantisation."""
        lora.merge(self._encoder())

    def unmerge(self) -> None:
        """Undo `merge`, bit for bit."""
        lora.unmerge(self._encoder())

    def frames(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return the frames (B, T, D) that the head reads, and their mask (B, T)."""
        if self.encoder is None or "audio" not in inputs:
            return inputs["speech"], inputs["speech_mask"]
        audio, mask = inputs["audio"], inputs["audio_mask"]
        if self.training and self.config.crop_s:
            audio, mask = random_crop(audio, mask, round(self.config.crop_s * SAMPLE_RATE_HZ))
        states, frame_mask = self.encoder.encode(audio, mask)
        return states[-1], frame_mask

    def _answer(self, inputs: Inputs) -> Output:
        x, mask = self.frames(inputs)
        pairs = [self.heads[name](x, mask) for name in dict.fromkeys(map(self._head_name, self.acting))]
        logits = torch.stack([pair[0] for pair in pairs]).mean(0)
        embedding = torch.stack([pair[1] for pair in pairs]).mean(0)
        sigmoid = self.config.task == "attributes" and self.config.out == "sigmoid"
        return Output(torch.sigmoid(logits) if sigmoid else logits, embedding)

    @contextmanager
    def _alone(self, language: str) -> Iterator[None]:
        acting = self.acting
        self.use(language)
        try:
            yield
        finally:
            self.pool(acting, "outputs")

    def _stage(self, language: str) -> str:
        if language not in self.config.languages:
            raise ConfigError(f"no language {language!r}; this system has {', '.join(self.config.languages)}")
        stages = STAGES[self.config.mode]
        place = self.config.languages.index(language)
        if place >= len(stages) and len(stages) == 1:
            raise ConfigError(
                f"mode {self.config.mode} learns {self.config.languages[0]} alone; need ft_dual or ft_lora"
            )
        return stages[min(place, 1)]

    def _head_name(self, language: str) -> str:
        return SHARED if self.config.head_mode == SHARED else language

    def _has_adapter(self, language: str) -> bool:
        wrapped = [] if self.encoder is None else lora.lora_layers(self.encoder)
        return bool(wrapped) and language in wrapped[0].lora_a

    def _encoder(self) -> Encoder:
        if self.encoder is None:
            raise ConfigError("this system reads frames and has no encoder; name one to adapt it")
        return self.encoder


class WholeLoraSer(nn.Module):
    """The system as an exporter wants it: waveforms (B, n) and their mask in, outputs (B, C) out. Merge it first."""

    def __init__(self, system: LoraSer) -> None:
        super().__init__()
        self.system = system

    def forward(self, audio: Tensor, audio_mask: Tensor) -> Tensor:
        """Return the outputs (B, C)."""
        return self.system({"audio": audio, "audio_mask": audio_mask}).logits


def random_crop(audio: Tensor, mask: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Return waveforms and mask (B, n) with each clip longer than `samples` cut to it at a random place."""
    if audio.shape[1] <= samples:
        return audio, mask
    spare = (mask.sum(1).long() - samples).clamp(min=0)
    starts = (torch.rand(len(audio), device=audio.device) * (spare + 1)).long().clamp(max=spare)
    places = starts[:, None] + torch.arange(samples, device=audio.device)
    return audio.gather(1, places), mask.gather(1, places)


def _encoder(config: LoraSerConfig, given: Encoder | None) -> Encoder | None:
    if given is None and not config.encoder:
        return None
    encoder = load_encoder(config.encoder) if given is None else given
    if encoder.modality != "speech":
        raise ConfigError(f"{config.encoder} is a text encoder; need a speech encoder")
    if config.layer:
        encoder.cut(config.layer)
    if "adapter" in STAGES[config.mode]:
        lora.wrap_lora(encoder, config.rank, config.alpha, config.lora_dropout, config.targets)
    return encoder
