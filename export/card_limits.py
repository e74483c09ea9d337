"""Where a model fails, read off its figures, and what it must not be used for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edge_ser.bundle import Manifest
from export.card_text import points, section, ua

POOR_UA = 0.6
"""UA that the whole interval stays below where a corpus counts as a failure."""
COSTLY = 0.06
"""Loss of UA from which a change counts as a failure."""
PROMISED = 0.85
"""Share of certain answers that should be right."""
MISSED = 0.5
"""Recall below which a class counts as missed."""
FEWEST_CERTAIN = 20
"""Certain answers below which their accuracy says nothing."""
CONFIDENT_NOISE = 0.01
"""Share of confident answers to what is no speech that is allowed."""


def failures(metrics: Mapping[str, Any]) -> str:
    """Return the known failures, by rule: which figures are too low, too costly or too sure."""
    if not metrics:
        return ""
    found = [*_corpora(metrics), *_classes(metrics), *_conditions(metrics)]
    lines = "\n".join(f"- {line}" for line in found)
    rule = (
        f"Listed by rule: UA whose interval stays below {POOR_UA:g}; voices that harm beyond chance; certain answers "
        f"right less often than {PROMISED:.0%}; classes found less often than {MISSED:.0%}; changes that cost more "
        f"than {100 * COSTLY:.0f} points; more than {CONFIDENT_NOISE:.0%} confident answers to what is no speech."
    )
    return section("Known failures", rule, lines or "None by this rule.")


def _corpora(metrics: Mapping[str, Any]) -> Iterator[str]:
    for name, sides in metrics.get("corpora", {}).items():
        for voice in ("cold", "warm"):
            figures = sides[voice]
            if not figures:
                continue
            if figures["ua_interval"][1] < POOR_UA:
                yield f"{name}, {voice}: UA {ua(figures)}."
            right, share = figures["certain_accuracy"], figures["certain_share"]
            if right is not None and right < PROMISED and share * figures["clips"] >= FEWEST_CERTAIN:
                yield f"{name}, {voice}: only {right:.0%} of the certain answers ({share:.0%} of all) are right."
        for key, whose in (
            ("gain", "the speaker's own voice profile"),
            ("mostly_neutral", "a voice profile that heard mostly neutral speech"),
            ("wrong_voice", "a stranger's voice profile"),
        ):
            if key in sides and sides[key]["difference_interval"][1] < 0:
                yield f"{name}: {whose} costs, {points(sides[key])} points."


def _classes(metrics: Mapping[str, Any]) -> Iterator[str]:
    for side, voices in metrics.get("pooled", {}).items():
        for voice, figures in voices.items():
            for label, recall in zip(metrics.get("labels", ()), figures.get("recall", ()), strict=False):
                if recall is not None and recall < MISSED:
                    yield f"{side}, {voice}: *{label}* is found in only {recall:.0%} of its utterances."


def _conditions(metrics: Mapping[str, Any]) -> Iterator[str]:
    for row in metrics.get("robustness", {}).get("conditions", ()):
        if row["difference"] < -COSTLY:
            yield f"{row['name']}: {points(row)} points."
    noise = metrics.get("non_speech")
    if noise and noise["confident_share"] > CONFIDENT_NOISE:
        yield f"sound that is no speech: {noise['confident_share']:.1%} of the answers are confident."


def use(manifest: Manifest) -> str:
    """Return what it is for, and what it must not be used for."""
    research = "research" in manifest.name
    return section(
        "Intended use and limits",
        "For voice assistants, robots, games and research that adapt to how something is said, on the device, with the "
        f"knowledge of those who are heard.{' Its training data allow no commercial use.' if research else ''}",
        "Its weights are random: it is there to measure size and speed, and nothing that it says means anything."
        if manifest.provenance.get("weights") == "random"
        else "It learnt from actors: it hears how something is said, not what a person feels. Expect less on "
        "spontaneous speech and on languages that are not listed above. An answer marked uncertain is no answer. It "
        "must not decide about people.",
        "Inferring emotions of people at work or in education is prohibited in the EU (AI Act, Article 5(1)(f)), "
        "except for medical or safety reasons.",
    )
