"""The students' text encoder learns to read before it is told what is said: written sentences and their emotions.

Clips with constructed sentences are few and say with their sound what the words say, too, so a text encoder that learns
from them alone learns little. It learns from all sentences first, from the fine emotions that their readers named as
well as from the four classes: of these alone a few hundred sentences each would be learnt by heart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from edge_ser.corpus import FOUR_CLASSES
from train.layers import masked_mean
from train.students.config import StudentConfig
from train.students.schedule import adamw, learning_rate, set_rate
from train.students.small_encoders import TextEncoder
from train.text import encode_batch
from train.text_encoder import LabelledSentence, reading_loss

_BATCH = 96
_PEAK = 3e-3
_LOST_TOKENS = 0.1
"""Share of the tokens that are hidden in training."""
_DROPOUT = 0.25


class Reading(nn.Module):
    """A text encoder under the heads that teach it."""

    def __init__(self, config: StudentConfig, fine_labels: int) -> None:
        super().__init__()
        width = config.text_width
        self.text = TextEncoder(
            vocabulary=config.vocabulary, width=width, max_tokens=config.max_tokens, dropout=_DROPOUT
        )
        self.dropout = nn.Dropout(_DROPOUT)
        self.four = nn.Linear(width, len(FOUR_CLASSES))
        self.fine = nn.Linear(width, fine_labels)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (1, B, 4) and (1, B, labels) for ids (B, T) and mask (B, T)."""
        pooled = self.dropout(masked_mean(self.text(ids, mask), mask)).unsqueeze(0)
        return self.four(pooled), self.fine(pooled)


def read_first(
    config: StudentConfig, sentences: Sequence[LabelledSentence], tokenizer: Tokenizer, steps: int, seed: int
) -> Reading:
    """Return a text encoder that has learnt to tell the emotions of written sentences, under its heads.

    Args:
        config: Its sizes.
        sentences: What it learns from, all of it.
        tokenizer: Turns them into tokens.
        steps: Batches of 96 sentences, drawn at random.
        seed: Of its first weights and of the order.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, len(FOUR_CLASSES)))
    names = sorted({label for sentence in sentences for label in sentence.emotions})
    fine = torch.tensor([[float(name in sentence.emotions) for name in names] for sentence in sentences])
    four = torch.tensor([sentence.emotion for sentence in sentences])
    counts = torch.bincount(four[four >= 0], minlength=len(FOUR_CLASSES)).float().clamp(min=1.0)
    priors = (counts / counts.sum()).log()
    reading = Reading(config, len(names)).train()
    optimiser = adamw(reading.parameters(), _PEAK, 0.05)
    for step in range(steps):
        places = rng.choice(len(sentences), _BATCH)
        ids, mask = encode_batch(tokenizer, [sentences[place].text for place in places], config.max_tokens)
        hidden = (rng.random(mask.shape) < _LOST_TOKENS) & (mask.sum(1, keepdims=True) > 3)
        told = torch.from_numpy(ids), torch.from_numpy(np.where(hidden, 0, mask)).float()
        set_rate(optimiser, learning_rate(step, steps=steps, warmup=100, peak=_PEAK))
        classes, labels = reading(*told)
        loss = reading_loss(classes, labels, four[places], fine[places], priors)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(reading.parameters(), 1.0)
        optimiser.step()
    return reading.eval()
