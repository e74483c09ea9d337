"""The segmenter partitions the sample axis, whatever the detector says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ser.errors import ConfigError
from edge_ser.segmenter import Decision, Segmenter, Silence, SpeechOnset, Utterance, utterances_in
from edge_ser.segmenter_options import SegmenterOptions

RATE_HZ = 16_000
SMALL = SegmenterOptions(max_utterance_s=2.0, cut_search_s=0.8)
DOUBT = 0.27
PRE_ROLL = round(SegmenterOptions().pre_roll_s * RATE_HZ)
LONGEST_PRE_ROLL = round(SegmenterOptions().longest_pre_roll_s * RATE_HZ)

# Runs of frames that are all speech, all doubtful (between the thresholds) or all silence.
scripts = st.lists(st.tuples(st.sampled_from([0.0, DOUBT, 1.0]), st.integers(1, 40)), max_size=12)


def ramp(samples: int) -> np.ndarray:
    """Samples that all differ, so that a lost, doubled or moved one shows."""
    return np.arange(samples, dtype=np.float32) / 2**22


def run(
    probabilities: list[float], options: SegmenterOptions = SMALL, frame_samples: int = 512, last_samples: int = 512
) -> tuple[list[Decision], Segmenter, np.ndarray]:
    segmenter = Segmenter(options)
    sizes = [frame_samples] * (len(probabilities) - 1) + [last_samples] * bool(probabilities)
    samples = ramp(sum(sizes))
    decisions: list[Decision] = []
    start = 0
    for size, probability in zip(sizes, probabilities, strict=True):
        decisions += segmenter.push(samples[start : start + size], probability)
        start += size
    return decisions + segmenter.finish(), segmenter, samples


def frames_of(script: list[tuple[float, int]]) -> list[float]:
    return [probability for probability, count in script for _ in range(count)]


def test_an_utterance_is_doubtful_if_its_surest_quarter_second_is():
    sure, unsure, silence = [0.95], [0.7], [0.0]
    cases = {True: unsure * 20 + sure * 2, False: unsure * 20 + sure * 4}
    for doubtful, speech in cases.items():
        decisions, _, _ = run(silence * 20 + speech + silence * 40)
        assert [utterance.doubtful for utterance in utterances_of(decisions)] == [doubtful]


def test_an_utterance_is_clear_if_its_surest_quarter_second_is():
    clear, unclear, silence = [0.99], [0.9], [0.0]
    cases = {False: unclear * 20 + clear * 2, True: unclear * 20 + clear * 8}
    for is_clear, speech in cases.items():
        decisions, _, samples = run(silence * 20 + speech + silence * 40, options=SegmenterOptions())
        assert [utterance.clear for utterance in utterances_of(decisions)] == [is_clear]
        script = iter(silence * 20 + speech + silence * 40)

        class Detector:
            frame_samples = 512

            def __call__(self, frame: np.ndarray, script: Iterator[float] = script) -> float:
                return next(script)

            def reset(self) -> None: ...

        whole = utterances_in(samples, Detector())
        assert [(u.start_sample, u.samples.size, u.clear) for u in whole] == [
            (u.start_sample, u.samples.size, u.clear) for u in utterances_of(decisions)
        ]


def test_what_is_left_after_a_cut_is_neither_lost_nor_certain():
    segmenter = Segmenter(SegmenterOptions())
    decisions: list[Decision] = []
    for probability, count in ((0.0, 20), (0.99, 230), (0.0, 8), (0.99, 5), (0.0, 40)):
        for _ in range(count):
            decisions += segmenter.push(np.full(512, 0.1 * probability, np.float32), probability)
    first, rest = utterances_of(decisions + segmenter.finish())
    assert first.clear and rest.speech_samples < SegmenterOptions().min_speech_s * RATE_HZ
    assert not rest.clear and not rest.doubtful and not rest.too_short


def test_a_whole_recording_is_cut_as_a_stream_cuts_it():
    class Tiring:
        """Is sure of speech only for the first second after a reset."""

        frame_samples = 512

        def __init__(self) -> None:
            self.heard = 0

        def __call__(self, frame: np.ndarray) -> float:
            self.heard += 1
            return 0.9 if self.heard < 32 and np.abs(frame).max() > 0.1 else 0.0

        def reset(self) -> None:
            self.heard = 0

    samples = np.concatenate([np.ones(16_000), np.zeros(16_000), np.ones(16_000), np.zeros(16_000)]).astype(np.float32)
    assert len(utterances_in(samples, Tiring())) == 2


def test_looking_at_the_open_utterance_decides_nothing():
    probabilities = [0.0] * 12 + [1.0] * 30 + [0.0] * 40
    expected, _, samples = run(probabilities)
    segmenter = Segmenter(SMALL)
    decisions: list[Decision] = []
    for place, probability in enumerate(probabilities):
        decisions += segmenter.push(samples[512 * place : 512 * (place + 1)], probability)
        if segmenter.is_open:
            so_far = segmenter.so_far()
            assert so_far.end_sample == 512 * (place + 1)
            assert np.array_equal(so_far.samples, samples[so_far.start_sample : so_far.end_sample])
            assert segmenter.speech_samples == so_far.speech_samples == 512 * min(place - 11, 30)
    decisions += segmenter.finish()
    assert [(type(one), one.start_sample) for one in decisions] == [(type(one), one.start_sample) for one in expected]


def utterances_of(decisions: list[Decision]) -> list[Utterance]:
    return [decision for decision in decisions if isinstance(decision, Utterance)]


def speech_samples(probabilities: list[float], options: SegmenterOptions = SMALL) -> np.ndarray:
    flags: list[bool] = []
    for probability in probabilities:
        flags.append(probability >= (options.release_threshold if flags and flags[-1] else options.threshold))
    return np.repeat(np.array(flags, dtype=bool), 512)


@given(script=scripts, frame_samples=st.sampled_from([160, 320, 512, 1000]), last=st.floats(0.01, 1.0))
@settings(max_examples=150, deadline=None)
def test_every_sample_is_in_exactly_one_segment(script, frame_samples, last):
    last_samples = max(1, int(last * frame_samples))
    decisions, segmenter, samples = run(frames_of(script), SMALL, frame_samples, last_samples)
    segments = [decision for decision in decisions if not isinstance(decision, SpeechOnset)]
    borders = [0, *(segment.end_sample for segment in segments)]
    assert [segment.start_sample for segment in segments] == borders[:-1]
    assert borders[-1] == samples.size
    assert segmenter.undecided_samples == 0
    for utterance in utterances_of(decisions):
        np.testing.assert_array_equal(utterance.samples, samples[utterance.start_sample : utterance.end_sample])
        assert 0 < utterance.samples.size <= SMALL.max_utterance_s * RATE_HZ


@given(script=scripts)
@settings(max_examples=150, deadline=None)
def test_all_speech_is_in_utterances_and_every_utterance_has_speech(script):
    probabilities = frames_of(script)
    decisions, _, samples = run(probabilities)
    is_speech = speech_samples(probabilities)
    is_utterance = np.zeros(samples.size, bool)
    for utterance in utterances_of(decisions):
        inside = slice(utterance.start_sample, utterance.end_sample)
        is_utterance[inside] = True
        assert utterance.speech_samples == is_speech[inside].sum() > 0
    assert not (is_speech & ~is_utterance).any()


@given(script=scripts)
@settings(max_examples=150, deadline=None)
def test_pre_roll_is_all_there_is_and_never_taken_from_an_utterance(script):
    # Without hints of speech; the tests of hints follow below.
    probabilities = frames_of([(0.0 if probability == DOUBT else probability, count) for probability, count in script])
    decisions, _, _ = run(probabilities)
    is_speech = speech_samples(probabilities)
    earlier_end = 0
    for utterance in utterances_of(decisions):
        first_speech = utterance.start_sample + int(np.argmax(is_speech[utterance.start_sample :]))
        if utterance.start_sample > earlier_end or earlier_end == 0:
            available = first_speech - earlier_end
            assert first_speech - utterance.start_sample == min(round(SMALL.pre_roll_s * RATE_HZ), available)
        earlier_end = utterance.end_sample


@given(script=scripts)
@settings(max_examples=100, deadline=None)
def test_each_onset_is_followed_by_its_utterance(script):
    decisions, _, _ = run(frames_of(script))
    spoken = [decision for decision in decisions if not isinstance(decision, Silence)]
    assert len(spoken) % 2 == 0
    for onset, utterance in zip(spoken[::2], spoken[1::2], strict=True):
        assert isinstance(onset, SpeechOnset)
        assert isinstance(utterance, Utterance)
        assert onset.start_sample == utterance.start_sample


@given(script=scripts)
@settings(max_examples=100, deadline=None)
def test_finish_is_a_fresh_start(script):
    _, used, samples = run(frames_of(script))
    fresh = Segmenter(SMALL)
    for probability in [DOUBT, 1.0, 1.0, DOUBT, 0.0]:
        decided = used.push(ramp(512), probability)
        assert borders_of(decided, samples.size) == borders_of(fresh.push(ramp(512), probability))
    assert borders_of(used.finish(), samples.size) == borders_of(fresh.finish())


def borders_of(decisions: list[Decision], origin: int = 0) -> list[tuple[object, int]]:
    return [(type(decision), decision.start_sample - origin) for decision in decisions]


def test_silence_is_held_no_longer_than_the_pre_roll():
    segmenter = Segmenter()
    held = set()
    for _ in range(500):
        segmenter.push(ramp(512), 0.0)
        held.add(segmenter.undecided_samples)
    assert max(held) == PRE_ROLL
    for _ in range(500):
        segmenter.push(ramp(512), 0.1)
        held.add(segmenter.undecided_samples)
    assert max(held) == LONGEST_PRE_ROLL


def test_a_hint_of_speech_moves_the_start_back_to_before_it():
    for hint_frames in (1, 5, 15):
        decisions, _, _ = run([0.0] * 60 + [0.1] + [0.0] * (hint_frames - 1) + [1.0] * 20, SegmenterOptions())
        (utterance,) = utterances_of(decisions)
        assert utterance.start_sample == 60 * 512 - PRE_ROLL
        assert utterance.speech_samples == 20 * 512


def test_hints_reach_back_only_so_far_and_never_start_an_utterance():
    decisions, _, samples = run([0.1] * 200 + [1.0] * 20, SegmenterOptions())
    (utterance,) = utterances_of(decisions)
    assert utterance.start_sample == 200 * 512 - LONGEST_PRE_ROLL
    decisions, _, samples = run([0.1] * 200, SegmenterOptions())
    assert utterances_of(decisions) == []
    assert sum(item.end_sample - item.start_sample for item in decisions if isinstance(item, Silence)) == samples.size


def test_a_hint_is_forgotten_once_it_is_too_long_ago():
    decisions, _, _ = run([0.0] * 60 + [0.1] + [0.0] * 60 + [1.0] * 20, SegmenterOptions())
    (utterance,) = utterances_of(decisions)
    assert utterance.start_sample == 121 * 512 - PRE_ROLL


def test_an_open_utterance_is_held_no_longer_than_its_limit_and_the_hangover():
    segmenter = Segmenter(SMALL)
    pattern = [1.0] * 30 + [0.0] * 14
    held = []
    for probability in pattern * 8:
        segmenter.push(ramp(512), probability)
        held.append(segmenter.undecided_samples)
    assert max(held) <= (SMALL.max_utterance_s + SMALL.hangover_s) * RATE_HZ + 512


def test_utterance_keeps_pre_roll_and_post_roll_and_leaves_the_rest_to_silence():
    decisions, _, _ = run([0.0] * 50 + [1.0] * 25 + [0.0] * 50, SegmenterOptions())
    (utterance,) = utterances_of(decisions)
    assert utterance.start_sample == 50 * 512 - PRE_ROLL
    assert utterance.end_sample == 75 * 512 + 3200
    assert utterance.speech_samples == 25 * 512
    assert not utterance.too_short


def test_what_the_hangover_leaves_is_the_pre_roll_of_the_next_utterance():
    decisions, _, _ = run([1.0] * 20 + [0.0] * 16 + [1.0] * 20, SegmenterOptions())
    first, second = utterances_of(decisions)
    assert first.end_sample == 20 * 512 + 3200
    assert second.start_sample == max(first.end_sample, 36 * 512 - PRE_ROLL)


@pytest.mark.parametrize(("pause_frames", "utterances"), [(23, 1), (24, 1), (25, 2)])
def test_only_a_pause_as_long_as_the_hangover_ends_an_utterance(pause_frames, utterances):
    probabilities = [1.0] * 15 + [0.0] * pause_frames + [1.0] * 15
    decisions, _, _ = run(probabilities, SegmenterOptions(), frame_samples=320, last_samples=320)
    assert len(utterances_of(decisions)) == utterances


def test_doubtful_frames_continue_speech_but_do_not_start_it():
    decisions, _, _ = run([DOUBT] * 20 + [1.0] * 10 + [DOUBT] * 10 + [0.0] * 20 + [DOUBT] * 20, SegmenterOptions())
    (utterance,) = utterances_of(decisions)
    assert utterance.speech_samples == 20 * 512


@pytest.mark.parametrize(("speech_frames", "too_short"), [(1, True), (7, True), (8, False)])
def test_little_speech_is_marked(speech_frames, too_short):
    decisions, _, _ = run([0.0] * 20 + [1.0] * speech_frames + [0.0] * 30, SegmenterOptions())
    (utterance,) = utterances_of(decisions)
    assert utterance.too_short is too_short


@pytest.mark.parametrize("quiet_at_s", [6.2, 7.0, 7.6])
def test_long_speech_is_cut_at_its_quietest_moment(quiet_at_s):
    rng = np.random.default_rng(1)
    samples = rng.uniform(-0.5, 0.5, 300 * 512).astype(np.float32)
    quiet = round(quiet_at_s * RATE_HZ)
    samples[quiet - 400 : quiet + 400] *= 0.01
    segmenter = Segmenter()
    decisions: list[Decision] = []
    for start in range(0, samples.size, 512):
        decisions += segmenter.push(samples[start : start + 512], 1.0)
    first = utterances_of(decisions)[0]
    assert abs(first.end_sample - quiet) <= 200
    decisions += segmenter.finish()
    np.testing.assert_array_equal(np.concatenate([u.samples for u in utterances_of(decisions)]), samples)


@pytest.mark.parametrize("extra_frames", [1, 2, 10])
def test_the_end_of_long_speech_is_an_utterance_however_short(extra_frames):
    options = SegmenterOptions()
    limit_frames = int(options.max_utterance_s * RATE_HZ) // 512
    decisions, _, _ = run([1.0] * (limit_frames + extra_frames) + [0.0] * 30, options)
    first, rest = utterances_of(decisions)
    assert rest.start_sample == first.end_sample
    assert not rest.too_short
    assert rest.samples.size >= options.min_speech_s * RATE_HZ


def test_after_a_cut_one_more_frame_is_enough_and_after_its_end_it_is_not():
    options = SegmenterOptions()
    limit_frames = int(options.max_utterance_s * RATE_HZ) // 512
    probabilities = [1.0] * (limit_frames - 10) + [0.0] * 10 + [1.0] + [0.0] * 30 + [1.0] + [0.0] * 30
    rng = np.random.default_rng(2)
    segmenter = Segmenter(options)
    decisions: list[Decision] = []
    for probability in probabilities:
        level = 0.5 if probability else 0.01
        decisions += segmenter.push(rng.uniform(-level, level, 512).astype(np.float32), probability)
    utterances = utterances_of(decisions)
    assert [utterance.speech_samples for utterance in utterances[1:]] == [512, 512]
    assert [utterance.too_short for utterance in utterances] == [False, False, True]


def test_speech_that_ends_at_the_limit_is_not_cut():
    options = SegmenterOptions()
    limit_frames = int(options.max_utterance_s * RATE_HZ) // 512
    decisions, _, _ = run([1.0] * limit_frames + [0.0] * 30, options)
    (utterance,) = utterances_of(decisions)
    assert utterance.samples.size == options.max_utterance_s * RATE_HZ


def test_skip_moves_the_clock():
    segmenter = Segmenter()
    segmenter.push(ramp(512), 0.0)
    segmenter.finish()
    segmenter.skip(1000)
    assert segmenter.push(ramp(512), 1.0) == [SpeechOnset(1512)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0.2},
        {"threshold": 1.5},
        {"pre_roll_s": -0.1},
        {"longest_pre_roll_s": 0.1},
        {"hint_probability": 1.5},
        {"post_roll_s": 0.6},
        {"min_speech_s": -1.0},
        {"cut_search_s": 0.2},
        {"max_utterance_s": 2.0},
        {"hangover_s": float("nan")},
    ],
)
def test_options_that_contradict_each_other_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SegmenterOptions(**wrong)
