"""The students' text encoder learns to read before it is told what is said: written sentences and their emotions.

Clips with constructed sentences are few and say with their sound what the words say, too, so a text encoder that learns
from them alone learns little. It learns from all sentences first, each class as often as the others.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from edge_ser.corpus import FOUR_CLASSES
from train.layers import masked_mean
from train.students.config import StudentConfig
from train.students.schedule import adamw, learning_rate, set_rate
from train.students.small_encoders import TextEncoder
from train.text import ConstructedPairs, encode_batch

_BATCH = 96
_PEAK = 2e-3
_LOST_TOKENS = 0.1
"""Share of the tokens that are hidden in training."""


def read_first(
    config: StudentConfig, pairs: ConstructedPairs, tokenizer: Tokenizer, steps: int, seed: int
) -> TextEncoder:
    """Return a text encoder that has learnt to tell the emotions of written sentences.

    Args:
        config: Its sizes.
        pairs: The sentences by class.
        tokenizer: Turns them into tokens.
        steps: Batches of 96 sentences.
        seed: Of its first weights and of the order.
    """
    torch.manual_seed(seed)
    text = TextEncoder(
        vocabulary=config.vocabulary,
        width=config.text_width,
        max_tokens=config.max_tokens,
        dropout=config.dropout,
    )
    classify = nn.Sequential(nn.Dropout(0.2), nn.Linear(config.text_width, len(FOUR_CLASSES)))
    optimiser = adamw([*text.parameters(), *classify.parameters()], _PEAK, 0.05)
    for step, (ids, mask, labels) in enumerate(_batches(config, pairs, tokenizer, steps, seed)):
        set_rate(optimiser, learning_rate(step, steps=steps, warmup=100, peak=_PEAK))
        logits = classify(masked_mean(text(ids, mask), mask))
        optimiser.zero_grad()
        nn.functional.cross_entropy(logits, labels, label_smoothing=0.05).backward()
        nn.utils.clip_grad_norm_(text.parameters(), 1.0)
        optimiser.step()
    return text


def _batches(
    config: StudentConfig, pairs: ConstructedPairs, tokenizer: Tokenizer, steps: int, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    rng = np.random.default_rng((seed, len(FOUR_CLASSES)))
    for _ in range(steps):
        labels = rng.integers(0, len(FOUR_CLASSES), _BATCH)
        ids, mask = encode_batch(tokenizer, [pairs.draw(int(label), rng) for label in labels], config.max_tokens)
        hidden = (rng.random(mask.shape) < _LOST_TOKENS) & (mask.sum(1, keepdims=True) > 3)
        yield (
            torch.from_numpy(ids),
            torch.from_numpy(np.where(hidden, 0, mask)).float(),
            torch.from_numpy(labels),
        )
