"""What noise, rooms and bad microphones cost a bundle.

    python benchmarks/robustness.py [MODEL] [--clips N]

Clips of unseen speakers (EDGE_SER_DATA) of the corpora that the model was trained on are judged without the silence
around them, and after each change; a row is UA over the same clips, cold, and the change in points, paired.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import edge_ser
from edge_ser.corpus import read_manifest
from train.answers import brief, difference
from train.data import data_folder, usable
from train.evaluate import home_corpora, unseen_clips, with_own_chance
from train.hardships import hardships
from train.listening import Listener, sample


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="mdat-int8", help="a bundled name or a bundle's folder")
    parser.add_argument("--clips", type=int, default=300, help="most clips that are judged")
    options = parser.parse_args()
    recognizer, data = edge_ser.load(options.model, threads=1), data_folder(None)
    listed = read_manifest(data / "speech" / "manifest.csv")
    home = tuple(sorted(home_corpora(listed, recognizer)))
    listener = Listener(recognizer)
    own = [clip for clip in unseen_clips(listed, recognizer) if usable(clip, home)]
    told = listener.record(sample(own, options.clips))
    clean = listener.cold(told)
    figures = brief(clean)
    print(
        f"{recognizer.model}: {figures['clips']} clips of {figures['speakers']} unseen speakers ({', '.join(home)}), "
        "cold, 95 % intervals"
    )
    print(f"  {'without its silence':<24} UA {figures['ua']:.3f} {_interval(figures['ua_interval'], '.3f')}")
    for place, (name, change) in enumerate(hardships(data).items()):
        answers = listener.changed(told, partial(with_own_chance, change, place), name)
        paired = difference(clean, answers)
        points = [100 * end for end in paired["difference_interval"]]
        print(
            f"  {name:<24} UA {brief(answers)['ua']:.3f}  {100 * paired['difference']:+5.1f} points "
            f"{_interval(points, '+.1f')}"
        )
    return 0


def _interval(ends: list[float], form: str) -> str:
    return f"[{ends[0]:{form}}, {ends[1]:{form}}]"


if __name__ == "__main__":
    raise SystemExit(main())
