"""Write speech without labels, spoken by free synthesisers: many languages, voices, pitches and speeds.

    python -m train.speak --out spoken

To learn frames needs no label, and acted corpora hold a few dozen sentences of one or two languages. espeak-ng, flite
and festival (Debian packages of these names, festvox-… for festival's voices) read sentences of
text/goemotions.csv.gz, mostly in the phones of other languages than theirs. What they write carries no licence of
theirs. A synthesiser that is not installed is left out, and said so.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.errors import AudioFormatError, ConfigError, EdgeSerError
from edge_ser.sources import read_samples
from train.data import data_folder
from train.text import read_sentences

UTTERANCES = {"espeak-ng": 1500, "flite": 500, "festival": 500}
FESTIVAL_VOICES = Path("/usr/share/festival/voices")
_TIMEOUT_S = 30
_SHORTEST_S = 0.5
_TONAL = ("cmn", "hak", "ja", "ko", "th", "vi", "yue", "chr")
_TIMBRES = [*(f"m{n}" for n in range(1, 9)), *(f"f{n}" for n in range(1, 6)), "klatt", "klatt2", "klatt3"]

Command = Callable[[str, Path, np.random.Generator], list[str]]


def espeak(text: str, out: Path, rng: np.random.Generator) -> list[str]:
    """Return how espeak-ng says it, in one of a hundred languages."""
    listed = _said(["espeak-ng", "--voices"]).splitlines()[1:]
    languages = [name for name in (line.split()[1] for line in listed) if not name.startswith(_TONAL)]
    language = str(rng.choice(languages)) if rng.random() < 0.8 else "en"
    pitch, speed = str(rng.integers(15, 86)), str(rng.integers(120, 231))
    return ["espeak-ng", "-v", f"{language}+{rng.choice(_TIMBRES)}", "-p", pitch, "-s", speed, "-w", str(out), text]


def flite(text: str, out: Path, rng: np.random.Generator) -> list[str]:
    """Return how flite says it, at another pitch and speed."""
    voices = [name for name in _said(["flite", "-lv"]).split(":", 1)[1].split() if name != "kal"]
    pitch, stretch = f"int_f0_target_mean={rng.integers(80, 231)}", f"duration_stretch={rng.uniform(0.7, 1.3):.2f}"
    voice = str(rng.choice(voices))
    return ["flite", "-voice", voice, "--setf", pitch, "--setf", stretch, "-t", text, "-o", str(out)]


def festival(text: str, out: Path, rng: np.random.Generator) -> list[str]:
    """Return how festival says it, in one of its installed voices."""
    written = out.with_suffix(".txt")
    written.write_text(text, encoding="utf-8")
    voices = sorted(folder.name for folder in FESTIVAL_VOICES.glob("*/*"))
    return ["text2wave", "-eval", f"(voice_{rng.choice(voices)})", str(written), "-o", str(out)]


ENGINES: dict[str, tuple[str, Command]] = {
    "espeak-ng": ("espeak-ng", espeak),
    "flite": ("flite", flite),
    "festival": ("text2wave", festival),
}
"""By name: the program, and the command for one utterance."""


def speak(texts: Sequence[str], out: Path, engine: str, count: int) -> int:
    """Write `count` utterances of one synthesiser to NAME-0000.wav and on, and return how many came out.

    Args:
        texts: Sentences to choose from.
        out: The folder.
        engine: One of `ENGINES`.
        count: How many to write; those that are there are kept.
    """
    written = 0
    for number in tqdm(range(count), desc=engine, disable=not sys.stderr.isatty()):
        path, rng = out / f"{engine}-{number:04d}.wav", np.random.default_rng((1, number))
        if not path.is_file():
            command = ENGINES[engine][1](str(rng.choice(np.array(texts))), path, rng)
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)
        path.with_suffix(".txt").unlink(missing_ok=True)
        if path.is_file() and _seconds(path) < _SHORTEST_S:
            path.unlink()
        written += path.is_file()
    return written


def _seconds(path: Path) -> float:
    """Return how long a recording is: nothing where its synthesiser fell over or hung before it was whole."""
    try:
        return len(read_samples(path)) / SAMPLE_RATE_HZ
    except AudioFormatError:
        return 0.0


def _said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True).stdout


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.speak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the corpora's folder (default: EDGE_SER_DATA)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the WAV files")
    parser.add_argument("--share", type=float, default=1.0, help="how much of it to write (default: 1)")
    options = parser.parse_args(argv)
    try:
        sentences = read_sentences(data_folder(options.data) / "text" / "goemotions.csv.gz")
        texts = [s.text for s in sentences if s.split == "train" and 20 <= len(s.text) <= 70 and "[" not in s.text]
        options.out.mkdir(parents=True, exist_ok=True)
        there = [name for name, (program, _) in ENGINES.items() if shutil.which(program)]
        if not there:
            raise ConfigError(f"found none of {', '.join(ENGINES)}; need one; type apt-get install espeak-ng")
        for name in ENGINES:
            if name not in there:
                print(f"{name} is not installed: left out", file=sys.stderr)
        for name in there:
            print(f"{name}: {speak(texts, options.out, name, round(options.share * UTTERANCES[name]))} utterances")
    except EdgeSerError as error:
        print(f"speak: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
