"""Adapts a model to a user's own labelled clips, on the device: a small head on the frozen model, in a delta bundle."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_ser.adapt_report import AdaptReport, score, score_card
from edge_ser.backends import Backend, open_backend
from edge_ser.backends.adapted import Adapted, embedding_size
from edge_ser.bundle import Bundle, find_bundle
from edge_ser.calibration import Calibration
from edge_ser.calibration_fit import fit_temperature, risk_rows
from edge_ser.errors import BundleError, ConfigError
from edge_ser.graph_io import Output
from edge_ser.head import Floats, Head, with_new_labels
from edge_ser.head_file import head_to_bytes
from edge_ser.head_fit import (
    Examples,
    blank_head,
    choose_far_amplitude,
    choose_first_trust,
    even_folds,
    expected_voice,
    fit_head,
    held_out_logits,
    voice_folds,
)
from edge_ser.manifest import HEAD_NAME, NAME_PATTERN, Manifest, TrainingCorpus
from edge_ser.recognizer import EmotionRecognizer
from edge_ser.shots import HeardShot, Shot, Skipped, hear_shots

_CARD_NAME = "MODEL_CARD.md"
_MOST_LEFT_OUT_SINGLY = 100
_FOLDS_OF_MANY = 20
_CAUTION_CLIPS = 10.0
"""Clips it takes to move the temperature away from 1."""
_MOST_CLIPS = 600
_LARGEST_HEAD_BYTES = 800_000
_LARGEST_AXES = 64

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Trial:
    """What was learnt by leaving clips out."""

    far_amplitude: float
    first_trust: float
    left_out: Floats
    new_voice: Floats | None

    @property
    def strictest(self) -> Floats:
        """Logits of the harder trial, which the calibration answers for."""
        return self.left_out if self.new_voice is None else self.new_voice


def adapt(
    model: str | os.PathLike[str], shots: Sequence[Shot], out: str | os.PathLike[str], *, threads: int | None = None
) -> AdaptReport:
    """Write a delta bundle that answers as the clips do near them and as the model does far from them.

    Args:
        model: A bundled name or a bundle's folder; it is left as it is, and the delta bundle needs it where it lies.
        shots: Labelled clips of two labels or more; a label that the model does not know becomes a new one.
        out: The delta bundle's folder: a new one, or that of an older delta bundle.
        threads: Threads for one utterance; None takes two, or one where the machine has one core.

    Raises:
        BundleError: The model does not open, or something else lies at `out`.
        ConfigError: The model or the clips cannot be adapted with.
    """
    started_s = time.perf_counter()
    base = find_bundle(model)
    target = Path(out)
    _check_base(base, target)
    backend = open_backend(base, threads=threads)
    heard, skipped = hear_shots(EmotionRecognizer(base, backend), shots)
    names = _label_names(base.manifest.labels, [item.shot.label for item in heard])
    _check_labels([names[item.shot.label] for item in heard], skipped)
    labels = list(dict.fromkeys([*base.manifest.labels, *names.values()]))
    truth = np.array([labels.index(names[item.shot.label]) for item in heard], dtype=np.int64)
    kept = _drawn(truth, _most_clips(base, len(labels)))
    heard, truth = [heard[place] for place in kept], truth[kept]
    cold = _examples(base, heard, truth, len(labels))
    examples = replace(cold, base_logits=_told_of_the_voice(base, backend, heard, cold))
    trial = _try(examples)
    head = fit_head(examples, trial.far_amplitude, trial.first_trust)
    calibration = _calibration(base, head, trial.strictest, truth)
    before = with_new_labels(cold.cold_logits, len(labels))
    report = AdaptReport(
        name=target.name,
        base=base.manifest.name,
        labels=tuple(labels),
        known=len(base.manifest.labels),
        left_out=score(truth, before, trial.left_out, labels),
        left_out_singly=len(truth) <= _MOST_LEFT_OUT_SINGLY,
        new_voice=None if trial.new_voice is None else score(truth, before, trial.new_voice, labels),
        voices=len(np.unique(examples.voices)),
        first_trust=trial.first_trust,
        calibration=calibration,
        skipped=tuple(skipped),
    )
    bundle = _write(target, base, report, head)
    size = sum(path.stat().st_size for path in bundle.folder.iterdir())
    return replace(report, seconds=time.perf_counter() - started_s, size_bytes=size)


def _check_base(base: Bundle, target: Path) -> None:
    if base.base is not None:
        raise ConfigError(
            f"{base.folder} is adapted already; need the model it was adapted from, and all clips together; "
            f"use --model {base.base.folder.name}"
        )
    if not embedding_size(base):
        raise ConfigError(
            f"{base.manifest.name} has no embedding to adapt on; need a model with one; try --model mdat-int8"
        )
    try:
        target.exists()
    except OSError as problem:
        raise ConfigError(f"cannot write {target} ({problem.strerror}); choose a shorter name for --out") from None
    if not re.fullmatch(NAME_PATTERN, target.name):
        raise ConfigError(
            f"{target.name!r} is no name for a model; need letters, digits, dot, dash and underscore; change --out"
        )
    resolved = target.resolve()
    if resolved == base.folder.resolve() or base.folder.resolve() in resolved.parents:
        raise ConfigError(f"{target} is the model itself, which is left as it is; choose another folder for --out")
    if target.exists() and any(target.iterdir() if target.is_dir() else [target]) and not _is_delta(target):
        raise ConfigError(f"{target} exists and is no adapted model; need a new folder; choose another one for --out")


def _is_delta(folder: Path) -> bool:
    try:
        manifest = (folder / "manifest.json").read_bytes()
        return Manifest.from_json(manifest, str(folder)).base is not None
    except (OSError, BundleError):
        return False


def _label_names(known: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Return by label the name it goes by, however it is capitalised."""
    names = {label.casefold(): label for label in known}
    return {label: names.setdefault(label.casefold(), label) for label in labels}


def _check_labels(labels: Sequence[str], skipped: Sequence[Skipped]) -> None:
    found = ", ".join(f"{count} of '{label}'" for label, count in sorted(Counter(labels).items())) or "none"
    unusable = f" ({len(skipped)} could not be used: {skipped[0].path}: {skipped[0].reason})" if skipped else ""
    if len(set(labels)) < 2:
        raise ConfigError(
            f"got clips: {found}{unusable}; need some of two labels or more, so that one can be told from another; "
            "add a few of 'neutral', say"
        )


def _most_clips(base: Bundle, labels: int) -> int:
    size = embedding_size(base)
    return min(_MOST_CLIPS, (_LARGEST_HEAD_BYTES - 4 * size * (_LARGEST_AXES + 2)) // (2 * size + 4 * labels))


def _drawn(truth: Indices, most: int) -> Indices:
    """Return places of no more than so many clips, the rarest labels kept whole."""
    if len(truth) <= most:
        return np.arange(len(truth))
    order = np.random.default_rng(0).permutation(len(truth))
    rank = np.empty(len(truth), dtype=np.int64)
    for label in np.unique(truth):
        places = order[truth[order] == label]
        rank[places] = np.arange(len(places))
    return np.sort(order[np.argsort(rank[order], kind="stable")[:most]])


def _examples(base: Bundle, heard: Sequence[HeardShot], truth: Indices, labels: int) -> Examples:
    logits = np.stack([item.heard.outputs["logits"] for item in heard])
    return Examples(
        embeddings=np.stack([item.heard.outputs["embedding"] for item in heard]),
        base_logits=logits,
        cold_logits=logits,
        labels=truth,
        voices=np.unique([item.shot.voice for item in heard], return_inverse=True)[1].astype(np.int64),
        label_count=labels,
        temperature=base.manifest.calibration.temperature,
    )


def _told_of_the_voice(base: Bundle, backend: Backend, heard: Sequence[HeardShot], cold: Examples) -> Floats:
    """Return the base model's answers once it knows the voice that the clips lead to expect."""
    voice = base.manifest.input_of("voice")
    if voice is None:
        return cold.cold_logits
    blank = blank_head(expected_voice(cold), len(base.manifest.labels))
    recognizer = EmotionRecognizer(base, Adapted(backend, blank, voice.name))
    answers = []
    for item in heard:
        if item.heard.windows:
            _, again = recognizer.judge_again(item.heard)
        else:
            _, again = recognizer.listen(item.samples, transcript=item.shot.transcript)
        answers.append(again.outputs["logits"])
    return np.stack(answers)


def _try(examples: Examples) -> _Trial:
    count = len(examples)
    far_amplitude = choose_far_amplitude(examples)
    groups = even_folds(examples.labels, count if count <= _MOST_LEFT_OUT_SINGLY else _FOLDS_OF_MANY)
    left_out = held_out_logits(examples, groups, far_amplitude)
    if len(np.unique(examples.voices)) == 1:
        return _Trial(far_amplitude, 1.0, left_out, None)
    trust = choose_first_trust(examples, far_amplitude)
    new_voice = held_out_logits(examples, voice_folds(examples), far_amplitude, trust)
    return _Trial(far_amplitude, trust, left_out, new_voice)


def _calibration(base: Bundle, head: Head, logits: Floats, truth: Indices) -> Calibration:
    temperature = round(fit_temperature(logits, truth, _CAUTION_CLIPS), 4)
    old = base.manifest.calibration
    plain = Calibration(temperature, old.default_risk, ())
    # Far from all clips, where noise lies, the answer is the base model's: what it is not certain of stays uncertain.
    row = old.row()
    floor = 1.0
    if row is not None:
        others = len(base.manifest.labels) - 1
        shares = np.array([[row.min_confidence, *[(1 - row.min_confidence) / others] * others]])
        far = head.sharpness * with_new_labels(np.log(np.maximum(shares, 1e-9)), logits.shape[1])
        floor = float(plain.probabilities(far).max())
    return replace(plain, risks=risk_rows(plain.probabilities(logits), truth, floor))


def _write(target: Path, base: Bundle, report: AdaptReport, head: Head) -> Bundle:
    old = base.manifest
    outputs = [
        Output(item.name, item.dtype, (1, len(report.labels))) if item.name == "logits" else item
        for item in old.outputs
    ]
    manifest = replace(
        old,
        name=target.name,
        labels=report.labels,
        graphs={},
        outputs=tuple(outputs),
        calibration=report.calibration,
        licence=f"{old.licence}; the adapted head is its user's own",
        training_data=(
            *old.training_data,
            TrainingCorpus("the user's own clips", "the user's", report.left_out.clips, report.voices),
        ),
        provenance={"adapted_from": old.name, "made_by": "edge-ser adapt"},
        metrics=report.to_plain(),
        base=base.identity,
    )
    card = score_card(report).encode()
    return Bundle.write(target, manifest, {HEAD_NAME: head_to_bytes(head), _CARD_NAME: card})
