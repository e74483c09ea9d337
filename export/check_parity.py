"""Replay two forms of a model against each other: fp32 and INT8, one provider and another, a graph and its engine.

    python export/check_parity.py build/mdat build/mdat-int8                  # the same sound through both
    python export/check_parity.py build/mdat build/mdat-int8 --data DATA      # and what the second costs in UA, paired
    python export/check_parity.py mdat-int8 mdat-int8 --provider cpu --other-provider cuda

Embeddings and probabilities are compared from the shortest utterance to the longest, with and without words and a
voice. With DATA, a folder that holds speech/manifest.csv, clips of speakers that the model never heard go through both
forms, each cold and in the light of its own voice. The exit code is 1 where the second form is out of budget.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.backends import Backend, open_backend
from edge_ser.bundle import Bundle, find_bundle
from edge_ser.corpus import Clip, read_manifest
from edge_ser.errors import ConfigError, EdgeSerError
from edge_ser.frontend import FrontEnd
from edge_ser.metrics import bootstrap_interval, confusion_matrix, unweighted_accuracy
from edge_ser.quality import spoken_part
from edge_ser.sources import read_samples
from edge_ser.voice import VoiceProfile
from export.material import progress
from export.trt_parity import Budget, Parity, compare, stored_inputs

CLIPS = 2400
VOICES = ("cold", "warm")


@dataclass(frozen=True)
class Form:
    """A bundle and what runs it."""

    bundle: Bundle
    backend: Backend

    @staticmethod
    def open(name: str, provider: str, engine_dir: Path | None) -> Form:
        """Open a bundle on one thread of a provider.

        Raises:
            EdgeSerError: There is no such bundle, or the provider cannot run it here.
        """
        bundle = find_bundle(name)
        return Form(bundle, open_backend(bundle, provider, threads=1, engine_dir=engine_dir))

    def __str__(self) -> str:
        """Return what runs what, such as `mdat-int8 (int8, onnxruntime 1.23.2, CPU, 1 thread)`."""
        manifest = self.bundle.manifest
        return f"{manifest.name} ({manifest.precision}, {self.backend.name}, {self.backend.provider})"


@dataclass(frozen=True)
class Replayed:
    """What both forms said to the same clips."""

    truth: NDArray[np.int64]
    """(clips,): label indices."""
    speakers: NDArray[np.str_]
    """(clips,)."""
    answers: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]
    """By voice: label indices (clips,) of the first form and of the second."""

    def figures(self) -> dict[str, Any]:
        """Return UA of both, and its difference with a 95 % interval over speakers, by voice; UA in [0, 1]."""
        found: dict[str, Any] = {"clips": len(self.truth), "speakers": len(set(self.speakers.tolist()))}
        for voice, (first, second) in self.answers.items():
            low, high = bootstrap_interval(_gain, [self.truth, first, second], self.speakers)
            found[voice] = {
                "ua": [round(_ua(self.truth, answers), 4) for answers in (first, second)],
                "points": round(_gain(self.truth, first, second), 2),
                "points_interval": [round(low, 2), round(high, 2)],
                "agreement": round(float(np.mean(first == second)), 4),
            }
        return found


def _ua(truth: NDArray[np.int64], answers: NDArray[np.int64]) -> float:
    classes = 1 + int(max(truth.max(), answers.max()))
    return unweighted_accuracy(confusion_matrix(truth, answers, classes))


def _gain(truth: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    return 100.0 * (_ua(truth, second) - _ua(truth, first))


def unheard_clips(bundle: Bundle, data: Path, most: int) -> list[Clip]:
    """Return clips of speakers that took no part in training or validation, chosen by chance.

    Raises:
        ConfigError: There is none.
    """
    sides: Any = bundle.manifest.provenance.get("speakers", {})
    known = {name for side in ("train", "validation") for name in sides.get(side, [])}
    clips = [clip for clip in read_manifest(data / "speech" / "manifest.csv") if clip.emotion in bundle.manifest.labels]
    unheard = [clip for clip in clips if clip.speaker not in known]
    if not unheard:
        raise ConfigError(f"{data} has no clip of a speaker that {bundle.manifest.name} never heard; need some")
    return [unheard[int(place)] for place in np.random.default_rng(0).permutation(len(unheard))[:most]]


def replay(first: Form, second: Form, clips: list[Clip]) -> Replayed:
    """Return what both forms say to the clips: cold, and with what each has learnt of the speaker before."""
    manifest, front_end = first.bundle.manifest, FrontEnd(first.bundle)
    space = manifest.input_of("voice")
    longest = int(manifest.max_duration_s * SAMPLE_RATE_HZ)
    voices: dict[tuple[str, int], VoiceProfile] = defaultdict(VoiceProfile)
    said: dict[str, list[list[int]]] = {voice: [] for voice in (VOICES if space else VOICES[:1])}
    for clip in progress(clips, "clip"):
        inputs = front_end.inputs(spoken_part(read_samples(clip.path))[1][:longest])
        rows: dict[str, list[int]] = {voice: [] for voice in said}
        for place, form in enumerate((first, second)):
            outputs = form.backend.run(inputs)
            rows["cold"].append(int(outputs["logits"].argmax()))
            if space is not None:
                voice = voices[clip.speaker, place]
                warm = form.backend.run({**inputs, **front_end.voice_inputs(voice)})
                rows["warm"].append(int(warm["logits"].argmax()))
                voice.update(outputs["embedding"][0], space.space)
        for name, row in rows.items():
            said[name].append(row)
    truth = np.array([manifest.labels.index(clip.emotion) for clip in clips])
    pairs = {name: np.array(rows) for name, rows in said.items()}
    speakers = np.array([clip.speaker for clip in clips])
    return Replayed(truth, speakers, {name: (both[:, 0], both[:, 1]) for name, both in pairs.items()})


def check_pair(first: Bundle, second: Bundle) -> None:
    """Refuse two bundles that are not forms of one model.

    Raises:
        ConfigError: They are told or say different things.
    """
    for what in ("labels", "inputs"):
        told = [[getattr(item, "kind", item) for item in getattr(b.manifest, what)] for b in (first, second)]
        if told[0] != told[1]:
            raise ConfigError(
                f"{first.folder} has the {what} {told[0]}, {second.folder} {told[1]}; need two forms of one model"
            )


def report(parity: Parity, figures: dict[str, Any] | None) -> str:
    """Return what was found in a few lines."""
    lines = [
        "seconds            " + "".join(f"{seconds:>9g}" for seconds in parity.cosines),
        "smallest cosine    " + "".join(f"{value:>9.5f}" for value in parity.cosines.values()),
        "probability shift  " + "".join(f"{value:>9.5f}" for value in parity.shifts.values()),
    ]
    for voice in VOICES if figures else ():
        row = (figures or {}).get(voice)
        if row:
            low, high = row["points_interval"]
            lines.append(
                f"{voice}: UA {row['ua'][0]:.4f} and {row['ua'][1]:.4f}, {row['points']:+.2f} points "
                f"[{low:+.2f}, {high:+.2f}], the same answer for {row['agreement']:.1%}"
            )
    if figures:
        lines.append(f"{figures['clips']} clips of {figures['speakers']} speakers that were never heard, paired")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", help="a bundled name or a bundle's folder: what is true")
    parser.add_argument("second", help="the same of its other form")
    parser.add_argument("--provider", default="cpu", help="runs the first (cpu)")
    parser.add_argument("--other-provider", default="cpu", help="runs the second (cpu)")
    parser.add_argument("--engine-dir", type=Path, help="where TensorRT engines lie")
    parser.add_argument("--data", type=Path, help="the corpora's folder, for UA")
    parser.add_argument("--clips", type=int, default=CLIPS, help=f"most clips for UA ({CLIPS})")
    parser.add_argument("--cosine", type=float, default=0.99, help="smallest cosine allowed (0.99)")
    parser.add_argument("--shift", type=float, default=0.03, help="largest mean change of a probability allowed (0.03)")
    parser.add_argument("--points", type=float, default=0.5, help="largest loss of UA allowed, in points (0.5)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write what was found as JSON, too")
    options = parser.parse_args(argv)
    try:
        first = Form.open(options.first, options.provider, options.engine_dir)
        second = Form.open(options.second, options.other_provider, options.engine_dir)
        check_pair(first.bundle, second.bundle)
        parity = compare(first.backend.run, second.backend.run, stored_inputs(first.bundle))
        figures = None
        if options.data is not None:
            figures = replay(first, second, unheard_clips(first.bundle, options.data, options.clips)).figures()
    except EdgeSerError as error:
        print(f"check_parity: {error}", file=sys.stderr)
        return 1
    print(f"{first}\n{second}\n{report(parity, figures)}")
    if options.out is not None:
        found = {"first": str(first), "second": str(second), **parity.to_dict(), "clips": figures}
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    losses = [-figures[voice]["points"] for voice in VOICES if voice in figures] if figures else []
    if not parity.fits(Budget(options.cosine, options.shift)) or any(loss > options.points for loss in losses):
        print(f"check_parity: {second} is out of budget; quantise or build it again", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
