from __future__ import annotations

import pytest

from edge_ser.errors import ConfigError
from train.published import all_published, published


def test_every_table_of_the_five_sources_is_there() -> None:
    tables = all_published()
    assert {table.source for table in tables.values()} == {"MDAT", "HuMP-CAT", "CAMuLeNet", "MHA", "LoRA-SER"}
    assert len([table for table in tables.values() if table.figures]) == 15


@pytest.mark.parametrize(
    ("table", "column", "row", "value"),
    [
        ("mdat-within-corpus", "MDAT", {"Dataset": "iemocap", "classes": "4"}, 0.7558),
        ("mdat-cross-language", "MDAT", {"Source": "emodb", "Target": "emovo"}, 0.5625),
        ("mdat-cross-language", "MDAT", {"Source": "emovo", "Target": "emodb"}, 0.8160),
        ("mdat-k-shot", "15: MDAT", {"Source": "EMODB", "Target": "URDU"}, 0.8457),
        ("mdat-k-shot", "5: base", {"Source": "emodb", "Target": "emovo"}, 0.6999),
        ("mdat-ablation", "EMOVO", {"#": "7"}, 0.3091),
        ("hump-cat-transfer", "UA", {"Method": "HuMP-CAT", "Target": "emovo"}, 0.7948),
        ("hump-cat-features", "MFCC & Prosody", {"Target": "emodb"}, 0.8869),
        ("camulenet-unseen-speakers", "cremad WA", {"Model": "CAMuLeNet"}, 0.762),
        ("camulenet-unseen-speakers", "emodb WF1", {"Model": "w/o multitask"}, 0.844),
        ("lora-cross-lingual", "Val.", {"Test set": "BIIC", "Encoder": "WavLM", "Method": "FT(dual)"}, 0.405),
    ],
)
def test_figures_are_found_by_names(table: str, column: str, row: dict[str, str], value: float) -> None:
    figure = published(table).find(column, row)
    assert figure is not None
    assert figure.value == pytest.approx(value)


def test_what_is_not_printed_is_none() -> None:
    assert published("hump-cat-iemocap").find("WA (%)", {"Method": "HuBERT-LinearLayer (2022)"}) is None
    assert published("mdat-cross-language").find("MDAT", {"Source": "cremad", "Target": "emovo"}) is None


def test_spread_and_mark_of_significance_are_kept() -> None:
    figure = published("mha-main").find("UWA", {"Model": "Self-MHA"})
    assert figure is not None and figure.sd == pytest.approx(0.020)
    table = published("lora-cross-lingual")
    marked = [names for names, found in table.figures.items() if found.significant]
    assert len(marked) == 10
    assert table.cited == "LoRA-SER, table 2"


def test_two_figures_that_contradict_each_other_are_both_kept_and_noted() -> None:
    row = {"Source": "iemocap", "Target": "emodb"}
    cross, shots = published("mdat-cross-language").find("MDAT", row), published("mdat-k-shot").find("0: MDAT", row)
    assert cross is not None and shots is not None and cross != shots
    assert any("42.48" in note and "48.48" in note for note in published("mdat-k-shot").note)


def test_derived_figures_of_the_notes_follow_from_the_cells() -> None:
    table = published("hump-cat-transfer")
    own = [figure.value for (names, _), figure in table.figures.items() if names[0] == "HuMP-CAT"]
    assert sum(own) / len(own) == pytest.approx(0.7833, abs=5e-5)
    cross = published("mdat-cross-language")
    for source, mean in (("IEMOCAP", 0.6414), ("EMODB", 0.6168), ("URDU", 0.6710), ("EMOVO", 0.7160)):
        values = [f.value for (names, head), f in cross.figures.items() if names[0] == source and head == "MDAT"]
        assert sum(values) / len(values) == pytest.approx(mean, abs=6e-5)


def test_an_unknown_table_is_said() -> None:
    with pytest.raises(ConfigError, match="need one of"):
        published("mdat")
