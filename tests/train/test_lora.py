from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from torch import nn  # noqa: E402

from edge_ser.errors import ConfigError  # noqa: E402
from train import lora  # noqa: E402
from train.encoders import Encoder, load_encoder  # noqa: E402

FAMILIES = ("wav2vec2", "hubert", "wavlm", "wavlm-base", "hubert-base", "whisper", "roberta", "xlm-roberta")


def adapted(name: str, dropout: float = 0.0, seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    encoder = load_encoder(name if ":" in name else f"tiny:{name}")
    lora.wrap_lora(encoder, rank=4, alpha=8.0, dropout=dropout)
    lora.add_adapter(encoder, "it")
    lora.set_active(encoder, ["it"])
    return encoder.set_mode("lora")


def batch(encoder: Encoder, samples: int = 6_000) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    if encoder.modality == "text":
        return torch.randint(4, 250, (2, 9), generator=generator), torch.ones(2, 9)
    return torch.randn(2, samples, generator=generator) * 0.1, torch.ones(2, samples)


def last(encoder: Encoder) -> torch.Tensor:
    return encoder.encode(*batch(encoder))[0][-1]


def disturb(encoder: Encoder, name: str, seed: int = 2) -> None:
    generator = torch.Generator().manual_seed(seed)
    for layer in lora.lora_layers(encoder):
        shape = layer.lora_b[name].shape
        layer.lora_b[name].data.copy_(0.3 * torch.randn(shape, generator=generator))


def steps(encoder: Encoder, count: int, samples: int = 6_000) -> list[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Train so many steps; return each step's gradients of A and B of every wrapped matrix."""
    optimiser = torch.optim.Adam([p for p in encoder.parameters() if p.requires_grad], lr=1e-3)
    inputs, mask = batch(encoder, samples)
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(encoder.width, generator=generator) / encoder.width**0.5
    gradients = []
    for _ in range(count):
        optimiser.zero_grad()
        states, _ = encoder.encode(inputs, mask)
        # A random direction: the mean over a final layer norm alone would have no gradient.
        (states[-1] @ direction - 1.0).square().mean().backward()
        pairs = [(layer.lora_a["it"].grad, layer.lora_b["it"].grad) for layer in lora.lora_layers(encoder)]
        gradients.append([(a.clone(), b.clone()) for a, b in pairs])
        optimiser.step()
    return gradients


def alive(gradient: torch.Tensor) -> bool:
    return bool(torch.isfinite(gradient).all()) and bool(gradient.abs().max() > 0)


@pytest.mark.parametrize("name", FAMILIES)
def test_all_six_matrices_of_each_layer_are_wrapped(name: str) -> None:
    encoder = adapted(name)
    assert len(lora.lora_layers(encoder)) == 2 * 6
    numbers = sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad)
    assert numbers == lora.lora_parameters(2, 32, 64, 4)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_a_and_b_learns(name: str) -> None:
    first, second = steps(adapted(name), 2)
    assert all(bool((a == 0).all()) and alive(b) for a, b in first)
    assert all(alive(a) and alive(b) for a, b in second)


class CalledLora(nn.Module):
    """An adapter as most libraries have it: it acts when it is called, and its `weight` is the base's."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.lora_a = nn.Parameter(0.3 * torch.randn(4, base.in_features))
        self.lora_b = nn.Parameter(0.3 * torch.randn(base.out_features, 4))

    @property
    def weight(self) -> torch.Tensor:
        return self.base.weight

    @property
    def bias(self) -> torch.Tensor:
        return self.base.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + x @ self.lora_a.T @ self.lora_b.T


def stock(encoder: Encoder, inputs: torch.Tensor) -> torch.Tensor:
    """What the library's own forward makes of waveforms of one length."""
    normalised = (inputs - inputs.mean(1, keepdim=True)) / torch.sqrt(
        inputs.var(1, unbiased=False, keepdim=True) + 1e-7
    )
    return encoder.model(normalised).last_hidden_state


def test_the_stock_wavlm_attention_leaves_adapters_that_must_be_called_without_effect_and_ours_does_not() -> None:
    torch.manual_seed(0)
    encoder = load_encoder("tiny:wavlm").set_mode("frozen").eval()
    inputs, _ = batch(encoder)
    plain = stock(encoder, inputs)
    attention = encoder.layers[0].attention
    made = [CalledLora(getattr(attention, name)) for name in lora.ATTENTION_TARGETS]
    for name, adapter in zip(lora.ATTENTION_TARGETS, made, strict=True):
        setattr(attention, name, adapter)
    # It reads the weights and never calls the matrices: not a bit differs, and nothing could learn.
    assert torch.equal(stock(encoder, inputs), plain)
    assert not stock(encoder, inputs).requires_grad
    last(encoder).square().sum().backward()
    assert all(alive(adapter.lora_a.grad) and alive(adapter.lora_b.grad) for adapter in made)


def test_the_stock_wavlm_attention_sees_our_adapters_through_the_composed_weight() -> None:
    encoder = adapted("wavlm")
    disturb(encoder, "it")
    called = []
    for name in lora.ATTENTION_TARGETS:
        getattr(encoder.layers[0].attention, name).register_forward_hook(lambda *_: called.append(1))
    ours = last(encoder)
    assert len(called) == 4
    with torch.no_grad():
        published = stock(encoder, batch(encoder)[0])
    assert len(called) == 4
    torch.testing.assert_close(published, ours, atol=1e-4, rtol=1e-3)


def test_the_composed_weight_is_what_the_layer_does() -> None:
    layer = lora.LoraLinear(nn.Linear(5, 7), rank=2, alpha=4.0, dropout=0.5).eval()
    layer.add("it")
    layer.add("am")
    layer.lora_b["it"].data.normal_()
    layer.lora_b["am"].data.normal_()
    x = torch.randn(3, 5)
    for active in ((), ("it",), ("it", "am")):
        layer.active = active
        torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
    assert (layer.in_features, layer.out_features, layer.scale) == (5, 7, 2.0)


def test_several_adapters_act_as_their_mean() -> None:
    encoder = adapted("hubert")
    lora.add_adapter(encoder, "am")
    disturb(encoder, "it")
    for layer in lora.lora_layers(encoder):
        layer.lora_a["am"].data.copy_(layer.lora_a["it"])
        layer.lora_b["am"].data.copy_(-layer.lora_b["it"])
    lora.set_active(encoder, [])
    plain = last(encoder)
    lora.set_active(encoder, ["it", "am"])
    torch.testing.assert_close(last(encoder), plain, atol=1e-5, rtol=1e-4)


def test_dropout_acts_before_the_adapter_in_training_alone() -> None:
    encoder = adapted("hubert", dropout=0.5)
    disturb(encoder, "it")
    assert torch.equal(last(encoder.eval()), last(encoder.eval()))
    assert not torch.equal(last(encoder.train()), last(encoder.train()))
    assert not encoder.model.encoder.dropout.training


def test_only_the_acting_adapter_learns() -> None:
    encoder = adapted("hubert")
    lora.add_adapter(encoder, "am")
    encoder.set_mode("lora")
    learning = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert learning and all(name.endswith(".it") for name in learning)
    encoder.set_mode("frozen")
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    encoder.set_mode("finetuned")
    assert not any(p.requires_grad for n, p in encoder.named_parameters() if ".lora_" in n)


@pytest.mark.parametrize("name", ["wavlm", "hubert", "whisper"])
def test_merging_says_the_same_and_unmerging_restores_every_bit(name: str) -> None:
    encoder = adapted(name)
    disturb(encoder, "it")
    weights = [layer.base.weight.clone() for layer in lora.lora_layers(encoder)]
    before = last(encoder).detach()
    lora.merge(encoder)
    lora.merge(encoder)
    torch.testing.assert_close(last(encoder).detach(), before, atol=1e-5, rtol=1e-4)
    with pytest.raises(ConfigError, match="merged"):
        lora.set_active(encoder, [])
    lora.unmerge(encoder)
    restored = [layer.base.weight for layer in lora.lora_layers(encoder)]
    assert all(torch.equal(a, b) for a, b in zip(weights, restored, strict=True))
    assert torch.equal(last(encoder), before)


def test_fingerprints_know_which_adapter_acts() -> None:
    encoder = adapted("hubert")
    lora.set_active(encoder, [])
    assert encoder.fingerprint() == load_encoder("tiny:hubert").fingerprint()
    lora.set_active(encoder, ["it"])
    assert encoder.fingerprint() != load_encoder("tiny:hubert").fingerprint()


def test_an_adapter_alone_can_be_taken_out_and_put_back() -> None:
    encoder = adapted("whisper")
    disturb(encoder, "it")
    state = {name: tensor.clone() for name, tensor in lora.adapter_state(encoder, "it").items()}
    assert sum(tensor.numel() for tensor in state.values()) == lora.lora_parameters(2, 32, 64, 4)
    other = adapted("whisper", seed=9)
    lora.load_adapter_state(other, "it", state)
    assert torch.equal(last(other), last(encoder))
    with pytest.raises(ConfigError, match="do not fit"):
        lora.load_adapter_state(other, "it", dict(list(state.items())[1:]))
    with pytest.raises(ConfigError, match="no adapter de"):
        lora.adapter_state(encoder, "de")


def test_targets_choose_matrices_and_unknown_ones_are_refused() -> None:
    encoder = load_encoder("tiny:hubert")
    assert len(lora.wrap_lora(encoder, rank=2, targets=("q_proj", "v_proj"))) == 4
    with pytest.raises(ConfigError, match="already"):
        lora.wrap_lora(encoder)
    with pytest.raises(ConfigError, match="gate_proj"):
        lora.wrap_lora(load_encoder("tiny:hubert"), targets=("q_proj", "gate_proj"))
    with pytest.raises(ConfigError, match="rank"):
        lora.wrap_lora(load_encoder("tiny:hubert"), rank=0)


def test_names_of_adapters_are_checked() -> None:
    encoder = adapted("hubert")
    with pytest.raises(ConfigError, match="already"):
        lora.add_adapter(encoder, "it")
    with pytest.raises(ConfigError, match=r"zh\.tw"):
        lora.add_adapter(encoder, "zh.tw")
    with pytest.raises(ConfigError, match="no adapter de"):
        lora.set_active(encoder, ["de"])
    with pytest.raises(ConfigError, match="no adapter de"):
        lora.set_active(load_encoder("tiny:hubert"), ["de"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["microsoft/wavlm-large", "facebook/hubert-large-ll60k"])
def test_every_a_and_b_of_all_144_matrices_learns_at_true_size(name: str) -> None:
    encoder = load_encoder(f"random:{name}")
    layers = lora.wrap_lora(encoder)
    lora.add_adapter(encoder, "it")
    lora.set_active(encoder, ["it"])
    encoder.set_mode("lora").train()
    assert len(layers) == 144
    assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) == 14_155_776
    first, second = steps(encoder, 2, samples=3_200)
    assert all(bool((a == 0).all()) and alive(b) for a, b in first)
    assert all(alive(a) and alive(b) for a, b in second)
