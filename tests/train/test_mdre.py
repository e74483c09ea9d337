"""MDRE: the recurrent comparator, in both kinds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from edge_ser.errors import ConfigError  # noqa: E402
from edge_ser.mfcc import mfcc39  # noqa: E402
from train.examples import Example, collate  # noqa: E402
from train.experiment import Workbench, read_experiment  # noqa: E402
from train.feature_kinds import hand_crafted  # noqa: E402
from train.systems import count_parameters  # noqa: E402
from train.systems.mdre import PRESETS, LastState, Mdre, MdreConfig  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "train" / "configs"


def build(kind: str, **switches: object) -> Mdre:
    torch.manual_seed(0)
    return Mdre(replace(PRESETS["tiny"], kind=kind, **switches)).eval()


def batch(rows: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"speech": (9, 12), "mfcc": (20, 39), "text": (5, 16)}
    inputs = {"prosody": torch.randn(rows, 103, generator=generator)}
    for name, (length, width) in shapes.items():
        inputs[name] = torch.randn(rows, length, width, generator=generator)
        inputs[f"{name}_mask"] = torch.ones(rows, length)
        inputs[f"{name}_mask"][-1, -3:] = 0
    return inputs


def test_paper_sizes() -> None:
    paper = PRESETS["paper"]
    assert (paper.mfcc_width, paper.audio_steps, paper.hidden) == (39, 750, 200)
    assert (paper.text_len, paper.embedding, paper.prosody_width, paper.dropout) == (128, 300, 103, 0.3)
    # 750 steps are 7.5 s: the last frame begins 7.49 s into the clip.
    wave = np.random.default_rng(0).standard_normal(16_000 * 10).astype(np.float32)
    settings = read_experiment(CONFIGS / "smoke" / "mdre.toml").features["mfcc"]
    ten, twenty = hand_crafted(settings)(wave), mfcc39(wave)
    assert len(ten) > paper.audio_steps and len(ten) == 2 * len(twenty) - 1
    np.testing.assert_array_equal(ten[::2, :13], twenty[:, :13])
    for preset in PRESETS.values():
        model = Mdre(replace(preset, vocabulary=50))
        assert sum(model.parts().values()) == count_parameters(model)


@pytest.mark.parametrize("kind", ["classic", "ssl"])
def test_padding_changes_nothing_and_a_batch_equals_its_rows(kind: str) -> None:
    model, inputs = build(kind), batch()
    together = model(inputs)
    assert together.logits.shape == (3, 4)
    changed = {
        name: x if x.dim() < 3 else torch.where(inputs[f"{name}_mask"][..., None] > 0, x, torch.tensor(5.0))
        for name, x in inputs.items()
    }
    assert torch.allclose(model(changed).logits, together.logits, atol=1e-6)
    alone = {name: x[2:] for name, x in inputs.items()}
    for name in ("speech", "mfcc", "text"):
        alone |= {name: alone[name][:, :-3], f"{name}_mask": alone[f"{name}_mask"][:, :-3]}
    assert torch.allclose(model(alone).logits[0], together.logits[2], atol=1e-6)


@pytest.mark.parametrize("kind", ["classic", "ssl"])
def test_every_part_learns_and_both_sides_matter(kind: str) -> None:
    model, inputs = build(kind).train(), batch()
    model.loss(model(inputs), {"emotion": torch.tensor([0, 1, 2])}).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    model.eval()
    plain = model(inputs).logits
    audio = "mfcc" if kind == "classic" else "speech"
    for name in (audio, "text", *(["prosody"] if kind == "classic" else [])):
        assert not torch.allclose(model(inputs | {name: inputs[name] + 1}).logits, plain, atol=1e-4)


@pytest.mark.parametrize("kind", ["classic", "ssl"])
def test_absent_text_is_the_same_as_masked_text(kind: str) -> None:
    model, inputs = build(kind), batch()
    absent = {name: x for name, x in inputs.items() if not name.startswith("text")}
    masked = inputs | {"text_mask": inputs["text_mask"] * 0}
    assert torch.allclose(model(absent).logits, model(masked).logits)
    assert torch.isfinite(model(absent).logits).all()


def test_the_last_state_is_that_of_the_last_valid_step() -> None:
    torch.manual_seed(0)
    reader, x = LastState(4, 3), torch.randn(2, 6, 4)
    mask = torch.tensor([[1.0] * 6, [1.0, 1, 0, 0, 0, 0]])
    _, whole = reader.gru(x[:1])
    _, short = reader.gru(x[1:, :2])
    assert torch.allclose(reader(x, mask), torch.cat([whole[0], short[0]]), atol=1e-6)


def test_own_token_vectors_read_ids() -> None:
    model = build("classic", vocabulary=50)
    inputs = batch() | {"text": torch.randint(0, 50, (3, 5, 1)).float()}
    assert model(inputs).logits.shape == (3, 4)
    other = inputs | {"text": (inputs["text"] + 1) % 50}
    assert not torch.allclose(model(other).logits, model(inputs).logits, atol=1e-4)


def test_longer_input_is_cut() -> None:
    model, inputs = build("ssl", audio_steps=4, text_len=2), batch()
    cut = {
        "speech": inputs["speech"][:, :4],
        "speech_mask": inputs["speech_mask"][:, :4],
        "text": inputs["text"][:, :2],
        "text_mask": inputs["text_mask"][:, :2],
    }
    assert torch.equal(model(inputs).logits, model(cut).logits)


def test_wrong_kind_or_features_are_configuration_errors() -> None:
    with pytest.raises(ConfigError, match="kind is 'lstm'; need classic or ssl"):
        MdreConfig(kind="lstm")
    with pytest.raises(ConfigError, match="has no mfcc, prosody; need mfcc and prosody"):
        build("classic")({name: x for name, x in batch().items() if name.startswith(("speech", "text"))})
    with pytest.raises(ConfigError, match="has no text; need it for modalities = 'text'"):
        build("classic", modalities="text")({name: x for name, x in batch().items() if "text" not in name})
    with pytest.raises(ConfigError, match="hop_ms is 5; need 20 or 10"):
        mfcc39(np.ones(800, np.float32), hop_ms=5)


def clips(scale: float = 1.0) -> list[Example]:
    """Clips whose prosody is in hertz and decibels, as measured on speech: -21 to 209."""
    rng = np.random.default_rng(0)
    return [
        Example(
            Path(f"{place}.wav"),
            "s",
            "made",
            {
                "mfcc": (scale * (rng.standard_normal((20 + place, 39)) * 4 - 9)).astype(np.float32),
                "prosody": (scale * rng.uniform(-21, 209, 103)).astype(np.float32),
                "text": rng.standard_normal((5, 16)).astype(np.float32),
            },
            emotion=place % 4,
        )
        for place in range(12)
    ]


def test_classic_features_count_the_same_whatever_their_units() -> None:
    first, second = build("classic"), build("classic")
    first.fit_statistics(clips())
    second.fit_statistics(clips(100.0))
    inputs, scaled = collate(clips())[0], collate(clips(100.0))[0]
    torch.testing.assert_close(first(inputs).logits, second(scaled).logits, atol=1e-3, rtol=1e-3)
    standard = first.standard_prosody(inputs["prosody"])
    assert float(standard.mean()) == pytest.approx(0, abs=1e-4) and float(standard.std()) < 1.2
    # They go with the weights, and are none.
    fresh = build("classic")
    fresh.load_state_dict(first.state_dict())
    assert torch.equal(fresh(inputs).logits, first(inputs).logits)
    assert sum(first.parts().values()) == count_parameters(first)
    build("ssl").fit_statistics([])
    with pytest.raises(ConfigError, match="no example has mfcc"):
        first.fit_statistics([])


def test_a_row_without_prosody_reads_the_mean_of_the_training_set() -> None:
    model = build("classic")
    model.fit_statistics(clips())
    rows = clips()[:2]
    without = replace(rows[1], features={name: x for name, x in rows[1].features.items() if name != "prosody"})
    average = np.asarray(model.standard_prosody.mean)
    averaged = replace(rows[1], features={**rows[1].features, "prosody": average})
    said, same = (model(collate([rows[0], row])[0]).logits for row in (without, averaged))
    torch.testing.assert_close(said, same, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("modalities", ["speech", "text"])
def test_one_modality_alone_needs_nothing_of_the_other(modalities: str) -> None:
    for kind in ("classic", "ssl"):
        model, inputs = build(kind, modalities=modalities), batch()
        own = {name: x for name, x in inputs.items() if name.startswith("text") == (modalities == "text")}
        assert torch.equal(model(own).logits, model(inputs).logits)
        assert model(own).embedding.shape == (3, 8)
        assert sum(model.parts().values()) == count_parameters(model)


@pytest.mark.parametrize("path", ["smoke/mdre.toml", "desk/fusion.toml"])
def test_settings_files_name_it(path: str, tmp_path: Path) -> None:
    from train.protocols.variants import read_settings, variants_of

    variants = variants_of(read_settings(CONFIGS / path), tmp_path)
    (found,) = (variant.experiment for variant in variants if variant.experiment.system == "mdre")
    assert Workbench(found, None, tmp_path).kind is Mdre
