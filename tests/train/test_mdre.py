"""MDRE: the recurrent comparator, in both kinds."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from edge_ser.errors import ConfigError  # noqa: E402
from train.systems import count_parameters  # noqa: E402
from train.systems.mdre import PRESETS, LastState, Mdre, MdreConfig  # noqa: E402


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
