"""Lines for people, and how a signal ends a source."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ser.cli.interruption import Interruption
from edge_ser.cli.text import EventText, clock
from edge_ser.events import DeviceLost, DeviceRestored, Emotion, Overflow, Rejected, SpeechStarted, Summary
from edge_ser.ledger import AudioLedger

LABELS = ("angry", "happy", "neutral", "sad")


def emotion(confidence: float = 0.87, candidates: tuple[str, ...] = ("happy",), start_s: float = 3.2) -> Emotion:
    return Emotion(
        utterance=1,
        start_s=start_s,
        end_s=start_s + 1.9,
        emotion=candidates[0],
        confidence=confidence,
        probabilities={},
        uncertain=len(candidates) > 1,
        candidates=candidates,
        attributes=None,
        model="tiny",
        latency_ms=1.0,
        text_used=False,
        voice_utterances=0,
    )


SUMMARY = Summary("tiny", 2, 4.0, AudioLedger(64_000, 32_000, 16_000, 8_000, 8_000, 1.5))


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (emotion(), "00:03.2-00:05.1  happy    0.87  #########"),
        (replace(emotion(), uncertain=True), "00:03.2-00:05.1  ? perhaps happy"),
        (emotion(candidates=("happy", "sad")), "00:03.2-00:05.1  ? happy or sad"),
        (emotion(candidates=("happy", "sad", "angry")), "00:03.2-00:05.1  ? happy, sad or angry"),
        (emotion(candidates=LABELS), "00:03.2-00:05.1  ? unclear"),
        (replace(emotion(), final=False), "00:03.2-00:05.1  happy    0.87  #########  (so far)"),
        (replace(emotion(), final=False, uncertain=True), "00:03.2-00:05.1  ? perhaps happy  (so far)"),
        (Rejected(1, 0.0, 0.2, "too_short"), "00:00.0-00:00.2  (too short to judge)"),
        (Rejected(1, 0.0, 0.2, "clipped"), "00:00.0-00:00.2  (clipped, lower the input level)"),
        (Overflow(61.0, 8_000), "01:01.0  0.5 s of audio lost"),
        (Overflow(1.0, 0), "00:01.0  some audio lost by the device"),
        (Overflow(1.0, 0, 0.25), "00:01.0  about 0.2 s of audio lost by the device"),
        (DeviceLost(1.0, "USB"), "00:01.0  USB went away"),
        (DeviceLost(1.0, "U\x1b[2J\nB"), "00:01.0  U?[2J?B went away"),
        (DeviceRestored(1.0, "USB", 2.5), "00:01.0  USB is back after 2.5 s"),
        (
            SUMMARY,
            "2 utterances in 4.0 s: 2.0 s judged, 1.0 s silence, 0.5 s rejected, 0.5 s lost, "
            "1.5 s without a microphone",
        ),
    ],
)
def test_each_event_has_its_line(event: object, line: str) -> None:
    assert EventText(LABELS, None, unicode=False).lines(event) == [line]


def test_the_beginning_of_speech_has_no_line() -> None:
    assert EventText(LABELS).lines(SpeechStarted(1, 0.0)) == []


def test_bars_have_eighths_of_a_column() -> None:
    text = EventText(LABELS)
    assert text.lines(emotion())[0].endswith("happy    0.87  ████████▊")
    assert [text.bar(share, 2) for share in (-1, 0, 0.5, 1, 2)] == ["", "", "█", "██", "██"]


@given(
    columns=st.integers(20, 120),
    event=st.one_of(
        st.builds(
            emotion,
            st.floats(0, 1),
            st.permutations(LABELS).flatmap(lambda order: st.integers(1, 4).map(lambda n: tuple(order[:n]))),
            st.floats(0, 100_000),
        ),
        st.just(SUMMARY),
    ),
)
def test_no_line_is_wider_than_the_terminal(columns: int, event: object) -> None:
    for line in EventText(LABELS, columns).lines(event):
        assert 0 < len(line) <= columns


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "00:00.0"), (3.2, "00:03.2"), (59.96, "01:00.0"), (3_600, "1:00:00.0")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def interrupted_at(number: int) -> Iterator[int]:
    """Count from 0, and be interrupted while waiting for `number`."""
    for item in range(100):
        if item == number:
            os.kill(os.getpid(), signal.SIGTERM)
        yield item


def test_a_signal_ends_a_source_that_waits() -> None:
    with Interruption() as interruption:
        assert list(interruption.guard(interrupted_at(3))) == [0, 1, 2]


def test_a_signal_while_an_item_is_judged_raises_nothing_there() -> None:
    judged = []
    with Interruption() as interruption:
        for item in interruption.guard(iter(range(100))):
            if item == 3:
                os.kill(os.getpid(), signal.SIGINT)
            judged.append(item)
    assert judged == [0, 1, 2, 3]


class SignalledBeforeItWaits(Interruption):
    """The signal comes after the last look at it and before the wait is known to be one."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "_waiting" and value and not self._requested:
            os.kill(os.getpid(), signal.SIGTERM)
        super().__setattr__(name, value)


def test_a_signal_just_before_the_wait_is_not_lost() -> None:
    def silent_pipe() -> Iterator[int]:
        pytest.fail("nothing must be waited for")
        yield 0

    with SignalledBeforeItWaits() as interruption:
        assert list(interruption.guard(silent_pipe())) == []


def test_a_source_that_stops_itself_still_gives_what_it_holds() -> None:
    stopped = []
    with Interruption(stop=lambda: stopped.append(True)) as interruption:
        assert list(interruption.guard(interrupted_at(3))) == list(range(100))
    assert stopped == [True]


def test_the_second_signal_aborts() -> None:
    with Interruption(stop=lambda: None), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interruption():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_source_named_after_the_signal_is_ended_at_once() -> None:
    stopped = []
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
        interruption.ends(lambda: stopped.append(True))
    assert stopped == [True]
