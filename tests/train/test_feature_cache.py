from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from edge_ser.errors import ConfigError  # noqa: E402
from train.encoders import Encoder, frame_count, load_encoder, load_tokenizer  # noqa: E402
from train.feature_cache import content_hash, encoder_layers, extract, pool_frames, text_tokens  # noqa: E402

LENGTHS = (6_000, 8_000, 8_000, 5_000)


class Moments:
    """Mean and deviation of a clip, which counts how often it is asked and may be told to fail."""

    name = "moments/1"

    def __init__(self, fail_after: int = 10_000) -> None:
        self.calls = 0
        self.fail_after = fail_after

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.calls == self.fail_after:
            raise KeyboardInterrupt
        self.calls += 1
        return np.array([samples.mean(), samples.std(), 70_000.0], np.float32)


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for place, length in enumerate(LENGTHS):
        paths.append(tmp_path / f"{place}.wav")
        soundfile.write(paths[-1], rng.standard_normal(length) * 0.1, 16_000)
    return paths


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("tiny:hubert")


def count_passes(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    passes = []
    whole = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda *given: passes.append(1) or whole(*given))
    return lambda: len(passes)


def files(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.npy"))


def test_features_are_computed_once_for_a_content(clips: list[Path], tmp_path: Path) -> None:
    twin = tmp_path / "twin.wav"
    twin.write_bytes(clips[0].read_bytes())
    cache = tmp_path / "cache"
    first = Moments()
    found = extract(first, [*clips, twin, clips[0]], cache)
    again = Moments()
    repeated = extract(again, [*clips, twin], cache)
    assert (first.calls, again.calls) == (len(clips), 0)
    assert list(found) == [*clips, twin]
    assert all(np.array_equal(found[path], repeated[path]) for path in found)
    assert np.array_equal(found[twin], found[clips[0]])
    assert files(cache)[0].parent.name == files(cache)[0].name[:2]


def test_a_clip_that_changes_is_computed_anew(clips: list[Path], tmp_path: Path) -> None:
    before = extract(Moments(), clips[:1], tmp_path / "cache")[clips[0]]
    soundfile.write(clips[0], np.full(500, 0.25), 16_000)
    after = extract(Moments(), clips[:1], tmp_path / "cache")[clips[0]]
    assert after[0] == pytest.approx(0.25, abs=1e-4)
    assert not np.array_equal(before, after)


def test_extractors_of_other_names_do_not_meet(clips: list[Path], tmp_path: Path) -> None:
    extract(Moments(), clips, tmp_path / "cache")
    other = Moments()
    other.name = "moments-1"
    extract(other, clips, tmp_path / "cache")
    assert other.calls == len(clips)


def test_half_precision_is_kept_finite(clips: list[Path], tmp_path: Path) -> None:
    found = extract(Moments(), clips, tmp_path / "cache", np.float16)
    assert all(array.dtype == np.float16 and np.isfinite(array).all() for array in found.values())
    exact = extract(Moments(), clips, tmp_path / "exact")
    assert all(array.dtype == np.float32 and array[2] == 70_000.0 for array in exact.values())


def test_a_killed_run_goes_on_where_it_was(clips: list[Path], tmp_path: Path) -> None:
    killed = Moments(fail_after=2)
    with pytest.raises(KeyboardInterrupt):
        extract(killed, clips, tmp_path / "cache")
    rest = Moments()
    extract(rest, clips, tmp_path / "cache")
    assert rest.calls == len(clips) - 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-3]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not an array"),
        lambda path: np.save(path, np.zeros(3, np.float64)),
    ],
)
def test_a_damaged_file_is_computed_anew(clips: list[Path], tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    cache = tmp_path / "cache"
    whole = extract(Moments(), clips, cache)
    spoil(files(cache)[1])
    mended = Moments()
    found = extract(mended, clips, cache)
    assert mended.calls == 1
    assert all(np.array_equal(found[path], whole[path]) for path in clips)


def test_no_partial_file_is_left(clips: list[Path], tmp_path: Path) -> None:
    extract(Moments(), clips, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.name.startswith(".")]


def _fill(paths: list[Path], cache: Path) -> None:
    extract(Moments(), paths, cache)


def test_several_processes_fill_one_cache(clips: list[Path], tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_fill, args=(clips, tmp_path / "cache")) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    after = Moments()
    assert len(extract(after, clips, tmp_path / "cache")) == len(clips)
    assert after.calls == 0


def test_one_layer_has_no_layer_axis_and_several_have_it_second(
    clips: list[Path], tmp_path: Path, encoder: Encoder
) -> None:
    one = encoder_layers(encoder, (2,), 1, clips, tmp_path / "cache")
    several = encoder_layers(encoder, (0, 2), 1, clips, tmp_path / "cache")
    for path, length in zip(clips, LENGTHS, strict=True):
        assert one[path].shape == (frame_count(length), 32)
        assert one[path].dtype == np.float16
        assert several[path].shape == (frame_count(length), 2, 32)
        assert np.array_equal(several[path][:, 1], one[path])


def test_one_pass_fills_all_layers(
    clips: list[Path], tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = count_passes(encoder, monkeypatch)
    encoder_layers(encoder, "weighted_sum", 1, clips, tmp_path / "cache")
    assert passes() == len(clips)
    encoder_layers(encoder, (1,), 1, clips, tmp_path / "cache")
    encoder_layers(encoder, "last", 1, clips, tmp_path / "cache")
    assert passes() == len(clips)
    encoder_layers(encoder, "last", 2, clips, tmp_path / "cache")
    assert passes() == 2 * len(clips)


def test_cached_frames_are_the_encoders(clips: list[Path], tmp_path: Path, encoder: Encoder) -> None:
    samples, _ = soundfile.read(clips[0], dtype="float32")
    row = torch.from_numpy(samples)[None]
    states, _ = encoder.encode(row, torch.ones_like(row))
    found = encoder_layers(encoder, (1,), 1, clips[:1], tmp_path / "cache")[clips[0]]
    np.testing.assert_allclose(found, states[1][0].numpy(), atol=2e-3, rtol=1e-3)


def test_an_encoder_in_training_mode_gives_the_same_and_stays_in_it(clips: list[Path], tmp_path: Path) -> None:
    learning = load_encoder("tiny:hubert").set_mode("finetuned").train()
    found = encoder_layers(learning, (2,), 1, clips[:1], tmp_path / "a")
    frozen = encoder_layers(load_encoder("tiny:hubert"), (2,), 1, clips[:1], tmp_path / "b")
    assert np.array_equal(found[clips[0]], frozen[clips[0]])
    assert learning.training and learning.model.training


def test_another_encoder_has_other_features(clips: list[Path], tmp_path: Path, encoder: Encoder) -> None:
    first = encoder_layers(encoder, (2,), 1, clips[:1], tmp_path / "cache")
    other = encoder_layers(load_encoder("tiny:hubert", seed=1), (2,), 1, clips[:1], tmp_path / "cache")
    assert not np.array_equal(first[clips[0]], other[clips[0]])


def test_pooling_means_neighbouring_frames_and_keeps_the_rest() -> None:
    frames = np.arange(10, dtype=np.float32).reshape(5, 2)
    np.testing.assert_array_equal(pool_frames(frames, 2), [[1, 2], [5, 6], [8, 9]])
    assert pool_frames(frames, 1) is frames
    assert pool_frames(frames, 9).shape == (1, 2)
    assert pool_frames(frames[:0], 2).shape == (0, 2)


def test_what_makes_no_sense_is_refused(clips: list[Path], tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(ConfigError, match="pool 0"):
        encoder_layers(encoder, (1,), 0, clips, tmp_path)
    with pytest.raises(ConfigError, match="0 to 2"):
        encoder_layers(encoder, (7,), 1, clips, tmp_path)
    with pytest.raises(ConfigError, match="text encoder"):
        text_tokens(encoder, load_tokenizer("tiny:roberta"), ["a"], tmp_path)
    with pytest.raises(ConfigError, match="speech encoder"):
        encoder_layers(load_encoder("tiny:roberta"), (1,), 1, clips, tmp_path)


def test_sentences_become_tokens_and_an_empty_one_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, tokenizer = load_encoder("tiny:roberta"), load_tokenizer("tiny:roberta")
    passes = count_passes(reader, monkeypatch)
    found = text_tokens(reader, tokenizer, ["hello", "", "  ", "hello", "so"], tmp_path)
    assert passes() == 2
    assert {sentence: array.shape for sentence, array in found.items()} == {
        "hello": (7, 32),
        "": (0, 32),
        "  ": (0, 32),
        "so": (4, 32),
    }
    again = text_tokens(reader, tokenizer, ["so", "hello"], tmp_path)
    assert passes() == 2
    assert np.array_equal(again["so"], found["so"])
    text_tokens(reader, tokenizer, ["so"], tmp_path, layer=1)
    assert passes() == 3


def test_content_decides_and_not_the_name(clips: list[Path]) -> None:
    assert content_hash(clips[0]) != content_hash(clips[1])
    assert len(content_hash(clips[0])) == 64
