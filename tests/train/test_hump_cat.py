from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from edge_ser.errors import ConfigError  # noqa: E402
from train.corpora.utterance import Utterance  # noqa: E402
from train.examples import Example, collate  # noqa: E402
from train.fit import FitSettings, fit  # noqa: E402
from train.protocols.adaptation import AdaptSettings, adapt, adapted_names  # noqa: E402
from train.protocols.study import Variant  # noqa: E402
from train.settings import Experiment  # noqa: E402
from train.supports import draw_fractions  # noqa: E402
from train.systems import configure, count_parameters  # noqa: E402
from train.systems.hump_cat import PRESETS, CosineClassifier, HumpCat, HumpCatConfig, MeanPool, am_logits  # noqa: E402
from train.systems.hump_cat_branches import repeat_frames  # noqa: E402
from train.systems.hump_cat_fusion import Tokens  # noqa: E402

TINY = PRESETS["tiny"]
PAIRS = [
    ("prosody", "mfcc"),
    ("prosody", "lpcc"),
    ("prosody", "spectrogram"),
    ("mfcc", "lpcc"),
    ("mfcc", "spectrogram"),
    ("lpcc", "spectrogram"),
]
SUBSETS = [
    ("hubert", "mfcc", "prosody"),
    ("hubert", "mfcc"),
    ("hubert", "prosody"),
    ("mfcc", "prosody"),
    ("hubert",),
    ("mfcc",),
    ("prosody",),
]
SWITCHES: list[dict[str, Any]] = [
    {"layer_fusion": "scalar"},
    {"speech_layers": 1},
    {"conv": "conv1d_stack", "clip_s": 2.0},
    {"mfcc_average": "global"},
    {"mfcc_average": "none"},
    {"mfcc_encoder": "conv"},
    {"mfcc_encoder": "conv", "mfcc_average": "global"},
    {"prosody_tokens": 3},
    {"pos": "sinusoidal"},
    {"stats": "std"},
    {"loss": "ce"},
    {"speech_normalise": True},
    {"branch_dropout": 0.3},
    {"adapt": "all"},
]


def build(config: HumpCatConfig = TINY, **switches: Any) -> HumpCat:
    torch.manual_seed(0)
    return HumpCat(replace(config, **switches)).eval()


def batch(config: HumpCatConfig, rows: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    layers = (config.speech_layers,) if config.speech_layers > 1 else ()
    shapes = {
        "hubert": ("speech", (config.speech_frames, *layers, config.speech_width)),
        "mfcc": ("mfcc", (config.frames, 39)),
        "prosody": ("prosody", (103,)),
        "lpcc": ("lpcc", (config.frames, 36)),
        "spectrogram": ("log_power", ((config.frames - 10) // 4 + 1, 513)),
    }
    chosen = [shapes[name] for name in config.features]
    return {key: torch.randn(rows, *shape, generator=random) for key, shape in chosen}


def dropped(inputs: dict[str, torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    return {name: x for name, x in inputs.items() if name not in names}


def test_hump_cat_check_02_shapes_at_paper_size() -> None:
    model = build(PRESETS["paper"])
    for frames in (349, 350):  # HuBERT and Whisper
        inputs = batch(model.config, 1) | {"speech": torch.randn(1, frames, 2, 768)}
        speech: Any = model.branches["hubert"]
        mfcc: Any = model.branches["mfcc"]
        h = speech.fuse(inputs["speech"])
        assert h.shape == (1, 349, 768)
        assert speech.conv(h.unsqueeze(1)).shape == (1, 16, 85, 251)
        assert mfcc.average(inputs["mfcc"]).shape == (1, 85, 39)
        tokens = model.tokens(inputs)
        assert [tokens[name].x.shape[1:] for name in ("hubert", "mfcc", "prosody")] == [(85, 32), (85, 32), (1, 32)]
        assert model.inner is not None
        assert model.inner(tokens["prosody"], tokens["mfcc"]).x.shape == (1, 86, 32)
        assert model.fuse(tokens).x.shape == (1, 171, 32)
        output = model(inputs)
        assert output.embedding.shape == (1, 64) and output.logits.shape == (1, 4)


def test_hump_cat_check_02_the_stack_of_convolutions_gives_23_steps() -> None:
    config = replace(PRESETS["paper"], conv="conv1d_stack", features=("hubert",), speech_width=20)
    assert build(config).tokens(batch(config, 1))["hubert"].x.shape == (1, 23, 32)


def test_hump_cat_check_05_am_softmax_without_margin_is_cross_entropy_of_scaled_cosines() -> None:
    torch.manual_seed(0)
    head, z, emotion = CosineClassifier(8, 4, 30.0), torch.randn(5, 8), torch.tensor([0, 1, 2, 3, 0])
    unit = torch.nn.functional.normalize
    cosines = unit(z, dim=-1) @ unit(head.weight, dim=-1).T
    expected = torch.nn.functional.cross_entropy(30.0 * cosines, emotion)
    model = build(margin=0.0)
    output = model(batch(TINY, 5))
    assert torch.allclose(torch.nn.functional.cross_entropy(head(z), emotion), expected, atol=1e-4)
    plain = torch.nn.functional.cross_entropy(output.logits, emotion)
    assert torch.equal(model.loss(output, {"emotion": emotion}), plain)


def test_hump_cat_check_05_the_loss_grows_with_the_margin() -> None:
    emotion = torch.tensor([0, 1, 2])
    losses = []
    for margin in (0.0, 0.1, 0.2, 0.35):
        model = build(margin=margin)
        losses.append(float(model.loss(model(batch(TINY, 3)), {"emotion": emotion}).detach()))
    assert losses == sorted(losses) and losses[0] < losses[-1]


def test_hump_cat_check_05_margin_formula() -> None:
    cosines, s, m = torch.tensor([[0.9, 0.1, -0.5]]), 30.0, 0.2
    top = np.exp(s * (0.9 - m))
    expected = -np.log(top / (top + np.exp(s * 0.1) + np.exp(s * -0.5)))
    loss = torch.nn.functional.cross_entropy(am_logits(s * cosines, torch.tensor([0]), s * m), torch.tensor([0]))
    assert float(loss) == pytest.approx(float(expected), abs=1e-6)


def test_hump_cat_check_05_scale_of_z_is_irrelevant_and_the_gradient_at_zero_finite() -> None:
    torch.manual_seed(0)
    head, z = CosineClassifier(8, 4, 30.0), torch.randn(3, 8)
    assert torch.allclose(head(z), head(1000.0 * z), atol=1e-4)
    nothing = torch.zeros(2, 8, requires_grad=True)
    torch.nn.functional.cross_entropy(head(nothing), torch.tensor([0, 1])).backward()
    assert nothing.grad is not None and torch.isfinite(nothing.grad).all()
    assert head.weight.grad is not None and torch.isfinite(head.weight.grad).all()


def test_hump_cat_check_06_attention_rows_sum_to_one() -> None:
    model, seen = build(), []
    speech: Any = model.branches["hubert"]
    inputs = batch(TINY, 3)
    tokens = model.tokens(inputs)
    for module in model.modules():
        if hasattr(module, "query"):
            first, second = tokens["mfcc"].x, tokens["hubert"].x
            seen.append(module.weights(first, second))
            masked = module.weights(first, second, torch.eye(3)[:, [0] * second.shape[1]])
            assert torch.all(masked[1] == 0)
            seen.append(masked[:1])
    assert len(seen) == 2 * 6
    for weights in seen:
        assert torch.allclose(weights.sum(-1), torch.ones_like(weights.sum(-1)), atol=1e-5)
    fused = speech.layer_fusion.weights(inputs["speech"])
    assert torch.allclose(fused.sum(2), torch.ones_like(fused.sum(2)), atol=1e-5)


def test_hump_cat_check_06_a_batch_of_one_is_a_batch_of_many() -> None:
    model, inputs = build(), batch(TINY, 4)
    together = model(inputs).logits
    for row in range(4):
        alone = model({name: x[row : row + 1] for name, x in inputs.items()}).logits
        assert torch.allclose(together[row], alone[0], atol=1e-5)


def test_hump_cat_check_06_shorter_features_repeat_themselves_whatever_stands_beside_them() -> None:
    model = build()
    rng = np.random.default_rng(0)
    examples = [
        Example(
            Path(f"{length}.wav"),
            "speaker",
            "corpus",
            {
                "speech": rng.standard_normal((length, 2, 24)).astype(np.float32),
                "mfcc": rng.standard_normal((length, 39)).astype(np.float32),
                "prosody": rng.standard_normal(103).astype(np.float32),
            },
        )
        for length in (20, 49, 77)
    ]
    together = model(collate(examples)[0]).logits
    for row, example in enumerate(examples):
        assert torch.allclose(together[row], model(collate([example])[0]).logits[0], atol=1e-5)
    short = torch.arange(3.0).view(1, 3, 1)
    assert repeat_frames(short, None, 7).flatten().tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert repeat_frames(short, torch.tensor([[1.0, 1.0, 0.0]]), 5).flatten().tolist() == [0, 1, 0, 1, 0]


def test_hump_cat_check_07_mfcc_tokens_are_a_set() -> None:
    model = build()
    tokens = model.tokens(batch(TINY))
    order = torch.randperm(tokens["mfcc"].x.shape[1])
    shuffled = tokens | {"mfcc": Tokens(tokens["mfcc"].x[:, order])}
    assert torch.allclose(model.pool(model.fuse(tokens)), model.pool(model.fuse(shuffled)), atol=1e-5)


def test_positions_are_told_apart_where_asked() -> None:
    inputs = batch(TINY)
    assert not torch.allclose(build().tokens(inputs)["mfcc"].x, build(pos="sinusoidal").tokens(inputs)["mfcc"].x)


@pytest.mark.parametrize("frozen", [True, False])
def test_hump_cat_check_08_gradients_reach_every_branch_and_no_frozen_encoder(frozen: bool) -> None:
    pytest.importorskip("transformers", reason="needs transformers: pip install -e '.[train]'")
    from train.encoders import load_encoder

    encoder = load_encoder("tiny:hubert").requires_grad_(not frozen)
    model = build(speech_width=encoder.width).train()
    layers, _ = encoder.encode(0.1 * torch.randn(4, 16_000), torch.ones(4, 16_000))
    inputs = batch(model.config, 4) | {"speech": torch.stack(layers[1:], dim=2)}
    model.loss(model(inputs), {"emotion": torch.tensor([0, 1, 2, 3])}).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        # A key's bias shifts all scores of a query alike, and the one prosody token leaves its queries no choice.
        idle = name.startswith(("inner.second.attention.query.", "inner.second.attention.key."))
        if not idle and "attention.key.bias" not in name:
            assert parameter.grad.any(), name
    assert any(parameter.grad is not None for parameter in encoder.parameters()) == (not frozen)


@pytest.mark.parametrize("features", SUBSETS + PAIRS, ids="+".join)
def test_hump_cat_check_08_every_choice_of_features_trains_and_exports(
    features: tuple[str, ...], tmp_path: Path
) -> None:
    model = build(features=features)
    trains(model)
    assert exported_difference(model.eval(), tmp_path / "model.onnx") < 1e-4


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda switches: "-".join(map(str, switches.values())))
def test_every_switch_trains_and_exports(switches: dict[str, Any], tmp_path: Path) -> None:
    model = build(**switches)
    trains(model)
    assert exported_difference(model.eval(), tmp_path / "model.onnx") < 1e-4


def test_hump_cat_check_09_parameters_of_the_head() -> None:
    parts = HumpCat(PRESETS["paper"]).parts()
    assert parts == {
        "layer_fusion": 98_560,
        "conv": 2_896,
        "projection": 128_544,
        "mfcc": 7_296,
        "prosody": 8_736,
        "cross_attention": 50_816,
        "self_attention": 8_576,
        "classifier": 256,
    }
    assert sum(parts.values()) == 305_680 == count_parameters(HumpCat(PRESETS["paper"]))


def test_hump_cat_check_09_parameters_without_an_encoder() -> None:
    model = HumpCat(PRESETS["prosody-mfcc"])
    assert sum(model.parts().values()) == 50_272 == count_parameters(model)


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda switches: "-".join(map(str, switches.values())))
def test_parts_sum_to_every_parameter(switches: dict[str, Any]) -> None:
    model = build(**switches)
    assert sum(model.parts().values()) == count_parameters(model)


@pytest.mark.slow
def test_hump_cat_check_09_parameters_with_the_encoder() -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install -e '.[train]'")
    with torch.device("meta"):
        nine = transformers.HubertModel(transformers.HubertConfig(num_hidden_layers=9))
        twelve = transformers.HubertModel(transformers.HubertConfig())
    assert count_parameters(nine) == 73_108_096
    assert count_parameters(nine) + 305_680 == 73_413_776
    assert count_parameters(twelve) + 305_680 == 94_677_392


def test_hump_cat_check_10_a_fifth_of_the_speakers_brings_ten_points() -> None:
    gains = [transfer_gain(seed) for seed in range(5)]
    assert float(np.mean(gains)) >= 0.10


def test_hump_cat_check_11_onnx_says_what_torch_says(tmp_path: Path) -> None:
    model = build()
    assert exported_difference(model, tmp_path / "model.onnx") < 1e-4
    for seed in range(5):
        logits = model({name: 100.0 * x for name, x in batch(TINY, 8, seed).items()}).logits
        assert logits.abs().max() <= TINY.scale * (1 + 1e-5)


@pytest.mark.slow
def test_hump_cat_check_11_onnx_at_paper_size(tmp_path: Path) -> None:
    assert exported_difference(build(PRESETS["paper"]), tmp_path / "model.onnx") < 1e-4


def test_a_missing_feature_is_left_out_as_its_switch_would() -> None:
    model, inputs = build(), batch(TINY)
    # The same weights without the branch: whatever is built must be all that is used.
    small = HumpCat(replace(TINY, features=("mfcc", "prosody"))).eval()
    small.load_state_dict({name: model.state_dict()[name] for name in small.state_dict()})
    expected = small(inputs).logits
    assert torch.allclose(model(dropped(inputs, "speech")).logits, expected, atol=1e-5)
    masks = {"speech_mask": torch.tensor([1.0, 0.0])[:, None].expand(2, TINY.frames)}
    rows = model(inputs | masks).logits
    assert torch.allclose(rows[0], model(inputs).logits[0], atol=1e-5)
    assert torch.allclose(rows[1], expected[1], atol=1e-5)


def test_a_missing_hand_crafted_feature_is_left_out_too() -> None:
    model, inputs = build(), batch(TINY)
    without = model(dropped(inputs, "mfcc")).logits
    rows = model(inputs | {"mfcc_mask": torch.tensor([0.0, 1.0])[:, None].expand(2, TINY.frames)}).logits
    assert torch.allclose(rows[0], without[0], atol=1e-5)
    assert torch.allclose(rows[1], model(inputs).logits[1], atol=1e-5)


def test_a_batch_in_which_some_rows_lack_a_feature_is_as_each_row_alone() -> None:
    model = build(features=("prosody", "lpcc"))
    rng = np.random.default_rng(0)

    def utterance(name: str, frames: int, prosody: bool) -> Example:
        features = {"lpcc": rng.standard_normal((frames, 36)).astype(np.float32)}
        if prosody:
            features["prosody"] = rng.standard_normal(103).astype(np.float32)
        return Example(Path(name), "speaker", "corpus", features)

    rows = [utterance("a.wav", 49, True), utterance("b.wav", 30, False), utterance("c.wav", 70, True)]
    inputs, _ = collate(rows)
    assert inputs["prosody_mask"].tolist() == [[1.0], [0.0], [1.0]]
    assert inputs["lpcc_mask"].sum(1).tolist() == [49.0, 30.0, 70.0]
    together = model(inputs).logits
    for row, example in enumerate(rows):
        assert torch.allclose(together[row], model(collate([example])[0]).logits[0], atol=1e-5)
    assert "prosody_mask" not in collate(rows[:1])[0]


def test_branch_dropout_happens_in_training_only_and_never_leaves_a_row_empty() -> None:
    model, inputs = build(branch_dropout=0.9, dropout=0.0), batch(TINY, 64)
    assert torch.equal(model(inputs).logits, build(dropout=0.0)(inputs).logits)
    tokens = model.train().tokens(inputs)
    masks = torch.stack([tokens[name].mask[:, 0] for name in TINY.features])
    assert masks.amax(0).min() == 1
    assert 0 < masks.mean() < 1


def test_statistics_come_from_the_training_set_and_travel_with_the_weights() -> None:
    rng = np.random.default_rng(0)
    examples = [
        Example(
            Path(f"{place}.wav"),
            "speaker",
            "corpus",
            {
                "speech": rng.normal(-1.0, 3.0, (30 + place, 2, 24)).astype(np.float16),
                "mfcc": rng.normal(2.0, 5.0, (40 + place, 39)).astype(np.float32),
                "prosody": np.concatenate([[4.0], rng.normal(100.0, 20.0, 102)]).astype(np.float32),
            },
        )
        for place in range(20)
    ]
    model = build(speech_normalise=True)
    model.fit_statistics(examples)
    frames = np.concatenate([example.features["mfcc"] for example in examples])
    mfcc: Any = model.branches["mfcc"]
    assert np.allclose(mfcc.standard.mean, frames.mean(0), atol=1e-4)
    assert np.allclose(mfcc.standard.deviation, frames.std(0), atol=1e-4)
    prosody: Any = model.branches["prosody"]
    assert float(prosody.standard.deviation[0]) == 1.0
    copy = build(speech_normalise=True)
    copy.load_state_dict(model.state_dict())
    inputs = collate(examples)[0]
    assert torch.equal(copy(inputs).logits, model(inputs).logits)
    far = inputs | {"prosody": inputs["prosody"] + 1e6}
    further = inputs | {"prosody": inputs["prosody"] + 2e6}
    assert torch.equal(model(far).logits, model(further).logits)  # clipped at 5 deviations
    with pytest.raises(ConfigError, match="no example has speech"):
        model.fit_statistics([replace(example, features={"prosody": np.zeros(103)}) for example in examples])


def test_the_temperature_makes_cosines_less_confident() -> None:
    torch.manual_seed(0)
    emotion = torch.randint(0, 4, (400,))
    wrong = torch.where(torch.rand(400) < 0.3, (emotion + 1) % 4, emotion)
    logits = 30.0 * torch.nn.functional.one_hot(wrong, 4).float()
    model = build()
    temperature = model.fit_temperature(logits, emotion)
    assert temperature > 2
    assert float(model.state_dict()["temperature"]) == pytest.approx(temperature)
    output = model(batch(TINY))
    assert torch.allclose(model.probabilities(output), torch.softmax(output.logits / temperature, -1))


def test_a_transfer_moves_fusion_and_classifier_and_nothing_else() -> None:
    moving = {name.split(".")[0] for name in adapted_names(build(), "full")}
    assert moving == {"inner", "outer", "self_attention", "classifier"}
    everything = build(adapt="all")
    assert adapted_names(everything, "full") == {name for name, _ in everything.named_parameters()}


def test_the_comparator_averages_layers_and_frames() -> None:
    torch.manual_seed(0)
    model = MeanPool(PRESETS["paper"])
    assert sum(model.parts().values()) == count_parameters(model) == 768 * 4 + 4
    speech = torch.randn(2, 6, 2, 768)
    mask = torch.tensor([[1.0] * 6, [1.0] * 4 + [0.0] * 2])
    output = model({"speech": speech, "speech_mask": mask})
    assert torch.allclose(output.embedding[0], speech[0].mean((0, 1)), atol=1e-5)
    assert torch.allclose(output.embedding[1], speech[1, :4].mean((0, 1)), atol=1e-5)
    with pytest.raises(ConfigError, match="no speech"):
        model({})


def test_the_desk_preset_keeps_one_grid_for_encoder_and_mfcc() -> None:
    config = PRESETS["desk"]
    model = build(config)
    for frames in (99, 100):
        tokens = model.tokens(batch(config, 1) | {"speech": torch.randn(1, frames, 2, 384)})
        assert tokens["hubert"].x.shape == tokens["mfcc"].x.shape == (1, 48, 32)


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"features": ()}, "features"),
        ({"features": ("mfcc", "mfcc")}, "features"),
        ({"features": ("wavlm",)}, "features"),
        ({"features": ("mfcc", "prosody", "lpcc")}, "at most two"),
        ({"conv": "conv3d"}, "conv is"),
        ({"width": 9}, "width is 9"),
        ({"speech_width": 10}, "speech_width"),
        ({"clip_s": 0.1}, "clip_s"),
        ({"conv": "conv1d_stack"}, "conv needs 78"),
        ({"dropout": 1.0}, "dropout"),
        ({"prosody_tokens": 0}, "prosody_tokens"),
    ],
)
def test_what_does_not_fit_is_said(switches: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HumpCat(configure(HumpCatConfig, PRESETS, "tiny", switches))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda inputs: {}, "need speech, mfcc, prosody"),
        (lambda inputs: inputs | {"speech": torch.zeros(2, 49, 24)}, "speech has shape"),
        (lambda inputs: inputs | {"mfcc": torch.zeros(2, 49, 40)}, "mfcc has 40"),
        (lambda inputs: inputs | {"prosody": torch.zeros(2, 88)}, "prosody has 88"),
    ],
)
def test_features_of_another_shape_are_refused(change: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()(change(batch(TINY)))


class Flat(torch.nn.Module):
    def __init__(self, model: HumpCat, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *arrays: torch.Tensor) -> torch.Tensor:
        return self.model(dict(zip(self.names, arrays, strict=True))).logits


def exported_difference(model: HumpCat, path: Path) -> float:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the press needs onnxruntime")
    pytest.importorskip("onnx", reason="the press needs onnx: pip install -e '.[export]'")
    example = batch(model.config, 1)
    names = list(example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Flat(model, names).eval(),
            tuple(example.values()),
            str(path),
            input_names=names,
            output_names=["logits"],
            opset_version=17,
            dynamo=False,
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for seed in range(3):
        inputs = batch(model.config, 1, seed)
        with torch.no_grad():
            expected = model(inputs).logits.numpy()
        (got,) = session.run(["logits"], {name: x.numpy() for name, x in inputs.items()})
        worst = max(worst, float(np.abs(got - expected).max()))
    return worst


def trains(model: HumpCat) -> None:
    """One step; with every parameter reached."""
    model.train()
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    loss = model.loss(model(batch(model.config, 4)), {"emotion": torch.tensor([0, 1, 2, 3])})
    loss.backward()
    assert torch.isfinite(loss)
    assert all(parameter.grad is not None for parameter in model.parameters())
    optimiser.step()


SHORT = replace(TINY, clip_s=0.5)


def corpus(seed: int, shifted: bool) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Ten speakers, four utterances of each class; in a shifted corpus emotions sound different, and louder."""
    rng = np.random.default_rng(seed)
    shapes = {"speech": (1, 2, 24), "mfcc": (1, 39), "prosody": (103,)}
    emotion, speaker = np.tile(np.arange(4), 40), np.repeat(np.arange(10), 16)
    inputs = {}
    for name, shape in shapes.items():
        centre, other = rng.normal(0, 0.5, (2, 4, *shape))
        centre = 0.2 * centre + 0.8 * other + 0.2 if shifted else centre
        voice = rng.normal(0, 0.3, (10, *shape))[speaker]
        frames = shape if name == "prosody" else (SHORT.frames, *shape[1:])
        inputs[name] = torch.from_numpy((centre[emotion] + voice + rng.normal(0, 1, (160, *frames))).astype(np.float32))
    return inputs, torch.from_numpy(emotion), torch.from_numpy(speaker)


def learn(model: HumpCat, inputs: dict[str, torch.Tensor], emotion: torch.Tensor, steps: int, rate: float) -> None:
    model.train()
    optimiser = torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad], rate)
    for step in range(steps):
        rows = torch.randperm(len(emotion), generator=torch.Generator().manual_seed(step))[:32]
        optimiser.zero_grad()
        model.loss(model({name: x[rows] for name, x in inputs.items()}), {"emotion": emotion[rows]}).backward()
        optimiser.step()
    model.eval()


@torch.no_grad()
def recall(model: HumpCat, inputs: dict[str, torch.Tensor], emotion: torch.Tensor) -> float:
    guess = model(inputs).logits.argmax(-1)
    return float(np.mean([(guess[emotion == c] == c).float().mean() for c in range(4)]))


def transfer_gain(seed: int) -> float:
    torch.manual_seed(seed)
    model = HumpCat(SHORT)
    inputs, emotion, _ = corpus(seed, shifted=False)
    learn(model, inputs, emotion, 25, 1e-2)
    assert recall(model, inputs, emotion) > 0.7
    target, emotion, speaker = corpus(seed, shifted=True)
    clips = [
        Utterance(Path(f"{place}.wav"), speaker=f"s{one}", corpus="target", emotion=str(int(emotion[place])))
        for place, one in enumerate(speaker.tolist())
    ]
    support = draw_fractions(clips, emotion.tolist(), (0.2,), unit="speaker", draw=seed)
    query = list(support.query)
    held = {name: x[query] for name, x in target.items()}
    before = recall(model, held, emotion[query])
    variant: Any = Variant("hump-cat", Experiment(system="hump-cat", name="hump-cat"))
    study: Any = Memory(target, emotion)
    # Eight channels and not 32: the published rate of 1e-4 takes them the same way, but ten times as long.
    settings = AdaptSettings(learning_rate=1e-3, epochs=15)
    adapt(study, variant, model, [clips[place] for place in support.largest], settings, seed)
    return recall(model.eval(), held, emotion[query]) - before


class Memory:
    """Stands for a study whose features are at hand."""

    def __init__(self, inputs: dict[str, torch.Tensor], emotion: torch.Tensor) -> None:
        self.inputs, self.emotion = inputs, emotion

    def fit_on(self, variant: Variant, system: HumpCat, clips: list[Utterance], settings: FitSettings) -> Any:
        places = [int(clip.path.stem) for clip in clips]
        examples = [
            Example(
                clip.path,
                clip.speaker,
                clip.corpus,
                {name: x[place].numpy() for name, x in self.inputs.items()},
                emotion=int(self.emotion[place]),
            )
            for clip, place in zip(clips, places, strict=True)
        ]
        return fit(system, examples, [], settings)
