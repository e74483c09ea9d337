from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from edge_ser.errors import ConfigError  # noqa: E402
from edge_ser.metrics import confusion_matrix, unweighted_accuracy  # noqa: E402
from train.examples import collate  # noqa: E402
from train.synthetic import synthetic_examples  # noqa: E402
from train.systems import count_parameters, drop_modalities  # noqa: E402
from train.systems.baselines import PRESETS, BiLstm, BiLstmConfig  # noqa: E402
from train.systems.mdat import MdatConfig  # noqa: E402

TINY = PRESETS["tiny"]
POOLS = ("mean", "last")


def build(config: BiLstmConfig = TINY) -> BiLstm:
    torch.manual_seed(0)
    return BiLstm(config).eval()


def batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "speech": torch.randn(2, 7, 16),
        "speech_mask": torch.tensor([[1.0] * 7, [1.0] * 4 + [0.0] * 3]),
        "text": torch.randn(2, 5, 12),
        "text_mask": torch.tensor([[1.0] * 3 + [0.0] * 2, [1.0] * 5]),
    }


def test_mdat_check_09_parameters_of_the_bilstm() -> None:
    model = BiLstm(PRESETS["paper"])
    assert count_parameters(model) == 2_167_428
    assert model.parts() == {"recurrent": 2_101_248, "dense": 65_664, "classifier": 516}


@pytest.mark.parametrize("pool", POOLS)
def test_padding_changes_nothing(pool: str) -> None:
    model, inputs = build(replace(TINY, pool=pool)), batch()
    longer = dict(inputs)
    for name in ("speech", "text"):
        longer[name] = torch.cat([inputs[name], torch.randn(2, 4, inputs[name].shape[2]) * 50], dim=1)
        longer[f"{name}_mask"] = torch.cat([inputs[f"{name}_mask"], torch.zeros(2, 4)], dim=1)
    assert torch.allclose(model(inputs).logits, model(longer).logits, atol=1e-5)


@pytest.mark.parametrize("pool", POOLS)
def test_one_by_one_is_as_in_a_batch(pool: str) -> None:
    model, inputs = build(replace(TINY, pool=pool)), batch()
    alone = {"speech": inputs["speech"][1:, :4], "text": inputs["text"][1:]}
    assert torch.allclose(model(alone).logits[0], model(inputs).logits[1], atol=1e-5)


@pytest.mark.parametrize("pool", POOLS)
def test_a_missing_modality_is_zeros_whatever_stands_there(pool: str) -> None:
    model, inputs = build(replace(TINY, pool=pool)), batch()
    inputs["text_mask"] = torch.zeros(2, 5)
    logits = model(inputs).logits
    assert torch.isfinite(logits).all()
    assert torch.allclose(logits, model({**inputs, "text": torch.randn(2, 5, 12)}).logits, atol=1e-6)
    absent = {name: value for name, value in inputs.items() if not name.startswith("text")}
    assert torch.allclose(logits, model(absent).logits, atol=1e-6)


@pytest.mark.parametrize("modality", ["speech", "text"])
def test_alone_a_modality_does_not_read_the_other(modality: str) -> None:
    model, inputs = build(replace(TINY, modalities=modality)), batch()
    other = "text" if modality == "speech" else "speech"
    changed = {**inputs, other: torch.randn_like(inputs[other])}
    assert torch.equal(model(inputs).logits, model(changed).logits)
    assert model.dense.in_features == 2 * TINY.hidden


def test_modality_dropout_is_mdats_and_leaves_no_utterance_without_anything() -> None:
    assert PRESETS["paper"].modality_dropout == MdatConfig().modality_dropout
    torch.manual_seed(0)
    whole = torch.ones(4000, 3)
    alone = torch.cat([torch.ones(2000, 3), torch.zeros(2000, 3)])
    masks = drop_modalities({"speech": whole, "text": alone}, 0.15, True)
    speech, text = masks["speech"].amax(1), masks["text"].amax(1)
    assert torch.equal(speech[2000:], torch.ones(2000))
    assert (speech + text).min() == 1
    for mask in (speech, text):
        assert float(1 - mask[:2000].mean()) == pytest.approx(0.15, abs=0.03)
    untouched = drop_modalities({"speech": whole, "text": alone}, 0.15, False)
    assert torch.equal(untouched["speech"], whole) and torch.equal(untouched["text"], alone)


def test_the_loss_holds_the_squared_weights_of_the_dense_layer() -> None:
    model, inputs = build(), batch()
    targets = {"emotion": torch.tensor([0, 2])}
    output = model(inputs)
    plain = torch.nn.functional.cross_entropy(output.logits, targets["emotion"])
    penalty = 1e-4 * model.dense.weight.square().sum()
    assert torch.allclose(model.loss(output, targets), plain + penalty)


def test_it_learns_the_synthetic_language() -> None:
    model = build().train()
    train, test = synthetic_examples(0, 4, 6, 0), synthetic_examples(0, 2, 6, 1)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(30):
        inputs, targets = collate(train)
        optimiser.zero_grad()
        model.loss(model(inputs), targets).backward()
        optimiser.step()
    inputs, targets = collate(test)
    chosen = model.eval()(inputs).logits.argmax(1).numpy()
    assert unweighted_accuracy(confusion_matrix(targets["emotion"].numpy(), np.asarray(chosen), 4)) > 0.7


def test_unknown_switches_are_refused() -> None:
    with pytest.raises(ConfigError, match="mean or last"):
        BiLstmConfig(pool="max")
    with pytest.raises(ConfigError, match=r"0 to 0\.5"):
        BiLstmConfig(modality_dropout=0.6)
    with pytest.raises(ConfigError, match="speech or text"):
        BiLstmConfig(modalities="video")
