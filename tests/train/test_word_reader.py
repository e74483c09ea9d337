from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from edge_ser.corpus import FOUR_CLASSES  # noqa: E402
from train.students.config import StudentConfig  # noqa: E402
from train.students.word_reader import read_first  # noqa: E402
from train.text import encode_batch, train_tokenizer  # noqa: E402
from train.text_encoder import LabelledSentence  # noqa: E402

WORDS = {"angry": "hate awful", "happy": "love wonderful", "neutral": "table street", "sad": "lost alone"}
CONFIG = StudentConfig("mdat", vocabulary=300, text_width=32, max_tokens=16, told_width=12)


def sentences(numbers: range) -> list[LabelledSentence]:
    return [
        LabelledSentence(f"{number} {word} {number + 1}", (word, emotion), FOUR_CLASSES.index(emotion), "train")
        for emotion, words in WORDS.items()
        for word in words.split()
        for number in numbers
    ]


def test_a_reader_tells_sentences_that_it_has_not_read_by_their_words() -> None:
    told = sentences(range(40))
    # Most sentences of the corpus are none of the four; they still say what their words feel like.
    told += [LabelledSentence(f"{n} curious {n}", ("curiosity",), -1, "train") for n in range(40)]
    tokenizer = train_tokenizer([sentence.text for sentence in told], 300)
    reading = read_first(CONFIG, told, tokenizer, steps=300, seed=1)
    asked = sentences(range(60, 70))
    ids, mask = encode_batch(tokenizer, [sentence.text for sentence in asked], CONFIG.max_tokens)
    with torch.no_grad():
        four, fine = reading(torch.from_numpy(ids), torch.from_numpy(mask).float())
    right = four[0].argmax(-1) == torch.tensor([sentence.emotion for sentence in asked])
    assert float(right.float().mean()) >= 0.9
    assert fine.shape[-1] == len({label for sentence in told for label in sentence.emotions})


def test_the_same_seed_reads_the_same() -> None:
    told = sentences(range(10))
    tokenizer = train_tokenizer([sentence.text for sentence in told], 300)
    first, again = (read_first(CONFIG, told, tokenizer, steps=3, seed=4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
