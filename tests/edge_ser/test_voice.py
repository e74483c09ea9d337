"""A voice: the statistics of what was heard, the same after a file as before, and nothing of another model."""

import json
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
        ({"format_version": 2}, "format version 2, need 1"),
        ({"embedding_size": 3}, "bytes, need 24"),
        ({"mean": "@@"}, "not base64"),
        ({"squares": "AAAAAAAA+H8="}, "not finite"),
        ({"weight": 0}, "above 0"),
        ({"space": None}, "need text"),
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


@pytest.mark.parametrize("embedding", [np.array([np.nan]), np.array([np.inf]), np.ones((1, 4)), np.ones(0)])
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
