"""What the second stage hears of the clips that it learns voices and a first opinion from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from train.augment import Augmenter, Chances, coloured_noise  # noqa: E402
from train.students import embeddings  # noqa: E402
from train.students.bank import FRAME_SAMPLES, Bank, Item, Recording  # noqa: E402
from train.students.config import StudentConfig  # noqa: E402
from train.students.embeddings import embeddings_of  # noqa: E402
from train.students.run_settings import StudentSettings  # noqa: E402
from train.students.student import Student  # noqa: E402

COPIES = 20
FRAMES = [15, 20, 15, 15, 20, 20] * COPIES
RECORDINGS = [
    Recording(Path("home.wav"), "a", 2),
    Recording(Path("nobody.wav"), "", -1),
    Recording(Path("003-happy.wav"), "a-changed-0", -1, acted=1),
] * COPIES
OF = [3 * copy + n for copy in range(COPIES) for n in (0, 0, 1, 2, 2, 0)]
LABELS = [2, -1, -1, -1, -1, 2] * COPIES
NEVER = Augmenter([], [], Chances(speed=0, room=0, noise=0, band=0, clip=0, coarse=0, pad=0))


@pytest.fixture
def bank() -> Bank:
    starts = np.cumsum([0, *FRAMES]) * FRAME_SAMPLES
    items = [
        Item(n, int(start), frames * FRAME_SAMPLES, label)
        for n, start, frames, label in zip(OF, starts, FRAMES, LABELS, strict=False)
    ]
    audio = (np.random.default_rng(0).standard_normal(starts[-1]) * 3000).astype(np.int16)
    nothing = np.zeros((sum(FRAMES), 4), np.float16)
    return Bank(RECORDINGS, items, audio, nothing, nothing[:, 0])


@pytest.fixture
def student() -> Student:
    torch.manual_seed(0)
    return Student(StudentConfig("lora", mels=16, speech_width=16, speech_blocks=1, speech_layers=1, told_width=12))


def test_each_is_heard_as_if_alone_and_only_where_the_emotion_is_known(
    bank: Bank, student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "_BATCH", 8)
    found = embeddings_of(student, bank, NEVER, StudentSettings(precision="float32"))
    assert list(found) == [n for n in range(3 * COPIES) if n % 3 != 1]
    for copy in range(COPIES):
        for n, places in ((3 * copy, (6 * copy, 6 * copy + 5)), (3 * copy + 2, (6 * copy + 3,))):
            assert len(found[n]) == len(places)
            for row, place in zip(found[n], places, strict=True):
                item = bank.items[place]
                with torch.no_grad():
                    alone = student.listen(torch.from_numpy(bank.wave(item, 0, item.frames))[None])[3][0].numpy()
                assert np.allclose(row, alone, atol=1e-4)


def test_a_third_is_as_it_is_and_the_rest_has_been_through_something(bank: Bank, student: Student) -> None:
    noise = coloured_noise(16_000, 1.0, np.random.default_rng(1))
    touch = Chances(speed=0, room=0, simulated=1.0, noise=1, band=0, clip=0, coarse=0, pad=0)
    settings = StudentSettings(precision="float32", seed=3)
    loud = Augmenter([noise], [], touch)
    once, again, clean = (embeddings_of(student, bank, a, settings) for a in (loud, loud, NEVER))
    assert all(np.array_equal(once[n], again[n]) for n in once)
    untouched = [np.allclose(a, b, atol=1e-5) for n in once for a, b in zip(once[n], clean[n], strict=True)]
    assert 0.15 < np.mean(untouched) < 0.5
    roomy = Augmenter([], [], Chances(speed=0, room=0, simulated=1.0, noise=0, band=0, clip=0, coarse=0, pad=0))
    in_rooms = embeddings_of(student, bank, roomy, settings)
    touched = [not np.allclose(a, b, atol=1e-5) for n in clean for a, b in zip(in_rooms[n], clean[n], strict=True)]
    assert 0.15 < np.mean(touched) < 0.55
