"""Judge a bundle on speakers that it has never heard: everything that its card says.

    python -m train.evaluate mdat-int8 --data FOLDER --out benchmarks/results/mdat-int8.json

FOLDER holds speech/manifest.csv, noise/noise.csv and rir/rir.csv. Clips go through the runtime, cut to their speech as
`recognize` cuts them: cold, each with a fresh voice, and warm, each speaker's clips in random orders through one voice,
scored from the 11th on. Corpora whose other speakers the model was trained on are its home. Intervals are 95 %
bootstraps over speakers, or over clips where there are fewer than ten speakers. No speaker of training or validation is
ever scored.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import edge_ser
from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.corpus import Clip, read_manifest
from edge_ser.environment import environment
from edge_ser.errors import ConfigError, EdgeSerError
from edge_ser.events import Emotion
from edge_ser.recognizer import EmotionRecognizer
from train.answers import Answers, Floats, brief, describe, difference, promises, reliability, risk_coverage, series, ua
from train.data import data_folder, usable
from train.evaluation_table import table
from train.hardships import PRE_ROLL_S, Change, Wave, hardships, sounds_without_speech, speech_start
from train.listening import Listener, Recording, Span, progress, sample
from train.text import ConstructedPairs, read_sentences

__all__ = ["evaluate", "main", "ua", "unseen_clips"]

WARM_AFTER = 10
"""Utterances of a speaker that are heard before the warm score counts."""
SECONDS = (0.8, 1.6, 2.4, 3.2)
"""Seconds of speech after which an answer is asked for."""
HEARD: tuple[Span, ...] = ((0, 0), (1, 2), (3, 5), (6, 10), (11, 20), (21, None))
"""Utterances of a speaker heard before: from and to."""
_FEWEST_LABELS = 3


@dataclass(frozen=True)
class Effort:
    """How much is judged."""

    orders: int = 3
    """How often each speaker is heard from the start."""
    clips_of_corpus: int = 10**9
    """Most clips of a corpus."""
    clips: int = 600
    """Most clips that are changed."""
    clips_in_part: int = 200
    """Most clips of a corpus that are judged in part."""


QUICK = Effort(1, 120, 24, 24)
"""A look at whether everything runs."""


def unseen_clips(clips: Sequence[Clip], recognizer: EmotionRecognizer) -> list[Clip]:
    """Return the clips whose speakers took no part in training or validation.

    Raises:
        ConfigError: The bundle does not say whom it was trained on, so nobody can be called unseen.
    """
    known = {name for side in ("train", "validation") for name in _speakers(recognizer).get(side, [])}
    return [clip for clip in clips if clip.speaker not in known]


def home_corpora(clips: Sequence[Clip], recognizer: EmotionRecognizer) -> set[str]:
    """Return the corpora that the model knows other speakers of.

    Raises:
        ConfigError: The bundle does not say whom it was trained on.
    """
    trained = set(_speakers(recognizer)["train"])
    return {clip.corpus for clip in clips if clip.speaker in trained}


def evaluate(
    recognizer: EmotionRecognizer, data: Path, corpora: Sequence[str] | None = None, effort: Effort | None = None
) -> dict[str, Any]:
    """Return everything that is measured, as plain data.

    Args:
        recognizer: Whose bundle is judged.
        data: The corpora's folder.
        corpora: Which; None takes all that have clips of unseen speakers.
        effort: How much is judged.

    Raises:
        ConfigError: A corpus has no clip of an unseen speaker.
    """
    effort = effort or Effort()
    listed = read_manifest(data / "speech" / "manifest.csv")
    unseen, home = unseen_clips(listed, recognizer), home_corpora(listed, recognizer)
    chosen = corpora or sorted(
        {clip.corpus for clip in unseen if clip.emotion}, key=lambda name: (name not in home, name)
    )
    listener = Listener(recognizer)
    heard: dict[str, CorpusHeard] = {}
    for corpus in chosen:
        own = sample([clip for clip in unseen if usable(clip, (corpus,))], effort.clips_of_corpus)
        if not own:
            raise ConfigError(f"{corpus}: no clip of an unseen speaker; need a corpus of {data}/speech/manifest.csv")
        heard[corpus] = CorpusHeard.of(listener, own, effort, sum(len(item.cold.clips) for item in heard.values()))
    sides = {"home": [heard[name] for name in chosen if name in home]}
    sides["away"] = [heard[name] for name in chosen if name not in home]
    kept = sample([recording for item in sides["home"] or sides["away"] for recording in item.told], effort.clips)
    return {
        "model": recognizer.model,
        "labels": list(recognizer.labels),
        "default_risk": recognizer.bundle.manifest.calibration.default_risk,
        "warm_after_utterances": WARM_AFTER,
        "orders": effort.orders,
        "corpora": {name: {"home": name in home, **item.figures()} for name, item in heard.items()},
        "pooled": {side: _pooled(recognizer, items) for side, items in sides.items() if items},
        "robustness": _robustness(listener, kept, data),
        "words": _words(listener, kept, data),
        "non_speech": _non_speech(listener, kept, data),
        "environment": environment("onnxruntime", "numpy"),
    }


def with_own_chance(change: Change, condition: int, recording: Recording) -> Wave:
    """Return a changed recording; what befalls it does not depend on which ones came before it."""
    return change(recording.wave, np.random.default_rng([condition, recording.number]))


@dataclass(frozen=True)
class CorpusHeard:
    """One corpus's clips of unseen speakers, and what was said about them."""

    told: list[Recording]
    """As many of them as are asked about again."""
    cold: Answers
    warm: Answers | None
    """In turn, from the first utterance on; None where voices give emotions away."""
    stranger: Answers | None
    everyday: Answers | None
    """After a history that was mostly neutral."""
    part: list[Answers]
    """After each of `SECONDS` and at the end, the same clips each time."""
    history: list[Answers]
    """After as many utterances as `HEARD` says, the same clips each time; empty where no speaker has so many."""

    @staticmethod
    def of(listener: Listener, clips: Sequence[Clip], effort: Effort, first_number: int) -> CorpusHeard:
        """Hear the clips in every way that needs the whole corpus."""
        told = listener.record(clips, first_number)
        # Where most speakers have one or two emotions, a voice would tell the emotion by itself.
        varied = median(len({c.emotion for c in clips if c.speaker == name}) for name in {c.speaker for c in clips})
        has_voices = varied >= _FEWEST_LABELS and listener.recognizer.bundle.manifest.input_of("voice") is not None
        warm = listener.warm(told, effort.orders) if has_voices else None
        return CorpusHeard(
            sample(told, effort.clips),
            listener.cold(told),
            warm,
            _if_any(listener.stranger(told)) if has_voices else None,
            _if_any(listener.everyday(told)) if has_voices else None,
            _in_part(listener, sample(told, effort.clips_in_part)),
            _with_history(listener, told, effort.clips_in_part) if has_voices else [],
        )

    @property
    def settled(self) -> Answers | None:
        """The warm answers that count, None where no speaker was heard long enough."""
        return None if self.warm is None else _if_any(self.warm.keep(self.warm.heard >= WARM_AFTER))

    def figures(self) -> dict[str, Any]:
        """Return the figures of the corpus as plain data."""
        settled = self.settled
        figures: dict[str, Any] = {"cold": describe(self.cold), "warm": settled and describe(settled)}
        figures["seconds_heard"] = {"seconds": [*SECONDS, None], **series(self.part)}
        if self.history:
            figures["utterances_heard"] = {"spans": HEARD, **series(self.history)}
        if settled is not None:
            figures["gain"] = difference(self.cold.at(settled.clips - int(self.cold.clips[0])), settled)
        if self.stranger is not None:
            figures["wrong_voice"] = difference(self.cold, self.stranger)
        if self.everyday is not None:
            figures["mostly_neutral"] = difference(
                self.cold.at(self.everyday.clips - int(self.cold.clips[0])), self.everyday
            )
        return figures


def _if_any(answers: Answers) -> Answers | None:
    return answers if len(answers.truth) else None


def _with_history(listener: Listener, told: Sequence[Recording], most: int) -> list[Answers]:
    clips = Counter(recording.clip.speaker for recording in told)
    enough = [recording for recording in told if clips[recording.clip.speaker] > HEARD[-1][0]]
    return listener.after(sample(enough, most), enough, HEARD) if enough else []


def _in_part(listener: Listener, told: Sequence[Recording]) -> list[Answers]:
    starts = {recording.number: speech_start(recording.wave) for recording in told}

    def until(seconds: float, recording: Recording) -> Wave:
        start = starts[recording.number]
        end = start + round(seconds * SAMPLE_RATE_HZ)
        return recording.wave[max(0, start - round(PRE_ROLL_S * SAMPLE_RATE_HZ)) : end]

    parts = [listener.changed(told, partial(until, seconds), f"{seconds:g} s") for seconds in SECONDS]
    return [*parts, listener.cold(told)]


def _pooled(recognizer: EmotionRecognizer, items: Sequence[CorpusHeard]) -> dict[str, Any]:
    settled = [item.settled for item in items]
    voices = {"cold": [item.cold for item in items], "warm": [rows for rows in settled if rows is not None]}
    calibration = recognizer.bundle.manifest.calibration

    def is_certain(shares: Floats, risk: float) -> bool:
        return not calibration.decide(shares, risk)[0]

    pooled = {}
    for voice, parts in voices.items():
        if parts:
            answers = Answers.joined(parts)
            pooled[voice] = {
                **describe(answers),
                "reliability": reliability(answers),
                "promises": promises(answers, [row.risk for row in calibration.risks], is_certain),
                "risk_coverage": risk_coverage(answers),
            }
    return pooled


def _robustness(listener: Listener, told: Sequence[Recording], data: Path) -> dict[str, Any]:
    clean = listener.cold(told)
    rows = []
    for place, (name, change) in enumerate(hardships(data).items()):
        answers = listener.changed(told, partial(with_own_chance, change, place), name)
        figures = describe(answers)
        kept = ("ua", "certain_share", "certain_accuracy")
        rows.append({"name": name, **{key: figures[key] for key in kept}, **difference(clean, answers)})
    corpora = sorted({recording.clip.corpus for recording in told})
    return {"corpora": corpora, **brief(clean), "conditions": rows}


def _words(listener: Listener, told: Sequence[Recording], data: Path) -> dict[str, Any] | None:
    sentences = data / "text" / "goemotions.csv.gz"
    if listener.recognizer.bundle.manifest.input_of("text_ids") is None or not sentences.is_file():
        return None
    pairs = ConstructedPairs.of(read_sentences(sentences), "test")
    labels = listener.recognizer.labels

    def say(recording: Recording) -> str:
        return pairs.draw(labels.index(recording.clip.emotion), np.random.default_rng(recording.number))

    worded = listener.worded(told, say)
    return {**brief(worded), **difference(listener.cold(told), worded)}


def _non_speech(listener: Listener, told: Sequence[Recording], data: Path) -> dict[str, Any]:
    recognizer = listener.recognizer
    known = listener.voice_of(told, told[0].clip.speaker, np.random.default_rng(0))
    every = sounds_without_speech(data)
    kinds, total, confident = [], 0, 0
    for kind, sounds in every.items():
        said = []
        for sound in progress(sounds, kind):
            said += [recognizer.recognize(sound), recognizer.recognize(sound, voice=known.copy())]
            stream = recognizer.stream()
            said += [event for event in [*stream.push(sound), *stream.finish()] if isinstance(event, Emotion)]
        sure = sum(not event.uncertain for event in said)
        kinds.append({"kind": kind, "sounds": len(sounds), "answers": len(said), "confident": sure})
        total, confident = total + len(said), confident + sure
    count = sum(len(sounds) for sounds in every.values())
    return {"sounds": count, "answers": total, "confident_share": round(confident / total, 4), "kinds": kinds}


def _speakers(recognizer: EmotionRecognizer) -> dict[str, list[str]]:
    speakers = recognizer.bundle.manifest.provenance.get("speakers")
    if not isinstance(speakers, dict) or "train" not in speakers:
        raise ConfigError(f"{recognizer.model} does not name its training speakers; need provenance.speakers")
    return speakers


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a bundled name or a bundle's folder")
    parser.add_argument("--data", type=Path, help="the corpora's folder (default: EDGE_SER_DATA)")
    parser.add_argument("--corpora", nargs="+", metavar="NAME", help="default: all with speakers it has never heard")
    parser.add_argument("--orders", type=int, default=Effort.orders, help="times that each speaker is heard anew")
    parser.add_argument("--quick", action="store_true", help="a few clips only, to see that everything runs")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    parser.add_argument("--threads", type=int, default=1, help="threads for one utterance")
    options = parser.parse_args(argv)
    effort = QUICK if options.quick else Effort(orders=options.orders)
    try:
        recognizer = edge_ser.load(options.model, threads=options.threads)
        result = evaluate(recognizer, data_folder(options.data), options.corpora, effort)
    except EdgeSerError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    text = json.dumps(result, indent=1) + "\n"
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    print(text if options.format == "json" else table(result), end="" if options.format == "json" else "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
