"""The tokenizer of a text encoder as the one file that a bundle carries."""

from __future__ import annotations

import json
from typing import Any

from transformers import AutoTokenizer

from edge_ser.errors import ConfigError

_FIRST_BYTE_ID = 4
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def tokenizer_file(source: str) -> bytes:
    """Return the content of tokenizer.json for a text encoder.

    Args:
        source: Hub id or folder; for `tiny:` and `random:` encoders it gives the bytes of a sentence between two
            special tokens, as `train.encoders.load_tokenizer` does.

    Raises:
        ConfigError: There is no tokenizer, or none that the tokenizers package runs.
    """
    if source.startswith(("tiny:", "random:")):
        return json.dumps(_byte_tokenizer()).encode()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        text: str = tokenizer.backend_tokenizer.to_str()
    except (OSError, ValueError, AttributeError) as problem:
        first = str(problem).strip().splitlines()[0]
        raise ConfigError(f"no fast tokenizer in {source} ({first}); need one saved beside the encoder") from None
    return text.encode()


def _byte_tokenizer() -> dict[str, Any]:
    vocabulary = {name: place for place, name in enumerate(_SPECIAL)}
    vocabulary |= {_letter(byte): _FIRST_BYTE_ID + byte for byte in range(256)}
    first, last = ({"SpecialToken": {"id": name, "type_id": 0}} for name in ("<s>", "</s>"))
    tokens = {name: {"id": name, "ids": [vocabulary[name]], "tokens": [name]} for name in ("<s>", "</s>")}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, {"Sequence": {"id": "A", "type_id": 0}}, last],
            "pair": [first, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}, last],
            "special_tokens": tokens,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocabulary,
            "merges": [],
        },
    }


def _letter(byte: int) -> str:
    """Return the letter that stands for a byte: printable ones for themselves, the others from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if byte in printable:
        return chr(byte)
    return chr(256 + sum(other not in printable for other in range(byte)))
