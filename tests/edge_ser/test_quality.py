"""Whether a recording holds speech, and enough of it for a certain answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_ser.quality import Speech, speech_in, spoken_part
from edge_ser.segmenter import utterances_in
from edge_ser.sources import read_samples
from edge_ser.vad import open_detector

EXAMPLE = Path(__file__).parents[2] / "examples" / "conversation.flac"
RATE_HZ, FRAME = 16_000, 512


class Scripted:
    """Says what it is told, frame by frame, then nothing."""

    frame_samples = FRAME

    def __init__(self, probabilities: list[float]) -> None:
        self._left = list(probabilities)

    def __call__(self, frame: np.ndarray) -> float:
        return self._left.pop(0) if self._left else 0.0

    def reset(self) -> None:
        """Keep the script."""


@pytest.mark.parametrize(
    ("probabilities", "speech"),
    [
        ([], Speech.NONE),
        ([0.99] * 2, Speech.NONE),  # a click: less than 0.09 s
        ([0.49] * 60, Speech.NONE),
        ([0.99] * 3, Speech.UNCLEAR),  # a short word, but no quarter of a second to be sure of
        ([0.93] * 60, Speech.UNCLEAR),
        ([0.6] * 40 + [0.97] * 7, Speech.CLEAR),
    ],
)
def test_speech_is_clear_where_a_quarter_of_a_second_is(
    probabilities: list[float], speech: Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_ser.vad.open_detector", lambda name: Scripted(probabilities))
    assert speech_in(np.zeros(2 * RATE_HZ, np.float32)) is speech


@pytest.mark.parametrize(
    ("probabilities", "begins", "ends"),
    [
        ([0.0] * 50 + [0.99] * 50 + [0.0] * 100, 50 - 0.3 / 0.032, 100 + 0.2 / 0.032),
        ([0.99] * 200, 0, 200),  # no silence
        ([0.0] * 50 + [0.1] * 10 + [0.99] * 50 + [0.0] * 90, 50 - 0.3 / 0.032, 110 + 0.2 / 0.032),  # a soft beginning
        ([0.1] * 100 + [0.99] * 50 + [0.0] * 50, 100 - 1.0 / 0.032, 150 + 0.2 / 0.032),  # noise is no beginning
        ([0.0] * 50 + [0.99] * 20 + [0.27] * 10 + [0.2, 0.27] * 60, 50 - 0.3 / 0.032, 80 + 0.2 / 0.032),  # it fades
        (
            [0.0] * 20 + [0.99] * 40 + [0.0] * 80 + [0.99] * 20 + [0.0] * 40,
            20 - 0.3 / 0.032,
            160 + 0.2 / 0.032,
        ),  # a pause
        ([0.99] * 4 + [0.0] * 196, 0, 0.5 / 0.032),  # a word at the very beginning, and as much as can be judged
        ([0.0] * 196 + [0.99] * 4, 200 - 0.5 / 0.032, 200),
        ([0.0] * 20 + [0.99] * 3 + [0.0] * 77 + [0.99] * 50 + [0.0] * 30 + [0.6] * 20, 100 - 0.3 / 0.032, 200),
        (
            [0.9] * 2 + [0.0] * 78 + [0.99] * 50 + [0.0] * 40 + [0.6] * 2 + [0.0] * 28,
            80 - 0.3 / 0.032,
            130 + 0.2 / 0.032,
        ),
        ([0.4] * 200, 0, 200),  # nobody speaks
    ],
)
def test_a_recording_is_cut_where_a_stream_would_cut_it(
    probabilities: list[float], begins: float, ends: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_ser.vad.open_detector", lambda name: Scripted(list(probabilities)))
    places = np.arange(200 * 512, dtype=np.float32)
    part = spoken_part(places)[1]
    assert part[0] == pytest.approx(begins * 512, abs=512)
    assert part[-1] == pytest.approx(ends * 512 - 1, abs=512)


def test_real_speech_among_silence_is_cut_as_a_stream_cuts_it() -> None:
    talk = utterances_in(read_samples(EXAMPLE), open_detector("silero"))[0].samples
    quiet = (1e-4 * np.random.default_rng(0).standard_normal(2 * RATE_HZ)).astype(np.float32)
    recording = np.concatenate([quiet, talk, quiet])
    [utterance] = utterances_in(recording, open_detector("silero"))
    speech, part = spoken_part(recording)
    assert speech is Speech.CLEAR and recording.size > 2 * part.size > talk.size
    assert part.size == pytest.approx(utterance.samples.size, abs=FRAME)
    assert part[RATE_HZ // 2] in utterance.samples
