"""Fitting and judging fold by fold, and the two protocols that do: within a corpus, and with speakers left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge_ser.errors import ConfigError
from train.corpora.utterance import Utterance
from train.folds import (
    Fold,
    leave_one_session_out,
    leave_one_speaker_out,
    session_partner_folds,
    shuffled_folds,
    speaker_folds,
)
from train.protocols.parts import Job, Part
from train.protocols.recipe import Recipe, chosen, draw_common, line_of, source_table, variants_compared
from train.protocols.references import within_reference
from train.protocols.study import Study, Variant
from train.protocols.tables import Line, Table
from train.published import PublishedTable

SCHEMES: Mapping[str, str] = {
    "groups": "speakers in balanced groups, the next group chooses the weights",
    "some": "speakers in balanced groups, a share of the others chooses the weights",
    "speakers": "one speaker left out",
    "sessions": "one session left out",
    "partner": "one speaker left out, the partner in the session chooses the weights",
    "shuffled": "clips shuffled, speakers on every side",
}
"""How a corpus is divided."""

_FEW = 10


@dataclass(frozen=True)
class WithinCorpus:
    """The table [within_corpus]."""

    scheme: str = ""
    """One of `SCHEMES`; empty takes sessions where there are up to 10, single speakers up to 10, else groups."""
    folds: int = 5
    """How many groups."""
    validation_fraction: float = 0.1
    """Share of the speakers learnt from that choose the weights."""


@dataclass(frozen=True)
class LeaveSpeakersOut:
    """The table [leave_speakers_out]."""

    schemes: tuple[str, ...] = ("groups",)
    """Some of `SCHEMES`, one after the other: `shuffled` and `sessions` show what known speakers are worth."""
    folds: int = 10
    """How many groups; fewer speakers make as many folds as speakers. `shuffled` makes 5."""
    validation_fraction: float = 0.1
    """Share of the speakers learnt from that choose the weights, where the scheme does not say who."""


@dataclass(frozen=True)
class Division:
    """How one corpus is divided."""

    scheme: str
    """One of `SCHEMES`."""
    folds: int
    """How many groups."""
    validation_fraction: float
    """Share of the speakers learnt from that choose."""

    def of(self, clips: Sequence[Utterance], seed: int) -> list[Fold]:
        """Return the folds of clips.

        Raises:
            ConfigError: No such scheme, or the clips do not allow it.
        """
        share = self.validation_fraction
        if self.scheme == "groups":
            return speaker_folds(clips, self.folds, seed=seed)
        if self.scheme == "some":
            return speaker_folds(clips, self.folds, seed=seed, validation_fraction=share)
        if self.scheme == "speakers":
            return leave_one_speaker_out(clips, seed=seed, validation_fraction=share)
        if self.scheme == "sessions":
            return leave_one_session_out(clips, seed=seed, validation_fraction=share)
        if self.scheme == "partner":
            return session_partner_folds(clips)
        if self.scheme == "shuffled":
            return shuffled_folds(clips, 5, seed=seed)
        raise ConfigError(f"scheme is {self.scheme!r}; need one of {', '.join(SCHEMES)}")


Divide = Callable[[Study, str], list[Division]]


def within_divisions(study: Study, corpus: str) -> list[Division]:
    """Return the one division of a corpus that [within_corpus] asks for, or that fits it."""
    options = study.options(WithinCorpus, "within_corpus")
    clips = study.clips(corpus)
    scheme = options.scheme
    if not scheme:
        sessions, speakers = {clip.session for clip in clips}, {clip.speaker for clip in clips}
        if "" not in sessions and 2 <= len(sessions) <= _FEW < 2 * len(speakers):
            scheme = "sessions"
        else:
            scheme = "speakers" if len(speakers) <= _FEW else "some"
    return [Division(scheme, options.folds, options.validation_fraction)]


def left_out_divisions(study: Study, corpus: str) -> list[Division]:
    """Return the divisions that [leave_speakers_out] asks for."""
    options = study.options(LeaveSpeakersOut, "leave_speakers_out")
    return [Division(scheme, options.folds, options.validation_fraction) for scheme in options.schemes]


def plan_folds(study: Study, name: str, divide: Divide) -> list[Job]:
    """Return one job a variant, corpus, division, seed and fold; corpora are each divided by themselves."""
    jobs = []
    for variant in study.variants:
        for corpus in judged_corpora(study):
            for division in divide(study, corpus):
                # One division for all seeds: what differs is the weights' start and the order of training.
                for number, fold in enumerate(division.of(study.clips(corpus), study.first.seed)):
                    for seed in study.request.seeds:
                        key = f"{name}_{variant.id}_{corpus}_{division.scheme}_f{fold.name}_s{seed}"
                        make = partial(_make, study, variant, corpus, fold, (key, division.scheme, seed, number))
                        jobs.append(Job(key, make))
    return jobs


def report_folds(study: Study, parts: Sequence[Part], folder: Path, title: str) -> list[Table]:
    """Return one table: a line a corpus, division and variant."""
    lines: list[Line] = []
    sources: list[PublishedTable | None] = []
    for corpus in judged_corpora(study):
        for scheme in SCHEMES:
            for variant in study.variants:
                own = chosen(parts, variant=variant.name, corpus=corpus, scheme=scheme)
                if own:
                    figures, source = within_reference(variant, corpus, study.classes)
                    names = {"system": variant.name, "corpus": corpus, "division": scheme}
                    lines.append(line_of(names, own, figures))
                    sources.append(source)
    schemes = sorted({line.names["division"] for line in lines})
    notes = [f"{scheme}: {SCHEMES[scheme]}" for scheme in schemes]
    if any(line.published for line in lines):
        notes.append("The published figures are over their source's own classes and clips of a corpus.")
    table = Table(title, lines, variants_compared(lines), source_table(sources), notes)
    wheres = [_where(part.facts["corpus"], part.facts["scheme"], part.facts["fold"]) for part in parts]
    draw_common(study, [table], folder, wheres)
    return [table]


def judged_corpora(study: Study) -> list[str]:
    """Return the corpora asked for, or those of the experiment."""
    asked = [corpus for source in study.request.source for corpus in source] + list(study.request.target)
    corpora = list(dict.fromkeys(asked)) or list(study.first.corpora)
    if not corpora:
        raise ConfigError("no corpus; need at least one; pass --source CORPUS or set corpora = [...] in the settings")
    return corpora


def _where(corpus: str, scheme: str, fold: str) -> str:
    return f"{corpus}, {scheme}, fold {fold}"


def _make(study: Study, variant: Variant, corpus: str, fold: Fold, names: tuple[str, str, int, int]) -> Part:
    key, scheme, seed, number = names
    clips = study.clips(corpus)
    train, validation, test = ([clips[p] for p in side] for side in (fold.train, fold.validation, fold.test))
    system, fitted = study.fit(variant, seed, train, validation)
    if number == 0:
        study.keep_map(variant, system, test, _where(corpus, scheme, fold.name), seed)
    facts = {"corpus": corpus, "scheme": scheme, "fold": fold.name, "seed": seed, **fitted}
    return study.answer(variant, system, test, key, facts)


def _report_within(study: Study, parts: Sequence[Part], folder: Path) -> list[Table]:
    return report_folds(study, parts, folder, "Within a corpus, unheard speakers")


def _report_left_out(study: Study, parts: Sequence[Part], folder: Path) -> list[Table]:
    return report_folds(study, parts, folder, "Speakers left out, fold by fold")


WITHIN_CORPUS = Recipe(
    purpose="train and judge within each corpus, by session or by speaker",
    needs="corpora, in the settings or by --source",
    plan=partial(plan_folds, name="within-corpus", divide=within_divisions),
    report=_report_within,
)
LEAVE_SPEAKERS_OUT = Recipe(
    purpose="ten folds with disjoint speakers in each corpus; other ways to divide it beside",
    needs="corpora, in the settings or by --source",
    plan=partial(plan_folds, name="leave-speakers-out", divide=left_out_divisions),
    report=_report_left_out,
)
