"""Regenerates conversation.flac, a synthetic conversation of two voices in six utterances.

    python examples/make_recording.py [conversation.flac]

Needs espeak-ng (`apt install espeak-ng`) and edge-ser. The voices are synthetic and nobody's: pitch, pace, range and
loudness make them sound differently moved, which shows how the program works and says nothing about how well.
"""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

RATE_HZ = 16_000
NOISE_DBFS = -72.0
LEAD_S = 0.6
TAIL_S = 1.0


@dataclass(frozen=True)
class Line:
    """One utterance and how it is said."""

    text: str
    """What is said."""
    voice: str
    """Voice and variant of espeak-ng."""
    pitch: int
    """0 to 99."""
    pitch_range_percent: int
    """Percent of the voice's usual range: low is monotonous, high is lively."""
    words_per_minute: int
    """Words per minute."""
    level_dbfs: float
    """dB, RMS relative to full scale."""
    pause_after_s: float
    """Seconds of silence after it."""


CONVERSATION = (
    Line("Good morning, the train leaves at nine.", "en-gb+m3", 42, 70, 170, -26.0, 1.0),
    Line("Oh, that is wonderful, I have been waiting for weeks!", "en-us+f3", 72, 190, 195, -22.0, 1.3),
    Line("No, I told you not to touch it!", "en-gb+m7", 58, 160, 205, -20.0, 0.9),
    Line("I am so sorry, I lost the letter she wrote me.", "en-us+f2", 22, 35, 125, -30.0, 1.5),
    Line("Put the box on the table, please.", "en-gb+m3", 40, 60, 160, -26.0, 0.8),
    Line("Ha! We did it, we really did it!", "en-us+f3", 78, 200, 195, -22.0, 0.0),
)


def say(line: Line) -> NDArray[np.float64]:
    """Return one utterance as float64 at 16 kHz, shape (n,), at its level, without silence around it."""
    ssml = f'<speak><prosody range="{line.pitch_range_percent}%">{line.text}</prosody></speak>'
    command = ["espeak-ng", "-m", "-v", line.voice, "-p", str(line.pitch), "-s", str(line.words_per_minute)]
    wav = subprocess.run([*command, "--stdout", ssml], check=True, capture_output=True).stdout
    samples, rate_hz = soundfile.read(io.BytesIO(wav), dtype="float64")
    samples = soxr.resample(samples, rate_hz, RATE_HZ)
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    samples = samples[loud[0] : loud[-1] + 1]
    return samples * 10 ** (line.level_dbfs / 20) / np.sqrt(np.mean(samples**2))


def conversation() -> NDArray[np.float64]:
    """Return the whole conversation as float64 in [-1, 1], shape (n,), at 16 kHz, over a faint room noise."""
    parts = [_silence(LEAD_S)]
    for line in CONVERSATION:
        parts += [say(line), _silence(line.pause_after_s)]
    samples = np.concatenate([*parts, _silence(TAIL_S)])
    noise = np.random.default_rng(0).standard_normal(len(samples))
    return np.clip(samples + noise * 10 ** (NOISE_DBFS / 20), -1.0, 1.0)


def _silence(seconds: float) -> NDArray[np.float64]:
    return np.zeros(round(seconds * RATE_HZ))


def main() -> None:
    """Write the recording beside this file, or where the first argument says."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("conversation.flac")
    samples = conversation()
    soundfile.write(path, samples, RATE_HZ, subtype="PCM_16")
    print(f"{path}: {len(samples) / RATE_HZ:.1f} s, peak {np.abs(samples).max():.2f}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
