"""The small text encoder: what it writes is a folder that transformers opens, and it learns."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from edge_ser.corpus import FOUR_CLASSES  # noqa: E402
from edge_ser.errors import ConfigError  # noqa: E402
from train import text_encoder  # noqa: E402
from train.encoders import load_encoder, load_tokenizer  # noqa: E402
from train.text_encoder import (  # noqa: E402
    SPECIAL_TOKENS,
    LabelledSentence,
    TextEncoderSettings,
    read_labelled,
    roberta_tokenizer,
    train_text_encoder,
)

TINY = TextEncoderSettings(
    layers=1, width=16, heads=2, feed_forward=16, vocabulary=300, max_tokens=16, epochs=6, batch_size=16,
    learning_rate=1e-2, dropout=0.0,
)  # fmt: skip
WORDS = {"angry": "furious rage", "happy": "great joy", "neutral": "the table", "sad": "lonely tears"}


def made_sentences(count: int) -> list[LabelledSentence]:
    rng = np.random.default_rng(0)
    sentences = []
    for place in range(count):
        name = FOUR_CLASSES[place % 4]
        filler = " ".join(rng.choice(["it", "was", "so", "there"], size=3))
        label = place % 4 if place % 7 else -1
        split = ("train", "train", "dev", "test")[place // 4 % 4]
        sentences.append(LabelledSentence(f"{filler} {WORDS[name]}", (name, "all"), label, split))
    return sentences


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    out = tmp_path_factory.mktemp("text") / "encoder"
    return out, train_text_encoder(made_sentences(240), out, TINY)


def test_it_learns_words(folder: tuple[Path, float]) -> None:
    out, accuracy = folder
    assert accuracy > 0.9
    record = json.loads((out / "training.json").read_text())
    assert record["test_ua"] == accuracy
    assert [row["epoch"] for row in record["history"]] == [1, 2, 3, 4, 5, 6]


def test_the_folder_opens_as_an_encoder(folder: tuple[Path, float]) -> None:
    out, _ = folder
    encoder, tokenize = load_encoder(out, family="roberta"), load_tokenizer(out)
    ids = torch.tensor([tokenize("it was GREAT joy")])
    states, frames = encoder.encode(ids, torch.ones_like(ids))
    assert states[-1].shape == (1, ids.shape[1], 16)
    assert frames.sum() == ids.shape[1]
    assert ids[0, 0] == SPECIAL_TOKENS.index("<s>") and ids[0, -1] == SPECIAL_TOKENS.index("</s>")


def test_the_tokenizer_is_the_one_that_was_trained(folder: tuple[Path, float]) -> None:
    out, _ = folder
    train = [s.text for s in made_sentences(240) if s.split == "train"]
    made, loaded = roberta_tokenizer(train, 300, 16), load_tokenizer(out)
    for sentence in ("it was great joy", "It WAS Great", "غصہ, ভালো 😀", ""):
        assert loaded(sentence) == made(sentence)["input_ids"]
        assert SPECIAL_TOKENS.index("<unk>") not in loaded(sentence)
    assert made.pad_token_id == 1
    assert len(load_tokenizer(out, max_tokens=5)("one two three four five")) == 5


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    sentences = made_sentences(64)
    short = TextEncoderSettings(**{**TINY.__dict__, "epochs": 1})
    for name in ("one", "two"):
        train_text_encoder(sentences, tmp_path / name, short)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]


def test_sentences_keep_every_label(tmp_path: Path) -> None:
    path = tmp_path / "made.csv.gz"
    with gzip.open(path, "wt", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerows([("split", "text", "emotions", "emotion4"), ("dev", "Oh, no", "fear|sadness", "")])
        writer.writerow(("train", "hm", "anger", "angry"))
    assert read_labelled(path) == [
        LabelledSentence("Oh, no", ("fear", "sadness"), -1, "dev"),
        LabelledSentence("hm", ("anger",), FOUR_CLASSES.index("angry"), "train"),
    ]


def test_what_is_missing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="split dev has no sentence of the four classes"):
        train_text_encoder([LabelledSentence("a", ("x",), 0, "train")], tmp_path / "out", TINY)
    with pytest.raises(SystemExit) as stopped:
        text_encoder.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 1
    assert "no sentences at" in capsys.readouterr().err
