"""The five systems at paper size with random weights: exported, quantised and run on one thread of the CPU.

    python benchmarks/true_size_export.py [--system mdat] [--builds FOLDER]

Each system is exported from its settings in train/configs, checked against PyTorch, quantised (dynamic INT8 of matrix
products), and both bundles are run by the runtime in turn, on 3 s of noise with a sentence. Peak memory is that of a
process that loads a bundle and judges twice. It needs 10 GB of disk, 8 GB of memory and some twenty minutes, nothing
from the network; bundles stay in build/true-size and are used again. The figures of each system go to
benchmarks/results/true-size-export.json, too, as soon as they are there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import edge_ser
from edge_ser.environment import environment

BUILDS = ROOT / "build" / "true-size"
RESULTS = ROOT / "benchmarks" / "results" / "true-size-export.json"
SETTINGS = {
    "mdat": "mdat-paper",
    "hump-cat": "hump-cat-paper",
    "camulenet": "camulenet-paper",
    "mha": "mha-paper",
    "lora": "lora-paper-stage2",
}
SECONDS = 3.0
ROUNDS = 5
SENTENCE = "I did not expect that at all, and now look what has become of it."

_PEAK = """
import re, sys
import numpy as np
import edge_ser
recognizer = edge_ser.load(sys.argv[1], provider="cpu", threads=1)
samples = np.random.default_rng(0).standard_normal(int(float(sys.argv[2]) * 16000)).astype(np.float32) * 0.1
for _ in range(2):
    recognizer.judge(samples, transcript=sys.argv[3])
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def build(system: str, folder: Path) -> tuple[Path, Path]:
    """Return the fp32 and the INT8 bundle of a system, made where they are not there yet."""
    plain, integers = folder / system, folder / f"{system}-int8"
    settings = ROOT / "train" / "configs" / f"{SETTINGS[system]}.toml"
    # The published Whisper hears 30 s of every clip, however short: two lengths say all.
    lengths = ["0.4", "8"] if system == "camulenet" else ["0.4", "1", "2", "4", "8"]
    if not plain.exists():
        command = ["export/to_onnx.py", str(settings), "--random", "--out", str(plain), "--lengths", *lengths]
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=sys.stderr)
    if not integers.exists():
        command = ["export/quantize.py", str(plain), "--out", str(integers)]
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=sys.stderr)
    return plain, integers


def measure(system: str, plain: Path, integers: Path) -> dict[str, Any]:
    """Return what one system costs in floats and in integers."""
    recognizers = [edge_ser.load(folder, provider="cpu", threads=1) for folder in (plain, integers)]
    slow, fast, ratio = _speed(recognizers)
    receipt = json.loads(recognizers[1].bundle.read("receipt.json"))
    manifest = recognizers[0].bundle.manifest
    provenance: Any = manifest.provenance
    del recognizers
    return {
        "system": system,
        "parameters": provenance["parameters"],
        "graphs": list(manifest.graphs),
        "difference_to_pytorch": provenance["onnx_largest_difference"],
        "bytes": [receipt["bytes_before"], receipt["bytes_after"]],
        "milliseconds": [round(slow, 1), round(fast, 1)],
        "speed_ratio": round(ratio, 2),
        "peak_memory_bytes": [_peak(plain), _peak(integers)],
        "smallest_cosine": min(receipt["cosine"].values()),
        "smallest_block_cosine": min(row["cosine"] for row in receipt["blocks"]),
        "integer_operators": receipt["integer_operators"],
        "float_operators": receipt["float_operators"],
    }


def _speed(recognizers: list[edge_ser.EmotionRecognizer]) -> tuple[float, float, float]:
    """Return processor milliseconds of either, medians of runs in turn, and the median over pairs of their ratio."""
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(int(SECONDS * 16_000)).astype(np.float32) * np.float32(0.1)
    times: list[list[float]] = [[], []]
    for number in range(ROUNDS + 1):
        for recognizer, taken in zip(recognizers, times, strict=True):
            # Of the processor, not of the clock: one thread does all, and others may be at work.
            start = time.process_time()
            # Other words each time: what was read before is not read again.
            recognizer.judge(samples, transcript=f"{SENTENCE} {number}")
            taken.append(1000 * (time.process_time() - start))
    slow, fast = (np.array(taken[1:]) for taken in times)
    return float(np.median(slow)), float(np.median(fast)), float(np.median(slow / fast))


def _peak(folder: Path) -> int:
    # From /proc: what getrusage says of a child begins with the memory of the process that started it.
    command = [sys.executable, "-c", _PEAK, str(folder), str(SECONDS), SENTENCE]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, env=os.environ)
    return 1024 * int(done.stdout)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table."""
    lines = [
        f"random weights, {SECONDS:g} s of sound and a sentence, one thread; fp32 -> INT8",
        f"{'system':<10} {'parameters':>12}  {'to PyTorch':>10}  {'megabytes':>13}  {'milliseconds':>15}  "
        f"{'faster':>6}  {'peak memory, MB':>15}  {'cosine':>7}  products in integers",
    ]
    for row in rows:
        megabytes, peaks = ([value / 1e6 for value in row[key]] for key in ("bytes", "peak_memory_bytes"))
        products = row["integer_operators"] + row["float_operators"]
        lines.append(
            f"{row['system']:<10} {row['parameters']:>12,}  {row['difference_to_pytorch']:>10.1e}  "
            f"{megabytes[0]:>5,.0f} -> {megabytes[1]:>4,.0f}  "
            f"{row['milliseconds'][0]:>6,.0f} -> {row['milliseconds'][1]:>5,.0f}  {row['speed_ratio']:>5.2f}x  "
            f"{peaks[0]:>6,.0f} -> {peaks[1]:>5,.0f}  {row['smallest_cosine']:>7.4f}  "
            f"{row['integer_operators']} of {products}"
        )
    return "\n".join(lines)


def main() -> int:
    """Build, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--builds", type=Path, default=BUILDS, help="folder of bundles to use, and to keep")
    parser.add_argument("--system", choices=tuple(SETTINGS), action="append", help="only this one; repeat for several")
    options = parser.parse_args()
    rows = []
    for system in options.system or SETTINGS:
        plain, integers = build(system, options.builds)
        rows.append(measure(system, plain, integers))
        keep(rows[-1])
    print(table(rows))
    return 0


def keep(row: dict[str, Any]) -> None:
    """Put a system's figures into the file of results, in the place of its earlier ones."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    kept[row["system"]] = {**row, "environment": environment("onnxruntime", "onnx", "numpy")}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
