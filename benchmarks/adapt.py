"""What a few labelled clips of a strange corpus are worth to a model.

    python benchmarks/adapt.py [MODEL] [--corpora emovo ased] [--seeds 5] [--out FILE]

From each corpus (EDGE_SER_DATA), clips of every emotion are drawn from half of the speakers, as `train.protocol`
does it (the smaller draw is a part of the larger), and `edge_ser.adapt` is run on them. Who judges is a row's business:

- `stranger, first words`: speakers whom nobody adapted to, each clip alone.
- `stranger, voice known`: the same speakers after ten utterances of theirs, unlabelled, as in a stream.
- `own voice, known`: other clips of the speakers who gave the labelled ones, after ten of their utterances.

Each row is the mean UA over the draws, with a 95 % interval over speakers (over clips where they are fewer than ten).
Figures also go to FILE, by default benchmarks/results/adapt.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import edge_ser
from edge_ser.adapt import adapt
from edge_ser.corpus import Clip, read_manifest
from edge_ser.environment import environment
from edge_ser.hearing import Heard
from edge_ser.metrics import bootstrap_interval, confusion_matrix, unweighted_accuracy
from edge_ser.quality import spoken_part
from edge_ser.recognizer import EmotionRecognizer
from edge_ser.shots import Shot
from edge_ser.sources import read_samples
from edge_ser.voice import VoiceProfile
from train.data import data_folder, usable
from train.supports import draw_shots

SHOTS = (5, 10, 15)
WARM_AFTER = 10
ROWS = ("stranger, first words", "stranger, voice known", "own voice, known")
_FEW_SPEAKERS = 10
_RESAMPLES = 500


@dataclass(frozen=True)
class Recording:
    """What the draw must know of a clip."""

    path: Path
    speaker: str
    corpus: str
    gender: str
    session: str = ""


@dataclass(frozen=True)
class Listened:
    """A clip, what the base model made of it, and the speaker's voice in the clips before."""

    clip: Clip
    heard: Heard
    samples: NDArray[np.float32]
    voice: VoiceProfile

    def answer(self, recognizer: EmotionRecognizer, voice: VoiceProfile | None) -> str:
        """Return what a model says to the clip, cold or knowing the voice."""
        if self.heard.windows:
            return recognizer.judge_again(self.heard, voice=voice)[0].emotion
        return recognizer.judge(self.samples, voice=voice, update_voice=False).emotion


@dataclass(frozen=True)
class Answers:
    """What was said to clips, over all draws."""

    truth: list[int]
    said: list[int]
    draw: list[int]
    group: list[str]


def listen(recognizer: EmotionRecognizer, clips: Sequence[Clip]) -> list[Listened]:
    """Return every clip as the base model hears it, each speaker's clips in one seeded order."""
    listened: dict[int, Listened] = {}
    voices: dict[str, VoiceProfile] = {}
    for place in tqdm(np.random.default_rng(0).permutation(len(clips)), disable=not sys.stderr.isatty()):
        clip = clips[place]
        voice = voices.setdefault(clip.speaker, VoiceProfile())
        samples, before = spoken_part(read_samples(clip.path))[1], voice.copy()
        _, heard = recognizer.listen(samples)
        recognizer.judge(samples, voice=voice)
        listened[int(place)] = Listened(clip, heard, samples, before)
    return [listened[place] for place in range(len(clips))]


def measure(model: str, clips: Sequence[Clip], seeds: int) -> dict[str, Any]:
    """Return the figures of one corpus."""
    base = edge_ser.load(model)
    labels = list(base.labels)
    truth = [labels.index(clip.emotion) for clip in clips]
    listened = listen(base, clips)
    recordings = [Recording(clip.path, clip.speaker, clip.corpus, clip.gender) for clip in clips]
    few = len({clip.speaker for clip in clips}) < _FEW_SPEAKERS
    answers: dict[tuple[str, int], Answers] = {}
    costs: list[tuple[float, float, int]] = []
    for seed in range(seeds):
        support = draw_shots(recordings, truth, (0, *SHOTS), seed=seed)
        judges = rows_of(listened, support.query, support.unheard)
        for shots in (0, *SHOTS):
            recognizer = base
            if shots:
                recognizer, cost = adapted(model, [clips[place] for place in support.nested[shots]])
                costs.append(cost)
            for row, places in judges.items():
                kept = answers.setdefault((row, shots), Answers([], [], [], []))
                for place in places:
                    item = listened[place]
                    said = item.answer(recognizer, None if row == ROWS[0] else item.voice)
                    kept.truth.append(truth[place])
                    kept.said.append(labels.index(said))
                    kept.draw.append(seed)
                    kept.group.append(str(item.clip.path) if few else item.clip.speaker)
    return {
        "speakers": len({clip.speaker for clip in clips}),
        "clips": len(clips),
        "adapt_seconds_worst": round(max(wall for wall, _, _ in costs), 2),
        "adapt_processor_seconds_worst": round(max(processor for _, processor, _ in costs), 2),
        "bundle_bytes_worst": max(size for _, _, size in costs),
        "rows": {row: {str(k): figures(answers, row, k) for k in (0, *SHOTS)} for row in ROWS},
    }


def rows_of(listened: Sequence[Listened], query: Sequence[int], unheard: Sequence[int]) -> dict[str, Sequence[int]]:
    """Return the places of the clips that judge, by row."""
    strangers = set(unheard)
    warm = [place for place in query if listened[place].voice.utterances >= WARM_AFTER]
    known = [place for place in warm if place in strangers]
    return {ROWS[0]: unheard, ROWS[1]: known, ROWS[2]: [place for place in warm if place not in strangers]}


def adapted(model: str, clips: Sequence[Clip]) -> tuple[EmotionRecognizer, tuple[float, float, int]]:
    """Return a recognizer adapted to clips, and what that cost: seconds, processor seconds, bytes."""
    shots = [Shot(clip.path, clip.emotion, clip.speaker) for clip in clips]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "adapted"
        base: str | Path = model
        if Path(model).is_dir():
            # An adapted bundle finds its base among the bundled ones or beside itself.
            base = Path(folder) / edge_ser.load(model).model
            shutil.copytree(model, base)
        wall_s, processor_s = time.perf_counter(), time.process_time()
        report = adapt(base, shots, out)
        cost = (time.perf_counter() - wall_s, time.process_time() - processor_s, report.size_bytes)
        return edge_ser.load(out), cost


def mean_ua(truth: NDArray[np.int64], said: NDArray[np.int64], draw: NDArray[np.int64]) -> float:
    """Return UA, averaged over the draws."""
    classes = int(max(truth.max(), said.max())) + 1
    return float(
        np.mean(
            [unweighted_accuracy(confusion_matrix(truth[draw == d], said[draw == d], classes)) for d in np.unique(draw)]
        )
    )


def figures(answers: Mapping[tuple[str, int], Answers], row: str, shots: int) -> dict[str, Any]:
    """Return UA and the gain over no shots, with intervals."""
    now, before = answers[row, shots], answers[row, 0]
    columns = [np.array(values) for values in (now.truth, now.said, before.said, now.draw)]

    def ua(truth: Any, said: Any, said_before: Any, draw: Any) -> float:
        return mean_ua(truth, said, draw)

    def gain(truth: Any, said: Any, said_before: Any, draw: Any) -> float:
        return mean_ua(truth, said, draw) - mean_ua(truth, said_before, draw)

    by_draw = [ua(*(column[columns[3] == draw] for column in columns)) for draw in np.unique(columns[3])]
    result: dict[str, Any] = {"ua": round(ua(*columns), 4), "ua_by_draw": [round(value, 4) for value in by_draw]}
    for name, statistic in (("ua_interval", ua), ("gain_interval", gain)):
        low, high = bootstrap_interval(statistic, columns, now.group, resamples=_RESAMPLES)
        result[name] = [round(low, 4), round(high, 4)]
    result["gain"] = round(gain(*columns), 4)
    return result


def table(result: Mapping[str, Any]) -> str:
    """Return the figures as text for a person."""
    lines = [
        f"{result['model']}: UA by labelled clips of each emotion, mean of {result['draws']} draws, 95 % intervals"
    ]
    lines.append(f"{'corpus':8} {'judged by':24}" + "".join(f"{f'{k} clips':<22}" for k in (0, *SHOTS)).rstrip())
    for corpus, found in result["corpora"].items():
        for row in ROWS:
            cells = [
                f"{item['ua']:.3f} [{item['ua_interval'][0]:.3f}, {item['ua_interval'][1]:.3f}]  "
                for item in found["rows"][row].values()
            ]
            lines.append(f"{corpus:8} {row:24}{''.join(cells)}".rstrip())
    for row in ROWS:
        gains = [f"{result['mean'][row][str(k)]:+.3f}" for k in SHOTS]
        lines.append(f"mean gain, {row}: {', '.join(gains)} with {', '.join(map(str, SHOTS))} clips")
    worst = [max(found[key] for found in result["corpora"].values()) for key in COSTS]
    lines.append(
        f"adapt: at most {worst[0]:.1f} s ({worst[1]:.1f} s of processor), bundle at most {worst[2] / 1e3:.0f} kB"
    )
    return "\n".join(lines)


COSTS = ("adapt_seconds_worst", "adapt_processor_seconds_worst", "bundle_bytes_worst")


def main() -> int:
    """Measure, print the table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="mdat-int8", help="a bundled name or a bundle's folder")
    parser.add_argument("--corpora", nargs="+", default=["emovo", "ased"], metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="draws of each corpus")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "adapt.json")
    options = parser.parse_args()
    clips = read_manifest(data_folder(None) / "speech" / "manifest.csv")
    corpora = {
        corpus: measure(options.model, [clip for clip in clips if usable(clip, (corpus,))], options.seeds)
        for corpus in options.corpora
    }
    mean = {
        row: {
            str(k): round(float(np.mean([found["rows"][row][str(k)]["gain"] for found in corpora.values()])), 4)
            for k in SHOTS
        }
        for row in ROWS
    }
    result = {
        "model": edge_ser.load(options.model).model,
        "draws": options.seeds,
        "warm_after_utterances": WARM_AFTER,
        "corpora": corpora,
        "mean": mean,
        "environment": environment("numpy", "onnxruntime"),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
