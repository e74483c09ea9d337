"""Trains a small RoBERTa on sentences with emotions, for where no published text encoder can be had.

    python -m train.text_encoder --data FOLDER --out FOLDER

FOLDER of the data holds `text/goemotions.csv.gz` (columns split, text, emotions, emotion4). What comes out is a folder
as transformers keeps one (`config.json`, `model.safetensors`, `tokenizer.json`), which `train.encoders` and
`AutoModel.from_pretrained` open; the classification heads stay behind. A few minutes on one core.
"""

from __future__ import annotations

import argparse
import copy
import csv
import gzip
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from edge_ser.corpus import FOUR_CLASSES
from edge_ser.errors import ConfigError
from edge_ser.metrics import confusion_matrix, unweighted_accuracy
from train.layers import masked_mean

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""RoBERTa's special tokens; the place of each is its id."""

_UNLABELLED = -1


@dataclass(frozen=True)
class TextEncoderSettings:
    """Size of the encoder and how it is trained."""

    layers: int = 4
    """Transformer layers."""
    width: int = 192
    """Width of the hidden states."""
    heads: int = 4
    """Attention heads per layer."""
    feed_forward: int = 384
    """Width of the feed-forward parts."""
    vocabulary: int = 8000
    """Word pieces of the byte-level BPE, special tokens included."""
    max_tokens: int = 128
    """Longest sentence in tokens, special ones included; longer ones are cut."""
    epochs: int = 4
    """Passes over the training split."""
    batch_size: int = 64
    """Sentences per step."""
    learning_rate: float = 1e-3
    """Peak of the one-cycle schedule of AdamW."""
    dropout: float = 0.2
    """Dropout of hidden states and pooled vectors."""
    neutral_share: float = 0.5
    """Share of the neutral sentences that an epoch reads: they are most of the corpus and UA needs few."""
    seed: int = 1
    """Seed of weights, order and dropout."""


@dataclass(frozen=True)
class LabelledSentence:
    """A sentence with every emotion that its readers named."""

    text: str
    """The words."""
    emotions: tuple[str, ...]
    """Fine labels, at least one."""
    emotion: int
    """Index in `FOUR_CLASSES`, -1 where the sentence is none of the four."""
    split: str
    """`train`, `dev` or `test`."""


def read_labelled(path: Path) -> list[LabelledSentence]:
    """Return the sentences of a gzipped CSV with the columns split, text, emotions (joined by `|`) and emotion4.

    Raises:
        ConfigError: No such file.
    """
    if not path.is_file():
        raise ConfigError(
            f"no sentences at {path}; need text/goemotions.csv.gz in the data folder; give it with --data"
        )
    index = {name: place for place, name in enumerate(FOUR_CLASSES)}
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        return [
            LabelledSentence(
                row["text"],
                tuple(row["emotions"].split("|")),
                index.get(row["emotion4"], _UNLABELLED),
                row["split"],
            )
            for row in csv.DictReader(lines)
        ]


def roberta_tokenizer(texts: Sequence[str], vocabulary: int, max_tokens: int) -> PreTrainedTokenizerFast:
    """Return a lower-casing byte-level BPE tokenizer with RoBERTa's special tokens and their ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=max_tokens,
    )


def roberta(settings: TextEncoderSettings, vocabulary: int) -> RobertaModel:
    """Return the encoder with random weights, without a pooler."""
    config = RobertaConfig(
        vocab_size=vocabulary,
        hidden_size=settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=settings.feed_forward,
        hidden_dropout_prob=settings.dropout,
        attention_probs_dropout_prob=0.1,
        max_position_embeddings=settings.max_tokens + 2,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        layer_norm_eps=1e-5,
    )
    return RobertaModel(config, add_pooling_layer=False)


class EmotionReader(nn.Module):
    """The encoder under the heads that teach it: four classes and the fine labels."""

    def __init__(self, encoder: RobertaModel, fine_labels: int, dropout: float) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.four = nn.Linear(width, len(FOUR_CLASSES))
        self.fine = nn.Linear(width, fine_labels)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (2, B, 4) and (2, B, labels): first from the mean over tokens, then from `<s>` alone.

        Both vectors pass the same heads, so that either way of reading the encoder works downstream.
        """
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        pooled = self.dropout(torch.stack([masked_mean(hidden, mask.to(hidden.dtype)), hidden[:, 0]]))
        return self.four(pooled), self.fine(pooled)


@dataclass(frozen=True)
class _Encoded:
    """A split as numbers."""

    ids: list[list[int]]
    emotion: Tensor
    fine: Tensor

    def batch(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = [self.ids[place] for place in places]
        longest = max(map(len, rows))
        ids = torch.ones((len(rows), longest), dtype=torch.int64)  # 1 is <pad>
        mask = torch.zeros((len(rows), longest), dtype=torch.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
        return ids, mask


def _encoded(
    sentences: Sequence[LabelledSentence], tokenizer: PreTrainedTokenizerFast, labels: Sequence[str], max_tokens: int
) -> _Encoded:
    ids = tokenizer([s.text for s in sentences], truncation=True, max_length=max_tokens)["input_ids"]
    fine = torch.tensor([[float(label in s.emotions) for label in labels] for s in sentences])
    return _Encoded(ids, torch.tensor([s.emotion for s in sentences]), fine)


def _batches(split: _Encoded, settings: TextEncoderSettings, rng: np.random.Generator) -> list[list[int]]:
    """Return random batches of about one length (sorted inside pools of 32 batches), neutral sentences thinned."""
    neutral = split.emotion.numpy() == FOUR_CLASSES.index("neutral")
    spared = rng.permutation(np.flatnonzero(neutral))[: int(neutral.sum() * settings.neutral_share)]
    order = rng.permutation(np.concatenate([np.flatnonzero(~neutral), spared])).tolist()
    lengths = [len(row) for row in split.ids]
    size, batches = settings.batch_size, []
    for start in range(0, len(order), 32 * size):
        pool = sorted(order[start : start + 32 * size], key=lambda place: lengths[place])
        batches += [pool[place : place + size] for place in range(0, len(pool), size)]
    return [batches[place] for place in rng.permutation(len(batches))]


def reading_loss(four: Tensor, fine: Tensor, emotion: Tensor, labels: Tensor, priors: Tensor) -> Tensor:
    """Return the loss of logits (P, B, 4) and (P, B, labels), P ways of pooling.

    Args:
        four: Logits of the four classes.
        fine: Logits of the fine labels.
        emotion: (B,) class indices, -1 where a sentence is none of the four.
        labels: (B, labels) of zeros and ones.
        priors: (4,) logarithms of the classes' shares.
    """
    # Logits are taught on top of the log priors and read without them: what remains is fair to every class, as UA is.
    fine_loss = nn.functional.binary_cross_entropy_with_logits(fine, labels.expand_as(fine)) * labels.shape[-1] / 4
    known = emotion >= 0
    if not bool(known.any()):
        return fine_loss
    logits = (four[:, known] + priors).flatten(0, 1)
    return fine_loss + nn.functional.cross_entropy(logits, emotion[known].repeat(len(four)))


@torch.no_grad()
def four_class_accuracy(reader: EmotionReader, split: _Encoded) -> float:
    """Return the UA of the four classes on the labelled sentences of a split, from the mean over tokens."""
    reader.eval()
    places = [place for place in range(len(split.ids)) if split.emotion[place] >= 0]
    places.sort(key=lambda place: len(split.ids[place]))
    predicted: list[int] = []
    for start in range(0, len(places), 256):
        four, _ = reader(*split.batch(places[start : start + 256]))
        predicted += four[0].argmax(-1).tolist()
    return unweighted_accuracy(confusion_matrix(split.emotion[places].numpy(), predicted, len(FOUR_CLASSES)))


def train_reader(
    reader: EmotionReader, train: _Encoded, dev: _Encoded, settings: TextEncoderSettings
) -> list[dict[str, float]]:
    """Train in place, leave the weights of the best epoch by dev UA; return one row per epoch."""
    rng = np.random.default_rng(settings.seed)
    counts = torch.bincount(train.emotion[train.emotion >= 0], minlength=len(FOUR_CLASSES)).float()
    counts[FOUR_CLASSES.index("neutral")] *= settings.neutral_share
    priors = (counts.clamp(min=1) / counts.sum()).log()
    steps = settings.epochs * len(_batches(train, settings, np.random.default_rng(0)))
    optimizer = torch.optim.AdamW(reader.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=steps, pct_start=0.1)
    history: list[dict[str, float]] = []
    best, kept = -1.0, copy.deepcopy(reader.state_dict())
    for epoch in range(1, settings.epochs + 1):
        reader.train()
        losses = []
        for places in tqdm(_batches(train, settings, rng), desc=f"epoch {epoch}", mininterval=5):
            four, fine = reader(*train.batch(places))
            loss = reading_loss(four, fine, train.emotion[places], train.fine[places], priors)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        accuracy = four_class_accuracy(reader, dev)
        history.append({"epoch": epoch, "loss": float(np.mean(losses)), "dev_ua": accuracy})
        print(json.dumps(history[-1]), flush=True)
        if accuracy > best:
            best, kept = accuracy, copy.deepcopy(reader.state_dict())
    reader.load_state_dict(kept)
    return history


def _name_tokenizer_class(path: Path) -> None:
    # Releases 4 and 5 of transformers write different names of one class; both read this one.
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def train_text_encoder(sentences: Sequence[LabelledSentence], out: Path, settings: TextEncoderSettings) -> float:
    """Train and write the folder `out`; return the UA of the test split.

    Raises:
        ConfigError: A split has no sentences of the four classes.
    """
    splits = {name: [s for s in sentences if s.split == name] for name in ("train", "dev", "test")}
    for name, chosen in splits.items():
        if not any(s.emotion >= 0 for s in chosen):
            raise ConfigError(f"split {name} has no sentence of the four classes; need train, dev and test with some")
    torch.manual_seed(settings.seed)
    tokenizer = roberta_tokenizer([s.text for s in splits["train"]], settings.vocabulary, settings.max_tokens)
    labels = sorted({label for s in splits["train"] for label in s.emotions})
    encoded = {name: _encoded(split, tokenizer, labels, settings.max_tokens) for name, split in splits.items()}
    reader = EmotionReader(roberta(settings, len(tokenizer)), len(labels), settings.dropout)
    history = train_reader(reader, encoded["train"], encoded["dev"], settings)
    test = four_class_accuracy(reader, encoded["test"])
    reader.encoder.save_pretrained(out)
    tokenizer.save_pretrained(out)
    _name_tokenizer_class(out / "tokenizer_config.json")
    record = {"settings": asdict(settings), "history": history, "test_ua": test}
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return test


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m train.text_encoder", description=__doc__.splitlines()[0])
    default = os.environ.get("EDGE_SER_DATA")
    parser.add_argument("--data", type=Path, default=default and Path(default), help="data folder ($EDGE_SER_DATA)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--epochs", type=int, default=TextEncoderSettings.epochs)
    parser.add_argument("--seed", type=int, default=TextEncoderSettings.seed)
    chosen = parser.parse_args(arguments)
    if chosen.data is None:
        parser.error("no data folder; give --data FOLDER or set EDGE_SER_DATA")
    try:
        sentences = read_labelled(chosen.data / "text" / "goemotions.csv.gz")
        settings = TextEncoderSettings(epochs=chosen.epochs, seed=chosen.seed)
        test = train_text_encoder(sentences, chosen.out, settings)
    except ConfigError as error:
        parser.exit(1, f"{type(error).__name__}: {error}\n")
    print(json.dumps({"out": str(chosen.out), "test_ua": test}))


if __name__ == "__main__":
    main()
