"""MHA fusion: the acceptance checks of the published description, and the switches beyond it."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from edge_ser.errors import ConfigError  # noqa: E402
from train.encoders import load_encoder  # noqa: E402
from train.examples import Example, collate  # noqa: E402
from train.experiment import Workbench, read_experiment  # noqa: E402
from train.feature_kinds import EncoderAtLength, at_length  # noqa: E402
from train.fit import FitSettings, fit  # noqa: E402
from train.layers import Attention  # noqa: E402
from train.protocols.parts import Part  # noqa: E402
from train.protocols.tables import Line, Table, random_guess  # noqa: E402
from train.settings import Experiment, FeatureSettings  # noqa: E402
from train.systems import count_parameters, drop_modalities  # noqa: E402
from train.systems.mha_fusion import PRESETS, MhaFusion, MhaFusionConfig, statistics  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "train" / "configs"
TINY = PRESETS["tiny"]
SWITCHES = [
    {},
    {"attention": "cross"},
    {"pool": "concat"},
    {"text": "cls"},
    {"attention": "cross", "text": "cls"},
    {"residual_ln": True},
    {"attention": "cross", "residual_ln": True},
    {"attention": "cross", "cross_fallback": True},
    {"mask": False},
    {"std_unbiased": True},
    {"modalities": "text"},
    {"modalities": "audio"},
    {"speech_width": 10},
    {"crop": "random"},
]


def build(**switches: object) -> MhaFusion:
    torch.manual_seed(0)
    return MhaFusion(replace(TINY, **switches)).eval()


def batch(rows: int = 3, speech: int = 9, text: int = 5, *, speech_width: int = 12) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "speech": torch.randn(rows, speech, speech_width, generator=generator),
        "speech_mask": torch.ones(rows, speech),
        "text": torch.randn(rows, text, 16, generator=generator),
        "text_mask": torch.ones(rows, text),
    }


def shortened(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same batch with the last frames and tokens of its last row masked."""
    masks = {name: inputs[f"{name}_mask"].clone() for name in ("speech", "text")}
    masks["speech"][-1, -4:] = 0
    masks["text"][-1, -2:] = 0
    return inputs | {f"{name}_mask": mask for name, mask in masks.items()}


def with_other_padding(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return inputs | {
        name: torch.where(inputs[f"{name}_mask"][..., None] > 0, inputs[name], torch.tensor(7.0))
        for name in ("speech", "text")
    }


def test_mha_check_01_frames_tokens_head_width_and_pooled_width() -> None:
    paper = PRESETS["paper"]
    assert (paper.frames, paper.text_len) == (499, 128)
    speech = read_experiment(CONFIGS / "mha-paper.toml").features["speech"]
    for samples in (32_000, 160_000, 200_000):
        assert len(at_length(np.ones(samples, np.float32), speech)) == 160_000
    encoder = EncoderAtLength("x", load_encoder("tiny:wav2vec2-base"), speech)
    assert encoder(np.random.default_rng(0).standard_normal(200_000).astype(np.float32)).shape == (499, 32)
    assert paper.width // paper.heads == 128
    for pool in ("stat", "concat"):
        with torch.device("meta"):
            model = MhaFusion(replace(paper, pool=pool))
        assert model.hidden.in_features == 1536


@pytest.mark.parametrize("limit", [4, 5])
def test_longer_text_and_speech_are_cut(limit: int) -> None:
    model = build(text_len=limit, frames=6)
    inputs = batch()
    cut = {name: x[:, : 6 if name.startswith("speech") else limit] for name, x in inputs.items()}
    assert torch.allclose(model(inputs).logits, model(cut).logits, atol=1e-6)


def test_mha_check_02_six_heads_at_width_1024_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"width is 1024 and heads 6; need heads that divide the width; set width"):
        MhaFusionConfig(width=1024, heads=6)


def test_mha_check_03_attention_rows_sum_to_one_and_a_masked_row_reads_nothing() -> None:
    torch.manual_seed(0)
    attention = Attention(12, 3, 0.1).eval()
    queries, keys = torch.randn(2, 4, 12), torch.randn(2, 6, 12)
    mask = torch.tensor([[1.0, 1, 1, 1, 0, 0], [0.0, 0, 0, 0, 0, 0]])
    weights = attention.weights(queries, keys, mask)
    assert weights.shape == (2, 3, 4, 6)
    assert torch.allclose(weights[0].sum(-1), torch.ones(3, 4), atol=1e-5)
    assert torch.all(weights[0, :, :, 4:] == 0)
    assert torch.all(weights[1] == 0)
    out = attention(queries, keys, mask)
    assert torch.isfinite(out).all()
    assert torch.allclose(out[1], attention.out.bias.expand(4, 12))


@pytest.mark.parametrize("attention", ["self", "cross"])
def test_mha_check_04_padding_invariance_unless_mask_is_off(attention: str) -> None:
    inputs = shortened(batch())
    changed = with_other_padding(inputs)
    masked = build(attention=attention)
    assert torch.allclose(masked(inputs).logits, masked(changed).logits, atol=1e-6)
    literal = build(attention=attention, mask=False)
    assert not torch.allclose(literal(inputs).logits[-1], literal(changed).logits[-1], atol=1e-4)


@pytest.mark.parametrize("attention", ["self", "cross"])
def test_mha_check_05_permutation_of_tokens_or_frames_changes_nothing(attention: str) -> None:
    model, inputs = build(attention=attention), shortened(batch())
    plain = model(inputs).logits
    for name in ("speech", "text"):
        order = torch.randperm(inputs[name].shape[1], generator=torch.Generator().manual_seed(3))
        permuted = inputs | {name: inputs[name][:, order], f"{name}_mask": inputs[f"{name}_mask"][:, order]}
        assert torch.allclose(model(permuted).logits, plain, atol=1e-5)


@pytest.mark.parametrize("unbiased", [False, True])
def test_mha_check_06_statistics_are_symmetric_and_smooth_at_equality(unbiased: bool) -> None:
    text, speech = torch.randn(4, 12, requires_grad=True), torch.randn(4, 12)
    z = statistics(text, speech, unbiased)
    assert torch.equal(z, statistics(speech, text, unbiased))
    assert torch.all(z[:, 12:] >= 0)
    spread = torch.stack([text, speech]).std(0, unbiased=unbiased)
    assert torch.allclose(z[:, 12:], spread, atol=1e-6)
    statistics(text, text.detach(), unbiased).sum().backward()
    assert text.grad is not None and torch.isfinite(text.grad).all()


def test_mha_check_07_cls_reads_one_key_which_is_a_linear_map() -> None:
    model, inputs = build(text="cls", pool="concat"), batch()
    first = model.project_text(inputs["text"][:, :1])
    attention = model.attention_text
    assert torch.all(attention.weights(first, first, torch.ones(3, 1)) == 1)
    expected = attention.out(attention.value(first[:, 0]))
    assert torch.allclose(model.pooled(inputs)[:, : TINY.width], expected, atol=1e-6)


def test_mha_check_08_cross_audio_depends_on_both_and_is_constant_for_one_token() -> None:
    model, inputs = build(attention="cross"), batch()
    text, speech = model.project_text(inputs["text"]), inputs["speech"]
    attention = model.attention_speech
    read = attention(speech, text, torch.ones(3, 5))
    assert not torch.allclose(read, attention(speech, text + torch.randn_like(text), torch.ones(3, 5)), atol=1e-4)
    assert not torch.allclose(read, attention(speech + torch.randn_like(speech), text, torch.ones(3, 5)), atol=1e-4)
    one = attention(speech, text[:, :1], torch.ones(3, 1))
    assert torch.allclose(one, one[:, :1].expand_as(one), atol=1e-6)


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_mha_check_09_batch_of_one_equals_batch_of_n_and_gradients_arrive(switches: dict[str, object]) -> None:
    model = build(**switches)
    inputs = shortened(batch(speech_width=model.config.speech_width))
    together = model(inputs).logits
    for row in range(3):
        alone = {}
        for name in ("speech", "text"):
            length = int(inputs[f"{name}_mask"][row].sum()) if model.config.mask else inputs[name].shape[1]
            alone[name] = inputs[name][row : row + 1, :length]
            alone[f"{name}_mask"] = inputs[f"{name}_mask"][row : row + 1, :length]
        assert torch.allclose(model(alone).logits[0], together[row], atol=1e-5)
    model.train()
    model.loss(model(inputs), {"emotion": torch.tensor([0, 1, 3])}).backward()
    for name, parameter in model.named_parameters():
        # A softmax over one key is 1 whatever the scores are: no query and no key can learn from it.
        one_key = model.config.text == "cls" and (
            name.startswith("attention_text") if model.config.attention == "self" else "attention_speech" in name
        )
        scored = () if one_key else ("query.weight", "key.weight")
        if name.endswith(("project_text.weight", "value.weight", "out.weight", "classify.weight", *scored)):
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name


def test_mha_check_09_no_gradient_reaches_the_encoders() -> None:
    speech, text = load_encoder("tiny:wav2vec2"), load_encoder("tiny:roberta")
    model = build(speech_width=speech.width, text_width=text.width).train()
    frames, frame_mask = speech.encode(torch.randn(2, 8_000), torch.ones(2, 8_000))
    tokens, token_mask = text.encode(torch.randint(4, 250, (2, 5)), torch.ones(2, 5))
    inputs = {"speech": frames[-1], "speech_mask": frame_mask, "text": tokens[-1], "text_mask": token_mask}
    model.loss(model(inputs), {"emotion": torch.tensor([0, 1])}).backward()
    assert model.project_text.weight.grad is not None
    for encoder in (speech, text):
        assert all(parameter.grad is None for parameter in encoder.parameters())


def test_mha_check_10_parameter_count() -> None:
    with torch.device("meta"):
        model = MhaFusion(PRESETS["paper"])
    parts = model.parts()
    assert parts == {
        "project_text": 787_200,
        "attention_text": 2_362_368,
        "attention_speech": 2_362_368,
        "hidden": 393_472,
        "dropout": 0,
        "classify": 1_799,
        "missing_modality": 2 * 768,
    }
    assert sum(parts.values()) - parts["missing_modality"] == 5_907_207
    assert sum(parts.values()) == count_parameters(model)


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_parts_sum_to_every_parameter(switches: dict[str, object]) -> None:
    model = build(**switches)
    assert sum(model.parts().values()) == count_parameters(model)


def _flat_examples(count: int) -> list[Example]:
    rng = np.random.default_rng(0)
    return [
        Example(
            Path(f"{place}.flac"),
            f"s{place}",
            "made",
            {
                "speech": rng.standard_normal((4, 12)).astype(np.float32),
                "text": rng.standard_normal((3, 16)).astype(np.float32),
            },
            emotion=place % 4,
        )
        for place in range(count)
    ]


class _Flat(MhaFusion):
    """Its loss never moves in evaluation, as that of a model that has stopped learning."""

    def loss(self, output, targets):  # type: ignore[no-untyped-def]
        loss = super().loss(output, targets)
        return loss if self.training else loss * 0 + 1.0


def test_mha_check_11_rate_falls_after_five_flat_epochs_and_training_stops_after_ten() -> None:
    torch.manual_seed(0)
    settings = FitSettings(
        epochs=50,
        learning_rate=1e-4,
        batch_size=4,
        select="loss",
        schedule="plateau",
        plateau_factor=0.1,
        plateau_patience=5,
        patience=10,
        device="cpu",
    )
    result = fit(_Flat(TINY), _flat_examples(4), _flat_examples(4), settings)
    rates = [round(line["learning_rate"], 9) for line in result.history]
    # The first epoch is the best one; five flat ones follow, and from the next on the rate is a tenth.
    assert rates[:6] == [1e-4] * 6
    assert rates[6:] == [1e-5] * 5
    assert len(result.history) == 11
    assert result.best_epoch == 1


class _Graph(torch.nn.Module):
    """The model with positional inputs, as exporters want them."""

    def __init__(self, model: MhaFusion) -> None:
        super().__init__()
        self.model = model

    def forward(self, speech, text, speech_mask, text_mask):  # type: ignore[no-untyped-def]
        inputs = {"speech": speech, "text": text, "speech_mask": speech_mask, "text_mask": text_mask}
        return self.model(inputs).logits


NAMES = ("speech", "text", "speech_mask", "text_mask")


def exported(model: MhaFusion, inputs: dict[str, torch.Tensor], path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Graph(model).eval(),
            tuple(inputs[name] for name in NAMES),
            str(path),
            input_names=list(NAMES),
            output_names=["logits"],
            opset_version=17,
            dynamo=False,
        )


def run(session, inputs: dict[str, torch.Tensor]) -> np.ndarray:  # type: ignore[no-untyped-def]
    # A single modality's graph has only the inputs that it reads.
    wanted = [node.name for node in session.get_inputs()]
    return session.run(None, {name: inputs[name].numpy() for name in wanted})[0]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_mha_check_12_onnx_equals_torch(switches: dict[str, object], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx", reason="exporting needs onnx: pip install -e '.[export]'")
    model = build(**switches)
    inputs = shortened(batch(rows=1, speech_width=model.config.speech_width))
    exported(model, inputs, tmp_path / "head.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "head.onnx"), providers=["CPUExecutionProvider"])
    silent = inputs | {"text_mask": inputs["text_mask"] * 0}
    for case in (inputs, silent, with_other_padding(inputs)):
        with torch.no_grad():
            expected = model(case).logits.numpy()
        assert np.abs(run(session, case) - expected).max() < 1e-4


def _class_dependent(count: int, seed: int) -> list[Example]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((4, 28))
    examples = []
    for place in range(count):
        emotion = place % 4
        speech = centres[emotion, :12] + rng.standard_normal((9, 12)) * 1.5
        text = centres[emotion, 12:] + rng.standard_normal((5, 16)) * 1.5
        features = {"speech": speech.astype(np.float32), "text": text.astype(np.float32)}
        examples.append(Example(Path(f"{place}.flac"), "s", "made", features, emotion=emotion))
    return examples


def _single(example: Example) -> dict[str, torch.Tensor]:
    tensors = {name: torch.from_numpy(np.asarray(value))[None] for name, value in example.features.items()}
    return tensors | {f"{name}_mask": torch.ones(tensor.shape[:2]) for name, tensor in tensors.items()}


@pytest.mark.parametrize("attention", ["self", "cross"])
def test_mha_check_12_int8_agrees_with_float(attention: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx", reason="exporting needs onnx: pip install -e '.[export]'")
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    torch.manual_seed(0)
    model = MhaFusion(replace(TINY, attention=attention))
    settings = FitSettings(epochs=6, learning_rate=3e-3, batch_size=16, device="cpu")
    fit(model, _class_dependent(160, 1), [], settings)
    unseen = [_single(example) for example in _class_dependent(200, 2)]
    exported(model.eval(), unseen[0], tmp_path / "head.onnx")

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter([_single(example) for example in _class_dependent(64, 3)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            row = next(self.rows, None)
            return row and {name: tensor.numpy() for name, tensor in row.items()}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_static(
            str(tmp_path / "head.onnx"),
            str(tmp_path / "int8.onnx"),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
    sessions = [
        onnxruntime.InferenceSession(str(tmp_path / name), providers=["CPUExecutionProvider"])
        for name in ("head.onnx", "int8.onnx")
    ]
    float_answers, int8_answers = ([int(run(session, inputs).argmax()) for inputs in unseen] for session in sessions)
    truth = [place % 4 for place in range(200)]
    assert np.mean([a == b for a, b in zip(float_answers, truth, strict=True)]) > 0.6
    assert np.mean([a == b for a, b in zip(float_answers, int8_answers, strict=True)]) >= 0.97


@pytest.mark.parametrize("missing", ["text", "speech"])
@pytest.mark.parametrize("switches", [{}, {"attention": "cross"}, {"mask": False}, {"pool": "concat"}], ids=str)
def test_absent_and_fully_masked_are_the_same_missing_modality(missing: str, switches: dict[str, object]) -> None:
    model, inputs = build(**switches), batch()
    absent = {name: x for name, x in inputs.items() if not name.startswith(missing)}
    masked = inputs | {f"{missing}_mask": inputs[f"{missing}_mask"] * 0}
    logits = model(absent).logits
    assert torch.isfinite(logits).all()
    assert torch.allclose(logits, model(masked).logits, atol=1e-6)
    model.zero_grad()
    model(masked).logits.sum().backward()
    assert getattr(model.missing_modality, missing).grad.abs().sum() > 0


def test_literal_cross_has_no_answer_without_text_but_residual_and_fallback_do() -> None:
    inputs = {name: x for name, x in batch().items() if name.startswith("speech")}
    literal = build(attention="cross")(inputs).logits
    assert torch.allclose(literal[0], literal[1], atol=1e-6)  # every utterance gets one and the same answer
    for switch in ("residual_ln", "cross_fallback"):
        logits = build(attention="cross", **{switch: True})(inputs).logits
        assert not torch.allclose(logits[0], logits[1], atol=1e-4)


def test_fallback_changes_nothing_where_both_are_there() -> None:
    inputs = shortened(batch())
    plain, fallback = build(attention="cross"), build(attention="cross", cross_fallback=True)
    assert torch.allclose(plain(inputs).logits, fallback(inputs).logits, atol=1e-6)


def test_modality_dropout_never_empties_both_and_leaves_evaluation_alone() -> None:
    torch.manual_seed(0)
    model = build(modality_dropout=0.4).train()
    _, _, text, speech = model._both(batch(rows=500))
    kept_text, kept_speech = text[:, 0], speech[:, 0]
    assert torch.all(kept_text + kept_speech >= 1)
    assert 0.3 < float(1 - kept_text.mean()) < 0.5
    assert 0.3 < float(1 - kept_speech.mean()) < 0.5
    _, _, text, speech = model.eval()._both(batch(rows=500))
    assert text.all() and speech.all()


def test_modality_dropout_hides_nothing_from_a_row_that_has_one_modality() -> None:
    masks = {"text": torch.zeros(500, 2), "speech": torch.ones(500, 3)}
    assert all(torch.equal(mask, masks[name]) for name, mask in drop_modalities(masks, 0.5, True).items())


def test_a_batch_without_masks_is_valid_throughout() -> None:
    inputs = batch()
    for switches in ({}, {"attention": "cross"}, {"mask": False}):
        model = build(**switches)
        bare = {name: inputs[name] for name in ("speech", "text")}
        assert torch.equal(model(bare).logits, model(inputs).logits)
    assert torch.isfinite(build()({"text": inputs["text"]}).logits).all()


def test_random_crop_takes_neighbouring_valid_frames_in_training_only() -> None:
    model = build(crop="random", frames=4, modality_dropout=0.0)
    x = torch.arange(9.0)[None, :, None].expand(200, 9, 12)
    mask = torch.ones(200, 9)
    mask[:, 7:] = 0
    evaluated, _, _ = model._prepared("speech", x, mask)
    assert evaluated[0, :, 0].tolist() == [0, 1, 2, 3]
    torch.manual_seed(0)
    cropped, valid, _ = model.train()._prepared("speech", x, mask)
    assert torch.all(valid == 1)
    assert torch.all(cropped.diff(dim=1) == 1)
    assert set(cropped[:, 0, 0].tolist()) == {0, 1, 2, 3}


def _spoken(folder: Path, text: str, seconds: float) -> Path:
    """Write one clip and its manifest; return the manifest."""
    soundfile = pytest.importorskip("soundfile")
    wave = 0.1 * np.random.default_rng(0).standard_normal(int(16_000 * seconds))
    soundfile.write(folder / "a.wav", wave, 16_000)
    manifest = folder / "clips.csv"
    manifest.write_text(f"path,corpus,speaker,emotion4,transcript\na.wav,c,s,sad,{text}\n", encoding="utf-8")
    return manifest


def test_random_crops_come_from_anywhere_in_a_long_clip(tmp_path: Path) -> None:
    speech = FeatureSettings("encoder", "tiny:wav2vec2-base")
    manifest = str(_spoken(tmp_path, "no words", 2.0))
    settings = Experiment("mha", "x", preset="tiny", manifest=manifest, features={"speech": speech})
    settings = replace(settings, model={"crop": "random", "modalities": "audio"})
    bench = Workbench(settings, None, tmp_path / "cache")
    (example,) = bench.examples(bench.clips())
    # Four times as long as what the head reads.
    assert example.features["speech"].shape == (99, 32)
    model, inputs = bench.system(), collate([example])[0]
    assert torch.equal(model.eval()(inputs).logits, model(inputs).logits)
    model.train()
    model.dropout.p = model.attention_speech.dropout.p = 0.0
    torch.manual_seed(0)
    assert len({tuple(model(inputs).logits[0].tolist()) for _ in range(12)}) > 6


@pytest.mark.parametrize("length", ["zeros", "crop", "centre"])
def test_a_random_crop_of_clips_that_are_already_cut_is_refused(length: str, tmp_path: Path) -> None:
    speech = FeatureSettings("encoder", "tiny:wav2vec2-base", length=length, seconds=10)
    settings = Experiment("mha", "x", preset="tiny", features={"speech": speech}, model={"crop": "random"})
    with pytest.raises(ConfigError, match=f"length '{length}', cut once for all epochs; need length = 'as_is'"):
        Workbench(settings, None, tmp_path)


@pytest.mark.parametrize("tokens", [128, 129])
def test_the_129th_token_is_read_where_both_limits_let_it(tokens: int, tmp_path: Path) -> None:
    options = {} if tokens == 128 else {"tokens": tokens}
    manifest = str(_spoken(tmp_path, "a" * 200, 0.5))
    text = FeatureSettings("text", "tiny:roberta", options=options)
    settings = Experiment("mha", "x", preset="tiny", manifest=manifest, features={"text": text})
    settings = replace(settings, model={"modalities": "text", "text_len": 129})
    bench = Workbench(settings, None, tmp_path / "cache")
    (example,) = bench.examples(bench.clips())
    assert example.features["text"].shape == (tokens, 32)
    inputs = collate([example])[0]
    other = inputs | {"text": inputs["text"].clone()}
    other["text"][:, -1] += 1.0
    for limit in (tokens, 127):
        model = bench.system(text_len=limit).eval()
        assert torch.allclose(model(other).logits, model(inputs).logits, atol=1e-6) == (limit < tokens)


def test_the_random_guesser_stands_in_every_table_of_classes() -> None:
    truth = np.repeat(np.arange(7), 2)
    speakers = tuple(f"s{place % 2}" for place in range(14))
    part = Part("x", {}, tuple(map(str, range(14))), speakers, truth, np.eye(7, dtype=np.float32)[truth])
    table = Table("fusion", [Line({"system": "MHA"}, [part])])
    assert "chance: 0.143 (1/7)" in table.text([f"class {number}" for number in range(7)])
    assert table.result()["chance"] == random_guess(7) == 1 / 7


def test_wrong_switches_are_configuration_errors() -> None:
    with pytest.raises(ConfigError, match="attention is 'both'; need one of self, cross"):
        MhaFusionConfig(attention="both")
    with pytest.raises(ConfigError, match=r"modality_dropout is 0\.9; need 0 to 0\.5"):
        MhaFusionConfig(modality_dropout=0.9)
    with pytest.raises(ConfigError, match="need both"):
        MhaFusionConfig(attention="cross", modalities="text")
    with pytest.raises(ConfigError, match="neither speech nor text"):
        build()({})
    with pytest.raises(ConfigError, match="has no speech"):
        build(modalities="audio")({name: x for name, x in batch().items() if name.startswith("text")})
