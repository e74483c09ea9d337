"""Which published figure stands beside which of ours: by the names of corpora, and of system or variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from train.protocols.study import Variant
from train.published import Figure, PublishedTable, published

Reference = tuple[Mapping[str, Figure], PublishedTable | None]
"""Figures by metric, and the table that they stand in; nothing where the source has none."""

NOTHING: Reference = ({}, None)

_MDAT = ("mdat", "bilstm")
_CAMULENET = ("camulenet", "pooled-encoder")
_MHA = ("mha", "mdre")
_LEARN_ONCE = ("Off-the-shelf", "FineTuned", "LoRA")


def within_reference(variant: Variant, corpus: str, classes: Sequence[str]) -> Reference:
    """Return what is published on speakers of the same corpus, over as many classes where that is known."""
    system, count = variant.experiment.system, len(classes)
    if system in _MDAT:
        row = {"Dataset": corpus, "classes": str(count)}
        found = _first(["mdat-within-corpus"], {"UA": _name(variant, "mdat-within-corpus")}, row)
        if found[0] or corpus != "iemocap" or count != 4:
            return found
        return _first(["mdat-features"], {"UA": "UA"}, {"Work": variant.published})
    if system in _CAMULENET:
        row = {"Model": _name(variant, "camulenet-unseen-speakers")}
        return _first(["camulenet-unseen-speakers"], {metric: f"{corpus} {metric}" for metric in ("WA", "WF1")}, row)
    if corpus != "iemocap":
        return NOTHING
    if system in _MHA and count == 7:
        columns = {"WA": "WA", "UA": "UWA", "WF1": "WF1", "UWF1": "UWF1"}
        return _first(["mha-main", "mha-variants"], columns, {"Model": _name(variant, "mha-main")})
    if system == "hump-cat" and count == 4:
        name = _name(variant, "hump-cat-iemocap")
        found = _first(["hump-cat-iemocap"], {"UA": "UA (%)", "WA": "WA (%)"}, {"Method": name})
        found = found if found[0] else _first(["hump-cat-hand-crafted"], {"UA": "test"}, {"Features": name})
        return found if found[0] else _first(["hump-cat-encoders"], {"UA": "test"}, {"Encoder": name})
    return NOTHING


def cross_reference(variant: Variant, source: Sequence[str], target: str, classes: Sequence[str]) -> Reference:
    """Return what is published on training with one corpus and judging on another one."""
    if variant.experiment.system not in _MDAT or len(source) != 1 or len(classes) != 4:
        return NOTHING
    if variant.published and source == ("iemocap",):
        return _first(["mdat-ablation"], {"UA": target}, {"#": variant.published})
    row = {"Source": source[0], "Target": target}
    return _first(["mdat-cross-language"], {"UA": _name(variant, "mdat-cross-language")}, row)


def shot_reference(
    variant: Variant, source: Sequence[str], target: str, shots: int, classes: Sequence[str]
) -> Reference:
    """Return what is published on adapting to k samples of a target."""
    if variant.experiment.system not in _MDAT or len(source) != 1 or len(classes) != 4:
        return NOTHING
    column = f"{shots}: {_name(variant, 'mdat-k-shot')}"
    return _first(["mdat-k-shot"], {"UA": column}, {"Source": source[0], "Target": target})


def transfer_reference(variant: Variant, source: Sequence[str], target: str) -> Reference:
    """Return what is published on fine-tuning with a part of a target corpus."""
    if variant.experiment.system != "hump-cat" or source != ("iemocap",):
        return NOTHING
    if variant.published:
        return _first(["hump-cat-features"], {"UA": variant.published}, {"Target": target})
    row = {"Method": _name(variant, "hump-cat-transfer"), "Target": target}
    return _first(["hump-cat-transfer"], {"UA": "UA"}, row)


def learns_once(variant: Variant) -> bool:
    """Return whether the published method has learnt from the first language alone where it is judged."""
    return variant.published.partition(" ")[2] in _LEARN_ONCE


def first_language_reference(variant: Variant, source: Sequence[str], task: str) -> Reference:
    """Return what is published on the language first trained on; the variant names encoder and method."""
    encoder, _, method = variant.published.partition(" ")
    if task != "attributes" or not method or len(source) != 1:
        return NOTHING
    test = source[0].partition("-")[0].partition("_")[0]
    columns = {name: f"{test} {name}" for name in ("Aro.", "Val.", "Dom.")}
    return _first(["lora-in-domain"], columns, {"Encoder": encoder, "Method": method})


def second_language_reference(variant: Variant, target: str, task: str) -> Reference:
    """Return what is published on a second language; the variant names encoder and method: `WavLM FT+LoRA`."""
    encoder, _, method = variant.published.partition(" ")
    if task != "attributes" or not method:
        return NOTHING
    row = {"Test set": target.partition("-")[0].partition("_")[0], "Encoder": encoder, "Method": method}
    return _first(["lora-cross-lingual"], {name: name for name in ("Aro.", "Val.", "Dom.")}, row)


def _name(variant: Variant, table: str) -> str:
    return variant.published or published(table).systems.get(variant.experiment.system, "")


def _first(tables: Sequence[str], columns: Mapping[str, str], row: Mapping[str, str]) -> Reference:
    for name in tables:
        table = published(name)
        figures = {metric: table.find(column, row) for metric, column in columns.items()}
        found = {metric: figure for metric, figure in figures.items() if figure is not None}
        if found:
            return found, table
    return NOTHING
