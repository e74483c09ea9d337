"""Many streams on one recognizer: equal to lone runs, served in turn, and honest about what they could not take."""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edge_ser
from edge_ser import crowd
from edge_ser.cli import main
from edge_ser.cli.crowd import read_recording
from edge_ser.crowd import Load, run_load
from edge_ser.errors import AudioFormatError, ConfigError
from edge_ser.events import Event
from edge_ser.recognizer import EmotionRecognizer, load
from edge_ser.sources import read_samples
from edge_ser.stream import Stream
from edge_ser.testing import write_tiny_bundle
from tests.edge_ser.fakes import RATE_HZ, FakeRecognizer, ScriptedDetector, scripted_audio

CONVERSATION = Path(__file__).parents[2] / "examples" / "conversation.flac"
TALK = scripted_audio([(False, 0.5), (True, 0.6), (False, 1.0)])


class Crowded(FakeRecognizer):
    """Gives streams that hear a script; the judging may be slow."""

    def __init__(self, judging_s: float = 0.0) -> None:
        super().__init__()
        self.judging_s = judging_s
        self.streams: list[Stream] = []
        self.owners: dict[int, set[int]] = {}

    def stream(self, *, vad: str = "silero") -> Stream:
        stream = Stream(self, detector=ScriptedDetector())
        push = stream.push

        def watched(samples: np.ndarray) -> list[Event]:
            self.owners.setdefault(id(stream), set()).add(threading.get_ident())
            time.sleep(self.judging_s)
            return push(samples)

        stream.push = watched
        self.streams.append(stream)
        return stream


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> EmotionRecognizer:
    return load(write_tiny_bundle(tmp_path_factory.mktemp("crowd") / "tiny"), threads=1)


def heard(recognizer: EmotionRecognizer, samples: np.ndarray, chunk: int) -> list[Event]:
    stream = recognizer.stream()
    events = [event for start in range(0, samples.size, chunk) for event in stream.push(samples[start : start + chunk])]
    events += stream.finish()
    return [replace(event, latency_ms=0.0) if isinstance(event, edge_ser.Emotion) else event for event in events]


def test_streams_in_a_crowd_answer_as_if_they_were_alone(recognizer: EmotionRecognizer) -> None:
    conversation = read_samples(CONVERSATION)
    talks = [np.roll(conversation, -2 * RATE_HZ * place) for place in range(4)]
    alone = [heard(recognizer, talk, 1024) for talk in talks]
    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)  # so that the threads mix as they would in hours
    try:
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(heard, [recognizer] * 4, talks, [320, 512, 1024, 4000]))
    finally:
        sys.setswitchinterval(switch_s)
    assert together == alone
    assert len({str(events) for events in alone}) == 4


def test_every_stream_has_one_owner_and_everybody_is_answered_in_time() -> None:
    recognizer = Crowded()
    result = run_load(recognizer, TALK, Load(streams=6, seconds=2.5, workers=2))
    assert len(recognizer.owners) == 6
    assert all(len(threads) == 1 for threads in recognizer.owners.values())
    assert result.utterances >= 4
    assert all(latency_ms >= 0 for latency_ms in result.latencies_ms)
    assert len(result.mean_waits_ms) == 6
    assert result.dropped_samples == 0
    assert result.unaccounted_samples == 0


def test_what_a_slow_stream_cannot_take_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "QUEUE_S", 0.1)
    result = run_load(Crowded(judging_s=0.15), TALK, Load(streams=2, seconds=1.5, workers=1))
    assert result.dropped_samples > 0.5 * RATE_HZ
    assert result.unaccounted_samples == 0
    assert result.longest_wait_ms > 100
    # The load is the same for both, so nobody may be starved.
    assert max(result.mean_waits_ms) < 2 * min(result.mean_waits_ms)


def test_an_error_in_one_stream_ends_the_load_at_once() -> None:
    class Broken(Crowded):
        def stream(self, *, vad: str = "silero") -> Stream:
            stream = super().stream(vad=vad)
            if len(self.streams) == 2:
                stream.push = self.fail
            return stream

        def fail(self, samples: np.ndarray) -> list[Event]:
            raise AudioFormatError("broken")

    began_s = time.monotonic()
    with pytest.raises(AudioFormatError, match="broken"):
        run_load(Broken(), TALK, Load(streams=2, seconds=60.0, workers=2))
    assert time.monotonic() - began_s < 20


@pytest.mark.parametrize("load", [Load(0), Load(1, workers=0), Load(1, seconds=0.0)])
def test_no_load_is_refused(load: Load) -> None:
    with pytest.raises(ConfigError, match="at least one stream"):
        run_load(Crowded(), TALK, load)


def test_a_recording_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least a second"):
        run_load(Crowded(), TALK[:100], Load(1))


def test_bench_with_streams_tells_latency_overflow_and_processor(tmp_path, capsys) -> None:
    tiny = str(write_tiny_bundle(tmp_path / "tiny"))
    words = ["bench", "--model", tiny, "--streams", "3", "--seconds", "4", "--input", str(CONVERSATION.parent)]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    report = json.loads(lines[-1])
    assert "3 streams" in lines[0]
    assert report["overflow_s"] == report["unaccounted_samples"] == 0
    assert report["utterances"] > 0
    assert 0 <= report["latency_p50_ms"] <= report["latency_p95_ms"]
    assert 0 < report["cores_used"]

    assert main([*words[:6], "1", "--input", str(CONVERSATION), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] == 1


def test_streams_need_audio(capsys) -> None:
    assert main(["bench", "--streams", "2"]) == 1
    assert "--input" in capsys.readouterr().err


def test_a_folder_is_heard_file_after_file(tmp_path) -> None:
    import soundfile

    for name, level in (("b", 0.5), ("a", 0.25)):
        soundfile.write(tmp_path / f"{name}.wav", np.full(RATE_HZ, level, np.float32), RATE_HZ, subtype="FLOAT")
    recording = read_recording(str(tmp_path))
    assert recording.size == 2 * RATE_HZ
    assert (recording[0], recording[-1]) == (0.25, 0.5)
