"""The front end: what a graph is told of samples, transcript and voice."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ser.bundle import Bundle
from edge_ser.errors import BundleError, ConfigError
from edge_ser.frontend import FrontEnd
from edge_ser.testing import EMBEDDING_SIZE, write_tiny_bundle
from edge_ser.voice import VoiceProfile

SAMPLES = np.linspace(-1, 1, 8000, dtype=np.float32)
MAX_TOKENS = 16


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))


def test_every_input_of_the_manifest_is_there_as_it_says(bundle: Bundle) -> None:
    inputs = FrontEnd(bundle).inputs(SAMPLES, "i am happy")
    assert set(inputs) == {item.name for item in bundle.manifest.inputs}
    for item in bundle.manifest.inputs:
        array = inputs[item.name]
        assert array.dtype == item.dtype
        assert len(array.shape) == len(item.shape)
        assert all(size in (wanted, array.shape[1]) for size, wanted in zip(array.shape, item.shape, strict=True))
    assert np.array_equal(inputs["audio"][0], SAMPLES)


def test_a_transcript_becomes_its_tokens(bundle: Bundle) -> None:
    front_end = FrontEnd(bundle)
    inputs = front_end.inputs(SAMPLES, "I am Happy")
    assert inputs["text_ids"].tolist() == [[1, 2, 5]]
    assert inputs["text_mask"].tolist() == [[1, 1, 1]]
    assert front_end.uses_text(inputs)


@pytest.mark.parametrize("blank", [None, "", " \t\n", "\u2003"])
def test_a_blank_transcript_is_no_text(bundle: Bundle, blank: str | None) -> None:
    front_end = FrontEnd(bundle)
    inputs = front_end.inputs(SAMPLES, blank)
    assert inputs["text_ids"].tolist() == inputs["text_mask"].tolist() == [[0]]
    assert not front_end.uses_text(inputs)


def test_a_blank_transcript_is_no_text_even_to_a_tokenizer_that_marks_the_beginning(
    bundle: Bundle, tmp_path: Path
) -> None:
    tokenizer = json.loads(bundle.read("tokenizer.json"))
    begin = [{"SpecialToken": {"id": "[UNK]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    special = {"[UNK]": {"id": "[UNK]", "ids": [0], "tokens": ["[UNK]"]}}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": begin,
        "pair": [*begin, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": special,
    }
    files = {"model.onnx": bundle.read("model.onnx"), "tokenizer.json": json.dumps(tokenizer).encode()}
    front_end = FrontEnd(Bundle.write(tmp_path / "b", bundle.manifest, files))
    assert front_end.inputs(SAMPLES, "happy")["text_ids"].tolist() == [[0, 5]]
    assert not front_end.uses_text(front_end.inputs(SAMPLES, "  "))


@given(transcript=st.text(st.characters(exclude_categories=()), max_size=80))
@settings(deadline=None)
def test_any_transcript_gives_at_most_the_maximum_of_tokens(bundle: Bundle, transcript: str) -> None:
    inputs = FrontEnd(bundle).inputs(SAMPLES, transcript)
    assert inputs["text_ids"].shape == inputs["text_mask"].shape
    assert 1 <= inputs["text_ids"].shape[1] <= MAX_TOKENS


def test_a_long_transcript_is_cut(bundle: Bundle) -> None:
    inputs = FrontEnd(bundle).inputs(SAMPLES, "happy " * 1000)
    assert inputs["text_ids"].tolist() == [[5] * MAX_TOKENS]


def test_half_a_surrogate_pair_is_no_error(bundle: Bundle) -> None:
    assert FrontEnd(bundle).inputs(SAMPLES, "happy \ud800")["text_ids"][0, 0] == 5


def test_a_fresh_voice_is_no_voice(bundle: Bundle) -> None:
    front_end = FrontEnd(bundle)
    none, fresh = front_end.inputs(SAMPLES)["voice"], front_end.inputs(SAMPLES, voice=VoiceProfile())["voice"]
    assert np.array_equal(none, fresh)
    assert not none.any()


def test_a_voice_is_passed_on_and_not_changed(bundle: Bundle) -> None:
    voice = VoiceProfile()
    voice.update(np.arange(EMBEDDING_SIZE, dtype=np.float32), "tiny")
    told = FrontEnd(bundle).inputs(SAMPLES, voice=voice)["voice"]
    assert told[0].tolist() == [1, *range(EMBEDDING_SIZE), *[0] * EMBEDDING_SIZE]
    assert voice.utterances == 1


@pytest.mark.parametrize(("size", "space"), [(EMBEDDING_SIZE, "another"), (EMBEDDING_SIZE + 1, "tiny")])
def test_a_voice_of_another_model_is_refused(bundle: Bundle, size: int, space: str) -> None:
    voice = VoiceProfile()
    voice.update(np.ones(size), space)
    with pytest.raises(ConfigError, match="fresh"):
        FrontEnd(bundle).inputs(SAMPLES, voice=voice)


def test_a_model_without_text_and_voice_is_told_audio_only(tmp_path: Path) -> None:
    front_end = FrontEnd(Bundle.open(write_tiny_bundle(tmp_path / "b", text=False, voice=False)))
    inputs = front_end.inputs(SAMPLES, "i am happy", VoiceProfile())
    assert set(inputs) == {"audio"}
    assert not front_end.uses_text(inputs)


def test_a_tokenizer_that_is_none_fails_at_the_first_transcript_only(bundle: Bundle, tmp_path: Path) -> None:
    files = {"model.onnx": bundle.read("model.onnx"), "tokenizer.json": b"{}"}
    front_end = FrontEnd(Bundle.write(tmp_path / "b", bundle.manifest, files))
    front_end.inputs(SAMPLES)
    with pytest.raises(BundleError, match=r"tokenizer\.json is no tokenizer"):
        front_end.inputs(SAMPLES, "happy")


def test_a_tokenizer_that_went_away_is_a_plain_error(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.folder, tmp_path / "b")
    (tmp_path / "b" / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"cannot read .*tokenizer\.json"):
        FrontEnd(replace(bundle, folder=tmp_path / "b")).inputs(SAMPLES, "happy")
