"""HuMP-CAT: a speech encoder, MFCCs and prosody through two cross-attention transformers, speech only.

After "Leveraging Cross-Attention Transformer and Multi-Feature Fusion for Cross-Linguistic Speech Emotion Recognition".
Everything is of fixed length: clips are cut or repeat themselves (`edge_ser/clips.py`), features repeat themselves here
where a shorter clip gave fewer frames. Axes: B batch, T frames, L encoder layers, D encoder width, d width of a token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from edge_ser.errors import ConfigError
from train.examples import Example
from train.layers import mask_of, masked_deviation, masked_mean, masked_variance
from train.systems import Inputs, Output, System, Targets
from train.systems.hump_cat_branches import Branch, FrameBranch, ProsodyBranch, SpeechBranch
from train.systems.hump_cat_config import HAND_CRAFTED, INPUT_OF, PRESETS, HumpCatConfig, check
from train.systems.hump_cat_fusion import CrossTransformer, SelfAttentionLayer, Tokens

__all__ = ["PRESETS", "CosineClassifier", "HumpCat", "HumpCatConfig", "MeanPool", "am_logits"]


class HumpCat(System):
    """The whole head; what it reads follows from `config.features`."""

    reads = ("speech", "mfcc", "prosody", "lpcc", "log_power")

    def __init__(self, config: HumpCatConfig) -> None:
        """Build with random weights.

        Raises:
            ConfigError: A switch, a size or the choice of features does not fit.
        """
        super().__init__()
        check(config)
        self.config = config
        self.branches = nn.ModuleDict({name: _branch(name, config) for name in config.features})
        self.hand_crafted = [name for name in HAND_CRAFTED if name in config.features]
        self.inner = _transformer(config) if len(self.hand_crafted) == 2 else None
        self.outer = _transformer(config) if self.hand_crafted and "hubert" in config.features else None
        layers = (SelfAttentionLayer(config.width, config.heads, config.dropout) for _ in range(2))
        self.self_attention = nn.ModuleList(layers)
        self.classifier: nn.Module
        if config.loss == "am":
            self.classifier = CosineClassifier(2 * config.width, config.classes, config.scale)
        else:
            self.classifier = nn.Linear(2 * config.width, config.classes)
        self.temperature: Tensor
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, inputs: Inputs) -> Output:
        """Return logits (B, C), within +-scale where `loss` is am, and the embedding z (B, 2 d).

        A feature that is absent, or whose mask row is empty, is left out for that row as its switch would.

        Raises:
            ConfigError: The batch has none of the features, or one of another shape.
        """
        z = self.pool(self.fuse(self.tokens(inputs)))
        return Output(self.classifier(z), z)

    def tokens(self, inputs: Inputs) -> dict[str, Tokens]:
        """Return the tokens of each branch, (B, T, d): 85, 85 and 1 of them for a clip of 7 s."""
        rows: dict[str, Tensor | None] = {}
        for name in self.config.features:
            if INPUT_OF[name] in inputs:
                rows[name] = _present(inputs.get(f"{INPUT_OF[name]}_mask"))
        if not rows:
            wanted = ", ".join(INPUT_OF[name] for name in self.config.features)
            raise ConfigError(f"the batch has {', '.join(sorted(inputs)) or 'nothing'}; need {wanted}")
        if self.training and self.config.branch_dropout > 0.0 and len(rows) > 1:
            rows = self._dropped(rows, inputs)
        result = {}
        for name, present in rows.items():
            key = INPUT_OF[name]
            x = self.branches[name](inputs[key], inputs.get(f"{key}_mask"))
            result[name] = Tokens(x, None if present is None else present[:, None].expand(x.shape[:2]))
        return result

    def fuse(self, tokens: dict[str, Tokens]) -> Tokens:
        """Return R (B, T, d): hand-crafted features first among themselves, then with the encoder's, then all."""
        inner = _join(self.inner, [tokens[name] for name in self.hand_crafted if name in tokens])
        outer = _join(self.outer, [part for part in (tokens.get("hubert"), inner) if part is not None])
        if outer is None:
            raise ConfigError(f"no tokens to fuse; need one of {', '.join(self.config.features)}")
        x = outer.x
        for layer in self.self_attention:
            x = layer(x, outer.mask)
        return Tokens(x, outer.mask)

    def pool(self, tokens: Tokens) -> Tensor:
        """Return z (B, 2 d): mean and variance (or deviation) over the tokens that are there."""
        x, mask = tokens.x.float(), tokens.there().float()
        mean = masked_mean(x, mask)
        spread = masked_variance if self.config.stats == "var" else masked_deviation
        return torch.cat([mean, spread(x, mean, mask)], dim=-1)

    def loss(self, output: Output, targets: Targets) -> Tensor:
        """Return the cross-entropy, of cosines less the margin where `config.loss` is am."""
        logits, emotion = output.logits.float(), targets["emotion"]
        if self.config.loss == "am":
            logits = am_logits(logits, emotion, self.config.scale * self.config.margin)
        return nn.functional.cross_entropy(logits, emotion)

    def probabilities(self, output: Output) -> Tensor:
        """Return calibrated probabilities (B, C): logits over the stored temperature, softmax."""
        return torch.softmax(output.logits.float() / self.temperature, dim=-1)

    @torch.no_grad()
    def fit_statistics(self, examples: Sequence[Example]) -> None:
        """Store mean and deviation of each feature over a training set; call it once, before training.

        They are buffers: a checkpoint carries them, and a transfer keeps those of the source.

        Raises:
            ConfigError: No example has a feature that wants statistics.
        """
        for name, branch in self._branches():
            if branch.standard is None:
                continue
            arrays = [example.features.get(INPUT_OF[name]) for example in examples]
            present = [np.asarray(array) for array in arrays if array is not None and len(array)]
            if not present:
                raise ConfigError(f"no example has {INPUT_OF[name]}; need it to fit statistics")
            branch.standard.fit([np.stack(present)] if name == "prosody" else present)

    @torch.no_grad()
    def fit_temperature(self, logits: Tensor, emotion: Tensor) -> float:
        """Store and return the temperature that makes held-out logits (n, C) likeliest, in [0.05, 20].

        Cosines times 30 are over-confident by construction.
        """
        grid = torch.logspace(math.log10(0.05), math.log10(20.0), 400, device=logits.device)
        losses = torch.stack([nn.functional.cross_entropy(logits.float() / t, emotion) for t in grid])
        self.temperature.copy_(grid[int(losses.argmin())])
        return float(self.temperature)

    def adapting_parameters(self) -> Iterator[nn.Parameter]:
        """Yield what learns in a transfer to another corpus: fusion and classifier, or all (`config.adapt`)."""
        if self.config.adapt == "all":
            yield from self.parameters()
            return
        for part in (self.inner, self.outer, self.self_attention, self.classifier):
            if part is not None:
                yield from part.parameters()

    def parts(self) -> dict[str, int]:
        """Return parameters by part: those of each branch, cross-attention, self-attention, classifier."""
        parts: dict[str, int] = {}
        for _, branch in self._branches():
            parts |= branch.parts()
        stages = [stage for stage in (self.inner, self.outer) if stage is not None]
        parts["cross_attention"] = sum(p.numel() for stage in stages for p in stage.parameters())
        parts["self_attention"] = sum(p.numel() for p in self.self_attention.parameters())
        parts["classifier"] = sum(p.numel() for p in self.classifier.parameters())
        return {name: count for name, count in parts.items() if count}

    def _branches(self) -> Iterator[tuple[str, Branch]]:
        for name, branch in self.branches.items():
            assert isinstance(branch, Branch)
            yield name, branch

    def _dropped(self, rows: dict[str, Tensor | None], inputs: Inputs) -> dict[str, Tensor | None]:
        # A row that would lose everything keeps everything.
        example = inputs[INPUT_OF[next(iter(rows))]]
        ones = torch.ones(len(example), device=example.device)
        before = torch.stack([ones if present is None else present for present in rows.values()])
        after = before * (torch.rand_like(before) >= self.config.branch_dropout)
        kept = torch.where(after.sum(0) > 0, after, before)
        return dict(zip(rows, kept.unbind(0), strict=True))


class CosineClassifier(nn.Module):
    """Scaled cosines between an embedding and one direction per class (additive-margin softmax, Wang et al. 2018)."""

    def __init__(self, inputs: int, classes: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(classes, inputs))
        nn.init.xavier_normal_(self.weight)

    def forward(self, z: Tensor) -> Tensor:
        """Return scale * cos of z (B, E) with each class: (B, C), float32, within +-scale."""
        # Sums of products, not a matrix product: mixed precision would round that to 8 bits.
        return self.scale * (_unit(z.float()).unsqueeze(1) * _unit(self.weight.float())).sum(-1)


class MeanPool(System):
    """The comparator: mean of the encoder's layers and frames, one linear layer."""

    reads = ("speech",)

    def __init__(self, config: HumpCatConfig) -> None:
        super().__init__()
        self.config = config
        self.classifier = nn.Linear(config.speech_width, config.classes)

    def forward(self, inputs: Inputs) -> Output:
        """Return logits (B, C) and the mean over frames that are there (B, D)."""
        if "speech" not in inputs:
            raise ConfigError("the batch has no speech; need frames of a speech encoder")
        speech = inputs["speech"]
        frames = speech.mean(2) if speech.dim() == 4 else speech
        z = masked_mean(frames, mask_of(inputs, "speech"))
        return Output(self.classifier(z), z)


def am_logits(logits: Tensor, emotion: Tensor, margin: float) -> Tensor:
    """Return logits (B, C) with `margin` taken off at each row's own class."""
    return logits - margin * nn.functional.one_hot(emotion, logits.shape[-1]).to(logits.dtype)


def _unit(x: Tensor) -> Tensor:
    # x / max(|x|, 1e-6); the clamp stands inside the root, so that the gradient at 0 is finite.
    return x / torch.sqrt((x * x).sum(-1, keepdim=True).clamp(min=1e-12))


def _present(mask: Tensor | None) -> Tensor | None:
    # None where every row has the feature: the graph is then free of masks.
    if mask is None:
        return None
    present = mask.amax(1)
    return None if bool(present.all()) else present


def _join(stage: nn.Module | None, parts: Sequence[Tokens]) -> Tokens | None:
    if not parts:
        return None
    if stage is None or len(parts) == 1:
        return parts[0]
    joined = stage(*parts)
    assert isinstance(joined, Tokens)
    return joined


def _transformer(config: HumpCatConfig) -> CrossTransformer:
    return CrossTransformer(config.width, config.heads, config.feed_forward, config.dropout)


def _branch(name: str, config: HumpCatConfig) -> Branch:
    if name == "hubert":
        return SpeechBranch(config)
    if name == "prosody":
        return ProsodyBranch(config)
    return FrameBranch(name, config)
