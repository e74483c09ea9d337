"""A card says what manifest and receipt say, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="the tiny bundle needs onnx: pip install -e '.[export]'")

from edge_ser.bundle import Bundle
from edge_ser.testing import write_tiny_bundle
from export.card import compact, main, render_card
from tests.train.canned_evaluation import evaluation

LARGEST_METRICS = 15_000
RECEIPT: dict[str, Any] = {
    "ua_before": {"ua": 0.801},
    "ua_after": {"ua": 0.799, "clips": 2000},
    "cosine": {"0.4": 0.9991},
    "blocks": [{"name": "speech/stem", "precision": "fp32"}, {"name": "text/layer", "precision": "int8"}],
    "agreement": 0.99,
    **{"bytes_before": 9_000_000, "bytes_after": 3_000_000, "speed_ratio": 1.5},
    **{"integer_operators": 30, "float_operators": 10, "environment": {"processor": "a processor"}},
}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny")


def card_of(folder: Path, figures: dict[str, Any], receipt: dict[str, Any] | None = None, **provenance: object) -> str:
    manifest = replace(Bundle.open(folder).manifest, metrics=compact(figures), provenance=provenance)
    return render_card(manifest, receipt or {})


def failures(card: str) -> str:
    return card.partition("## Known failures")[2].partition("\n## ")[0]


def test_every_figure_stands_in_its_table(tiny: Path) -> None:
    card = card_of(tiny, evaluation(), RECEIPT, parameters=1234567, parameters_by_part={"speech": 1000000})
    for row in (
        "| cremad | cold | 12 | 700 | 0.800 [0.760, 0.840] | 0.031 | 0.900 (40%) |",
        "| urdu | cold | 12 | 700 | 0.500 [0.460, 0.540] | 0.031 | 0.900 (40%) |",
        "| cremad | +8.0 [+7.0, +9.0] | +1.5 [+0.5, +2.5] | -0.5 [-1.5, +0.5] |",
        "| home, warm | 700 | 0.031 | 0.900 (40%) |",
        "| 0.15 | 0.075 (50%) | 0.075 (50%) | 0.075 (50%) | 0.075 (50%) |",
        "| 1.00 | 0.97: 0.95 (70) | 0.97: 0.95 (70) |",
        "| noise at 10 dB | 0.750 | -3.0 [-4.0, -2.0] | 0.900 (40%) |",
        "| speech | 1,000,000 |",
        "| in: voice | float32 | (1, 17) | a voice profile: utterances heard, mean and deviation of their embeddings; "
        "zeros for a fresh one |",
    ):
        assert row in card
    assert "1,234,567 parameters" in card
    assert "| nemo | 200 | 0.520 [" in card and "| 0.8 s | 1.6 s | 2.4 s | 3.2 s | to the end |" in card
    assert "| 0 | 1 to 2 | 3 to 5 | 6 to 10 | 11 to 20 | 21 on |" in card
    assert "UA on 2000 validation clips: 0.8010 before, 0.7990 after" in card
    assert "Blocks sent back to float: speech/stem." in card
    assert "constructed pairs" in card and "Article 5(1)(f)" in card


def test_a_bundle_that_nobody_has_judged_yet_has_a_card(tiny: Path) -> None:
    card = card_of(tiny, {})
    assert "an unknown number of parameters" in card and "## Training data" in card
    assert "Accuracy" not in card and "Known failures" not in card and "INT8 against fp32" not in card


def test_failures_follow_from_the_figures(tiny: Path) -> None:
    assert "urdu, cold: UA 0.500" in failures(card_of(tiny, evaluation()))
    good = evaluation()
    del good["corpora"]["urdu"]
    assert "None by this rule." in failures(card_of(tiny, good))
    bad = evaluation()
    bad["corpora"]["nemo"]["warm"]["certain_accuracy"] = 0.7
    bad["corpora"]["emovo"]["wrong_voice"] = {"difference": -0.05, "difference_interval": [-0.08, -0.02]}
    bad["pooled"]["away"]["cold"]["recall"] = [0.9, 0.3, 0.9, None]
    bad["robustness"]["conditions"][3].update(difference=-0.07, difference_interval=[-0.09, -0.05])
    bad["non_speech"]["confident_share"] = 0.02
    listed = failures(card_of(tiny, bad))
    for line in (
        "nemo, warm: only 70% of the certain answers (40% of all) are right.",
        "emovo: a stranger's voice profile costs, -5.0 [-8.0, -2.0] points.",
        "away, cold: *happy* is found in only 30% of its utterances.",
        "room: -7.0 [-9.0, -5.0] points.",
        "sound that is no speech: 2.0% of the answers are confident.",
    ):
        assert f"- {line}" in listed
    few = evaluation()
    few["corpora"]["nemo"]["warm"].update(certain_accuracy=0.5, certain_share=0.01)
    assert "nemo, warm" not in failures(card_of(tiny, few))


def adapted(model: str) -> dict[str, Any]:
    """What benchmarks/adapt.py writes."""
    found = {str(k): {"ua": 0.6 + k / 100, "ua_interval": [0.5, 0.9], "gain": 0.1, "ua_by_draw": [0.6]} for k in (0, 5)}
    rows = {row: found for row in ("stranger, first words", "stranger, voice known", "own voice, first words")}
    return {"model": model, "draws": 5, "corpora": {name: {"speakers": 4, "rows": rows} for name in ("emovo", "ased")}}


def test_a_manifest_keeps_little_and_enough(tiny: Path) -> None:
    metrics = compact(evaluation(), adapted("tiny"))
    assert len(json.dumps(metrics)) < LARGEST_METRICS
    assert "confusion" not in json.dumps(metrics) and "risk_coverage" not in json.dumps(metrics)
    assert compact(metrics) == metrics


def test_figures_enter_the_bundle_and_the_copy_links_to_its_pictures(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, copy = tmp_path / "tiny.json", tmp_path / "pictures"
    results.write_text(json.dumps(evaluation()))
    (tmp_path / "adapt.json").write_text(json.dumps(adapted("another")))
    (tmp_path / "adapt-tiny.json").write_text(json.dumps(adapted("tiny")))
    copy.mkdir()
    (copy / "reliability.png").touch()
    assert main([str(tiny), "--metrics", str(results), "--copy", str(copy)]) == 0
    bundle = Bundle.open(tiny)
    card = bundle.read("MODEL_CARD.md").decode()
    assert card == render_card(bundle.manifest, {}) and "](" not in card
    assert "| ased | stranger, voice known | 0.600 [0.500, 0.900] | 0.650 [0.500, 0.900] |" in card
    assert "![reliability](reliability.png)" in (copy / "MODEL_CARD.md").read_text(encoding="utf-8")
    results.write_text(json.dumps(evaluation("another")))
    assert main([str(tiny), "--metrics", str(results)]) == 1
    assert "is about another" in capsys.readouterr().err


def test_a_research_model_says_what_it_may_not_do(tiny: Path) -> None:
    manifest = Bundle.open(tiny).manifest
    assert "no commercial use" in render_card(replace(manifest, name="mdat-research-int8"), {})
    assert "no commercial use" not in render_card(manifest, {})
    encoder: dict[str, Any] = {"settings": {"encoder": {"tier": "research", "passes": 2}}}
    card = render_card(replace(manifest, name="mdat-research-int8", provenance=encoder), {})
    assert "python export/to_onnx.py train/checkpoints/research/mdat.safetensors" in card
    chain = [
        "encoder.toml",
        "--start runs/encoder ",
        "--start runs/encoder-longer ",
        "python -m train.voices --out runs/spoken-voices",
        "--spoken runs/spoken-voices --start runs/encoder-cut ",
        "--spoken runs/spoken-voices --start runs/encoder-voices ",
        "train.voices --settings train/configs/students/encoder-passes-research.toml --out runs/spoken-research",
        "--spoken runs/spoken-research --start runs/encoder-passes ",
        "--encoder runs/encoder-passes-research ",
    ]
    places = [card.index(step) for step in chain]
    assert places == sorted(places) and "--run runs/students-research" in card
    # Voices are heard from their own stage on, and the research tier's by no other.
    assert "--spoken runs/spoken --start runs/encoder-longer " in card
    encoder["settings"]["encoder"]["passes"] = 1
    once = render_card(replace(manifest, name="mdat-research-int8", provenance=encoder), {})
    assert "--start runs/encoder-voices --run runs/encoder-research\n" in once and "encoder-passes" not in once
    clean = render_card(replace(manifest, provenance={"settings": {"encoder": {"tier": "clean"}}}), {})
    assert "--spoken runs/spoken-voices --encoder runs/encoder-voices " in clean and "spoken-research" not in clean


def test_a_card_says_how_often_an_utterance_is_heard(tiny: Path) -> None:
    manifest = Bundle.open(tiny).manifest

    def card(**model: object) -> str:
        return render_card(replace(manifest, provenance={"settings": {"model": model}}), {})

    assert "transformer layers 2 times" in card(speech_passes=2)
    assert " times." not in card(speech_passes=1)
