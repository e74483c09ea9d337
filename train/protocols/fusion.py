"""Fusion: does a second modality help? Speech and written sentences of the same emotion, which were never spoken.

The pairs are constructed: no corpus at hand has natural speech with natural words. What they show is whether a system
can use two modalities, not how much words help on real speech.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from edge_ser.errors import ConfigError
from train.folds import split_fold
from train.protocols.drawing import draw_bars
from train.protocols.folded import judged_corpora
from train.protocols.parts import Job, Part
from train.protocols.recipe import Recipe, chosen, draw_common, joined, line_of, source_table
from train.protocols.references import NOTHING, within_reference
from train.protocols.study import Study, Variant
from train.protocols.tables import Comparison, Line, Table, compare

SPEECH, TEXT, BOTH, EMPTY = "speech", "text", "speech + text", "speech + uninformative text"

# A modality by itself can only attend to itself.
_ALONE: dict[str, dict[str, dict[str, Any]]] = {
    "mha": {
        SPEECH: {"modalities": "audio", "attention": "self"},
        TEXT: {"modalities": "text", "attention": "self"},
    }
}
_PUBLISHED = {SPEECH: "Audio", TEXT: "Text"}


@dataclass(frozen=True)
class Fusion:
    """The table [fusion]."""

    speech_features: tuple[str, ...] = ("speech", "mfcc", "prosody")
    """Which of the features are speech's; `text` is the other modality."""
    sentences: str = "constructed"
    """Sentences of `speech + text` and of `text`."""
    speech_model: dict[str, Any] = field(default_factory=dict)
    """Settings of [model] with speech alone, where the system's own switch `modalities` is not meant."""
    text_model: dict[str, Any] = field(default_factory=dict)
    """Settings of [model] with text alone."""


def plan(study: Study) -> list[Job]:
    """Return one job a condition, variant and seed: the same speakers train, choose and judge in all."""
    return [
        Job(_key(study, variant, condition, seed), partial(_make, study, variant, condition, seed))
        for condition in (SPEECH, EMPTY, BOTH, TEXT)
        for variant in study.variants
        for seed in study.request.seeds
    ]


def report(study: Study, parts: Sequence[Part], folder: Path) -> list[Table]:
    """Return one table: a line a variant and condition, and what the second modality is worth."""
    lines: list[Line] = []
    comparisons: list[Comparison] = []
    sources = []
    spoken = study.options(Fusion, "fusion").sentences == "transcript"
    for variant in study.variants:
        own: dict[str, Line] = {}
        for condition in (SPEECH, TEXT, BOTH, EMPTY):
            named = replace(variant, published=_PUBLISHED.get(condition, variant.published))
            corpora = judged_corpora(study)
            # Published figures are over transcripts: they say nothing about constructed pairs.
            known = spoken and condition != EMPTY and len(corpora) == 1
            figures, source = within_reference(named, corpora[0], study.classes) if known else NOTHING
            names = {"system": variant.name, "corpora": joined(corpora), "reads": condition}
            own[condition] = line_of(names, chosen(parts, variant=variant.name, reads=condition), figures)
            sources.append(source)
        lines += own.values()
        comparisons += [
            compare(own[better], own[worse], (f"{variant.name}: {better}", worse))
            for better, worse in ((BOTH, SPEECH), (BOTH, TEXT), (EMPTY, SPEECH))
        ]
    _check_same_clips(parts)
    notes = ["Speakers who judge are heard nowhere else; sentences that judge are read nowhere else."]
    if not spoken:
        notes.insert(0, "The pairs of clip and sentence are constructed: the sentences were written, not spoken.")
    table = Table("Fusion of speech and constructed text", lines, comparisons, source_table(sources), notes)
    draw_bars(folder / f"fusion{study.request.pictures}", lines, table.title)
    draw_common(study, [table], folder, [_where(study)])
    return [table]


def reading(variant: Variant, condition: str, options: Fusion) -> Variant:
    """Return the variant as it reads under a condition.

    Raises:
        ConfigError: It lacks a modality.
    """
    experiment = variant.experiment
    features = dict(experiment.features)
    spoken = {name: feature for name, feature in features.items() if name in options.speech_features}
    if "text" not in features or not spoken:
        raise ConfigError(f"{variant.name} reads {', '.join(features)}; need [features.text] and speech, to fuse them")
    text = replace(features["text"], sentences="uninformative" if condition == EMPTY else options.sentences)
    if condition in (BOTH, EMPTY):
        # A sentence belongs to an emotion, or to nothing, and never to a clip: else pairs are learnt by heart.
        within = {"constructed": "emotion", "uninformative": "all"}.get(text.sentences, "")
        learning = replace(experiment.fit, exchange_text=experiment.fit.exchange_text or within)
        changed = replace(experiment, features={**spoken, "text": text}, fit=learning)
        return replace(variant, experiment=changed)
    single = _ALONE.get(experiment.system, {}).get(condition, {"modalities": condition})
    model = (options.speech_model if condition == SPEECH else options.text_model) or single
    own = spoken if condition == SPEECH else {"text": text}
    return replace(variant, experiment=replace(experiment, features=own, model={**experiment.model, **model}))


def _check_same_clips(parts: Sequence[Part]) -> None:
    """Raise ConfigError if parts were judged on other clips than the first: all conditions stand beside each other."""
    other = [part.key for part in parts if sorted(part.files) != sorted(parts[0].files)]
    if other:
        raise ConfigError(
            f"{other[0]} was judged on other clips than {parts[0].key}; need the same; choose another --out"
        )


def _where(study: Study) -> str:
    return f"{joined(judged_corpora(study))}, {BOTH}"


def _key(study: Study, variant: Variant, condition: str, seed: int) -> str:
    corpora = judged_corpora(study)
    # The variant's tag says which corpora the experiment names, but not which ones the command line does.
    where = "" if set(corpora) == set(study.first.corpora) else f"_{joined(corpora)}"
    return f"fusion_{variant.id}{where}_{condition}_s{seed}"


def _make(study: Study, variant: Variant, condition: str, seed: int) -> Part:
    options = study.options(Fusion, "fusion")
    reader = reading(variant, condition, options)
    clips = study.clips(*judged_corpora(study))
    experiment = study.first
    fold = split_fold(
        clips,
        validation_fraction=experiment.validation_fraction,
        test_fraction=experiment.test_fraction,
        seed=experiment.seed,
    )
    if not fold.test:
        raise ConfigError("test_fraction is 0; need speakers who judge; set test_fraction above 0")
    train, validation, test = ([clips[p] for p in side] for side in (fold.train, fold.validation, fold.test))
    system, fitted = study.fit(reader, seed, train, validation)
    if condition == BOTH:
        study.keep_map(reader, system, test, _where(study), seed)
    facts = {"corpora": joined(judged_corpora(study)), "reads": condition, "seed": seed, **fitted}
    return study.answer(reader, system, test, _key(study, variant, condition, seed), facts)


RECIPE = Recipe(
    purpose="speech alone, text alone, both, and text that says nothing, on constructed pairs",
    needs="corpora, in the settings or by --source, with [features.text]",
    plan=plan,
    report=report,
)
