from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from edge_ser.corpus import FOUR_CLASSES  # noqa: E402
from edge_ser.errors import ConfigError  # noqa: E402
from edge_ser.metrics import confusion_matrix, unweighted_accuracy  # noqa: E402
from train.corpora.utterance import Utterance  # noqa: E402
from train.encoders import load_encoder  # noqa: E402
from train.examples import Example, collate  # noqa: E402
from train.fit import FitSettings  # noqa: E402
from train.layers import masked_softmax  # noqa: E402
from train.protocols.adaptation import AdaptSettings, adapt  # noqa: E402
from train.protocols.parts import PartStore  # noqa: E402
from train.protocols.study import Request, Study, Variant  # noqa: E402
from train.settings import Experiment  # noqa: E402
from train.supports import draw_shots  # noqa: E402
from train.synthetic import synthetic_examples  # noqa: E402
from train.systems import configure, count_parameters  # noqa: E402
from train.systems.dual_attention import CoAttention, GraphAttention, Pool  # noqa: E402
from train.systems.mdat import ABLATIONS, PRESETS, Mdat, MdatConfig, ModalityGraph  # noqa: E402

TINY = PRESETS["tiny"]
SHOTS = AdaptSettings()  # as the protocol has them: a rate of 1e-4, at most 50 epochs
GATS = ("v1", "v2", "literal")
COATTENTIONS = ("cross", "gate", "channel")

VARIANTS: dict[str, dict[str, Any]] = {
    **{f"gat {mode}": {"gat": mode} for mode in GATS},
    "gat heads, elu": {"gat_heads": 2, "gat_act": "elu"},
    "gat residual": {"gat_residual": True, "unit": 16},
    "graph per modality": {"graph_scope": "per_modality"},
    "graph per modality, own weights": {"graph_scope": "per_modality", "share_weights": False},
    "gate": {"coattn": "gate"},
    "channel": {"coattn": "channel", "align": "common"},
    "unscaled relu": {"coattn_scale": False, "activation": "relu"},
    "two shared transformers": {"te_layers": 2, "te_share": True},
    "sinusoidal": {"pos": "sinusoidal"},
    "pool attn": {"pool": "attn"},
    "pool max": {"pool": "max"},
    "pool flatten": {"pool": "flatten", "align": "common"},
    "common": {"align": "common"},
    "speech pool": {"speech_pool": 2},
    "speech alone": {"modalities": "speech"},
    "text alone": {"modalities": "text"},
    **{f"ablation {number}": {"modules": modules} for number, modules in ABLATIONS.items()},
}


def build(seed: int = 0, **overrides: Any) -> Mdat:
    torch.manual_seed(seed)
    model = Mdat(configure(MdatConfig, PRESETS, "tiny", overrides)).eval()
    with torch.no_grad():  # learned vectors start at zero, which would hide where they go
        for vector in model.missing_modality.values():
            vector.normal_()
    return model


def batch(sizes: list[tuple[int, int]], seed: int = 0) -> dict[str, torch.Tensor]:
    """Inputs of utterances with so many speech frames and text tokens."""
    rng = np.random.default_rng(seed)
    examples = [
        Example(
            path=None,  # type: ignore[arg-type]
            speaker="",
            corpus="",
            features={
                "speech": rng.standard_normal((frames, TINY.speech_width)).astype(np.float32),
                "text": rng.standard_normal((tokens, TINY.text_width)).astype(np.float32),
            },
        )
        for frames, tokens in sizes
    ]
    return collate(examples)[0]


def padded(inputs: dict[str, torch.Tensor], extra: int, content: float) -> dict[str, torch.Tensor]:
    """The same inputs behind which `extra` masked frames and tokens stand."""
    out = dict(inputs)
    for name in ("speech", "text"):
        x, mask = inputs[name], inputs[f"{name}_mask"]
        out[name] = torch.cat([x, torch.randn(x.shape[0], extra, x.shape[2]) * content], dim=1)
        out[f"{name}_mask"] = torch.cat([mask, torch.zeros(mask.shape[0], extra)], dim=1)
    return out


@torch.no_grad()
def logits(model: Mdat, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(inputs).logits


# --- acceptance checks, in their order


def test_mdat_check_01_shapes() -> None:
    config = replace(TINY, speech_width=1024, text_width=768, unit=8)
    model = Mdat(config).eval()
    inputs = {"speech": torch.randn(2, 9, 1024), "text": torch.randn(2, 5, 768)}
    frames, masks = model.nodes(inputs)
    assert frames["text"].shape == (2, 5, 1024)
    graph = model.graph.heads["shared"][0]  # type: ignore[union-attr,index]
    nodes, mask = torch.cat(list(frames.values()), 1), torch.cat(list(masks.values()), 1)
    assert graph.attend(nodes, mask)[1].shape == (2, 14, 14)
    out = model.graph(frames, masks)  # type: ignore[misc]
    sides = (out["speech"], out["text"], masks["speech"], masks["text"])
    to_text, to_speech = model.co_attention.weights(*sides)  # type: ignore[union-attr]
    assert (to_text.shape, to_speech.shape) == ((2, 9, 5), (2, 5, 9))
    joined = model.co_attention(*sides)  # type: ignore[misc]
    assert [tuple(x.shape) for x in joined] == [(2, 9, 16), (2, 5, 16)]
    output = model(inputs)
    assert (output.embedding.shape, output.logits.shape) == ((2, 4 * 8), (2, 4))


@pytest.mark.parametrize("mode", GATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_mdat_check_02_masked_attention(mode: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-3
    mask = torch.tensor([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0]], dtype=dtype)
    graph = GraphAttention(6, 4, mode).to(dtype)
    nodes = torch.randn(2, 5, 6).to(dtype)
    speech, text = torch.randn(2, 5, 4).to(dtype), torch.randn(2, 5, 4).to(dtype)
    with torch.no_grad():
        maps = [graph.attend(nodes, mask)[1], *CoAttention(4).to(dtype).weights(speech, text, mask, mask)]
        channels = CoAttention(4, "channel").to(dtype).channel_weights(speech, text, mask, mask)
    for weights in channels:
        assert torch.allclose(weights[0].float().sum(-1), torch.ones(4), atol=tolerance)
        assert torch.isfinite(weights).all() and not weights[1].any()
    for weights in maps:
        assert torch.isfinite(weights).all()
        assert torch.allclose(weights[0].float().sum(-1), torch.ones(5), atol=tolerance)
        assert not weights[0][:, mask[0] == 0].any()
        assert not weights[1].any()
    assert not graph(nodes, mask)[1].any()
    assert not graph(nodes, mask)[0, mask[0] == 0].any()


@pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)
def test_mdat_check_02_the_whole_head_is_finite_in_half_precision(overrides: dict[str, Any]) -> None:
    inputs = batch([(9, 5), (7, 0), (0, 4), (0, 0)])
    half = logits(build(**overrides).half(), {name: x.half() for name, x in inputs.items()})
    assert torch.isfinite(half).all()
    assert torch.allclose(half.float(), logits(build(**overrides), inputs), atol=0.02)


@pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)
def test_mdat_check_03_padding_invariance(overrides: dict[str, Any]) -> None:
    model = build(**overrides)
    inputs = batch([(9, 5), (7, 3)])
    for content in (1.0, 1e3):
        assert torch.allclose(logits(model, inputs), logits(model, padded(inputs, 6, content)), atol=1e-5)


def test_mdat_check_03_a_common_length_without_cropping_changes_nothing() -> None:
    apart = build()
    for coattn in ("cross", "gate"):
        apart, common = build(coattn=coattn), build(coattn=coattn, align="common")
        inputs = batch([(24, 5), (7, 24), (6, 0)])
        assert torch.allclose(logits(apart, inputs), logits(common, inputs), atol=1e-5)
    cropped = logits(common, batch([(30, 5)]))
    assert not torch.allclose(cropped, logits(apart, batch([(30, 5)])), atol=1e-5)
    paper = PRESETS["paper-common"]
    assert (paper.common_length, paper.speech_pool, paper.align) == (256, 2, "common")


@pytest.mark.parametrize("name", ["speech", "text"])
def test_mdat_check_04_frames_are_a_set(name: str) -> None:
    inputs = padded(batch([(9, 5), (7, 4)]), 3, 1.0)
    order = torch.randperm(inputs[name].shape[1])
    shuffled = {**inputs, name: inputs[name][:, order], f"{name}_mask": inputs[f"{name}_mask"][:, order]}
    for kept in ({}, {"coattn": "gate"}, {"gat": "v2"}, {"pool": "attn"}, {"align": "common"}):
        assert torch.allclose(logits(build(**kept), inputs), logits(build(**kept), shuffled), atol=1e-5)
    for lost in ({"coattn": "channel", "align": "common"}, {"pos": "sinusoidal"}):
        assert not torch.allclose(logits(build(**lost), inputs), logits(build(**lost), shuffled), atol=1e-4)


@pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)
def test_mdat_check_05_one_by_one_is_as_in_a_batch(overrides: dict[str, Any]) -> None:
    model = build(**overrides)
    together = batch([(9, 5), (4, 8), (7, 0), (1, 1)])
    for row in range(4):
        frames = {name: max(1, int(together[f"{name}_mask"][row].sum())) for name in ("speech", "text")}
        alone = {key: value[row : row + 1, : frames[key.removesuffix("_mask")]] for key, value in together.items()}
        assert torch.allclose(logits(model, alone)[0], logits(model, together)[row], atol=1e-5)


@pytest.mark.parametrize("mode", GATS)
def test_mdat_check_06_per_modality_is_joint_with_block_diagonal_adjacency(mode: str) -> None:
    torch.manual_seed(0)
    joint = ModalityGraph(replace(TINY, gat=mode))
    apart = ModalityGraph(replace(TINY, gat=mode, graph_scope="per_modality"))
    apart.load_state_dict(joint.state_dict())
    frames = {"speech": torch.randn(2, 6, 16), "text": torch.randn(2, 4, 16)}
    masks = {"speech": torch.tensor([[1.0] * 6, [1.0] * 4 + [0.0] * 2]), "text": torch.tensor([[1.0] * 4, [0.0] * 4])}
    blocks = torch.block_diag(torch.ones(6, 6), torch.ones(4, 4))
    whole = joint.listen(torch.cat(list(frames.values()), 1), torch.cat(list(masks.values()), 1), blocks)
    split = apart(frames, masks)
    assert torch.allclose(whole, torch.cat(list(split.values()), 1), atol=1e-6)
    other = {**frames, "text": torch.randn(2, 4, 16)}
    assert torch.equal(apart(other, masks)["speech"], split["speech"])
    assert not torch.allclose(joint(other, masks)["speech"], joint(frames, masks)["speech"])


def test_mdat_check_06_own_weights_differ_from_shared_ones() -> None:
    graph = ModalityGraph(replace(TINY, graph_scope="per_modality", share_weights=False))
    assert count_parameters(graph) == 2 * count_parameters(ModalityGraph(TINY))
    frames = {name: torch.ones(1, 3, 16) for name in ("speech", "text")}
    out = graph(frames, {name: torch.ones(1, 3) for name in frames})
    assert not torch.allclose(out["speech"], out["text"])


def test_mdat_check_07_who_ranks_the_neighbours() -> None:
    torch.manual_seed(0)
    nodes, mask = torch.randn(1, 12, 16), torch.ones(1, 12)
    ranks = {}
    for mode in GATS:
        graph = GraphAttention(16, 8, mode)
        _, weights = graph.attend(nodes, mask)
        ranks[mode] = graph.scores(nodes, graph.project(nodes))[0].argsort(dim=-1)
        assert torch.equal(weights[0], weights[0, :1].expand(12, -1)) == (mode == "literal")
    assert torch.equal(ranks["v1"], ranks["v1"][:1].expand(12, -1))
    assert not torch.equal(ranks["v2"], ranks["v2"][:1].expand(12, -1))


def test_mdat_check_08_gradients() -> None:
    speech, text = load_encoder("tiny:xls-r"), load_encoder("tiny:xlm-roberta")
    model = build(speech_width=speech.width, text_width=text.width, modality_dropout=0.0).train()
    frames, frame_mask = speech.encode(torch.randn(2, 8_000), torch.ones(2, 8_000))
    tokens, token_mask = text.encode(torch.randint(4, 250, (2, 5)), torch.ones(2, 5))
    inputs = {"speech": frames[-1], "speech_mask": frame_mask, "text": tokens[-1], "text_mask": token_mask}
    model.loss(model(inputs), {"emotion": torch.tensor([0, 1])}).backward()
    for name, parameter in model.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached == (not name.startswith("missing_modality")), name
    for encoder in (speech, text):
        assert all(parameter.grad is None for parameter in encoder.parameters())


@pytest.mark.parametrize("absent", [True, False])
def test_mdat_check_08_gradients_without_text(absent: bool) -> None:
    model = build().train()
    inputs = batch([(9, 0), (7, 0)])
    if absent:
        del inputs["text"], inputs["text_mask"]
    model.config = replace(model.config, modality_dropout=0.0)
    model.loss(model(inputs), {"emotion": torch.tensor([0, 1])}).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    for name in ("align_text.weight", "align_text.bias", "co_attention.text.weight"):
        assert gradients[name] is None or not gradients[name].any()
    for name in ("missing_modality.text", "graph.heads.shared.0.project.weight", "graph.heads.shared.0.send.weight"):
        assert gradients[name].abs().sum() > 0


def test_mdat_check_09_parameters() -> None:
    def formula(d_s: int, d_t: int, u: int, f: int, c: int) -> int:
        transformer = 4 * (2 * u) ** 2 + 4 * (2 * u) + 2 * (2 * u) * f + f + 2 * u + 4 * (2 * u)
        graph, co_attention = d_s * u + 2 * u, 2 * (u * u + u)
        return d_t * d_s + d_s + graph + co_attention + 2 * transformer + 4 * u * 256 + 256 + 256 * c + c

    wanted = {"paper": 55_359_748, "paper-common": 55_359_748, "edge-head": 5_650_692}
    for preset, head in wanted.items():
        config = PRESETS[preset]
        with torch.device("meta"):
            model = Mdat(config)
        parts = model.parts()
        assert parts.pop("missing_modality") == 4 * config.unit
        assert sum(parts.values()) == head == count_parameters(model) - 4 * config.unit
        assert head == formula(config.speech_width, config.text_width, config.unit, config.feed_forward, 4)
    with torch.device("meta"):
        parts = Mdat(PRESETS["paper"]).parts()
    del parts["missing_modality"]
    assert list(parts.values()) == [787_456, 1_050_624, 2_099_200, 50_372_608, 1_049_860]


EXPORTED = {
    name: overrides
    for name, overrides in VARIANTS.items()
    if name.startswith(("gat", "ablation", "gate", "channel", "speech", "text", "pool", "common", "sinus"))
}


class _Graph(torch.nn.Module):
    """The head with named inputs, as an exporter wants it."""

    def __init__(self, model: Mdat) -> None:
        super().__init__()
        self.model = model

    def forward(self, *arrays: torch.Tensor) -> torch.Tensor:
        return self.model(dict(zip(NAMES, arrays, strict=True))).logits


NAMES = ("speech", "speech_mask", "text", "text_mask")


def export(model: Mdat, example: dict[str, torch.Tensor]) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Graph(model).eval(),
            tuple(example[name] for name in NAMES),
            file,
            input_names=list(NAMES),
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "frames" if "speech" in name else "tokens"} for name in NAMES},
            opset_version=17,
            dynamo=False,
        )
    return file.getvalue()


@pytest.mark.parametrize("overrides", EXPORTED.values(), ids=EXPORTED)
def test_mdat_check_10_trains_and_exports(overrides: dict[str, Any]) -> None:
    runtime = pytest.importorskip("onnxruntime")
    model = build(**overrides).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    before = [p.detach().clone() for p in model.parameters()]
    loss = model.loss(model(batch([(9, 5), (7, 3)])), {"emotion": torch.tensor([0, 1])})
    loss.backward()
    optimiser.step()
    assert torch.isfinite(loss)
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    model.eval()
    session = runtime.InferenceSession(export(model, batch([(9, 5), (7, 3)])), providers=["CPUExecutionProvider"])
    used = {node.name for node in session.get_inputs()}
    for sizes in ([(9, 5), (7, 3)], [(4, 2)], [(15, 1), (8, 11), (3, 0)]):
        inputs = batch(sizes, seed=1)
        (got,) = session.run(["logits"], {name: inputs[name].numpy() for name in NAMES if name in used})
        assert np.abs(got - logits(model, inputs).numpy()).max() < 1e-4


class SyntheticBench:
    """Two synthetic languages as the protocols read corpora: the source, and a target that sounds and reads apart."""

    def __init__(self, seed: int) -> None:
        made = [*synthetic_examples(0, 4, 6, seed), *synthetic_examples(1, 6, 5, seed)]
        self.made = {example.path: example for example in made}

    def clips(self, corpora: Sequence[str] | None = None) -> list[Utterance]:
        return [
            Utterance(e.path, speaker=e.speaker, corpus=e.corpus, emotion4=FOUR_CLASSES[e.emotion])
            for e in self.made.values()
            if not corpora or e.corpus in corpora
        ]

    def examples(self, clips: Sequence[Utterance], side: str | None = None) -> list[Example]:
        return [self.made[clip.path] for clip in clips]

    def system(self, seed: int | None = None) -> Mdat:
        torch.manual_seed(seed or 0)
        return Mdat(TINY)


def test_mdat_check_11_shots_help_and_none_change_nothing(tmp_path: Path) -> None:
    learning = FitSettings(epochs=12, learning_rate=3e-3, batch_size=16, device="cpu")
    variant = Variant("mdat", Experiment("mdat", "x", preset="tiny", fit=learning))
    gains = []
    for seed in range(5):
        bench = SyntheticBench(seed)
        study = Study([variant], {}, Request(), lambda _, own=bench: own, PartStore(tmp_path / str(seed), {}))
        model, _ = study.fit(variant, seed, study.clips("synthetic0"), [])
        target = study.clips("synthetic1")
        support = draw_shots(target, study.labels(target), (5, 15), seed=seed)
        assert set(support.nested[5]) < set(support.nested[15])
        judged = [target[place] for place in support.query]
        learnt = [target[place] for place in support.nested[15]]
        assert [study.labels(learnt).count(c) for c in range(4)] == [15] * 4

        def answered(system: Mdat = model, said: Study = study, clips: list[Utterance] = judged) -> float:
            part = said.answer(variant, system, clips, "x", {})
            return unweighted_accuracy(confusion_matrix(part.truth, part.logits.argmax(1), 4))

        weights = {name: value.clone() for name, value in model.state_dict().items()}
        assert adapt(study, variant, model, [], SHOTS, seed) == {"epochs": 0}
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
        zero = answered()
        adapt(study, variant, model, learnt, SHOTS, seed)
        gains.append(answered() - zero)
    assert np.mean(gains) >= 0.10


# --- what else holds


def test_without_a_modality_logits_are_finite_and_its_learned_vector_is_read() -> None:
    model = build()
    for lost, sizes in (("text", [(6, 0), (3, 0)]), ("speech", [(0, 4), (0, 2)])):
        inputs = batch(sizes)
        out = model(inputs)
        assert torch.isfinite(out.logits).all()
        half = out.embedding.chunk(2, dim=1)[("speech", "text").index(lost)]
        assert torch.equal(half, model.missing_modality[lost].expand(2, -1))
        absent = {name: value for name, value in inputs.items() if not name.startswith(lost)}
        assert torch.equal(model(absent).logits, out.logits)


def test_what_is_read_from_an_absent_modality_is_zero() -> None:
    for mode in COATTENTIONS:
        torch.manual_seed(0)
        layer = CoAttention(4, mode)
        speech, text = torch.randn(1, 5, 4), torch.zeros(1, 5, 4)
        joined, _ = layer(speech, text, torch.ones(1, 5), torch.zeros(1, 5))
        assert torch.equal(joined, torch.cat([speech, torch.zeros_like(speech)], dim=-1))


def test_a_gate_is_one_on_average_over_valid_frames() -> None:
    layer = CoAttention(4, "gate")
    speech, text = torch.ones(1, 5, 4), torch.randn(1, 3, 4)
    mask = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]])
    joined, _ = layer(speech + torch.randn(1, 5, 1), text, mask, torch.ones(1, 3))
    gate = joined[0, :4, 4:] / joined[0, :4, :4]
    assert torch.allclose(gate.mean(0), torch.ones(4), atol=1e-5)


def test_modality_dropout_hides_each_modality_as_often_as_asked_and_only_in_training() -> None:
    torch.manual_seed(0)
    model = build(modality_dropout=0.3).train()
    _, masks = model.nodes(batch([(3, 2)] * 400))
    for mask in masks.values():
        assert 0.2 < 1.0 - float(mask.amax(1).mean()) < 0.4
    assert all((masks["speech"].amax(1) + masks["text"].amax(1)).tolist())
    _, masks = model.eval().nodes(batch([(3, 2)] * 400))
    assert all(bool(mask.all()) for mask in masks.values())


def test_modality_dropout_leaves_the_only_modality_alone() -> None:
    model = build(modality_dropout=0.5).train()
    _, masks = model.nodes(batch([(3, 0)] * 200 + [(0, 2)] * 200))
    assert masks["speech"].amax(1).tolist() == [1.0] * 200 + [0.0] * 200
    assert masks["text"].amax(1).tolist() == [0.0] * 200 + [1.0] * 200


def test_several_encoder_layers_are_mixed_by_learned_weights() -> None:
    model = build(speech_layers=3)
    inputs = batch([(6, 4)])
    stacked = {**inputs, "speech": inputs["speech"].unsqueeze(2).expand(-1, -1, 3, -1)}
    assert torch.allclose(logits(model, stacked), logits(build_from(model, speech_layers=1), inputs), atol=1e-5)
    model(stacked).logits.square().sum().backward()
    assert model.layer_mix["speech"].weights.grad is not None
    assert model.parts()["layer_mix"] == 3


def build_from(model: Mdat, **overrides: Any) -> Mdat:
    other = Mdat(replace(model.config, **overrides)).eval()
    other.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("layer_mix")})
    return other


def test_pooling_speech_frames_averages_neighbours_that_are_valid() -> None:
    model = build(speech_pool=2)
    inputs = batch([(5, 2), (4, 2)])
    frames, masks = model.nodes(inputs)
    assert masks["speech"].tolist() == [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]
    assert torch.allclose(frames["speech"][0, 0], inputs["speech"][0, :2].mean(0), atol=1e-6)
    assert torch.allclose(frames["speech"][0, 2], inputs["speech"][0, 4], atol=1e-6)


@pytest.mark.parametrize("mode", ["mean", "attn", "max", "flatten"])
def test_pooling_ignores_masked_frames(mode: str) -> None:
    torch.manual_seed(0)
    pool = Pool(mode, 4)
    x, mask = torch.randn(2, 3, 4), torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    other = x + (1.0 - mask.unsqueeze(-1)) * 7.0
    assert torch.equal(pool(x, mask), pool(other, mask))
    assert not pool(x, mask)[1].any()
    if mode == "max":
        assert torch.equal(pool(x, mask)[0], torch.maximum(x[0, 0], x[0, 2]))


def test_masked_softmax_of_large_scores_in_half_precision() -> None:
    weights = masked_softmax(torch.full((1, 2), 6e4, dtype=torch.float16), torch.tensor([[1.0, 0.0]]).half())
    assert weights.tolist() == [[1.0, 0.0]]


def test_ablations_have_the_widths_of_what_is_left() -> None:
    config = replace(TINY, modules=("coattn", "te"))
    assert (config.graph_width, config.joined) == (16, 32)
    assert replace(TINY, modules=("gat", "te")).joined == 8
    assert replace(TINY, modules=("te",)).joined == 16
    assert set(Mdat(replace(TINY, modules=("gat",))).parts()) == {
        "align_text",
        "graph",
        "missing_modality",
        "classifier",
    }


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"gat": "v3"}, "v1, v2, literal"),
        ({"coattn": "channel"}, "align = common"),
        ({"pool": "flatten"}, "align = common"),
        ({"gat_residual": True}, "U = D_s"),
        ({"gat_heads": 3}, "divide unit"),
        ({"gat_heads": 0}, "start at 1"),
        ({"te_heads": 3}, "divide 16"),
        ({"modules": ["gat", "lstm"]}, "gat, coattn, te"),
        ({"modality_dropout": 0.6}, r"0 to 0\.5"),
        ({"width": 3}, "no setting width"),
    ],
)
def test_switches_that_do_not_fit_are_refused(overrides: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        configure(MdatConfig, PRESETS, "tiny", overrides)


def test_frames_of_another_width_are_refused() -> None:
    with pytest.raises(ConfigError, match="speech_width"):
        build()({"speech": torch.randn(1, 4, 17)})


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["paper", "edge-head"])
def test_one_step_at_true_size(preset: str) -> None:
    torch.manual_seed(0)
    model = Mdat(PRESETS[preset])
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=1e-4)
    inputs = {"speech": torch.randn(4, 249, 1024), "text": torch.randn(4, 64, 768)}
    loss = model.loss(model(inputs), {"emotion": torch.tensor([0, 1, 2, 3])})
    loss.backward()
    optimiser.step()
    assert torch.isfinite(loss)
    assert torch.isfinite(model.eval()(inputs).logits).all()
