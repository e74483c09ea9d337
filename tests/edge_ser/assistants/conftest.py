"""What the tests of the doors share: a recognizer, an utterance, and what the library itself says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import edge_ser
from edge_ser.sources import read_blocks

WORDS = "i am so happy today"


@pytest.fixture(scope="session")
def recognizer() -> edge_ser.EmotionRecognizer:
    return edge_ser.load()


@pytest.fixture(scope="session")
def recording(root: Path) -> NDArray[np.int16]:
    """The example recording: mono, 16 bits, 16 kHz."""
    return np.round(np.concatenate(list(read_blocks(root / "examples" / "conversation.flac"))) * 32768).astype(np.int16)


@pytest.fixture(scope="session")
def speech(recording: NDArray[np.int16]) -> NDArray[np.int16]:
    """The first utterance of the recording."""
    return recording[: int(3.3 * 16_000)]


@pytest.fixture(scope="session")
def spoken(recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16]) -> edge_ser.Emotion:
    """What the library says of the utterance."""
    stream = recognizer.stream()
    events = [*stream.push(speech), *stream.finish()]
    [emotion] = [event for event in events if isinstance(event, edge_ser.Emotion)]
    return emotion


@pytest.fixture(scope="session")
def written(recognizer: edge_ser.EmotionRecognizer, speech: NDArray[np.int16]) -> edge_ser.Emotion:
    """What the library says of the utterance and its words, `i am so happy today`."""
    stream = recognizer.stream()
    stream.push(speech)
    stream.finish()
    return stream.revise(1, WORDS)
