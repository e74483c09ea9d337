"""What adapting was worth, measured on the user's own clips."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ser.calibration import Calibration
from edge_ser.head import Floats
from edge_ser.metrics import bootstrap_interval, confusion_matrix, unweighted_accuracy
from edge_ser.shots import Skipped

FEW_CLIPS = 5
"""Clips of a label below which more are advised."""


@dataclass(frozen=True)
class LabelScore:
    """How often clips of one label were recognised."""

    label: str
    """The label."""
    clips: int
    """Clips of it."""
    before: float
    """Share that the base model recognised."""
    after: float
    """Share that adapted models recognised which had not learnt from the clip."""


@dataclass(frozen=True)
class Score:
    """How often clips were recognised, before and after."""

    labels: tuple[LabelScore, ...]
    """Labels that have clips."""
    before: float
    """UA, the mean of the labels' shares, of the base model."""
    after: float
    """UA of the adapted models."""
    before_interval: tuple[float, float]
    """95 % bootstrap interval of `before`."""
    after_interval: tuple[float, float]
    """95 % bootstrap interval of `after`."""

    @property
    def clips(self) -> int:
        """All clips."""
        return sum(item.clips for item in self.labels)


@dataclass(frozen=True)
class AdaptReport:
    """What adapting did."""

    name: str
    """Name of the adapted bundle."""
    base: str
    """Name of the model it was adapted from."""
    labels: tuple[str, ...]
    """All labels of the adapted model, the base model's first."""
    known: int
    """How many of them are the base model's."""
    left_out: Score
    """Each clip judged by a model that has not learnt from it."""
    left_out_singly: bool
    """True for leave-one-out; False where so many clips are left out in twenty parts."""
    new_voice: Score | None
    """Each clip judged by a model that has not heard the voice; None where only one voice is named."""
    voices: int
    """Voices named; unnamed clips share one."""
    first_trust: float
    """How far the clips count for a voice of which nothing is known yet, in [0, 1]."""
    calibration: Calibration
    """How the adapted model's logits become decisions."""
    skipped: tuple[Skipped, ...]
    """Clips that were not used."""
    seconds: float = 0.0
    """Time it took."""
    size_bytes: int = 0
    """Size of the bundle."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know, in plain sentences."""
        return tuple(_notes(self))

    def to_plain(self) -> dict[str, object]:
        """Return plain data, ready for JSON; where the clips lie is left out."""
        return {
            "adapted_from": self.base,
            "clips": self.left_out.clips,
            "skipped": len(self.skipped),
            "voices": self.voices,
            "left_out": "one clip" if self.left_out_singly else "a twentieth of the clips",
            **_plain(self.left_out),
            "new_voice": None if self.new_voice is None else _plain(self.new_voice),
            "first_trust": self.first_trust,
            "certain_at_risks": [row.risk for row in self.calibration.risks],
            "notes": list(self.notes),
        }


def score(truth: NDArray[np.int64], before: Floats, after: Floats, labels: Sequence[str]) -> Score:
    """Return how often the likeliest label is right.

    Args:
        truth: Label indices, shape (n,).
        before: Scores of the base model, shape (n, labels).
        after: Scores of the adapted models, shape (n, labels).
        labels: All labels.
    """
    said = {"before": before.argmax(axis=1), "after": after.argmax(axis=1)}
    rows = [
        LabelScore(
            labels[label],
            int(np.sum(truth == label)),
            *(float(np.mean(said[when][truth == label] == label)) for when in ("before", "after")),
        )
        for label in np.unique(truth)
    ]

    def ua(truth: NDArray[np.int64], said: NDArray[np.int64]) -> float:
        return unweighted_accuracy(confusion_matrix(truth, said, len(labels)))

    return Score(
        labels=tuple(rows),
        before=ua(truth, said["before"]),
        after=ua(truth, said["after"]),
        before_interval=bootstrap_interval(ua, [truth, said["before"]]),
        after_interval=bootstrap_interval(ua, [truth, said["after"]]),
    )


def score_card(report: AdaptReport) -> str:
    """Return the model card of an adapted bundle, in Markdown."""
    rows = [
        f"| {item.label} | {item.clips} | {item.before:.2f} | {item.after:.2f} |" for item in report.left_out.labels
    ]
    lines = [
        f"# {report.name}",
        "",
        f"`{report.base}` with a head adapted to {report.left_out.clips} clips of its user's own "
        f"({report.voices} voice{'' if report.voices == 1 else 's'}). It needs `{report.base}` to run. "
        "It holds embeddings of the clips: no audio, no words, no names.",
        "",
        f"Labels: {', '.join(report.labels)}.",
        "",
        f"Share recognised, {_how(report)}:",
        "",
        "| label | clips | before | after |",
        "| --- | --- | --- | --- |",
        *rows,
        f"| mean | {report.left_out.clips} | {report.left_out.before:.2f} | {report.left_out.after:.2f} |",
        "",
    ]
    if report.new_voice is not None:
        lines += [
            f"By models that had not heard the voice: mean {report.new_voice.before:.2f} before, "
            f"{report.new_voice.after:.2f} after.",
            "",
        ]
    lines += ["Temperature and risk thresholds come from clips that were left out.", ""]
    lines += [f"- {note}" for note in report.notes]
    return "\n".join(lines).rstrip() + "\n"


def _how(report: AdaptReport) -> str:
    if report.left_out_singly:
        return "each clip judged by a model that has not learnt from it (leave-one-out)"
    return "each clip judged by a model that has not learnt from it (a twentieth left out at a time)"


def _notes(report: AdaptReport) -> list[str]:
    notes = []
    known = report.labels[: report.known]
    for label in report.labels[report.known :]:
        close = difflib.get_close_matches(label.casefold(), [name.casefold() for name in known], n=1, cutoff=0.55)
        notes.append(f"'{label}' is new to the model{f'; did you mean {close[0]!r}?' if close else ''}.")
    used = {item.label for item in report.left_out.labels}
    absent = [label for label in known if label not in used]
    if absent:
        notes.append(f"No clip of {', '.join(absent)}: there the model answers as before.")
    few = [item.label for item in report.left_out.labels if item.clips < FEW_CLIPS]
    if few:
        notes.append(f"Few clips of {', '.join(few)}: {FEW_CLIPS} or more of each label are advised.")
    if report.left_out.after < report.left_out.before:
        notes.append("On these clips the model was better as it was: check the labels, or record more clips.")
    if report.first_trust == 0:
        notes.append(
            "The first words of a voice are judged as before, until it is known: left-out voices were judged better so."
        )
    calibration = report.calibration
    if not calibration.risks:
        notes.append("Too few clips, or too many wrong answers, to promise any risk: every answer is uncertain.")
    elif calibration.row() is None:
        notes.append(
            f"A risk of {calibration.default_risk:g} cannot be promised, so every answer is uncertain; "
            f"from {calibration.risks[0].risk:g} on it can: --risk {calibration.risks[0].risk:g}"
        )
    return notes


def _plain(item: Score) -> dict[str, object]:
    return {
        "ua_before": round(item.before, 4),
        "ua_before_interval": [round(value, 4) for value in item.before_interval],
        "ua_after": round(item.after, 4),
        "ua_after_interval": [round(value, 4) for value in item.after_interval],
        "labels": [
            {"label": row.label, "clips": row.clips, "before": round(row.before, 4), "after": round(row.after, 4)}
            for row in item.labels
        ],
    }
