"""Every number that the published descriptions give for a size, against what is built."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from edge_ser.errors import ConfigError  # noqa: E402
from train import sizes, true_size  # noqa: E402
from train.encoders import load_encoder  # noqa: E402
from train.systems.lora_multilingual import PRESETS as LORA  # noqa: E402
from train.systems.lora_multilingual import LoraSer  # noqa: E402
from train.systems.mha_fusion import PRESETS as MHA  # noqa: E402
from train.systems.mha_fusion import MhaFusion  # noqa: E402

CAMULENET = {
    "alexnet_conv": 2_454_208,
    "bigru": 1_640_448,
    "w_w": 1_051_648,
    "heads": 410_501,
    "speech_encoder": 307_216_384,
}
SEVEN_SEVEN = {"alexnet_fc6": 37_752_832, "alexnet_fc7": 16_781_312, "w_s": 4_195_328}
LONG = {"w_ms": 3_073_500, "w_q": 2_254_500, "head: position query, w_ms and w_q": 5_328_000}

PUBLISHED: dict[tuple[str, str], dict[str, int]] = {
    ("mdat", "paper"): {
        "align_text": 787_456,
        "graph": 1_050_624,
        "co_attention": 2_099_200,
        "transformers": 50_372_608,
        "classifier": 1_049_860,
        "head": 55_359_748,
        "missing_modality": 4_096,
        "speech_encoder": 315_438_720,
        "text_encoder": 277_453_056,
        "total": 648_251_524,
    },
    ("mdat", "paper-roberta-base"): {"head": 55_359_748, "text_encoder": 124_055_040, "total": 494_853_508},
    ("mdat", "edge-head"): {"head": 5_650_692, "missing_modality": 1_024},
    ("bilstm", "paper"): {"head": 2_167_428},
    ("hump-cat", "paper"): {
        "layer_fusion": 98_560,
        "conv": 2_896,
        "projection": 128_544,
        "prosody": 8_736,
        "mfcc": 7_296,
        "cross_attention": 50_816,
        "self_attention": 8_576,
        "classifier": 256,
        "head": 305_680,
        "speech_encoder": 73_108_096,
        "total": 73_413_776,
    },
    ("hump-cat", "paper-12-layers"): {"speech_encoder": 94_371_712, "total": 94_677_392},
    ("hump-cat", "prosody-mfcc"): {"head": 50_272, "total": 50_272},
    ("mean-pool", "paper"): {"head": 3_076},
    ("camulenet", "paper"): {**CAMULENET, **SEVEN_SEVEN, **LONG, "w_m": 525_312, "head": 70_139_589},
    ("camulenet", "published-flattened"): {
        **CAMULENET,
        **SEVEN_SEVEN,
        **LONG,
        "w_m": 262_669_312,
        "head": 332_283_589,
    },
    ("camulenet", "pool-tap"): {**CAMULENET, **LONG, "w_m": 525_312, "head": 20_848_325},
    ("camulenet", "five-second"): {
        **CAMULENET,
        **SEVEN_SEVEN,
        "w_m": 525_312,
        "head: position query, w_ms and w_q": 575_500,
        "head": 65_387_089,
    },
    ("mha", "paper"): {
        "project_text": 787_200,
        "attention_text": 2_362_368,
        "attention_speech": 2_362_368,
        "hidden": 393_472,
        "classify": 1_799,
        "missing_modality": 1_536,
        "head": 5_907_207,
        "speech_encoder": 94_371_712,
        "text_encoder": 354_310_144,
        "total": 454_589_063,
    },
    ("mha", "paper-cross"): {"head": 5_907_207, "total": 454_589_063},
    ("lora", "paper"): {
        "encoder": 315_453_120,
        "lora": 14_155_776,
        "lora: one layer": 589_824,
        "lora: one layer's attention": 262_144,
        "lora: one layer's feed-forward": 327_680,
        "head": 393_987,
        "head: attentive pooling": 131_328,
        "head: layers": 262_659,
        "encoder_and_lora": 329_608_896,
        "total": 330_002_883,
        "trainable": 14_549_763,
    },
    ("lora", "paper-hubert"): {
        "encoder": 315_438_720,
        "lora": 14_155_776,
        "total": 329_988_483,
        "trainable": 14_549_763,
    },
    ("encoders", "facebook/wav2vec2-base"): {"encoder": 94_371_712},
    ("encoders", "facebook/wav2vec2-base-960h"): {"encoder": 94_371_712},
    ("encoders", "facebook/hubert-base-ls960"): {"encoder": 94_371_712},
    ("encoders", "microsoft/wavlm-base"): {"encoder": 94_381_936},
    ("encoders", "microsoft/wavlm-base-plus"): {"encoder": 94_381_936},
    ("encoders", "facebook/wav2vec2-xls-r-300m"): {"encoder": 315_438_720},
    ("encoders", "facebook/hubert-large-ll60k"): {"encoder": 315_438_720},
    ("encoders", "microsoft/wavlm-large"): {"encoder": 315_453_120},
    ("encoders", "openai/whisper-medium"): {"encoder": 307_216_384},
    ("encoders", "openai/whisper-small"): {"encoder": 88_154_112},
    ("encoders", "openai/whisper-base"): {"encoder": 20_590_592},
    ("encoders", "openai/whisper-tiny"): {"encoder": 8_208_384},
    ("encoders", "roberta-base"): {"encoder": 124_055_040},
    ("encoders", "roberta-large"): {"encoder": 354_310_144, "encoder_with_pooler": 355_359_744},
    ("encoders", "xlm-roberta-base"): {"encoder": 277_453_056},
    ("encoders", "xlm-roberta-large"): {"encoder": 558_840_832},
}


@pytest.fixture(scope="module")
def built() -> list[sizes.Size]:
    return sizes.sizes()


@pytest.mark.parametrize("name", PUBLISHED, ids="-".join)
def test_sizes_are_the_published_ones(built: list[sizes.Size], name: tuple[str, str]) -> None:
    counted = {size.part: size.parameters for size in built if (size.system, size.preset) == name}
    assert {part: counted.get(part) for part in PUBLISHED[name]} == PUBLISHED[name]


def test_each_part_is_listed_once(built: list[sizes.Size]) -> None:
    keys = [(size.system, size.preset, size.part) for size in built]
    assert len(keys) == len(set(keys))
    assert all(size.parameters > 0 for size in built)


def test_parts_sum_to_their_head_without_what_stands_for_a_missing_modality(built: list[sizes.Size]) -> None:
    for system, preset in {(size.system, size.preset) for size in built if size.part == "total"} - {
        ("lora", "paper"),
        ("lora", "paper-hubert"),
    }:
        rows = {size.part: size.parameters for size in built if (size.system, size.preset) == (system, preset)}
        rows = {part: count for part, count in rows.items() if ": " not in part}
        encoders = rows.pop("speech_encoder", 0) + rows.pop("text_encoder", 0)
        total, head = rows.pop("total"), rows.pop("head")
        rows.pop("missing_modality", 0)
        assert sum(rows.values()) == head
        assert head + encoders == total


def test_parts_of_a_part_sum_to_it_and_bear_its_name(built: list[sizes.Size]) -> None:
    for preset in ("paper", "paper-hubert"):
        rows = {size.part: size.parameters for size in built if (size.system, size.preset) == ("lora", preset)}
        assert rows["head: attentive pooling"] + rows["head: layers"] == rows["head"]
        assert 24 * rows["lora: one layer"] == rows["lora"]
        assert rows["lora: one layer's attention"] + rows["lora: one layer's feed-forward"] == rows["lora: one layer"]
    assert {size.part.partition(": ")[0] for size in built if ": " in size.part} == {"head", "lora"}


def test_the_command_prints_a_list_of_plain_integers(capsys: pytest.CaptureFixture[str]) -> None:
    sizes.main(["--system", "mha", "--format", "json"])
    rows = json.loads(capsys.readouterr().out)
    assert rows == [asdict(size) for size in sizes.mha_sizes()]
    assert {*rows[0]} == {"system", "preset", "part", "parameters"}
    assert all(type(row["parameters"]) is int for row in rows)
    sizes.main(["--system", "mha"])
    assert "5,907,207" in capsys.readouterr().out


def test_an_unknown_system_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="no system mdta; need one of mdat"):
        sizes.sizes("mdta")


def _tiny_trial() -> true_size.Trial:
    config = replace(MHA["tiny"], speech_width=32, text_width=32)
    return true_size.Trial(lambda: MhaFusion(config), 0.3, "tiny:wav2vec2", "tiny:roberta")


def _tiny_lora() -> LoraSer:
    system = LoraSer(LORA["tiny"])
    system.begin(LORA["tiny"].languages[1])
    return system


def test_a_step_reports_cost_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    # Encoders of the tiny kind in place of those of true size.
    monkeypatch.setattr(
        true_size, "load_encoder", lambda source, whisper_pad_s: load_encoder(source.removeprefix("random:"))
    )
    report = true_size.step(_tiny_trial(), "cpu")
    assert report["loss_is_finite"] and not report["with_infinite_gradient"]
    assert report["frozen_tensors_with_gradient"] == 0
    assert report["tensors_with_gradient"] == report["tensors_that_moved"]
    assert "missing_modality.text" not in report["without_gradient"]
    assert report["peak_memory_gib"] > 0


def test_the_second_step_shows_every_adapter() -> None:
    report = true_size.step(true_size.Trial(_tiny_lora, 0.3, steps=2), "cpu")
    assert report["without_gradient"] == []
    assert report["frozen_tensors"] > 0 and report["frozen_tensors_with_gradient"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", true_size.TRIALS)
def test_one_step_at_true_size(name: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    true_size.main(["--system", name, "--out", str(tmp_path / "report.json")])
    report = json.loads((tmp_path / "report.json").read_text())[0]
    assert report["loss_is_finite"] and not report["with_infinite_gradient"]
    assert report["frozen_tensors_with_gradient"] == 0
    assert report["tensors_that_moved"] > 0
