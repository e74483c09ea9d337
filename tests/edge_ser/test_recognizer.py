"""The recognizer: one utterance in, one calibrated answer out, and nothing kept between them."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import edge_ser
from edge_ser.backends import open_backend
from edge_ser.bundle import Bundle
from edge_ser.errors import AudioFormatError, BundleError, ConfigError
from edge_ser.quality import Speech
from edge_ser.recognizer import EmotionRecognizer, Judgement, load
from edge_ser.testing import EMBEDDING_SIZE, FakeBackend, write_tiny_bundle
from edge_ser.voice import VoiceProfile

RATE_HZ = 16_000
MIN_S, MAX_S = 0.25, 8.0

Samples = NDArray[np.float32]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", attributes=("arousal", "valence"))


@pytest.fixture(scope="module")
def recognizer(folder: Path) -> EmotionRecognizer:
    return load(folder, threads=1)


@pytest.fixture(autouse=True)
def taken_for_speech(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let noise pass for speech, which is what these tests judge, unless a test asks for `real_speech_detection`."""
    if "real_speech_detection" not in request.fixturenames:
        monkeypatch.setattr("edge_ser.recognizer.spoken_part", lambda samples: (Speech.CLEAR, samples))


@pytest.fixture
def real_speech_detection() -> None:
    """Keep the detector."""


def noise(duration_s: float, level: float = 0.1, seed: int = 0) -> Samples:
    values = np.random.default_rng(seed).standard_normal(int(duration_s * RATE_HZ)) * level
    return np.clip(values, -0.99, 0.99).astype(np.float32)


def tone(rate_hz: int, duration_s: float = 1.0) -> Samples:
    return (0.3 * np.sin(2 * np.pi * 500 * np.arange(int(rate_hz * duration_s)) / rate_hz)).astype(np.float32)


def timeless(judgement: Judgement) -> dict[str, object]:
    return {**asdict(judgement), "latency_ms": None}


utterances = st.builds(noise, st.floats(0.01, 2), st.floats(1e-5, 1.0), st.integers(0, 9))


@given(samples=utterances)
@settings(deadline=None, max_examples=40)
def test_an_answer_is_complete_and_consistent(recognizer: EmotionRecognizer, samples: Samples) -> None:
    judgement = recognizer.judge(samples)
    assert tuple(judgement.probabilities) == recognizer.labels
    assert sum(judgement.probabilities.values()) == pytest.approx(1)
    assert judgement.confidence == judgement.probabilities[judgement.emotion] == max(judgement.probabilities.values())
    assert judgement.candidates[0] == judgement.emotion
    assert judgement.uncertain or judgement.candidates == (judgement.emotion,)
    assert judgement.attributes is not None
    assert set(judgement.attributes) == {"arousal", "valence"}
    assert all(0 <= value <= 1 for value in judgement.attributes.values())
    assert judgement.latency_ms > 0


@given(samples=utterances)
@settings(deadline=None, max_examples=40)
def test_what_is_rejected_is_never_certain_and_teaches_nothing(recognizer: EmotionRecognizer, samples: Samples) -> None:
    voice = VoiceProfile()
    judgement = recognizer.judge(samples, voice=voice, risk=0.99)
    if judgement.rejection is None:
        assert voice.utterances == 1
    else:
        assert judgement.uncertain
        assert sorted(judgement.candidates) == sorted(recognizer.labels)
        assert [judgement.probabilities[label] for label in judgement.candidates] == sorted(
            judgement.probabilities.values(), reverse=True
        )
        assert voice == VoiceProfile()


@given(samples=utterances, other=utterances)
@settings(deadline=None, max_examples=20)
def test_nothing_is_kept_between_utterances(recognizer: EmotionRecognizer, samples: Samples, other: Samples) -> None:
    before = timeless(recognizer.judge(samples))
    recognizer.judge(other, transcript="i am sad", voice=VoiceProfile())
    assert timeless(recognizer.judge(samples)) == before


def test_threads_can_share_it(recognizer: EmotionRecognizer) -> None:
    clips = [noise(0.3 + 0.05 * index, seed=index) for index in range(24)]
    alone = [timeless(recognizer.judge(clip, transcript="i am sad")) for clip in clips]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda clip: timeless(recognizer.judge(clip, transcript="i am sad")), clips))
    assert together == alone


def test_the_samples_are_not_changed(recognizer: EmotionRecognizer) -> None:
    samples = noise(1)
    kept = samples.copy()
    recognizer.recognize(samples)
    assert np.array_equal(samples, kept)


@pytest.mark.parametrize("rate_hz", [8000, 22050, 44100, 48000])
def test_the_rate_does_not_change_the_answer(recognizer: EmotionRecognizer, rate_hz: int) -> None:
    expected = recognizer.recognize(tone(RATE_HZ))
    event = recognizer.recognize(tone(rate_hz), rate_hz)
    assert event.end_s == pytest.approx(1.0, abs=1e-3)
    assert event.probabilities == pytest.approx(dict(expected.probabilities), abs=0.02)


def test_the_form_of_the_samples_does_not_change_the_answer(recognizer: EmotionRecognizer) -> None:
    int16 = np.round(noise(1) * 32767).astype(np.int16)
    floats = int16.astype(np.float32) / 32768
    expected = dict(recognizer.recognize(floats).probabilities)
    for same in (int16, floats.astype(np.float64), np.stack([floats] * 2, axis=1), np.stack([int16] * 3, axis=1)):
        assert recognizer.recognize(same).probabilities == pytest.approx(expected, abs=1e-5)


def test_an_emotion_is_the_whole_recording(recognizer: EmotionRecognizer) -> None:
    event = recognizer.recognize(noise(1.5), transcript="i am sad")
    assert (event.utterance, event.start_s, event.end_s) == (1, 0.0, 1.5)
    assert (event.model, event.text_used, event.final, event.revision) == ("tiny", True, True, 0)
    assert set(event.attributes or ()) == {"arousal", "valence"}
    assert event.to_dict()["type"] == "emotion"


REJECTED = [
    ("too_short", noise(MIN_S - 0.001)),
    ("too_short", np.zeros(1, np.float32)),
    ("too_quiet", np.zeros(RATE_HZ, np.float32)),
    ("too_quiet", np.full(RATE_HZ, 10 ** (-75.1 / 20), np.float32)),
    ("clipped", np.where(np.arange(RATE_HZ) % 100 < 21, 1.0, 0.1).astype(np.float32)),
    ("clipped", np.sign(noise(1))),
]
ACCEPTED = [
    noise(MIN_S),
    np.full(RATE_HZ, 10 ** (-74.9 / 20), np.float32),
    np.where(np.arange(RATE_HZ) % 100 < 20, 1.0, 0.1).astype(np.float32),
]


@pytest.mark.parametrize(("reason", "samples"), REJECTED)
def test_what_cannot_be_judged_says_why(recognizer: EmotionRecognizer, reason: str, samples: Samples) -> None:
    assert recognizer.judge(samples).rejection == reason
    event = recognizer.recognize(samples)
    assert event.uncertain
    assert len(event.candidates) == len(recognizer.labels)


@pytest.mark.parametrize("samples", ACCEPTED)
def test_what_is_just_good_enough_is_judged(recognizer: EmotionRecognizer, samples: Samples) -> None:
    assert recognizer.judge(samples).rejection is None


def test_no_samples_are_an_error_to_recognize_and_too_short_to_judge(recognizer: EmotionRecognizer) -> None:
    empty = np.empty(0, np.float32)
    assert recognizer.judge(empty).rejection == "too_short"
    for nothing in (empty, empty.reshape(0, 2), empty.astype(np.int16)):
        with pytest.raises(AudioFormatError, match="no samples"):
            recognizer.recognize(nothing)


@pytest.mark.parametrize(
    "bad", [np.array([0.1, np.nan]), np.array([np.inf]), np.zeros(9, np.int64), np.zeros((9, 2, 2))]
)
def test_what_is_no_audio_is_refused(recognizer: EmotionRecognizer, bad: Samples) -> None:
    voice = VoiceProfile()
    with pytest.raises(AudioFormatError):
        recognizer.recognize(bad, voice=voice)
    with pytest.raises(AudioFormatError):
        recognizer.judge(bad, voice=voice)
    assert voice == VoiceProfile()


@pytest.mark.parametrize("risk", [0.0, 1.0, -1.0, math.nan])
def test_a_risk_that_is_no_share_is_refused(recognizer: EmotionRecognizer, risk: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        recognizer.judge(noise(1), risk=risk)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        recognizer.stream(risk=risk)


def test_the_risk_decides_how_sure_is_sure(folder: Path) -> None:
    bundle = Bundle.open(folder)
    backend = FakeBackend(answer([0.0, math.log(4), 0.0, 0.0]))
    judge = EmotionRecognizer(bundle, backend).judge
    # The likeliest has 4/7; the table of the tiny bundle asks 0.5 at a risk of 0.2 and 0.9 at 0.05.
    assert not judge(noise(1), risk=0.2).uncertain
    assert not judge(noise(1)).uncertain
    assert judge(noise(1), risk=0.1).candidates == ("happy", "angry", "neutral", "sad")
    assert judge(noise(1), risk=0.01).uncertain


def answer(
    logits: list[float], embedding: float = 0.0, attributes: tuple[float, float] = (0.5, 0.5)
) -> dict[str, Samples]:
    return {
        "logits": np.array([logits], np.float32),
        "embedding": np.full((1, EMBEDDING_SIZE), embedding, np.float32),
        "attributes": np.array([attributes], np.float32),
        "frames": np.zeros((1, 1, 2), np.float32),
    }


def test_a_fresh_voice_gives_what_no_voice_gives(recognizer: EmotionRecognizer) -> None:
    assert timeless(recognizer.judge(noise(1), voice=VoiceProfile())) == timeless(recognizer.judge(noise(1)))


@pytest.mark.parametrize("speech", list(Speech))
def test_an_answer_is_certain_only_about_clear_speech(
    folder: Path, speech: Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_ser.recognizer.spoken_part", lambda samples: (speech, samples))
    sure = EmotionRecognizer(Bundle.open(folder), FakeBackend(answer([9.0, 0.0, 0.0, 0.0])))
    event = sure.recognize(noise(1))
    assert event.uncertain == (speech is not Speech.CLEAR)
    assert len(event.candidates) == (len(event.probabilities) if speech is Speech.NONE else 1)


def test_what_is_judged_is_the_spoken_part(recognizer: EmotionRecognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = noise(4)
    part = sound[RATE_HZ : 3 * RATE_HZ]
    monkeypatch.setattr("edge_ser.recognizer.spoken_part", lambda samples: (Speech.CLEAR, part))
    event, judged = recognizer.recognize(sound), recognizer.judge(part)
    assert event.probabilities == judged.probabilities != recognizer.judge(sound).probabilities
    assert (event.start_s, event.end_s) == (0.0, 4.0)


@pytest.mark.usefixtures("real_speech_detection")
@pytest.mark.parametrize(
    "sound",
    [np.zeros(RATE_HZ, np.float32), noise(2), noise(1, level=1e-4), tone(RATE_HZ), np.full(RATE_HZ, 0.5, np.float32)],
    ids=["silence", "white noise", "faint noise", "tone", "direct current"],
)
def test_what_is_not_speech_is_uncertain_and_teaches_no_voice(folder: Path, sound: Samples) -> None:
    sure = FakeBackend(answer([9.0, 0.0, 0.0, 0.0]))
    voice = VoiceProfile()
    event = EmotionRecognizer(Bundle.open(folder), sure).recognize(sound, voice=voice)
    assert event.uncertain and event.emotion == event.candidates[0]
    assert set(event.candidates) == set(event.probabilities)
    assert voice.utterances == 0


def test_a_voice_is_used_then_learns(recognizer: EmotionRecognizer) -> None:
    voice = VoiceProfile()
    first = recognizer.recognize(noise(1), voice=voice)
    second = recognizer.recognize(noise(1), voice=voice)
    assert (first.voice_utterances, second.voice_utterances, voice.utterances) == (0, 1, 2)
    assert first.probabilities != second.probabilities
    assert voice.space == "tiny"


def test_a_voice_can_be_used_without_learning(recognizer: EmotionRecognizer) -> None:
    voice = VoiceProfile()
    recognizer.judge(noise(1), voice=voice)
    frozen = voice.as_input(EMBEDDING_SIZE)
    assert recognizer.judge(noise(1), voice=voice, update_voice=False).voice_utterances == 1
    assert np.array_equal(voice.as_input(EMBEDDING_SIZE), frozen)


def test_a_voice_of_another_model_is_refused_before_the_model_runs(folder: Path) -> None:
    backend = FakeBackend(answer([0, 0, 0, 0]))
    voice = VoiceProfile()
    voice.update(np.ones(3), "another")
    with pytest.raises(ConfigError, match="fresh"):
        EmotionRecognizer(Bundle.open(folder), backend).judge(noise(1), voice=voice)
    assert backend.calls == []


def test_a_transcript_is_fused_in(recognizer: EmotionRecognizer) -> None:
    without, blank = recognizer.judge(noise(1)), recognizer.judge(noise(1), transcript="  ")
    assert not without.text_used
    assert timeless(blank) == timeless(without)
    said = recognizer.judge(noise(1), transcript="i am happy")
    assert said.text_used
    assert said.probabilities != without.probabilities


def test_a_model_without_text_and_voice_says_that_it_used_none(tmp_path: Path) -> None:
    speech_only = load(write_tiny_bundle(tmp_path / "b", labels=("calm", "moved"), text=False, voice=False))
    voice = VoiceProfile()
    judgement = speech_only.judge(noise(1), transcript="i am happy", voice=voice)
    assert (judgement.text_used, judgement.voice_utterances, judgement.attributes) == (False, 0, None)
    assert voice == VoiceProfile()
    assert set(judgement.probabilities) == {"calm", "moved"}


@pytest.mark.parametrize("duration_s", [MAX_S, MAX_S + 1 / RATE_HZ, 2.5 * MAX_S, 3 * MAX_S])
def test_long_utterances_are_judged_in_equal_windows_that_cover_them(folder: Path, duration_s: float) -> None:
    backend = FakeBackend(answer([0, 0, 0, 0]))
    samples = noise(duration_s)
    samples = np.concatenate([samples, noise(1)])[: round(duration_s * RATE_HZ)]
    EmotionRecognizer(Bundle.open(folder), backend).judge(samples)
    windows = [call["audio"][0] for call in backend.calls]
    assert np.array_equal(np.concatenate(windows), samples)
    assert len(windows) == math.ceil(samples.size / (MAX_S * RATE_HZ))
    sizes = [window.size for window in windows]
    assert max(sizes) - min(sizes) <= 1


def test_windows_are_averaged(folder: Path) -> None:
    backend = FakeBackend(answer([0, 1, 0, 0], 1.0, (0.0, 1.0)), answer([0, 3, 8, 0], 3.0, (0.5, 1.0)))
    bundle = Bundle.open(folder)
    voice = VoiceProfile()
    judgement = EmotionRecognizer(bundle, backend).judge(noise(12), voice=voice)
    expected = bundle.manifest.calibration.probabilities(np.array([0.0, 2.0, 4.0, 0.0]))
    assert list(judgement.probabilities.values()) == pytest.approx(expected.tolist())
    assert judgement.attributes == {"arousal": 0.25, "valence": 1.0}
    assert voice.utterances == 1
    assert voice.as_input(EMBEDDING_SIZE)[0, 1] == 2.0


@pytest.mark.parametrize("size", [0, 1, 3999])
def test_short_utterances_are_padded_with_silence(folder: Path, size: int) -> None:
    backend = FakeBackend(answer([0, 0, 0, 0]))
    samples = noise(1)[:size]
    EmotionRecognizer(Bundle.open(folder), backend).judge(samples)
    told = backend.calls[0]["audio"][0]
    assert told.size == MIN_S * RATE_HZ
    assert np.array_equal(told[:size], samples)
    assert not told[size:].any()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_answer_that_is_no_number_is_an_error_and_teaches_nothing(folder: Path, bad: float) -> None:
    voice = VoiceProfile()
    with pytest.raises(BundleError, match="NaN or infinity"):
        EmotionRecognizer(Bundle.open(folder), FakeBackend(answer([0, bad, 0, 0]))).judge(noise(1), voice=voice)
    assert voice == VoiceProfile()


def test_attributes_stay_in_their_range(folder: Path) -> None:
    backend = FakeBackend(answer([0, 0, 0, 0], attributes=(-0.3, 1.7)))
    judgement = EmotionRecognizer(Bundle.open(folder), backend).judge(noise(1))
    assert judgement.attributes == {"arousal": 0.0, "valence": 1.0}


def test_its_text_is_the_contract(recognizer: EmotionRecognizer) -> None:
    text = repr(recognizer)
    for item in (*recognizer.bundle.manifest.inputs, *recognizer.bundle.manifest.outputs):
        assert f"{item.name}: {item.dtype}" in text
    assert "labels: angry, happy, neutral, sad" in text
    assert "0.25 to 8 s" in text
    assert "onnxruntime" in text


def test_its_properties_are_those_of_the_manifest(recognizer: EmotionRecognizer, folder: Path) -> None:
    assert recognizer.bundle == Bundle.open(folder)
    assert recognizer.model == "tiny"
    assert (recognizer.min_duration_s, recognizer.max_duration_s) == (MIN_S, MAX_S)


def test_the_tiny_bundle_is_the_same_every_time(folder: Path, tmp_path: Path) -> None:
    again = write_tiny_bundle(tmp_path / "tiny", attributes=("arousal", "valence"))
    assert Bundle.open(again).manifest == Bundle.open(folder).manifest


def test_the_tiny_model_hears_a_difference(recognizer: EmotionRecognizer) -> None:
    answers = {recognizer.judge(samples).emotion for samples in (noise(1, 0.5), noise(1, 0.001), tone(RATE_HZ))}
    assert len(answers) >= 2


def test_a_stream_belongs_to_its_recognizer(recognizer: EmotionRecognizer) -> None:
    voice = VoiceProfile()
    stream = recognizer.stream(voice=voice, risk=0.1, vad="webrtc")
    assert isinstance(stream, edge_ser.Stream)
    assert stream.voice is voice
    assert [type(event).__name__ for event in stream.finish()] == ["Summary"]


REASONS = {
    "too_quiet": np.full(RATE_HZ, 1e-5, np.float32),
    "clipped": np.sign(noise(1)),
    "too_short": noise(0.1),
}


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_a_stream_says_why_the_model_cannot_judge(recognizer: EmotionRecognizer, reason: str) -> None:
    class Sure:
        frame_samples = 512

        def __call__(self, frame: Samples) -> float:
            return 1.0

        def reset(self) -> None:
            """Nothing is kept."""

    stream = edge_ser.Stream(recognizer, detector=Sure(), partials=True)
    events = [*stream.push(REASONS[reason]), *stream.finish()]
    assert [event.to_dict().get("reason") for event in events] == [None, reason, None]
    assert stream.ledger.rejected_samples == stream.ledger.captured_samples == REASONS[reason].size


def test_a_stream_refuses_a_voice_of_another_model_before_it_begins(recognizer: EmotionRecognizer) -> None:
    voice = VoiceProfile()
    voice.update(np.ones(3), "another")
    with pytest.raises(ConfigError, match="fresh"):
        recognizer.stream(voice=voice)


def test_an_unknown_detector_is_refused(recognizer: EmotionRecognizer) -> None:
    with pytest.raises(ConfigError):
        recognizer.stream(vad="ears")


def test_a_fake_backend_shares_the_protocol(folder: Path) -> None:
    bundle = Bundle.open(folder)
    names = {output.name for output in bundle.manifest.outputs}
    inputs = {"audio": noise(1)[np.newaxis], "text_ids": np.zeros((1, 1), np.int64)}
    inputs |= {"text_mask": np.zeros((1, 1), np.int64), "voice": np.zeros((1, 2 * EMBEDDING_SIZE + 1), np.float32)}
    for backend in (open_backend(bundle), FakeBackend(answer([0, 0, 0, 0]))):
        outputs = backend.run(inputs)
        assert set(outputs) == names
        assert all(values.dtype == np.float32 and values.shape[0] == 1 for values in outputs.values())
        assert backend.name
        assert backend.provider


def test_replacing_the_calibration_changes_the_confidence_only(recognizer: EmotionRecognizer, folder: Path) -> None:
    bundle = Bundle.open(folder)
    softer = replace(bundle.manifest, calibration=replace(bundle.manifest.calibration, temperature=4.0))
    soft = EmotionRecognizer(replace(bundle, manifest=softer), open_backend(bundle)).judge(noise(1))
    sharp = recognizer.judge(noise(1))
    assert soft.emotion == sharp.emotion
    assert soft.confidence < sharp.confidence
