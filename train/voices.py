"""Write the training clips again in other voices, and sentences of other languages as they act them.

    python -m train.speak --out spoken
    python -m train.voices --out spoken

A few dozen actors with a dozen sentences each are a narrow world: what a small encoder learns to hear there it hears,
and of other people and languages little. WORLD (Morise et al. 2016; `pip install pyworld`) takes a clip apart into
pitch, spectral envelope and aperiodicity. Three kinds of voices come of that, each with a channel of its own: an actor
with another vocal tract, pitch, range and tempo; the same with the pieces of every clip in another order; and
synthetic sentences (those in --out) with an actor's melody, loudness and spectral slope. Each folder is one voice's,
its name ends in the kind, and a file's in the emotion that was acted. No voice is made of a speaker who chooses or
judges.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from zlib import crc32

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.fft import dct, idct
from scipy.ndimage import uniform_filter1d
from tqdm import tqdm

from edge_ser.corpus import Clip
from edge_ser.errors import ConfigError, EdgeSerError
from train.augment import SAMPLE_RATE_HZ, Wave
from train.data import data_folder
from train.spoken import read_spoken
from train.students.run_settings import EncoderSettings, read_run, read_split

Array = NDArray[np.float64]
KINDS = ("changed", "shuffled", "lent")
_SMOOTH_FRAMES = 20
_SHORTEST_SAMPLES = 1600
_FEWEST_UTTERANCES = 4
"""Of a voice: so many stand together in a batch."""
_MOST_TURNS = 6
"""Voices of one kind made of one speaker."""
_COEFFICIENTS = 5
_PITCH_RANGE_HZ = (60.0, 600.0)
_KNOTS_HZ = (0.0, 500.0, 1200.0, 2400.0, 4000.0, 8000.0)


@dataclass(frozen=True)
class Parts:
    """An utterance taken apart, a frame every 5 ms."""

    pitch_hz: Array
    """(T,), 0 where there is no voice."""
    envelope: Array
    """(T, 513): logarithm of power, up to 8 kHz."""
    aperiodicity: Array
    """(T, 513), in [0, 1]."""

    def at(self, frames: NDArray[np.int64]) -> Parts:
        """Return these frames, in this order."""
        return Parts(self.pitch_hz[frames], self.envelope[frames], self.aperiodicity[frames])


@dataclass(frozen=True)
class Voice:
    """How a voice differs from the one it is made of."""

    warp: Array
    """Of the frequency axis at 0, 500, 1200, 2400, 4000 and 8000 Hz: above 1 for a shorter vocal tract."""
    pitch_ratio: float
    range_ratio: float
    """Of how far the melody moves, in octaves."""
    tempo_ratio: float
    colour: Array
    """Weights of four slow cosines over frequency, in the logarithm of power: the channel."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Voice:
        """Return a voice that one may meet."""
        tract = float(rng.uniform(-0.22, 0.22))
        return cls(
            warp=np.exp(tract + rng.normal(0.0, 0.05, len(_KNOTS_HZ))),
            pitch_ratio=float(np.exp(1.3 * tract + rng.normal(0.0, 0.2))),
            range_ratio=float(np.exp(rng.uniform(-0.5, 0.4))),
            tempo_ratio=float(np.exp(rng.uniform(-0.25, 0.25))),
            colour=rng.normal(0.0, 0.6, 4),
        )


def take_apart(wave: Wave) -> Parts:
    """Return the parts of a wave (n,) at 16 kHz.

    Raises:
        ConfigError: pyworld is not installed.
    """
    world, samples = _world(), wave.astype(np.float64)
    rough, times = world.dio(samples, SAMPLE_RATE_HZ, f0_floor=_PITCH_RANGE_HZ[0], f0_ceil=_PITCH_RANGE_HZ[1])
    pitch = world.stonemask(samples, rough, times, SAMPLE_RATE_HZ)
    envelope = world.cheaptrick(samples, pitch, times, SAMPLE_RATE_HZ)
    return Parts(pitch, np.log(envelope + 1e-12), world.d4c(samples, pitch, times, SAMPLE_RATE_HZ))


def put_together(parts: Parts) -> Wave:
    """Return the wave of parts, its peak at 0.5."""
    wave = _world().synthesize(
        parts.pitch_hz,
        np.ascontiguousarray(np.exp(parts.envelope)),
        np.ascontiguousarray(parts.aperiodicity),
        SAMPLE_RATE_HZ,
    )
    return (wave * 0.5 / (np.abs(wave).max() + 1e-9)).astype(np.float32)


def changed(parts: Parts, voice: Voice, middle_hz: float) -> Parts:
    """Return what another voice makes of it; `middle_hz` is the speaker's median pitch, around which melody moves."""
    frames = np.linspace(0, len(parts.pitch_hz) - 1, max(2, round(len(parts.pitch_hz) / voice.tempo_ratio)))
    parts = parts.at(frames.round().astype(np.int64))
    pitch = np.where(parts.pitch_hz > 0, parts.pitch_hz, middle_hz)
    pitch = np.clip(middle_hz * voice.pitch_ratio * (pitch / middle_hz) ** voice.range_ratio, 50.0, 700.0)
    bins = np.linspace(0.0, SAMPLE_RATE_HZ / 2, parts.envelope.shape[1])
    heard = bins / np.interp(bins, _KNOTS_HZ, voice.warp)
    angle = np.pi * bins / bins[-1]
    channel = voice.colour @ np.cos(np.outer(np.arange(1, 5), angle))
    envelope = np.stack([np.interp(heard, bins, row) for row in parts.envelope]) + channel
    aperiodicity = np.stack([np.interp(heard, bins, row) for row in parts.aperiodicity])
    return Parts(np.where(parts.pitch_hz > 0, pitch, 0.0), envelope, aperiodicity)


def shuffled(parts: Parts, rng: np.random.Generator, longest_s: float = 0.7) -> Parts:
    """Return its pieces in another order, cut where it is quietest nearby."""
    loudness = uniform_filter1d(parts.envelope.mean(1), 5)
    step = max(20, int(longest_s * 200 * rng.uniform(0.4, 1.0)))
    cuts = [0]
    for wanted in range(step, len(loudness) - step // 2, step):
        low = max(cuts[-1] + 10, wanted - step // 3)
        cuts.append(low + int(np.argmin(loudness[low : wanted + step // 3])))
    pieces = np.split(np.arange(len(loudness)), cuts[1:])
    return parts.at(np.concatenate([pieces[n] for n in rng.permutation(len(pieces))]))


def lent(words: Parts, acted: Parts, middle_hz: float) -> Parts:
    """Return words with an acted utterance's melody, loudness and spectral slope, stretched to their length."""
    place = np.linspace(0, len(acted.pitch_hz) - 1, len(words.pitch_hz)).round().astype(np.int64)
    voiced = np.flatnonzero(acted.pitch_hz > 0)
    melody = np.interp(place, voiced, np.log(acted.pitch_hz[voiced])) if len(voiced) else np.log(middle_hz)
    pitch = np.where(words.pitch_hz > 0, np.exp(melody), 0.0)
    theirs, own = (_slow(parts.envelope) for parts in (acted, words))
    slope = theirs[place] - own.mean(0)
    # The first one is loudness: what is silence in one of them stays mostly as it is.
    slope[:, 0] = np.clip((theirs[place, 0] - theirs[:, 0].max()) - (own[:, 0] - own[:, 0].max()), -80.0, 50.0) * 0.8
    full = np.zeros_like(words.envelope)
    full[:, :_COEFFICIENTS] = slope
    return Parts(pitch, words.envelope + idct(full, norm="ortho", axis=1), words.aperiodicity)


def _slow(envelope: Array) -> Array:
    """Return the first cosines (T, 5) of a spectral envelope, smooth over a tenth of a second."""
    first = dct(envelope, norm="ortho", axis=1)[:, :_COEFFICIENTS]
    return np.asarray(uniform_filter1d(first, _SMOOTH_FRAMES, axis=0))


@lru_cache(maxsize=64)  # about as many clips as a speaker has, 4 MB each
def _acted(path: Path) -> Parts:
    """Return the parts of a clip; several voices are made of each of a speaker's."""
    wave = read_spoken(path)
    return take_apart(np.pad(wave, (0, max(0, _SHORTEST_SAMPLES - len(wave)))))


@dataclass(frozen=True)
class Maker:
    """Writes voices made of the training speakers."""

    out: Path
    words: Sequence[Path]
    """Synthetic sentences."""

    def write(self, name: str, kind: str, clips: Sequence[Clip], utterances: int, seed: int) -> int:
        """Write one voice's folder and return how many files it holds; a folder that is there is kept."""
        folder, rng = self.out / name, np.random.default_rng(seed)
        if folder.is_dir():
            return len(list(folder.glob("*.wav")))
        chosen = [clips[int(n)] for n in sorted(rng.permutation(len(clips))[:utterances])]
        acted = [_acted(clip.path) for clip in chosen]
        heard = np.concatenate([parts.pitch_hz[parts.pitch_hz > 0] for parts in acted])
        middle_hz, voice = float(np.median(heard)) if len(heard) else 150.0, Voice.draw(rng)
        partial = folder.with_name(f".{name}")
        partial.mkdir(parents=True, exist_ok=True)
        for number, (clip, parts) in enumerate(zip(chosen, acted, strict=True)):
            if kind == "shuffled":
                parts = shuffled(parts, rng)
            if kind == "lent":
                said = read_spoken(self.words[int(rng.integers(len(self.words)))])[: 5 * SAMPLE_RATE_HZ]
                parts = lent(take_apart(said), parts, middle_hz)
            wave = put_together(changed(parts, voice, middle_hz))
            soundfile.write(partial / f"{number:03d}-{clip.emotion}.wav", wave, SAMPLE_RATE_HZ, subtype="PCM_16")
        partial.rename(folder)
        return len(acted)


def _world() -> ModuleType:
    """Return pyworld, which only this needs."""
    try:
        import pyworld
    except ImportError as error:
        raise ConfigError(f"pyworld cannot be used ({error}); type pip install pyworld 'setuptools<81'") from None
    return pyworld


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.voices", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    settings_file = Path(__file__).parent / "configs" / "students" / "encoder-voices.toml"
    parser.add_argument("--data", type=Path, help="the corpora's folder (default: EDGE_SER_DATA)")
    parser.add_argument("--settings", type=Path, default=settings_file, help="whose training speakers to take")
    parser.add_argument("--utterances", type=int, default=26, help="clips of each voice (default: 26)")
    parser.add_argument("--out", type=Path, required=True, help="folder of train.speak; each voice gets one in it")
    options = parser.parse_args(argv)
    try:
        settings, data = read_run(options.settings), data_folder(options.data)
        if options.utterances < _FEWEST_UTTERANCES:
            raise ConfigError(f"--utterances is {options.utterances}; need {_FEWEST_UTTERANCES} or more")
        if not isinstance(settings, EncoderSettings):
            raise ConfigError(f"{options.settings} is of the second stage; need one of the first")
        words = sorted(options.out.glob("*.wav"))
        if not words:
            raise ConfigError(f"no sentences in {options.out}; type python -m train.speak --out {options.out}")
        maker = Maker(options.out, words)
        print(f"{_write_all(maker, settings, read_split(settings, data).train, options.utterances)} utterances")
    except EdgeSerError as error:
        print(f"voices: {error}", file=sys.stderr)
        return 1
    return 0


def _write_all(maker: Maker, settings: EncoderSettings, clips: Sequence[Clip], utterances: int) -> int:
    """Write voices of every kind of every speaker, as many as his clips fill."""
    by_speaker: dict[str, list[Clip]] = {}
    for clip in clips:
        by_speaker.setdefault(clip.speaker, []).append(clip)
    plan = {
        f"{speaker}-{kind}-{turn}": (kind, own)
        for speaker, own in sorted(by_speaker.items())
        for turn in range(turns_of(own, settings, utterances))
        for kind in KINDS
    }
    # A voice is drawn by its name: it is the same one whatever else is there.
    return sum(
        maker.write(name, kind, own, utterances, crc32(name.encode()))
        for name, (kind, own) in tqdm(plan.items(), desc="voices", disable=not sys.stderr.isatty())
    )


def turns_of(own: Sequence[Clip], settings: EncoderSettings, utterances: int) -> int:
    """Return how many voices of each kind a speaker gets, up to six: his clips come about as often as in training."""
    repeat = settings.repeat.get(own[0].corpus, 1)
    return min(max(round(repeat * len(own) / min(len(own), utterances)), 1), _MOST_TURNS)


if __name__ == "__main__":
    raise SystemExit(main())
