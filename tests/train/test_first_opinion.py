"""The first opinion: linear discriminants of embeddings, alone and against the speaker's mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from train.students.bank import Recording  # noqa: E402
from train.students.first_opinion import _balanced, first_opinion  # noqa: E402
from train.students.material import acted_label  # noqa: E402

SIZE, CLASSES = 12, 4


def world(offset: float, seed: int) -> tuple[list[Recording], dict[int, np.ndarray]]:
    """Return clips of six speakers who differ by `offset` from each other, and their embeddings."""
    rng = np.random.default_rng(seed)
    meaning = np.random.default_rng(9).standard_normal((CLASSES, SIZE)) * 2.0
    recordings, found = [], {}
    for place in range(240):
        speaker, label = place % 6, int(rng.integers(CLASSES))
        recordings.append(Recording(Path("clip.wav"), f"s{speaker}", label))
        own = np.random.default_rng(100 + speaker).standard_normal(SIZE) * offset
        found[place] = (own + meaning[label] + 0.5 * rng.standard_normal((2, SIZE))).astype(np.float32)
    return recordings, found


def right(weights: torch.Tensor, bias: torch.Tensor, rows: np.ndarray, labels: np.ndarray) -> float:
    guess = torch.from_numpy(rows.astype(np.float32)) @ weights.T + bias
    return float((guess.argmax(1).numpy() == labels).mean())


def test_alone_it_knows_emotions_and_against_the_speaker_those_of_anybody() -> None:
    weights, bias = first_opinion(*world(0.3, 1))
    others, heard = world(0.3, 2)
    rows, labels = np.concatenate(list(heard.values())), np.repeat([other.label for other in others], 2)
    assert right(weights[:CLASSES], bias[:CLASSES], rows, labels) > 0.9
    # Speakers who differ by more than emotions do: only what is relative to them tells.
    weights, bias = first_opinion(*world(8.0, 1))
    mine = np.repeat([other.speaker for other in others], 2)
    relative = rows - np.stack([rows[mine == name].mean(0) for name in mine])
    assert right(weights[CLASSES:], bias[CLASSES:], relative, labels) > 0.9


def test_changed_voices_count_by_what_was_acted() -> None:
    recordings, found = world(0.3, 1)
    changed = [Recording(Path("v.wav"), f"v{n % 3}", -1, acted=recordings[n].label) for n in range(120)]
    moved = {240 + n: np.roll(found[n][:1], 3, axis=1) for n in range(120)}
    before, after = first_opinion(recordings, found), first_opinion([*recordings, *changed], found | moved)
    rows, labels = np.concatenate(list(moved.values())), np.array([each.acted for each in changed])
    assert right(*(part[:CLASSES] for part in after), rows, labels) > right(
        *(part[:CLASSES] for part in before), rows, labels
    )


def test_a_changed_voice_is_named_after_its_kind_and_what_was_acted() -> None:
    assert acted_label(Path("spoken/cremad_1001-changed-0/003-happy.wav")) == 1
    assert acted_label(Path("spoken/cremad_1001-lent-0/003-happy.wav")) == -1
    assert acted_label(Path("spoken/cremad_1001-changed-0/003.wav")) == -1


@pytest.mark.parametrize(
    ("at_home", "elsewhere", "wanted"), [(100, 100, 6.4), (1000, 100, 1.6), (100, 90, 1.25), (100, 100, 1.5)]
)
def test_home_counts_by_its_share_however_many_voices_there_are(at_home: int, elsewhere: int, wanted: float) -> None:
    home = np.arange(at_home + elsewhere) < at_home
    counted = _balanced(np.ones(len(home), np.int64), home, wanted)
    assert counted.min() >= 1
    assert counted[home].sum() / counted[~home].sum() == pytest.approx(wanted, rel=0.125)
    assert np.array_equal(_balanced(np.full(5, 3), np.full(5, True), wanted), np.full(5, 3))
