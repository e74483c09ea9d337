"""Judge a bundle on speakers that it has never heard.

    python -m train.evaluate mdat-int8 --data FOLDER --corpora emodb cremad

FOLDER holds speech/manifest.csv and noise/noise.csv. Clips go through the runtime one by one: cold, each with a fresh
voice, and warm, each speaker's clips in a random order through one voice, scored from the 11th on. Intervals are 95 %
bootstraps over speakers, or over clips where a corpus has fewer than ten speakers. No speaker of training or validation
is ever scored.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import edge_ser
from edge_ser.corpus import Clip, read_manifest
from edge_ser.errors import ConfigError, EdgeSerError
from edge_ser.metrics import (
    bootstrap_interval,
    confusion_matrix,
    expected_calibration_error,
    selective_accuracy,
    unweighted_accuracy,
    weighted_accuracy,
)
from edge_ser.recognizer import EmotionRecognizer, Judgement
from edge_ser.sources import read_samples
from train.data import data_folder, read_sounds, usable

WARM_AFTER = 10
"""Utterances of a speaker that are heard before the warm score counts."""
_FEW_SPEAKERS = 10


@dataclass(frozen=True)
class Answers:
    """What a model said about clips; rows are clips."""

    truth: NDArray[np.int64]
    """(n,) label indices."""
    probabilities: NDArray[np.float64]
    """(n, labels)."""
    certain: NDArray[np.bool_]
    """(n,) False where the model said that it does not know."""
    speakers: NDArray[np.str_]
    """(n,)."""
    heard: NDArray[np.int64]
    """(n,) utterances of the speaker heard before."""

    def keep(self, rows: NDArray[np.bool_]) -> Answers:
        """Return the answers of some rows."""
        return Answers(
            self.truth[rows], self.probabilities[rows], self.certain[rows], self.speakers[rows], self.heard[rows]
        )


def unseen_clips(clips: Sequence[Clip], recognizer: EmotionRecognizer) -> list[Clip]:
    """Return the clips whose speakers took no part in training or validation.

    Raises:
        ConfigError: The bundle does not say whom it was trained on, so nobody can be called unseen.
    """
    speakers = recognizer.bundle.manifest.provenance.get("speakers")
    if not isinstance(speakers, dict) or "train" not in speakers:
        raise ConfigError(f"{recognizer.model} does not name its training speakers; need provenance.speakers")
    known = {name for side in ("train", "validation") for name in speakers.get(side, [])}
    return [clip for clip in clips if clip.speaker not in known]


def answer(recognizer: EmotionRecognizer, clips: Sequence[Clip], *, warm: bool, seed: int = 0) -> Answers:
    """Return the model's answers, each speaker's clips in a seeded random order."""
    order = sorted(range(len(clips)), key=lambda place: clips[place].speaker)
    order = [int(place) for place in np.random.default_rng(seed).permutation(order)]
    voices: dict[str, edge_ser.VoiceProfile] = {}
    said: list[Judgement] = []
    for place in tqdm(order, desc="warm" if warm else "cold", unit="clip", disable=not sys.stderr.isatty()):
        clip = clips[place]
        voice = voices.setdefault(clip.speaker, edge_ser.VoiceProfile()) if warm else None
        said.append(recognizer.judge(read_samples(clip.path), voice=voice))
    labels = recognizer.labels
    return Answers(
        np.array([labels.index(clips[place].emotion) for place in order]),
        np.array([[item.probabilities[label] for label in labels] for item in said]),
        np.array([not item.uncertain for item in said]),
        np.array([clips[place].speaker for place in order]),
        np.array([item.voice_utterances for item in said]),
    )


def ua(truth: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """Return the unweighted accuracy of the likeliest labels."""
    return unweighted_accuracy(confusion_matrix(truth, probabilities.argmax(1), probabilities.shape[1]))


def describe(answers: Answers) -> dict[str, object]:
    """Return the figures of one set of answers as plain data."""
    confusion = confusion_matrix(answers.truth, answers.probabilities.argmax(1), answers.probabilities.shape[1])
    accuracy, coverage = selective_accuracy(answers.truth, answers.probabilities.argmax(1), answers.certain)
    return {
        "clips": len(answers.truth),
        "speakers": len(set(answers.speakers.tolist())),
        "ua": round(unweighted_accuracy(confusion), 4),
        "ua_interval": interval(ua, answers),
        "wa": round(weighted_accuracy(confusion), 4),
        "ece": round(expected_calibration_error(answers.probabilities, answers.truth), 4),
        "certain_share": round(coverage, 4),
        "certain_accuracy": round(accuracy, 4) if coverage else None,
        "confusion": confusion.tolist(),
    }


def interval(statistic: Callable[..., float], answers: Answers) -> list[float]:
    """Return the 95 % interval, over speakers where there are enough of them."""
    groups = answers.speakers if len(set(answers.speakers.tolist())) >= _FEW_SPEAKERS else None
    low, high = bootstrap_interval(statistic, [answers.truth, answers.probabilities], groups)
    return [round(low, 4), round(high, 4)]


def evaluate(recognizer: EmotionRecognizer, data: Path, corpora: Sequence[str]) -> dict[str, object]:
    """Return everything that is measured, as plain data.

    Raises:
        ConfigError: A corpus has no clip of an unseen speaker.
    """
    clips = unseen_clips(read_manifest(data / "speech" / "manifest.csv"), recognizer)
    results: dict[str, object] = {}
    for corpus in corpora:
        own = [clip for clip in clips if usable(clip, (corpus,))]
        if not own:
            raise ConfigError(f"{corpus}: no clip of an unseen speaker; need a corpus of {data}/speech/manifest.csv")
        cold, warm = answer(recognizer, own, warm=False), answer(recognizer, own, warm=True)
        settled = warm.keep(warm.heard >= WARM_AFTER)
        results[corpus] = {"cold": describe(cold), "warm": describe(settled) if len(settled.truth) else None}
    return {
        "model": recognizer.model,
        "labels": list(recognizer.labels),
        "warm_after_utterances": WARM_AFTER,
        "corpora": results,
        "non_speech": _non_speech(recognizer, data),
    }


def _non_speech(recognizer: EmotionRecognizer, data: Path) -> dict[str, object]:
    sounds = read_sounds(data / "noise", "noise.csv", held_out=True)
    confident = [not recognizer.recognize(sound).uncertain for sound in sounds]
    return {"sounds": len(sounds), "confident_share": round(float(np.mean(confident)), 4)}


def table(result: dict[str, object]) -> str:
    """Return the figures as text for a person."""
    lines = [
        f"{result['model']}: 4 classes, speakers never heard, 95 % intervals",
        f"{'corpus':8} {'voice':6} {'speakers':>8} {'clips':>6}  {'UA':<22} {'WA':>6} {'ECE':>6}  certain: "
        "right (of all)",
    ]
    corpora = result["corpora"]
    assert isinstance(corpora, dict)
    for corpus, sides in corpora.items():
        for side in ("cold", "warm"):
            if sides[side] is not None:
                lines.append(f"{corpus:8} {side:6} " + _row(sides[side]))
    noise = result["non_speech"]
    assert isinstance(noise, dict)
    share, sounds = noise["confident_share"], noise["sounds"]
    lines.append(f"non-speech: {share:.1%} of {sounds} unheard sounds answered with confidence")
    return "\n".join(lines)


def _row(figures: dict[str, Any]) -> str:
    low, high = figures["ua_interval"]
    right = "-" if figures["certain_accuracy"] is None else f"{figures['certain_accuracy']:.3f}"
    return (
        f"{figures['speakers']:>8} {figures['clips']:>6}  {figures['ua']:.3f} [{low:.3f}, {high:.3f}]   "
        f"{figures['wa']:>6.3f} {figures['ece']:>6.3f}  {right} ({figures['certain_share']:.0%})"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a bundled name or a bundle's folder")
    parser.add_argument("--data", type=Path, help="the corpora's folder (default: EDGE_SER_DATA)")
    parser.add_argument("--corpora", nargs="+", default=["emodb", "cremad"], metavar="NAME")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    options = parser.parse_args(argv)
    try:
        result = evaluate(edge_ser.load(options.model), data_folder(options.data), options.corpora)
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
