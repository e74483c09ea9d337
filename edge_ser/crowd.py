"""Many streams at once, in real time: one recognizer, a few threads, and how long everybody waits.

Each stream has one owner, a thread that serves its streams in turn and gives each all the audio that has arrived, so
that nobody waits longer than one round. Sharing a recognizer needs no lock.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.errors import ConfigError
from edge_ser.events import Emotion, Event, SpeechStarted
from edge_ser.segmenter_options import options_within
from edge_ser.sources import PACE_S

if TYPE_CHECKING:
    from edge_ser.recognizer import EmotionRecognizer
    from edge_ser.stream import Stream

QUEUE_S = 1.0
"""Seconds of audio that may wait for a stream; when it is more, the oldest is dropped and counted."""
SHORTEST_RUN_S = 1.0

_CHUNK = round(PACE_S * SAMPLE_RATE_HZ)


@dataclass(frozen=True)
class Load:
    """How many people talk, for how long, and who serves them."""

    streams: int
    """Streams at the same time."""
    seconds: float = 30.0
    """Seconds that each lasts."""
    workers: int = 1
    """Threads; each owns its share of the streams."""
    vad: str = "silero"
    """The speech detector of every stream."""
    seed: int = 0
    """Decides where in the recording each stream starts."""


@dataclass(frozen=True)
class LoadResult:
    """What a load cost and how long answers took."""

    utterances: int
    """Utterances answered."""
    latencies_ms: tuple[float, ...]
    """From the end of speech to the event, the hangover taken off, of every utterance that ended in a pause."""
    mean_waits_ms: tuple[float, ...]
    """For each stream, the mean time that audio waited before its stream had taken it."""
    longest_wait_ms: float
    """The longest such time of all."""
    dropped_samples: int
    """Samples at 16 kHz that found their queue full."""
    unaccounted_samples: int
    """Samples that arrived and are in no account of a ledger: 0, or there is a fault."""
    cpu_s: float
    """Processor seconds of the whole process."""
    model_s: float
    """Seconds of these that went into judging utterances."""
    wall_s: float
    """Seconds that it lasted."""

    @property
    def cores_used(self) -> float:
        """Processor cores kept busy."""
        return self.cpu_s / self.wall_s


@dataclass
class _Line:
    """One stream, its endless recording and the queue between them.

    Nothing needs to fill the queue: what has arrived is known from the clock, however busy this process is.
    """

    stream: Stream
    recording: NDArray[np.float32]
    position: int
    began_s: float
    pause_s: float
    longest_utterance_s: float
    taken: int = 0
    dropped: int = 0
    utterances: int = 0
    model_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    waits_ms: list[float] = field(default_factory=list)

    def next_arrival_s(self) -> float:
        """Return when the next chunk is complete, on the clock of `time.perf_counter`."""
        return self.began_s + (self.taken + self.dropped + _CHUNK) / SAMPLE_RATE_HZ

    def serve(self) -> bool:
        """Give the stream all that has arrived; return whether there was anything."""
        waiting = self._arrived() - self.taken - self.dropped
        if waiting <= 0:
            return False
        self.waits_ms.append(1000 * (time.perf_counter() - self.next_arrival_s()))
        excess = waiting - round(QUEUE_S * SAMPLE_RATE_HZ)
        if excess > 0:
            self.stream.record_overflow(excess)
            self._advance(excess)
            self.dropped += excess
            waiting -= excess
        start = self.position
        chunk = self.recording.take(range(start, start + waiting), mode="wrap")
        self._advance(waiting)
        self.taken += waiting
        self._note(self.stream.push(chunk))
        return True

    def _arrived(self) -> int:
        return max(0, int((time.perf_counter() - self.began_s) / PACE_S)) * _CHUNK

    def _advance(self, samples: int) -> None:
        self.position = (self.position + samples) % self.recording.size

    def _note(self, events: Sequence[Event]) -> None:
        now_s = time.perf_counter()
        goes_on_at = {event.start_s for event in events if isinstance(event, SpeechStarted)}
        for event in events:
            if not isinstance(event, Emotion) or not event.final:
                continue
            self.utterances += 1
            self.model_s += event.latency_ms / 1000
            # An utterance cut at the longest length has no end of speech.
            if event.end_s not in goes_on_at and event.end_s - event.start_s < self.longest_utterance_s:
                self.latencies_ms.append(1000 * (now_s - (self.began_s + event.end_s + self.pause_s)))


def run_load(recognizer: EmotionRecognizer, recording: NDArray[np.float32], load: Load) -> LoadResult:
    """Serve streams in real time and return what it cost.

    Args:
        recognizer: Judges the utterances of all streams.
        recording: What is said, mono float32 in [-1, 1], shape (n,), at 16 kHz; each stream repeats it for ever, from
            a place of its own.
        load: How many streams, for how long, on how many threads.

    Raises:
        ConfigError: The recording is shorter than a second, or the load is none.
    """
    _check(recording, load)
    lines = _lines(recognizer, recording, load)
    stop = threading.Event()
    cpu_began_s, began_s = time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(load.workers) as pool:
        shares = [lines[first :: load.workers] for first in range(load.workers)]
        workers = [pool.submit(_work, share, load.seconds, stop) for share in shares if share]
        try:
            wait(workers, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
    for worker in workers:
        worker.result()
    cpu_s, wall_s = time.process_time() - cpu_began_s, time.perf_counter() - began_s
    for line in lines:
        line.stream.finish()
    return LoadResult(
        utterances=sum(line.utterances for line in lines),
        latencies_ms=tuple(latency for line in lines for latency in line.latencies_ms),
        mean_waits_ms=tuple(float(np.mean(line.waits_ms or [0.0])) for line in lines),
        longest_wait_ms=max((wait for line in lines for wait in line.waits_ms), default=0.0),
        dropped_samples=sum(line.dropped for line in lines),
        unaccounted_samples=sum(_unaccounted(line) for line in lines),
        cpu_s=cpu_s,
        model_s=sum(line.model_s for line in lines),
        wall_s=wall_s,
    )


def available_cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check(recording: NDArray[np.float32], load: Load) -> None:
    if recording.size < SAMPLE_RATE_HZ:
        raise ConfigError(f"got {recording.size} samples; a load needs at least a second of audio; use a longer file")
    if load.streams < 1 or load.workers < 1 or load.seconds < SHORTEST_RUN_S:
        raise ConfigError(
            f"got {load.streams} streams for {load.seconds:g} s on {load.workers} threads; need at least one stream, "
            f"{SHORTEST_RUN_S:g} s and one thread; try: edge-ser bench --streams 30 --seconds 30 --input FILE"
        )


def _lines(recognizer: EmotionRecognizer, recording: NDArray[np.float32], load: Load) -> list[_Line]:
    rng = np.random.default_rng(load.seed)
    options = options_within(recognizer.max_duration_s)
    streams = [recognizer.stream(vad=load.vad) for _ in range(load.streams)]
    began_s = time.perf_counter()
    return [
        _Line(
            stream=stream,
            recording=recording,
            position=int(rng.integers(recording.size)),
            began_s=began_s + rng.uniform(0.0, PACE_S),
            pause_s=options.hangover_s - options.post_roll_s,
            longest_utterance_s=options.max_utterance_s,
        )
        for stream in streams
    ]


def _work(lines: Sequence[_Line], seconds: float, stop: threading.Event) -> None:
    end_s = min(line.began_s for line in lines) + seconds
    while time.perf_counter() < end_s and not stop.is_set():
        if not any([line.serve() for line in lines]):
            next_s = min(line.next_arrival_s() for line in lines)
            stop.wait(max(0.0, next_s - time.perf_counter()))


def _unaccounted(line: _Line) -> int:
    ledger = line.stream.ledger
    settled = ledger.classified_samples + ledger.silence_samples + ledger.rejected_samples + ledger.dropped_samples
    return abs(line.taken + line.dropped - settled)
