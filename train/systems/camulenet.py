"""CAMuLeNet: a spectrogram and MFCCs weight the frames of a frozen Whisper encoder; emotion and gender learnt together.

"Exploring Multilingual Unseen Speaker Emotion Recognition: Leveraging Co-Attention Cues in Multitask Learning".
Symbols: L frames of the speech encoder, W its width, T the unit, x_s and x_m the vectors of spectrogram and MFCCs, q
the query, a and y the frames it weighs before and after one more layer, z everything that the heads see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_ser.errors import ConfigError
from edge_ser.spectrogram import SPECS, SpectrogramSettings
from train.examples import Example
from train.frame_queries import ContentQuery, PositionQuery
from train.image_encoders import AlexNet, SmallImageEncoder, load_imagenet, say_random_alexnet
from train.layers import mask_of, masked_mean, masked_softmax, mean_neighbours
from train.recurrent import MaskedBiGru, fit_middle, last_states
from train.standardise import Standardise
from train.systems import Inputs, Output, System, Targets, count_parameters

_CHOICES = {
    "spec": SPECS,
    "spec_unit": ("ms", "samples"),
    "image_encoder": ("alexnet", "small"),
    "alex_tap": ("fc7", "pool"),
    "mfcc_pool": ("mean", "attn", "last", "flatten"),
    "query": ("position", "content"),
    "attn_norm": ("ln", "softmax"),
    "skip": ("pre", "post"),
    "gender_head": ("bce", "ce"),
}


@dataclass(frozen=True)
class CamulenetConfig:
    """Sizes and switches; the defaults are the paper's, at 30 s."""

    classes: int = 4
    speech_width: int = 1024
    """W."""
    positions: int = 1500
    """L, where the query is by position: 50 a second of the encoder's window."""
    unit: int = 1024
    """T."""
    trunk: int = 128
    """Width of both layers under the heads."""
    clip_s: float = 30.0
    """Seconds that the spectrogram shows, and the MFCCs where they are flattened."""
    spec: str = "log_stft200"
    """`log_stft200` or `logmel128`."""
    spec_unit: str = "ms"
    """Whether window 40 and hop 10 are `ms`, or `samples` as in the released code."""
    image_encoder: str = "alexnet"
    """`alexnet`, or `small` for experiments without a GPU."""
    image_size: int = 224
    image_units: int = 4096
    """Width of AlexNet's fully connected layers."""
    image_weights: str = ""
    """Safetensors file with torchvision's AlexNet of ImageNet; empty is random weights."""
    small_channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    alex_tap: str = "fc7"
    """`fc7` as published, or `pool`, the flattened maps, as in the released code."""
    mfcc_width: int = 40
    gru_width: int = 256
    """Per direction."""
    mfcc_pool: str = "mean"
    """`mean`, `attn`, `last` (both directions' final states), or `flatten` as published: one clip length only."""
    mfcc_pool_frames: int = 1
    """Neighbouring MFCC frames averaged before the GRU."""
    query: str = "position"
    """`position`: one weight per absolute frame, as published; `content`: softmax over what the frames hold."""
    query_width: int = 256
    """d of the content query."""
    attn_norm: str = "ln"
    """`ln` as published, or `softmax`; a content query is always a softmax."""
    mask_pad: bool = True
    """Weigh padded frames with exactly 0, and leave them out of the norm."""
    skip: str = "pre"
    """What joins the attended frames: `pre` [x_m, x_s], or `post` sigma(u)."""
    coattention: bool = True
    """Off: the mean over frames takes the place of co-attention."""
    multitask: bool = True
    """Off: no gender head, beta = 0."""
    gender_head: str = "bce"
    """`bce`, one logit, as published; `ce`, two, as in the released code."""
    alpha: float = 0.4
    beta: float = 0.1
    gamma: float = 0.2
    """A constant in the loss: it lifts the curve and changes no gradient."""
    dropout: float = 0.15
    gru_dropout: float = 0.2
    export_gender: bool = False
    """Whether an exported graph says the gender: a training aid, and a liability on a device."""

    def __post_init__(self) -> None:
        """Refuse switches that do not exist or do not fit together.

        Raises:
            ConfigError: Names the setting and what it may be.
        """
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; need one of {', '.join(allowed)}")
        if self.skip == "post" and (self.query == "content" or not self.coattention):
            raise ConfigError("skip = 'post' needs sigma(u); set query = 'position' and coattention = true")
        if self.mfcc_pool_frames < 1:
            raise ConfigError(f"mfcc_pool_frames is {self.mfcc_pool_frames}; need 1 or more; 1 averages nothing")

    @property
    def spectrogram(self) -> SpectrogramSettings:
        """How the feature `spectrogram` is made."""
        return SpectrogramSettings(self.spec, self.spec_unit, self.clip_s, self.image_size)

    @property
    def mfcc_frames(self) -> int:
        """Frames that enter the GRU for a clip of `clip_s`."""
        return -(-(1 + round(self.clip_s * 100)) // self.mfcc_pool_frames)


_DESK = CamulenetConfig(
    speech_width=384, positions=250, unit=256, trunk=64, clip_s=5.0, image_encoder="small", image_size=64,
    gru_width=64, mfcc_pool_frames=6, query="content", query_width=64,
)  # fmt: skip
PRESETS = {
    "paper": CamulenetConfig(),
    "five-second": CamulenetConfig(positions=250, clip_s=5.0),
    "published-flattened": CamulenetConfig(clip_s=5.0, mfcc_pool="flatten"),
    "pool-tap": CamulenetConfig(alex_tap="pool"),
    "desk": _DESK,
    "tiny": CamulenetConfig(
        speech_width=16, positions=25, unit=16, trunk=8, clip_s=0.5, image_encoder="small", image_size=32,
        small_channels=(4, 8, 8, 16, 16), gru_width=8, query_width=8,
    ),
}  # fmt: skip
"""Sizes by name. `published-flattened` has 5 s of MFCCs beside Whisper's 30 s window. `desk` suits two cores and frames
of Whisper tiny; it and `tiny` are not the paper's."""


@dataclass(frozen=True)
class Views:
    """What the parts of the system make of a batch, each (B, ...)."""

    image: Tensor
    """x'_s (B, 4096), or (B, 9216) at the pooled maps."""
    frames: Tensor
    """Output of the BiGRU, (B, T_m, 2 * gru_width), zeros where padded."""
    x_s: Tensor
    """(B, T)."""
    x_m: Tensor
    """(B, T)."""
    speech: Tensor
    """x_w (B, L, W)."""
    query: Tensor | None
    """q (B, L); None without co-attention."""
    attended: Tensor
    """a (B, W): frames weighted by q, or their mean."""
    y: Tensor
    """(B, W)."""
    z: Tensor
    """What enters the trunk: (B, W + 2T), or (B, W + L) with skip = post."""


class Camulenet(System):
    """The system over features: `speech` (frames of the encoder), `mfcc` (T_m, 40) and `spectrogram` (1, H, W) in dB.

    No modality can be missing: all three come from the same audio.
    """

    reads = ("speech", "mfcc", "spectrogram")

    def __init__(self, config: CamulenetConfig) -> None:
        """Build with random weights, but AlexNet's where the configuration names a file.

        Raises:
            ConfigError: The file of AlexNet's weights is missing or does not fit.
        """
        super().__init__()
        self.config = config
        self.standard_image = Standardise(())
        self.standard_mfcc = Standardise((config.mfcc_width,))
        self.image = _image_encoder(config)
        self.mfcc = MaskedBiGru(config.mfcc_width, config.gru_width, layers=2, dropout=config.gru_dropout)
        pooled = 2 * config.gru_width
        self.mfcc_score = nn.Linear(pooled, 1) if config.mfcc_pool == "attn" else None
        flat = pooled * (config.mfcc_frames if config.mfcc_pool == "flatten" else 1)
        self.to_s = nn.Linear(self.image.width, config.unit)
        self.to_m = nn.Linear(flat, config.unit)
        self.query: PositionQuery | ContentQuery | None = None
        self.refine: nn.Sequential | None = None
        if config.coattention:
            self.query = (
                PositionQuery(2 * config.unit, config.positions, norm=config.attn_norm == "ln")
                if config.query == "position"
                else ContentQuery(2 * config.unit, config.speech_width, config.query_width)
            )
            self.refine = _refine(config.speech_width, config.dropout)
        joined = config.positions if config.skip == "post" else 2 * config.unit
        self.trunk = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(config.speech_width + joined, config.trunk),
            nn.ReLU(),
            nn.Linear(config.trunk, config.trunk),
            nn.ReLU(),
        )
        self.emotion = nn.Linear(config.trunk, config.classes)
        genders = 1 if config.gender_head == "bce" else 2
        self.gender = nn.Linear(config.trunk, genders) if config.multitask else None

    def fit_statistics(self, examples: Sequence[Example]) -> None:
        """Take mean and deviation of spectrograms (one number) and of MFCCs (each coefficient) from training data.

        Without it features enter as they are. The source standardises the spectrogram; that the MFCCs are, too, is
        ours: the first coefficient is otherwise some hundred times as large as the last.

        Raises:
            ConfigError: An utterance lacks one of the two.
        """
        for item in examples:
            _need(item.features, f"{item.path} has no")
        self.standard_image.fit([item.features["spectrogram"].reshape(-1) for item in examples])
        self.standard_mfcc.fit([item.features["mfcc"] for item in examples])

    def forward(self, inputs: Inputs) -> Output:
        """Return logits (B, C), the trunk (B, trunk) and, where it is learnt, the gender."""
        embedding = self.trunk(self.views(inputs).z)
        return Output(self.emotion(embedding), embedding, None if self.gender is None else self.gender(embedding))

    def views(self, inputs: Inputs) -> Views:
        """Return everything up to the trunk.

        Raises:
            ConfigError: A feature is missing, in the batch or in a row, or the picture has another size.
        """
        config = self.config
        _check(inputs, config)
        image = self.image(self.standard_image(inputs["spectrogram"]))
        frames, pooled = self._hear(inputs["mfcc"], mask_of(inputs, "mfcc"))
        x_s, x_m = torch.relu(self.to_s(image)), torch.relu(self.to_m(pooled))
        joint = torch.cat([x_m, x_s], dim=-1)
        speech, mask = inputs["speech"], mask_of(inputs, "speech")
        if isinstance(self.query, PositionQuery):
            speech, mask = fit_middle(speech, mask, config.positions)
        weighed = mask if config.mask_pad else torch.ones_like(mask)
        query, skip = None, joint
        if isinstance(self.query, PositionQuery):
            query, envelope = self.query(joint, weighed)
            skip = envelope if config.skip == "post" else joint
        elif self.query is not None:
            query = self.query(joint, speech, weighed)
        if query is None:
            attended = masked_mean(speech, mask)
        else:
            attended = torch.matmul(query.to(speech.dtype).unsqueeze(1), speech).squeeze(1)  # 1 x L times L x W
        y = attended if self.refine is None else self.refine(attended)
        return Views(image, frames, x_s, x_m, speech, query, attended, y, torch.cat([y, skip], dim=-1))

    def _hear(self, mfcc: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        config = self.config
        x = self.standard_mfcc(mfcc) * mask.unsqueeze(-1)
        x, mask = mean_neighbours(x, mask, config.mfcc_pool_frames)
        if config.mfcc_pool == "flatten":
            x, mask = fit_middle(x, mask, config.mfcc_frames)
        frames = self.mfcc(x, mask)
        if config.mfcc_pool == "flatten":
            return frames, frames.flatten(1)
        if config.mfcc_pool == "last":
            return frames, last_states(frames, mask)
        if self.mfcc_score is None:
            return frames, masked_mean(frames, mask)
        weights = masked_softmax(self.mfcc_score(frames).squeeze(-1).float(), mask).to(frames.dtype)
        return frames, torch.matmul(weights.unsqueeze(1), frames).squeeze(1)

    def loss(self, output: Output, targets: Targets) -> Tensor:
        """Return alpha CE(emotion) + beta BCE(gender) + gamma; an utterance of unknown gender has no second term.

        The source's text has alpha three times beta, its values four times; the values are used.
        """
        config = self.config
        total = config.alpha * functional.cross_entropy(output.logits.float(), targets["emotion"]) + config.gamma
        if output.gender is None:
            return total
        gender = targets["gender"]
        known = (gender >= 0).float()
        wanted = gender.clamp(min=0)
        if config.gender_head == "bce":
            logit = output.gender.float().squeeze(-1)
            each = functional.binary_cross_entropy_with_logits(logit, wanted.float(), reduction="none")
        else:
            each = functional.cross_entropy(output.gender.float(), wanted, reduction="none")
        return total + config.beta * (each * known).sum() / known.sum().clamp(min=1.0)

    def parts(self) -> dict[str, int]:
        """Return parameters by part, as the literature counts them."""
        sizes = {"bigru": self.mfcc, "mfcc_attention": self.mfcc_score, "w_s": self.to_s, "w_m": self.to_m}
        parts = self.image.parts()
        parts |= {name: count_parameters(part) for name, part in sizes.items() if part is not None}
        if isinstance(self.query, PositionQuery):
            up = count_parameters(self.query.up)
            parts |= {"w_ms": up, "w_q": count_parameters(self.query) - up}
        elif self.query is not None:
            parts["content_query"] = count_parameters(self.query)
        if self.refine is not None:
            parts["w_w"] = count_parameters(self.refine)
        heads = [self.trunk, self.emotion, *([] if self.gender is None else [self.gender])]
        return parts | {"heads": sum(count_parameters(head) for head in heads)}


class CamulenetGraph(nn.Module):
    """The system as a graph of tensors, for export; it says the gender only where the configuration says so."""

    inputs = ("speech", "speech_mask", "mfcc", "mfcc_mask", "spectrogram")

    def __init__(self, system: Camulenet) -> None:
        super().__init__()
        self.system = system

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it returns."""
        says_gender = self.system.config.export_gender and self.system.gender is not None
        return ("logits", "embedding", "gender") if says_gender else ("logits", "embedding")

    def forward(
        self, speech: Tensor, speech_mask: Tensor, mfcc: Tensor, mfcc_mask: Tensor, spectrogram: Tensor
    ) -> tuple[Tensor, ...]:
        """Return logits and embedding, and the gender's logits where `outputs` names them.

        With a position query the frames must be as many as `positions`: one graph per window length.
        """
        values = (speech, speech_mask, mfcc, mfcc_mask, spectrogram)
        output = self.system(dict(zip(self.inputs, values, strict=True)))
        if "gender" in self.outputs and output.gender is not None:
            return output.logits, output.embedding, output.gender
        return output.logits, output.embedding


def _image_encoder(config: CamulenetConfig) -> AlexNet | SmallImageEncoder:
    if config.image_encoder == "small":
        return SmallImageEncoder(config.small_channels)
    encoder = AlexNet(size=config.image_size, tap=config.alex_tap, units=config.image_units, dropout=config.dropout)
    if config.image_weights:
        load_imagenet(encoder, Path(config.image_weights))
    else:
        say_random_alexnet()
    return encoder


def _refine(width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, width), nn.ReLU(), nn.LayerNorm(width))


def _need(features: Mapping[str, object], what: str) -> None:
    missing = [name for name in Camulenet.reads if name not in features]
    if missing:
        raise ConfigError(f"{what} {', '.join(missing)}; CAMuLeNet needs {', '.join(Camulenet.reads)}; extract it too")


def _check(inputs: Inputs, config: CamulenetConfig) -> None:
    _need(inputs, "got no")
    if "spectrogram_mask" in inputs:
        raise ConfigError("some utterances of the batch have no spectrogram; CAMuLeNet needs all; extract it too")
    size = tuple(inputs["spectrogram"].shape[1:])
    if size != (1, config.image_size, config.image_size):
        raise ConfigError(
            f"spectrogram has shape {size}; need (1, {config.image_size}, {config.image_size}); "
            "set image_size alike for the system and for the feature"
        )
