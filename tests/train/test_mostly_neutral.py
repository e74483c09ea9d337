"""A voice that heard mostly neutral speech is seen to have, and its mean is no longer taken for the middle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from train.students.bank import Recording  # noqa: E402
from train.students.histories import voice_of  # noqa: E402
from train.students.mostly_neutral import VoicesOfTraining, fit_neutral_share  # noqa: E402
from train.students.voice_sense import VoiceSense  # noqa: E402

WIDTH, CLASSES, NEUTRAL = 4, 4, 2
SIZE = 2 * WIDTH


def world(speakers: int, seed: int) -> tuple[list[Recording], dict[int, np.ndarray], np.ndarray]:
    """Return 12 utterances of each emotion a speaker: where they are from, a place for each emotion, and noise."""
    rng = np.random.default_rng(seed)
    places = np.zeros((CLASSES, SIZE), np.float32)
    places[np.arange(CLASSES), np.arange(CLASSES)] = 2.0
    recordings, found = [], {}
    for speaker in range(speakers):
        own = rng.standard_normal(SIZE) * 0.5
        for number in range(12 * CLASSES):
            label = number % CLASSES
            recordings.append(Recording(Path("a.wav"), f"s{speaker}", label))
            noise = rng.standard_normal(SIZE) * 0.8
            found[len(found)] = (own + places[label] + noise).astype(np.float32)[None]
    return recordings, found, places


def sense_of(recordings: list[Recording], found: dict[int, np.ndarray], places: np.ndarray) -> VoiceSense:
    sense = VoiceSense(WIDTH, 4, CLASSES).eval()
    sense.learn_everybody(torch.from_numpy(np.concatenate(list(found.values()))))
    centred = torch.from_numpy(places - places.mean(0))
    bias = -0.5 * centred.square().sum(1)
    sense.take_opinion(torch.cat([centred, centred]), torch.cat([bias, bias]))
    return sense


def history(rows: np.ndarray, labels: np.ndarray, neutral: int, others: int) -> np.ndarray:
    chosen = [np.flatnonzero(labels == NEUTRAL)[:neutral]]
    chosen += [np.flatnonzero(labels == label)[: others // 3] for label in range(CLASSES) if label != NEUTRAL]
    return voice_of(rows[np.concatenate(chosen)])


def test_mostly_neutral_histories_no_longer_hide_neutral_speech_and_mixed_ones_change_nothing() -> None:
    recordings, found, places = world(40, 0)
    told = VoicesOfTraining(recordings, found, NEUTRAL)
    models = {kind: sense_of(recordings, found, places) for kind in ("plain", "learnt", "always")}
    sense = models["learnt"]
    share = fit_neutral_share(told, sense.everybody.numpy(), sense.spread.numpy(), 1)
    sense.learn_neutral(*share, torch.from_numpy(told.off_centre()))
    models["always"].learn_neutral(torch.zeros(2 * SIZE), torch.ones(1), torch.from_numpy(told.off_centre()))
    # People whom nothing was fitted on.
    strangers, heard, _ = world(8, 7)
    rows = np.concatenate(list(heard.values()))
    labels, names = np.array([each.label for each in strangers]), np.array([each.speaker for each in strangers])
    right: dict[tuple[int, str], list[float]] = {}
    for name in np.unique(names):
        own, label = rows[names == name], labels[names == name]
        for neutral, others in ((9, 3), (3, 9)):
            voice = torch.from_numpy(history(own, label, neutral, others))[None].expand(len(own), -1)
            embedding = torch.from_numpy(own)
            frames = embedding[:, None, :WIDTH]
            for kind, model in models.items():
                said = model(frames, embedding, voice)[1].argmax(1).numpy()
                ua = np.mean([np.mean(said[label == emotion] == emotion) for emotion in range(CLASSES)])
                right.setdefault((neutral, kind), []).append(float(ua))
    ua = {key: float(np.mean(values)) for key, values in right.items()}
    assert ua[9, "learnt"] > ua[9, "plain"] + 0.05
    assert ua[3, "learnt"] > ua[3, "plain"] - 0.02 > ua[3, "always"]


def test_a_fresh_voice_is_answered_as_ever() -> None:
    recordings, found, places = world(6, 0)
    told = VoicesOfTraining(recordings, found, NEUTRAL)
    plain, sense = sense_of(recordings, found, places), sense_of(recordings, found, places)
    sense.learn_neutral(torch.zeros(2 * SIZE), torch.ones(1), torch.from_numpy(told.off_centre()))
    embedding = torch.from_numpy(np.concatenate(list(found.values())))
    frames, fresh = embedding[:, None, :WIDTH], torch.zeros(len(embedding), 2 * SIZE + 1)
    assert torch.equal(sense(frames, embedding, fresh)[1], plain(frames, embedding, fresh)[1])
    known = fresh.clone()
    known[:, 0] = 30.0
    assert not torch.allclose(sense(frames, embedding, known)[1], plain(frames, embedding, known)[1], atol=0.1)


def test_where_nobody_can_be_left_out_nothing_leans() -> None:
    recordings, found, _ = world(1, 0)
    told = VoicesOfTraining(recordings, found, NEUTRAL)
    weight, bias = fit_neutral_share(told, np.zeros(SIZE, np.float32), np.ones(SIZE, np.float32), 1)
    assert weight.shape == (2 * SIZE,) and not weight.any() and not bias.any()
    angry = [Recording(Path("a.wav"), "s", 0)]
    nobody = VoicesOfTraining(angry, {0: np.ones((1, SIZE), np.float32)}, NEUTRAL)
    assert not nobody.off_centre().any()
