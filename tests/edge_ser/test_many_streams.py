"""Many streams on one recognizer: each hears what it would hear alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import edge_ser
from edge_ser.events import Emotion, Event
from edge_ser.recognizer import EmotionRecognizer
from edge_ser.sources import read_samples
from tests.edge_ser.fakes import RATE_HZ, without_latency

STREAMS = 6
CHUNK_SAMPLES = 1600


@pytest.fixture(scope="module")
def recognizer() -> EmotionRecognizer:
    return edge_ser.load("mdat-int8", threads=1)


@pytest.fixture(scope="module")
def talks(root: Path) -> list[np.ndarray]:
    """One conversation, for each stream from another moment on."""
    samples = read_samples(root / "examples" / "conversation.flac")
    return [samples[number * 7321 : number * 7321 + 6 * RATE_HZ] for number in range(STREAMS)]


def run(recognizer: EmotionRecognizer, samples: np.ndarray) -> tuple[list[Event], edge_ser.VoiceProfile]:
    stream = recognizer.stream(partials=True)
    events = [
        event
        for start in range(0, samples.size, CHUNK_SAMPLES)
        for event in stream.push(samples[start:][:CHUNK_SAMPLES])
    ]
    events += stream.finish()
    finals = [event for event in events if isinstance(event, Emotion) and event.final]
    events += [stream.revise(event.utterance, "I am so happy today") for event in finals]
    return without_latency(events), stream.voice


@pytest.fixture(scope="module")
def alone(recognizer: EmotionRecognizer, talks: list[np.ndarray]) -> list[tuple[list[Event], edge_ser.VoiceProfile]]:
    return [run(recognizer, samples) for samples in talks]


def test_the_talks_hold_something_to_confuse(alone):
    assert all(any(isinstance(event, Emotion) for event in events) for events, _ in alone)
    assert len({repr(events) for events, _ in alone}) == STREAMS


def test_streams_in_threads_hear_what_each_hears_alone(recognizer, talks, alone):
    with ThreadPoolExecutor(STREAMS) as pool:
        together = list(pool.map(lambda samples: run(recognizer, samples), talks))
    assert together == alone


def test_streams_in_turn_hear_what_each_hears_alone(recognizer, talks, alone):
    streams = [recognizer.stream(partials=True) for _ in talks]
    heard: list[list[Event]] = [[] for _ in talks]
    for start in range(0, 6 * RATE_HZ, CHUNK_SAMPLES):
        for stream, samples, events in zip(streams, talks, heard, strict=True):
            events += stream.push(samples[start:][:CHUNK_SAMPLES])
    for stream, events, (expected, voice) in zip(streams, heard, alone, strict=True):
        events += stream.finish()
        assert without_latency(events) == expected[: len(events)]
        assert stream.voice == voice
