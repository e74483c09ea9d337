"""What early answers are worth: accuracy against the seconds of speech heard.

    python benchmarks/early_answers.py [MODEL] [--out FILE]

Clips of unseen speakers (EDGE_SER_DATA), each between two pauses and in a stream of its own with partials. A row holds
the clips whose speaker still talks after so many seconds of speech: the answer given then, and the final one for the
same clips. `known` is the UA over all clips of what is known by then, the final answers of shorter clips included.
The figures also go to FILE, by default benchmarks/results/early-answers.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import edge_ser
from edge_ser.answering import EARLY_STEP_S
from edge_ser.corpus import Clip, read_manifest
from edge_ser.environment import environment
from edge_ser.metrics import bootstrap_interval
from edge_ser.recognizer import EmotionRecognizer
from edge_ser.sources import read_samples
from train.data import data_folder, usable
from train.evaluate import ua, unseen_clips

CORPORA = ("cremad", "emodb")
STEPS = 3
PAUSE_S = 0.8
FEWEST_CLIPS = 30
"""Fewer say nothing about four classes."""
FEWEST_SPEAKERS = 10
"""With fewer, intervals are taken over clips."""


@dataclass(frozen=True)
class Heard:
    """What a stream said about one clip."""

    truth: int
    """Index of the label."""
    speaker: str
    """Who speaks."""
    answers: list[edge_ser.Emotion]
    """The answers for the clip's longest utterance, the final one last."""


def hear(recognizer: EmotionRecognizer, clip: Clip) -> Heard | None:
    """Return what a stream says about a clip, or None where it gives no emotion."""
    pause = np.zeros(int(PAUSE_S * 16_000), np.float32)
    stream = recognizer.stream(partials=True)
    events = [*stream.push(np.concatenate([pause, read_samples(clip.path), pause])), *stream.finish()]
    emotions = [event for event in events if isinstance(event, edge_ser.Emotion)]
    finals = [event for event in emotions if event.final]
    if not finals:
        return None
    longest = max(finals, key=lambda event: event.end_s - event.start_s).utterance
    answers = [event for event in emotions if event.utterance == longest]
    return Heard(recognizer.labels.index(clip.emotion), clip.speaker, answers)


def describe(heard: Sequence[Heard], step: int | None, labels: Sequence[str]) -> dict[str, Any]:
    """Return the figures after `step` early answers, or at the end where it is None."""
    rows = [item for item in heard if step is None or len(item.answers) > step]
    seconds = None if step is None else round(step * EARLY_STEP_S, 1)
    known = round(ua(_truth(heard), _probabilities(heard, step, labels)), 4)
    if len(rows) < FEWEST_CLIPS:
        return {"seconds": seconds, "clips": len(rows), "known_ua": known}
    truth = _truth(rows)
    speakers = [item.speaker for item in rows]
    early, final = _probabilities(rows, step, labels), _probabilities(rows, None, labels)
    certain = np.array([not _answer(item, step).uncertain for item in rows])
    right = early.argmax(1) == truth
    low, high = bootstrap_interval(ua, [truth, early], speakers if len(set(speakers)) >= FEWEST_SPEAKERS else None)
    return {
        "seconds": seconds,
        "clips": len(rows),
        "known_ua": known,
        "ua": round(ua(truth, early), 4),
        "ua_interval": [round(low, 4), round(high, 4)],
        "final_ua": round(ua(truth, final), 4),
        "same_as_final": round(float(np.mean(early.argmax(1) == final.argmax(1))), 4),
        "certain_share": round(float(certain.mean()), 4),
        "certain_accuracy": round(float(right[certain].mean()), 4) if certain.any() else None,
    }


def _answer(item: Heard, step: int | None) -> edge_ser.Emotion:
    return item.answers[-1 if step is None else min(step, len(item.answers)) - 1]


def _truth(rows: Sequence[Heard]) -> NDArray[np.int64]:
    return np.array([item.truth for item in rows])


def _probabilities(rows: Sequence[Heard], step: int | None, labels: Sequence[str]) -> NDArray[np.float64]:
    return np.array([[_answer(item, step).probabilities[label] for label in labels] for item in rows])


def measure(recognizer: EmotionRecognizer, data: Path) -> dict[str, Any]:
    """Return all figures as plain data."""
    clips = unseen_clips(read_manifest(data / "speech" / "manifest.csv"), recognizer)
    corpora = {}
    first_ms: list[float] = []
    for corpus in CORPORA:
        own = [clip for clip in clips if usable(clip, (corpus,))]
        said = [hear(recognizer, clip) for clip in tqdm(own, desc=corpus, disable=not sys.stderr.isatty())]
        heard = [item for item in said if item is not None]
        first_ms += [item.answers[0].latency_ms for item in heard if not item.answers[0].final]
        corpora[corpus] = {
            "clips": len(own),
            "speakers": len({clip.speaker for clip in own}),
            "no_emotion": len(own) - len(heard),
            "rows": [describe(heard, step, recognizer.labels) for step in (*range(1, STEPS + 1), None)],
        }
    return {
        "model": recognizer.model,
        "corpora": corpora,
        "first_answer_ms": {f"p{share}": round(float(np.percentile(first_ms, share)), 2) for share in (50, 95)},
        "environment": environment("onnxruntime", "numpy"),
    }


def table(result: dict[str, Any]) -> str:
    """Return the figures as text for a person."""
    lines = [f"{result['model']}: speakers never heard, cold, 95 % intervals"]
    for corpus, figures in result["corpora"].items():
        clips, speakers, unanswered = figures["clips"], figures["speakers"], figures["no_emotion"]
        lines += [
            f"{corpus}: {clips} clips of {speakers} speakers, {unanswered} without an answer",
            f"  {'speech heard':<13} {'known':>6} {'clips':>6}  {'UA':<22} {'final':>6} {'same':>6}  "
            "certain: right (of all)",
        ]
        for row in figures["rows"]:
            heard = "to the end" if row["seconds"] is None else f"{row['seconds']:.1f} s"
            lead = f"  {heard:<13} {row['known_ua']:>6.3f} {row['clips']:>6}  "
            if "ua" not in row:
                lines.append(f"{lead}too few clips")
                continue
            right = "-" if row["certain_accuracy"] is None else f"{row['certain_accuracy']:.3f}"
            low, high = row["ua_interval"]
            lines.append(
                f"{lead}{row['ua']:.3f} [{low:.3f}, {high:.3f}]   {row['final_ua']:>6.3f} "
                f"{row['same_as_final']:>6.0%}  {right} ({row['certain_share']:.0%})"
            )
    first = result["first_answer_ms"]
    lines.append(f"a first answer takes {first['p50']:.1f} ms of one thread (p95 {first['p95']:.1f} ms)")
    return "\n".join(lines)


def main() -> int:
    """Print the table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="mdat-int8", help="a bundled name or a bundle's folder")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "early-answers.json")
    options = parser.parse_args()
    result = measure(edge_ser.load(options.model, threads=1), data_folder(None))
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
