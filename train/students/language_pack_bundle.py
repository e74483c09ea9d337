"""The bundle of a language pack: its base's graph, two small matrices, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_ser.bundle import Bundle
from edge_ser.calibration import Calibration
from edge_ser.calibration_fit import ONE_SIDED_95, fit_temperature, risk_rows, strictest_rows
from edge_ser.corpus import Clip
from edge_ser.language_pack import LanguagePack
from edge_ser.manifest import PACK_NAME, TrainingCorpus
from train.students.language_pack_trial import Floats, Held

_CAUTION_CLIPS = 10.0
"""Clips it takes to move the temperature away from 1."""
_NOISE_ALLOWED = 0.01
"""Share of sounds that are no speech that may get a certain answer."""


def write_pack_bundle(
    out: Path, base: Bundle, pack: LanguagePack, trials: Sequence[Held], clips: Sequence[Clip], confused: Floats | None
) -> Bundle:
    """Write a language pack as a delta bundle and return it.

    Args:
        out: Its folder.
        base: The bundle it is for.
        pack: Its matrices.
        trials: What its like is worth to speakers left out, one or more; the first calibrates it.
        clips: What it was learnt from.
        confused: Logits (n, C) of sound that speech detection takes for speech; None where none was at hand.

    Raises:
        BundleError: The base does not lie beside `out` and is not bundled, or something that is no bundle lies there.
    """
    old, first = base.manifest, clips[0]
    speakers = len({clip.speaker for clip in clips})
    corpus = TrainingCorpus(first.corpus, first.licence, len(clips), speakers)
    worth = [held.to_plain() for held in trials]
    manifest = replace(
        old,
        name=out.name,
        graphs={},
        calibration=_calibration(old.calibration, trials[0], confused),
        licence=f"{old.licence}; the language pack: {first.licence}",
        training_data=(*old.training_data, corpus),
        provenance={
            "language": first.language,
            "learnt_over": old.name,
            "made_by": "train.language_pack",
        },
        metrics={"speakers_left_out": worth},
        base=base.identity,
    )
    card = _card(out.name, old.name, corpus, first.language, worth)
    return Bundle.write(out, manifest, {PACK_NAME: pack.to_bytes(), "MODEL_CARD.md": card.encode()})


def _calibration(old: Calibration, held: Held, confused: Floats | None) -> Calibration:
    """Return what makes honest answers of the pack's logits, cold and warm, for speakers that it has not heard."""
    logits, truth = np.concatenate(held.after), np.tile(held.truth, 2)
    plain = Calibration(round(fit_temperature(logits, truth, _CAUTION_CLIPS), 4), old.default_risk, ())
    strictest = [row.min_confidence for row in old.risks]
    floor = max(strictest, default=1.0)
    if confused is not None:
        floor = float(np.quantile(plain.probabilities(confused).max(1), 1 - _NOISE_ALLOWED)) if len(confused) else 0.0
    tables = [risk_rows(plain.probabilities(rows), held.truth, floor, ONE_SIDED_95) for rows in held.after]
    return replace(plain, risks=strictest_rows(tables))


def _card(name: str, base: str, corpus: TrainingCorpus, language: str, worth: Sequence[Mapping[str, Any]]) -> str:
    told = [
        f"| {place + 1} | " + " | ".join("{:.3f} -> {:.3f}".format(*held[voice]) for voice in ("cold", "warm")) + " |"
        for place, held in enumerate(worth)
    ]
    lines = [
        f"# {name}",
        "",
        f"`{base}` with a language pack for `{language}`, learnt from {corpus.utterances} clips of {corpus.speakers} "
        f"speakers of {corpus.corpus} ({corpus.licence}). It needs `{base}` to run, which answers without the pack as "
        "ever.",
        "",
        "Unweighted accuracy without -> with the pack, each speaker judged by a pack that has not heard the speaker:",
        "",
        "| trial | voice unknown | voice known |",
        "| --- | --- | --- |",
        *told,
        "",
        "Temperature and risk thresholds come from speakers that were left out.",
    ]
    return "\n".join(lines) + "\n"
