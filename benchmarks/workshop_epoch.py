"""How long one epoch of each fusion head takes over 4,000 utterances whose encoder frames are cached.

    python benchmarks/workshop_epoch.py

Utterances last 1.5 to 4 s, 2.75 s on average, as frames of Whisper tiny (384 wide, 25 a second) with 16 text tokens;
the numbers in them are random, which costs what real ones cost. The last column is against the seconds of audio.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from train.examples import Example
from train.fit import FitSettings, fit
from train.systems import System
from train.systems.baselines import PRESETS as BILSTM
from train.systems.baselines import BiLstm
from train.systems.camulenet import PRESETS as CAMULENET
from train.systems.camulenet import Camulenet
from train.systems.hump_cat import HumpCat
from train.systems.hump_cat_config import PRESETS as HUMP_CAT
from train.systems.mdat import PRESETS as MDAT
from train.systems.mdat import Mdat
from train.systems.mha_fusion import PRESETS as MHA
from train.systems.mha_fusion import MhaFusion

CLIPS = 4_000
FRAMES_PER_S = 25


def utterances(reads: tuple[str, ...], text_width: int) -> tuple[list[Example], float]:
    """Return utterances with random features of the given names and how many seconds they last together."""
    rng = np.random.default_rng(0)
    seconds = rng.uniform(1.5, 4.0, CLIPS)
    pool = rng.standard_normal((100, 2, 384)).astype(np.float16)
    texts = rng.standard_normal((16, text_width)).astype(np.float16)
    fixed = {
        "mfcc": rng.standard_normal((500, 40)).astype(np.float32),
        "prosody": rng.standard_normal(103).astype(np.float32),
        "spectrogram": rng.standard_normal((1, 64, 64)).astype(np.float32),
    }

    def features(place: int) -> dict[str, np.ndarray]:
        frames = int(seconds[place] * FRAMES_PER_S)
        speech = pool[:frames] if "layers" in reads else pool[:frames, 0]
        made = {"speech": speech, "text": texts, **fixed}
        if "layers" in reads:
            made |= {"speech": pool, "mfcc": fixed["mfcc"][:199, :39]}
        elif "mfcc" in reads:
            made["mfcc"] = fixed["mfcc"][: 4 * frames]
        return {name: made[name] for name in reads if name in made}

    examples = [
        Example(Path(f"{place}.wav"), str(place), "made-up", features(place), place % 4) for place in range(CLIPS)
    ]
    return examples, float(seconds.sum())


def main() -> int:
    """Print the table."""
    logging.disable(logging.WARNING)
    systems: dict[str, tuple[System, tuple[str, ...], int]] = {
        "MDAT": (Mdat(MDAT["desk"]), ("speech", "text"), MDAT["desk"].text_width),
        "BiLSTM": (BiLstm(BILSTM["desk"]), ("speech", "text"), BILSTM["desk"].text_width),
        "self-attention": (MhaFusion(MHA["desk"]), ("speech", "text"), MHA["desk"].text_width),
        "CAMuLeNet": (Camulenet(CAMULENET["desk"]), ("speech", "mfcc", "spectrogram"), 0),
        "HuMP-CAT": (HumpCat(HUMP_CAT["desk"]), ("speech", "mfcc", "prosody", "layers"), 0),
    }
    print(f"{'head':<16} {'parameters':>10} {'epoch of 4,000':>15} {'faster than the audio':>22}")
    for name, (system, reads, text_width) in systems.items():
        examples, seconds = utterances(reads, text_width)
        settings = FitSettings(epochs=1, batch_size=32, device="cpu", select="loss", statistics=False)
        fit(system, examples[:320], [], settings)
        start = time.perf_counter()
        fit(system, examples, [], settings)
        took = time.perf_counter() - start
        parameters = sum(parameter.numel() for parameter in system.parameters())
        print(f"{name:<16} {parameters:>10,} {took:>13.1f} s {seconds / took:>20,.0f} x")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
