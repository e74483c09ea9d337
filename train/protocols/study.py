"""What every protocol works with: variants of one experiment, labelled clips, fits and their answers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from edge_ser.errors import ConfigError
from train.corpora.class_maps import class_index, class_names
from train.corpora.utterance import Utterance
from train.examples import Example
from train.fit import FitSettings, embed, fit, predict
from train.folds import Fold, check_apart, contents, fold_hash
from train.protocols.parts import Facts, Part, PartStore
from train.run_folder import load_stored_state, stored_state
from train.settings import Experiment, section
from train.statistics import ATTRIBUTES
from train.systems import System

_Options = TypeVar("_Options")
_Key = tuple[Path, float]


class Bench(Protocol):
    """What turns an experiment into clips, features and systems."""

    def clips(self, corpora: Sequence[str] | None = None) -> list[Utterance]:
        """Return the labelled utterances of corpora, or the pieces into which the experiment cuts long ones."""

    def examples(self, clips: Sequence[Utterance], side: str | None = None) -> list[Example]:
        """Return the features of clips, in their order; `side` says whose written sentences may be read."""

    def system(self, seed: int | None = None) -> System:
        """Return a fresh system whose random weights are those of a seed."""


@dataclass(frozen=True)
class Variant:
    """One system under comparison."""

    name: str
    """What the table calls it."""
    experiment: Experiment
    """What it is."""
    published: str = ""
    """How the published table names it, where the name of its system does not say so."""
    tag: str = ""
    """A hash of everything but seeds that sets its answers: what was fitted otherwise is not taken for its parts."""

    @property
    def id(self) -> str:
        """Return what names its parts."""
        return f"{self.name}-{self.tag}" if self.tag else self.name


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    source: tuple[tuple[str, ...], ...] = ()
    """Sets of corpora, each learnt from together."""
    target: tuple[str, ...] = ()
    """Corpora to judge on, each by itself."""
    seeds: tuple[int, ...] = (1,)
    """One fit, or one draw, for each."""
    pictures: str = ".png"
    """Suffix of the pictures: `.png` or `.svg`."""


class Study:
    """The variants of one experiment, and everything that is fitted for them."""

    def __init__(
        self,
        variants: Sequence[Variant],
        options: Mapping[str, Mapping[str, Any]],
        request: Request,
        bench_of: Callable[[Experiment], Bench],
        store: PartStore,
    ) -> None:
        """Gather what a protocol needs.

        Args:
            variants: At least one.
            options: The tables of the settings file that belong to protocols, by name.
            request: What the command line asks for.
            bench_of: Opens the bench of an experiment.
            store: Where parts are kept.
        """
        self.variants = list(variants)
        self.request = request
        self.store = store
        self._options = options
        self._bench_of = bench_of
        self._benches: dict[str, Bench] = {}
        self._clips: dict[tuple[str, ...], list[Utterance]] = {}
        self._examples: dict[tuple[_Key, str], list[Example]] = {}
        self._examples_of = ""
        self._strangers: set[tuple[tuple[str, ...], str]] = set()
        for variant in self.variants[1:]:
            own, common = variant.experiment, self.first
            if (own.task, own.class_map, own.manifest) != (common.task, common.class_map, common.manifest):
                raise ConfigError(
                    f"variant {variant.name} has another task, class_map or manifest; need the same in all"
                )

    @property
    def first(self) -> Experiment:
        """Return the experiment of the first variant; task, classes and corpora are those of all."""
        return self.variants[0].experiment

    @property
    def rates(self) -> bool:
        """Return whether attributes are predicted instead of classes."""
        return self.first.task == "attributes"

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes, or of the attributes."""
        return ATTRIBUTES if self.rates else class_names(self.first.class_map)

    @property
    def notes(self) -> list[str]:
        """Return what must be said wherever a figure of this study is shown."""
        kinds = {feature.sentences for v in self.variants for feature in v.experiment.features.values()}
        said = {
            "constructed": "Text is constructed: written sentences of the clip's emotion stand in for what was said.",
            "uninformative": "Text says nothing: written sentences drawn whatever the clip's emotion.",
        }
        return [said[kind] for kind in sorted(kinds & set(said))]

    def options(self, kind: type[_Options], table: str) -> _Options:
        """Return a protocol's table of the settings file, defaults where it is silent.

        Raises:
            ConfigError: The table has a key that nobody knows, or a value that does not fit.
        """
        return section(kind, self._options.get(table, {}), f"[{table}]")

    def sources(self) -> list[tuple[str, ...]]:
        """Return the sets of corpora to learn from: those asked for, or the experiment's corpora together."""
        chosen = self.request.source or (self.first.corpora,)
        if not all(chosen):
            raise ConfigError("no source; need corpora to learn from; pass --source CORPUS or set corpora = [...]")
        return list(chosen)

    def targets(self, source: Sequence[str]) -> list[str]:
        """Return the corpora to judge on.

        Raises:
            ConfigError: None is asked for, one of them is in the source, or shares a speaker or a file with it.
        """
        if not self.request.target:
            raise ConfigError("no target; need at least one corpus to judge on; pass --target CORPUS")
        both = sorted(set(source) & set(self.request.target))
        if both:
            raise ConfigError(f"{', '.join(both)} is source and target; need different corpora; change one of them")
        for target in self.request.target:
            self._check_strangers(tuple(source), target)
        return list(self.request.target)

    def clips(self, *corpora: str) -> list[Utterance]:
        """Return the labelled clips of corpora, whole, sorted by file.

        Raises:
            ConfigError: A corpus has no clip with a label of the task.
        """
        if corpora not in self._clips:
            found = self._bench(replace(self.first, segment_s=0.0)).clips(corpora)
            empty = sorted(set(corpora) - {clip.corpus for clip in found})
            if empty:
                raise ConfigError(f"no labelled clip of {', '.join(empty)}; need some; look at corpora and class_map")
            self._clips[corpora] = sorted(found, key=lambda clip: (clip.corpus, str(clip.path), clip.start_s or 0.0))
        return self._clips[corpora]

    def pairs(self) -> list[str]:
        """Return the name of each set of sources with each target: what `keep_map` is told and pictures are of."""
        return [f"{'+'.join(source)} to {target}" for source in self.sources() for target in self.targets(source)]

    def labels(self, clips: Sequence[Utterance]) -> list[int]:
        """Return the class index of each clip; 0 for all where attributes are predicted."""
        return [0 if self.rates else class_index(clip, self.first.class_map) for clip in clips]

    def examples(self, variant: Variant, clips: Sequence[Utterance], side: str) -> list[list[Example]]:
        """Return the examples of each clip, one unless the experiment cuts long clips into pieces.

        Args:
            variant: Whose features.
            clips: Whole ones, as `clips` returned them.
            side: `train`, `validation` or `test`: whose written sentences may be read, where text is drawn.
        """
        self._open(variant)
        missing = [clip for clip in clips if (_key(clip), side) not in self._examples]
        if missing:
            experiment = variant.experiment
            bench = self._bench(experiment)
            pieces = [[clip] for clip in missing]
            if experiment.segment_s > 0:
                cut: dict[Path, list[Utterance]] = defaultdict(list)
                for piece in bench.clips(tuple(sorted({clip.corpus for clip in missing}))):
                    cut[piece.path].append(piece)
                pieces = [[piece for piece in cut[clip.path] if _within(piece, clip)] for clip in missing]
            flat = bench.examples([piece for group in pieces for piece in group], side)
            ends = np.cumsum([0, *(len(group) for group in pieces)])
            for clip, start, end in zip(missing, ends[:-1], ends[1:], strict=True):
                self._examples[_key(clip), side] = flat[start:end]
        return [self._examples[_key(clip), side] for clip in clips]

    def system(self, variant: Variant, seed: int) -> System:
        """Return a fresh system of a variant."""
        return self._bench(variant.experiment).system(seed)

    def fit(
        self,
        variant: Variant,
        seed: int,
        train: Sequence[Utterance],
        validation: Sequence[Utterance],
        system: System | None = None,
    ) -> tuple[System, dict[str, Any]]:
        """Return a fitted system and what is worth knowing of its fit.

        Args:
            variant: What is fitted.
            seed: Of random weights and of training.
            train: What it learns from.
            validation: What chooses its weights.
            system: Fitted in place; a fresh one unless given.
        """
        system = system or self.system(variant, seed)
        settings = replace(variant.experiment.fit, seed=seed)
        sides = self._flat(variant, train, "train"), self._flat(variant, validation, "validation")
        result = fit(system, *sides, settings)
        return system, {"best_epoch": result.best_epoch, "validation": result.best, "epochs": len(result.history)}

    def fit_on(
        self, variant: Variant, system: System, clips: Sequence[Utterance], settings: FitSettings
    ) -> dict[str, Any]:
        """Fit on a few clips without any validation; the last weights stay."""
        result = fit(system, self._flat(variant, clips, "train"), [], settings)
        return {"epochs": len(result.history), "support_loss": result.history[-1]["loss"] if result.history else None}

    def source_model(self, variant: Variant, fold: Fold, clips: Sequence[Utterance], seed: int) -> tuple[System, Facts]:
        """Return a system fitted on source corpora; fitted once for a variant, sources and seed, then read.

        Args:
            variant: What is fitted.
            fold: Which of the clips train and validate.
            clips: Clips of the source corpora.
            seed: Of weights and training.
        """
        # A fold that also holds speakers back for a test names itself: its model must never meet another fold's.
        kind = "source" if not fold.test else f"source-{fold_hash(clips, fold)}"
        key = "_".join([kind, variant.id, *sorted({clip.corpus for clip in clips}), str(seed)])

        def make() -> tuple[dict[str, torch.Tensor], Facts]:
            train, validation = [clips[p] for p in fold.train], [clips[p] for p in fold.validation]
            system, facts = self.fit(variant, seed, train, validation)
            return {name: tensor.cpu() for name, tensor in stored_state(system).items()}, facts

        tensors, facts = self.store.weights(key, make)
        system = self.system(variant, seed)
        load_stored_state(system, tensors, key)
        return system.eval(), facts

    def answer(
        self,
        variant: Variant,
        system: System,
        clips: Sequence[Utterance],
        key: str,
        facts: Mapping[str, Any],
    ) -> Part:
        """Return what a system says about clips: the mean over the examples of each."""
        groups = self.examples(variant, clips, "test")
        logits = _mean_rows(predict(system, [example for group in groups for example in group]), groups)
        truth = [clip.attributes for clip in clips] if self.rates else self.labels(clips)
        return Part(
            key,
            {"variant": variant.name, **facts},
            tuple("/".join(clip.path.parts[-2:]) for clip in clips),
            tuple(clip.speaker for clip in clips),
            np.asarray(truth),
            logits,
        )

    def keep_map(self, variant: Variant, system: System, clips: Sequence[Utterance], where: str, seed: int) -> None:
        """Keep the embeddings of clips for a picture, of the first seed alone.

        Args:
            variant: What was fitted.
            system: The fitted one.
            clips: What it was judged on.
            where: Corpora and condition.
            seed: Of the fit.
        """

        def make() -> tuple[dict[str, torch.Tensor], Facts]:
            groups = self.examples(variant, clips, "test")
            rows = _mean_rows(embed(system, [example for group in groups for example in group]), groups)
            labels = torch.tensor(self.labels(clips))
            return {"embedding": torch.from_numpy(rows), "labels": labels}, {"variant": variant.name}

        if not self.rates and seed == self.request.seeds[0]:
            self.store.weights(map_key(variant, where), make)

    def _check_strangers(self, source: tuple[str, ...], target: str) -> None:
        """Raise ConfigError if somebody, or a file, is in a source corpus and in the target."""
        if (source, target) not in self._strangers:
            sides = {"the source": self.clips(*source), target: self.clips(target)}
            check_apart("speaker", {side: {clip.speaker for clip in clips} - {""} for side, clips in sides.items()})
            check_apart("file", {side: {clip.path for clip in clips} for side, clips in sides.items()})
            check_apart("content", {side: contents(clips) for side, clips in sides.items()})
            self._strangers.add((source, target))

    def _flat(self, variant: Variant, clips: Sequence[Utterance], side: str) -> list[Example]:
        return [example for group in self.examples(variant, clips, side) for example in group]

    def _bench(self, experiment: Experiment) -> Bench:
        """Return the bench of an experiment, opened once: it keeps encoders and features in memory."""
        return self._benches.setdefault(repr(experiment), self._bench_of(experiment))

    def _open(self, variant: Variant) -> None:
        """Let go of another variant's features before this one's are read, unless they are the same."""
        own = variant.experiment
        of = repr((own.features, own.encoder, own.segment_s, own.seed))
        if of != self._examples_of:
            self._examples, self._benches, self._examples_of = {}, {}, of


def map_key(variant: Variant, where: str) -> str:
    """Return the key under which `Study.keep_map` keeps embeddings."""
    return f"map_{variant.id}_{where}"


def _key(clip: Utterance) -> _Key:
    return clip.path, clip.start_s or 0.0


def _within(piece: Utterance, clip: Utterance) -> bool:
    """Return whether a piece of a clip's file begins within the clip."""
    start = clip.start_s or 0.0
    end = math.inf if clip.end_s is None else clip.end_s
    return start <= (piece.start_s or 0.0) < end


def _mean_rows(rows: NDArray[np.float32], groups: Sequence[Sequence[Example]]) -> NDArray[np.float32]:
    """Return one row a group: the mean of the rows of its examples."""
    ends = np.cumsum([len(group) for group in groups])
    return np.stack([part.mean(axis=0) for part in np.split(rows, ends[:-1])]).astype(np.float32)
