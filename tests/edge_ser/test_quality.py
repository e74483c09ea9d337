"""Whether a recording holds speech, and enough of it for a certain answer."""

from __future__ import annotations

import numpy as np
import pytest

from edge_ser.quality import Speech, speech_in

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
