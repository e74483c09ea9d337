"""Takes one optimiser step of each system at its published size and says what it cost.

    python -m train.true_size --out true-size.json                        # every system, one after the other
    python -m train.true_size --system mdat --device cuda --out mdat.json

Encoders of true size with random weights read a short made-up batch, the head learns from it once. Every system runs in
a process of its own, so that its peak memory is its own; the largest needs about 8 GB. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from edge_ser.errors import ConfigError
from train.encoders import Encoder, load_encoder
from train.sizes import HUBERT, ROBERTA_LARGE, WAV2VEC2, WHISPER, XLM_R, XLS_R
from train.systems import System, count_parameters
from train.systems.baselines import PRESETS as BILSTM
from train.systems.baselines import BiLstm
from train.systems.camulenet import PRESETS as CAMULENET
from train.systems.camulenet import Camulenet
from train.systems.hump_cat import PRESETS as HUMP_CAT
from train.systems.hump_cat import HumpCat
from train.systems.lora_multilingual import PRESETS as LORA
from train.systems.lora_multilingual import LoraSer
from train.systems.mdat import PRESETS as MDAT
from train.systems.mdat import Mdat
from train.systems.mha_fusion import PRESETS as MHA
from train.systems.mha_fusion import MhaFusion

_ROWS = 3
_TOKENS = 16
_RATE_HZ = 16_000
_GIB = 2**30


@dataclass(frozen=True)
class Trial:
    """A system, the encoders in front of it and a batch."""

    build: Callable[[], System]
    """Makes the system."""
    seconds: float
    """Length of each utterance."""
    speech: str = ""
    """Hub id of the frozen speech encoder, empty where the system holds its own."""
    text: str = ""
    """Hub id of the frozen text encoder, empty where the system reads no text."""
    layers: tuple[int, ...] = ()
    """Layers of the speech encoder that are read; empty is the last."""
    window_s: float = 0.0
    """Seconds that Whisper is padded to."""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Other features, filled with noise: shape of one utterance."""
    steps: int = 1
    """Optimiser steps; what learnt is read in the last one."""


def _first_language(preset: str) -> LoraSer:
    return LoraSer(LORA[preset], load_encoder(f"random:{LORA[preset].encoder}"))


def _second_language(preset: str) -> LoraSer:
    system = _first_language(preset)
    system.begin(LORA[preset].languages[1])
    return system


TRIALS: dict[str, Trial] = {
    "mdat": Trial(functools.partial(Mdat, MDAT["paper"]), 5.0, XLS_R, XLM_R),
    "bilstm": Trial(functools.partial(BiLstm, BILSTM["paper"]), 5.0, XLS_R, XLM_R),
    "hump-cat": Trial(
        functools.partial(HumpCat, HUMP_CAT["paper"]),
        7.0,
        HUBERT,
        layers=(1, 9),
        shapes={"mfcc": (349, 39), "prosody": (103,)},
    ),
    "camulenet": Trial(
        functools.partial(Camulenet, CAMULENET["paper"]),
        5.0,
        WHISPER,
        window_s=30.0,
        shapes={"mfcc": (3001, 40), "spectrogram": (1, 224, 224)},
    ),
    "mha": Trial(functools.partial(MhaFusion, MHA["paper"]), 10.0, WAV2VEC2, ROBERTA_LARGE),
    "mha-cross": Trial(functools.partial(MhaFusion, MHA["paper-cross"]), 10.0, WAV2VEC2, ROBERTA_LARGE),
    # An adapter starts with B = 0, so that the first gradient of A is zero: a second step shows it.
    "lora-wavlm": Trial(functools.partial(_second_language, "paper"), 3.0, steps=2),
    "lora-hubert": Trial(functools.partial(_second_language, "paper-hubert"), 3.0, steps=2),
    "finetuned-wavlm": Trial(functools.partial(_first_language, "paper"), 3.0),
}
"""What runs, by name."""


def step(trial: Trial, device: str) -> dict[str, object]:
    """Run the encoders and take the steps of Adam; return what it cost and what learnt.

    The second utterance has no text and the third one, where there is text, no speech, so that what stands for a
    missing modality learns too.
    """
    torch.manual_seed(0)
    encoders = _encoders(trial, device)
    system = trial.build().to(device).train()
    learning = {name: parameter for name, parameter in system.named_parameters() if parameter.requires_grad}
    before = {name: _digest(parameter) for name, parameter in learning.items()}
    start = _clock(device)
    inputs = _inputs(trial, encoders, device)
    encoded = _clock(device)
    optimizer = torch.optim.Adam(learning.values(), lr=1e-4)
    for _ in range(trial.steps):
        optimizer.zero_grad()
        loss = system.loss(system(inputs), _targets(device))
        loss.backward()
        gradients = {name: _gradient(parameter) for name, parameter in learning.items()}
        optimizer.step()
    done = _clock(device)
    frozen = [p for module in (*encoders.values(), system) for p in module.parameters() if not p.requires_grad]
    return {
        "rows": _ROWS,
        "steps": trial.steps,
        "seconds_of_audio_per_row": trial.seconds,
        "encoder_parameters": sum(map(count_parameters, encoders.values())),
        "system_parameters": count_parameters(system),
        "trainable_parameters": sum(parameter.numel() for parameter in learning.values()),
        "encode_s": round(encoded - start, 2),
        "step_s": round((done - encoded) / trial.steps, 2),
        "peak_memory_gib": round(_peak_memory(device) / _GIB, 2),
        "loss": float(loss.detach()),
        "loss_is_finite": bool(torch.isfinite(loss)),
        "tensors_that_learn": len(learning),
        "tensors_with_gradient": sum(kind == "some" for kind in gradients.values()),
        "tensors_that_moved": sum(_digest(parameter) != before[name] for name, parameter in learning.items()),
        "without_gradient": sorted(name for name, kind in gradients.items() if kind == "none"),
        "with_infinite_gradient": sorted(name for name, kind in gradients.items() if kind == "infinite"),
        "frozen_tensors": len(frozen),
        "frozen_tensors_with_gradient": sum(parameter.grad is not None for parameter in frozen),
    }


def _encoders(trial: Trial, device: str) -> dict[str, Encoder]:
    sources = {"speech": trial.speech, "text": trial.text}
    encoders = {
        name: load_encoder(f"random:{hub_id}", whisper_pad_s=trial.window_s).to(device)
        for name, hub_id in sources.items()
        if hub_id
    }
    if trial.layers:
        encoders["speech"].cut(max(trial.layers))
    return encoders


def _inputs(trial: Trial, encoders: Mapping[str, Encoder], device: str) -> dict[str, Tensor]:
    samples = round(trial.seconds * _RATE_HZ)
    waves, heard = torch.randn(_ROWS, samples, device=device) * 0.1, torch.ones(_ROWS, samples, device=device)
    ids = torch.randint(4, 250, (_ROWS, _TOKENS), device=device)
    written = torch.ones(_ROWS, _TOKENS, device=device)
    if "text" in encoders:
        written[1], heard[2] = 0, 0
    inputs = {name: torch.randn(_ROWS, *shape, device=device) for name, shape in trial.shapes.items()}
    if "mfcc" in inputs:
        inputs["mfcc_mask"] = torch.ones(inputs["mfcc"].shape[:2], device=device)
    if "speech" in encoders:
        states, inputs["speech_mask"] = encoders["speech"].encode(waves, heard)
        wanted = [states[layer] for layer in trial.layers]
        inputs["speech"] = torch.stack(wanted, dim=2) if wanted else states[-1]
    else:
        inputs |= {"audio": waves, "audio_mask": heard}
    if "text" in encoders:
        states, inputs["text_mask"] = encoders["text"].encode(ids, written)
        inputs["text"] = states[-1]
    return inputs


def _targets(device: str) -> dict[str, Tensor]:
    return {
        "emotion": torch.arange(_ROWS, device=device),
        "gender": torch.arange(_ROWS, device=device) % 2,
        "attributes": torch.linspace(0.1, 0.9, 3 * _ROWS, device=device).view(_ROWS, 3).flip(1),
    }


def _digest(parameter: Tensor) -> bytes:
    return hashlib.sha256(parameter.detach().cpu().contiguous().numpy().data).digest()


def _gradient(parameter: nn.Parameter) -> str:
    if parameter.grad is None or not bool(parameter.grad.any()):
        return "none"
    return "some" if bool(torch.isfinite(parameter.grad).all()) else "infinite"


def _clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak_memory(device: str) -> int:
    """Return bytes: of the GPU's memory, or of the whole process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    # Kilobytes on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _here(name: str, device: str) -> dict[str, object]:
    logging.getLogger("train.image_encoders").setLevel(logging.ERROR)  # random weights are the point
    machine = torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    about = {"system": name, "device": machine, "torch": torch.__version__}
    return {**about, **step(TRIALS[name], device)}


def _elsewhere(name: str, device: str) -> dict[str, object]:
    """Return what a process of its own measures.

    Raises:
        ConfigError: It died, as one does that runs out of memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "one.json"
        command = [sys.executable, "-m", "train.true_size", "--system", name, "--device", device, "--out", str(out)]
        code = subprocess.run(command, check=False, env=os.environ).returncode
        if code:
            raise ConfigError(f"{name} ended with {code}; need about 8 GB of memory; free some and run it alone")
        result: list[dict[str, object]] = json.loads(out.read_text(encoding="utf-8"))
    return result[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m train.true_size", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--system", choices=tuple(TRIALS), help="only this one")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    chosen = parser.parse_args(arguments)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("this torch sees no GPU; use --device cpu")
    results = []
    for name in [chosen.system] if chosen.system else TRIALS:
        try:
            results.append(_here(name, chosen.device) if chosen.system else _elsewhere(name, chosen.device))
        except ConfigError as error:
            parser.exit(1, f"{type(error).__name__}: {error}\n")
        chosen.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        if chosen.system is None:
            print(json.dumps(results[-1]), flush=True)


if __name__ == "__main__":
    main()
