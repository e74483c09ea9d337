"""A voice: the statistics of what was heard, the same after a file as before, and nothing of another model."""

import base64
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_ser.errors import ConfigError
from edge_ser.voice import VoiceProfile

values = st.floats(-100, 100, width=32)
histories = hnp.arrays(np.float32, st.tuples(st.integers(1, 20), st.integers(1, 6)), elements=values)


def heard(history: np.ndarray, space: str = "mdat-1") -> VoiceProfile:
    voice = VoiceProfile()
    for embedding in history:
        voice.update(embedding, space)
    return voice


@given(histories)
def test_mean_and_deviation_are_those_of_the_history(history: np.ndarray) -> None:
    size = history.shape[1]
    told = heard(history).as_input(size)
    exact = history.astype(np.float64)
    assert told.dtype == np.float32
    assert told.shape == (1, 2 * size + 1)
    assert told[0, 0] == len(history)
    np.testing.assert_allclose(told[0, 1 : size + 1], exact.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(told[0, size + 1 :], exact.std(axis=0), atol=1e-4)


@given(histories, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(history: np.ndarray, random: object) -> None:
    shuffled = history[np.random.default_rng(random.randrange(99)).permutation(len(history))]  # type: ignore[attr-defined]
    size = history.shape[1]
    np.testing.assert_allclose(heard(shuffled).as_input(size), heard(history).as_input(size), atol=1e-3)


@given(histories, st.integers(2, 4))
def test_a_weight_counts_like_repetition(history: np.ndarray, times: int) -> None:
    weighted = VoiceProfile()
    for embedding in history:
        weighted.update(embedding, "mdat-1", weight=times)
    size = history.shape[1]
    repeated = heard(np.repeat(history, times, axis=0)).as_input(size)
    np.testing.assert_allclose(weighted.as_input(size)[0, 1:], repeated[0, 1:], atol=1e-3)
    assert weighted.utterances == len(history)


def test_a_large_offset_does_not_swallow_the_deviation() -> None:
    history = np.array([[1e6 + 1], [1e6 - 1]] * 1000)
    assert heard(history).as_input(1)[0, 2] == pytest.approx(1, rel=1e-6)


@given(st.integers(1, 300))
def test_a_fresh_voice_is_all_zeros_for_any_model(size: int) -> None:
    fresh = VoiceProfile()
    assert fresh.utterances == 0
    assert fresh.space is None
    assert np.array_equal(fresh.as_input(size, "any"), np.zeros((1, 2 * size + 1), np.float32))


@given(history=histories)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
def test_a_file_gives_the_same_voice_back(history: np.ndarray, tmp_path: Path) -> None:
    voice, path = heard(history), tmp_path / "anna.voice"
    voice.save(path)
    opened = VoiceProfile.open(path)
    assert opened == voice
    opened.update(history[0], "mdat-1")
    assert opened != voice
    voice.update(history[0], "mdat-1")
    assert opened == voice


@given(histories, st.data())
def test_merged_voices_have_heard_both_in_any_order(history: np.ndarray, data: st.DataObject) -> None:
    at, size = data.draw(st.integers(0, len(history))), history.shape[1]
    one, other = heard(history[:at]), heard(history[at:])
    before = one.copy(), other.copy()
    whole = one.merged(other)
    np.testing.assert_allclose(whole.as_input(size), heard(history).as_input(size), rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(whole.as_input(size), other.merged(one).as_input(size), rtol=1e-6, atol=1e-5)
    assert (one, other) == before
    whole.update(history[0], "mdat-1")
    assert (one, other) == before


@given(hnp.arrays(np.float32, (9, 3), elements=values), st.lists(st.floats(0.1, 10), min_size=9, max_size=9))
def test_merging_counts_weights_and_is_associative(history: np.ndarray, weights: list[float]) -> None:
    whole, parts = VoiceProfile(), [VoiceProfile() for _ in range(3)]
    for index, (embedding, weight) in enumerate(zip(history, weights, strict=True)):
        whole.update(embedding, "mdat-1", weight)
        parts[index % 3].update(embedding, "mdat-1", weight)
    one, two, three = parts
    for merged in (one.merged(two).merged(three), three.merged(one.merged(two))):
        np.testing.assert_allclose(merged.as_input(3), whole.as_input(3), rtol=1e-6, atol=1e-4)


@given(histories, st.data())
def test_what_came_since_and_what_was_there_before_make_the_whole(history: np.ndarray, data: st.DataObject) -> None:
    at, size = data.draw(st.integers(0, len(history))), history.shape[1]
    earlier, whole = heard(history[:at]), heard(history)
    news = whole.since(earlier)
    assert news.utterances == len(history) - at
    np.testing.assert_allclose(news.as_input(size), heard(history[at:]).as_input(size), atol=1e-3)
    np.testing.assert_allclose(earlier.merged(news).as_input(size), whole.as_input(size), atol=1e-4)


def test_voices_of_different_models_are_not_mixed() -> None:
    ours = heard(np.ones((2, 4)))
    for other in (heard(np.ones((2, 4)), "other"), heard(np.ones((2, 5)))):
        for mix in (ours.merged, ours.since):
            with pytest.raises(ConfigError, match=r"learnt as 4 numbers of 'mdat-1'.*learnt with the same model"):
                mix(other)
    with pytest.raises(ConfigError, match="taken before"):
        ours.since(heard(np.ones((3, 4))))


def test_a_fresh_voice_is_saved_as_fresh(tmp_path: Path) -> None:
    VoiceProfile().save(tmp_path / "new.voice")
    opened = VoiceProfile.open(tmp_path / "new.voice")
    assert opened == VoiceProfile()
    opened.update(np.ones(3), "any")
    assert opened.utterances == 1


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "anna.voice"
    heard(np.random.default_rng(0).standard_normal((9, 288))).save(path)
    return path


def test_a_file_is_small_and_private(saved: Path) -> None:
    assert saved.stat().st_size < 10_000
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert [entry.name for entry in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("size", [288, 401, 768])
def test_a_file_is_small_whatever_the_model(tmp_path: Path, size: int) -> None:
    path, voice = tmp_path / "anna.voice", heard(np.random.default_rng(0).standard_normal((9, size)) * 1e4)
    voice.save(path)
    assert path.stat().st_size < 10_000
    opened = VoiceProfile.open(path)
    assert opened == voice
    np.testing.assert_allclose(opened.as_input(size), voice.as_input(size), rtol=1e-6)


def test_a_file_of_the_first_release_opens(tmp_path: Path) -> None:
    from edge_ser.voice import _digest

    mean, squares = np.array([0.1, -1e-7, 3.0]), np.array([0.2, 0.0, 1 / 3])
    content = {"format_version": 1, "space": "mdat-1", "embedding_size": 3, "utterances": 2, "weight": 2.0}
    content |= {
        key: base64.b64encode(array.astype("<f8").tobytes()).decode()
        for key, array in {"mean": mean, "squares": squares}.items()
    }
    path = tmp_path / "old.voice"
    path.write_text(json.dumps({**content, "sha256": _digest(content)}))
    told = VoiceProfile.open(path).as_input(3)
    np.testing.assert_array_equal(told[0], np.concatenate([[2], mean, np.sqrt(squares / 2)]).astype(np.float32))


def test_a_file_holds_statistics_only(saved: Path) -> None:
    keys = {"format_version", "space", "embedding_size", "utterances", "weight", "mean", "squares", "sha256"}
    assert set(json.loads(saved.read_text())) == keys


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_damage_is_found(saved: Path, data: st.DataObject) -> None:
    good = saved.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != good[at]))
    damaged = data.draw(st.sampled_from([good[:at], good[:at] + bytes([other]) + good[at + 1 :]]))
    saved.with_name("damaged").write_bytes(damaged)
    try:
        opened = VoiceProfile.open(saved.with_name("damaged"))
    except ConfigError as error:
        assert "start this voice afresh" in str(error)
    else:
        # Other white space between the keys is no damage.
        assert opened == VoiceProfile.open(saved)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": 3}, "format version 3, need 1 or 2"),
        ({"embedding_size": 3}, "bytes, need 24"),
        ({"mean": "@@"}, "not base64"),
        ({"squares": "AAAAAAAA+H8="}, "not finite"),
        ({"weight": 0}, "above 0"),
        ({"weight": 1e300}, "at most 1e15"),
        ({"utterances": 10**400}, "at most 1000000000000000"),
        ({"mean": base64.b64encode(np.array([1e300]).tobytes()).decode()}, "no voice gives"),
        ({"squares": base64.b64encode(np.array([-1.0]).tobytes()).decode()}, "no voice gives"),
        ({"space": None}, "need text"),
        ({"space": "\x1b[2J"}, "cannot be printed"),
    ],
)
def test_values_that_do_not_fit_are_refused_even_with_a_right_checksum(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    from edge_ser.voice import _digest

    content = {**heard(np.ones((1, 1)))._to_dict(), **change}
    path = tmp_path / "forged.voice"
    path.write_text(json.dumps({**content, "sha256": _digest(content)}))
    with pytest.raises(ConfigError, match=words):
        VoiceProfile.open(path)


def test_a_missing_file_is_a_plain_error(tmp_path: Path) -> None:
    for path in (tmp_path / "nobody.voice", tmp_path):
        with pytest.raises(ConfigError, match="cannot read a voice"):
            VoiceProfile.open(path)


def test_what_is_no_plain_file_is_an_error_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.voice")
    (tmp_path / "folder.voice").mkdir()
    for path in (tmp_path / "pipe.voice", tmp_path / "folder.voice", "/dev/zero"):
        with pytest.raises(ConfigError, match="not a regular file"):
            VoiceProfile.open(path)
    with (tmp_path / "huge.voice").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ConfigError, match="larger than 1000000 bytes"):
        VoiceProfile.open(tmp_path / "huge.voice")


def test_file_and_name_are_on_the_disk_before_a_save_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace
    is_folder = lambda handle: stat.S_ISDIR(os.fstat(handle).st_mode)  # noqa: E731
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(["file", "folder"][is_folder(handle)]), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replace"), replace(*paths)))
    VoiceProfile().save(tmp_path / "anna.voice")
    assert done == ["file", "replace", "folder"]


def test_a_failed_save_leaves_the_old_voice(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = VoiceProfile.open(saved)
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(ConfigError, match="No space left"):
        VoiceProfile().save(saved)
    monkeypatch.undo()
    assert VoiceProfile.open(saved) == before
    assert [entry.name for entry in saved.parent.iterdir()] == [saved.name]


def test_saving_into_no_folder_is_a_plain_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write the voice"):
        VoiceProfile().save(tmp_path / "nowhere" / "anna.voice")


def test_a_voice_keeps_to_its_space_and_size() -> None:
    voice = heard(np.ones((2, 4)))
    before = voice.as_input(4)
    with pytest.raises(ConfigError, match=r"'mdat-1'.*needs 4 of 'other'.*fresh"):
        voice.update(np.ones(4), "other")
    with pytest.raises(ConfigError, match="learnt as 4 numbers"):
        voice.update(np.ones(5), "mdat-1")
    with pytest.raises(ConfigError, match="needs 5"):
        voice.as_input(5)
    with pytest.raises(ConfigError, match="'other'"):
        voice.as_input(4, "other")
    assert np.array_equal(voice.as_input(4, "mdat-1"), before)
    assert voice.utterances == 2


@pytest.mark.parametrize(
    "embedding", [np.array([np.nan]), np.array([np.inf]), np.array([1e300]), np.ones((1, 4)), np.ones(0)]
)
def test_an_embedding_that_is_none_teaches_nothing(embedding: np.ndarray) -> None:
    voice = VoiceProfile()
    with pytest.raises(ConfigError, match="finite numbers of shape"):
        voice.update(embedding, "mdat-1")
    assert voice == VoiceProfile()


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_is_above_zero(weight: float) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        VoiceProfile().update(np.ones(4), "mdat-1", weight)


def test_its_text_tells_how_much_was_heard() -> None:
    assert repr(heard(np.ones((2, 4)))) == "VoiceProfile(utterances=2, space='mdat-1')"
