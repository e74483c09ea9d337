from __future__ import annotations

import copy
import hashlib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from edge_ser import metrics  # noqa: E402
from edge_ser.errors import ConfigError  # noqa: E402
from train import lora  # noqa: E402
from train.attribute_head import AttentivePooling, PooledHead, batch_ccc, ccc_loss  # noqa: E402
from train.encoders import TRUE_SIZE, WaveformEncoder, load_encoder, parameter_count  # noqa: E402
from train.language_packs import load_pack, save_pack  # noqa: E402
from train.systems import configure  # noqa: E402
from train.systems.lora_multilingual import (  # noqa: E402
    PRESETS,
    LoraSer,
    LoraSerConfig,
    WholeLoraSer,
    random_crop,
)

TINY = PRESETS["tiny"]
FRAME = 32
MODES = ("off_the_shelf", "finetuned", "lora", "ft_dual", "ft_lora", "packs")
Data = tuple[torch.Tensor, torch.Tensor]


def build(seed: int = 0, **settings: Any) -> LoraSer:
    torch.manual_seed(seed)
    return LoraSer(configure(LoraSerConfig, PRESETS, "tiny", settings))


def audio(lengths: tuple[int, ...] = (6_000, 4_200, 5_100), seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    wave = torch.randn(len(lengths), max(lengths), generator=generator) * 0.1
    mask = torch.zeros_like(wave)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1.0
    return {"audio": wave * mask, "audio_mask": mask}


def attributes(count: int, seed: int = 2) -> dict[str, torch.Tensor]:
    return {"attributes": torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))}


def learn(system: LoraSer, inputs: dict[str, torch.Tensor], targets: dict[str, torch.Tensor], steps: int = 2) -> None:
    optimiser = torch.optim.Adam([p for p in system.parameters() if p.requires_grad], lr=1e-3)
    system.train()
    for _ in range(steps):
        optimiser.zero_grad()
        system.loss(system(inputs), targets).backward()
        optimiser.step()


@torch.no_grad()
def answer(system: LoraSer, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return system.eval()(inputs).logits


def disturb(system: LoraSer, language: str, seed: int = 3) -> None:
    generator = torch.Generator().manual_seed(seed)
    for layer in lora.lora_layers(system.encoder):
        layer.lora_b[language].data.copy_(0.3 * torch.randn(layer.lora_b[language].shape, generator=generator))


def base_hash(system: LoraSer) -> str:
    named = sorted((n, p) for n, p in system.encoder.named_parameters() if ".lora_" not in n)
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for _, p in named)).hexdigest()


def test_lora_check_01_parameter_counts() -> None:
    assert lora.lora_parameters(24, 1024, 4096, 32) == 14_155_776
    encoder = parameter_count(TRUE_SIZE["microsoft/wavlm-large"])
    assert 0.0425 <= 14_155_776 / (encoder + 14_155_776) <= 0.0435
    head = sum(p.numel() for p in PooledHead(1024, 128, 128, 3, 0.1).parameters())
    assert head == 393_987
    assert encoder + 14_155_776 + head == 330_002_883
    assert parameter_count(TRUE_SIZE["facebook/hubert-large-ll60k"]) + 14_155_776 + head == 329_988_483
    system = build()
    system.begin("zh")
    parts = system.parts()
    assert parts["lora"] == lora.lora_parameters(2, 32, 64, TINY.rank)
    assert sum(parts.values()) == sum(p.numel() for p in system.parameters())
    assert sum(p.numel() for p in system.parameters() if p.requires_grad) == parts["lora"] + parts["head"]


@pytest.mark.parametrize("encoder", ["tiny:wavlm", "tiny:hubert", "tiny:whisper"])
def test_lora_check_02_a_fresh_adapter_changes_no_bit(encoder: str) -> None:
    system = build(encoder=encoder)
    inputs = audio()
    before = answer(system, inputs)
    system.begin("zh")
    assert torch.equal(answer(system, inputs), before)


@pytest.mark.parametrize("encoder", ["tiny:wavlm", "tiny:hubert", "tiny:whisper"])
def test_lora_check_03_every_matrix_learns_and_the_base_does_not(encoder: str) -> None:
    system = build(encoder=encoder)
    system.begin("zh")
    before = base_hash(system)
    optimiser = torch.optim.Adam([p for p in system.parameters() if p.requires_grad], lr=1e-3)
    system.train()
    for step in range(2):
        optimiser.zero_grad()
        system.loss(system(audio()), attributes(3)).backward()
        for layer in lora.lora_layers(system.encoder):
            a, b = layer.lora_a["zh"].grad, layer.lora_b["zh"].grad
            assert bool(torch.isfinite(a).all()) and bool(torch.isfinite(b).all())
            assert bool((b != 0).any())
            assert bool((a != 0).any()) == (step == 1)
        optimiser.step()
    assert len(lora.lora_layers(system.encoder)) == 2 * 6
    assert base_hash(system) == before


@pytest.mark.parametrize("encoder", ["tiny:wavlm", "tiny:hubert", "tiny:whisper"])
def test_lora_check_04_merged_is_unmerged(encoder: str) -> None:
    system = build(encoder=encoder)
    system.begin("zh")
    disturb(system, "zh")
    before, weights = answer(system, audio()), base_hash(system)
    system.merge()
    assert float((answer(system, audio()) - before).abs().max()) < 1e-5
    assert base_hash(system) != weights
    system.unmerge()
    assert base_hash(system) == weights


def test_lora_check_05_the_first_language_comes_back_bit_for_bit() -> None:
    inputs = audio()
    for head_mode, restored in (("per_language", True), ("shared", False)):
        system = build(head_mode=head_mode)
        before = answer(system, inputs)
        system.begin("zh")
        learn(system, inputs, attributes(3))
        adapted = answer(system, inputs)
        system.use("en")
        assert torch.equal(answer(system, inputs), before) == restored
        system.use("zh")
        assert torch.equal(answer(system, inputs), adapted)


def test_lora_check_06_ccc() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, generator=generator)
    x = x - x.mean(0)
    y = 0.5 * x + 0.5 * torch.randn(64, 3, generator=generator)
    assert float(batch_ccc(x[:, 0], x[:, 0])) == pytest.approx(1.0, abs=1e-5)
    assert float(batch_ccc(x[:, 0], -x[:, 0])) == pytest.approx(-1.0, abs=1e-5)
    assert float(ccc_loss(x, x)) == pytest.approx(0.0, abs=1e-5)
    assert float(ccc_loss(-x, x)) == pytest.approx(2.0, abs=1e-5)
    assert float(batch_ccc(x[:, 0] + 0.5, x[:, 0])) < 0.95
    assert float(batch_ccc(2.0 * x[:, 0], x[:, 0])) < 0.95
    for place in range(3):
        reference = metrics.ccc(y[:, place].numpy(), x[:, place].numpy())
        assert float(batch_ccc(y[:, place], x[:, place])) == pytest.approx(reference, abs=1e-6)
    assert float(batch_ccc(torch.ones(4), torch.rand(4))) == pytest.approx(0.0, abs=1e-4)
    with pytest.raises(ConfigError, match="batch of 1"):
        ccc_loss(x[:1], y[:1])


def test_lora_check_07_pooling_and_padding_invariance() -> None:
    pooling = AttentivePooling(6, 4)
    x, mask = torch.randn(3, 7, 6), torch.ones(3, 7)
    mask[1, 4:] = 0.0
    mask[2] = 0.0
    weights = pooling.weights(x, mask)
    torch.testing.assert_close(weights.sum(1), torch.tensor([1.0, 1.0, 0.0]), atol=1e-5, rtol=0)
    assert bool((weights[mask == 0] == 0).all())
    constant = torch.ones(1, 7, 6, requires_grad=True)
    pooled = pooling(constant, mask[:1])
    assert float(pooled[0, 6:].detach().mean()) == pytest.approx(1e-3, rel=1e-2)
    pooled.sum().backward()
    assert bool(torch.isfinite(constant.grad).all())
    for encoder in ("tiny:wavlm", "tiny:hubert", "tiny:whisper"):
        system = build(encoder=encoder)
        system.begin("zh")
        disturb(system, "zh")
        short = audio((6_000,))
        longer = {name: torch.nn.functional.pad(value, (0, 3_500)) for name, value in short.items()}
        assert float((answer(system, short) - answer(system, longer)).abs().max()) < 1e-4


@pytest.mark.parametrize("encoder", ["tiny:wavlm", "tiny:hubert", "tiny:whisper", "tiny:hubert-base"])
def test_lora_check_08_one_by_one_is_together(encoder: str) -> None:
    system = build(encoder=encoder)
    inputs = audio()
    together = answer(system, inputs)
    for row, length in enumerate((6_000, 4_200, 5_100)):
        alone = answer(system, {name: value[row : row + 1, :length] for name, value in inputs.items()})
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)


class FrameEncoder(WaveformEncoder):
    """A tiny encoder whose frames are given instead of heard, so that two languages can be made up in a few numbers."""

    def start(self, inputs: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        valid = mask.view(len(mask), -1, FRAME)[..., 0]
        return inputs.view(len(inputs), -1, FRAME), valid, valid


def speech(language: int, count: int, seed: int, *, offset: float = 1.0) -> Data:
    """Utterances whose three attributes mix into the frames in each language's own way.

    `offset` is how far the second language's frames lie from the first one's whatever is felt, as another recording
    does; with 0 the two differ in the mixing alone.
    """
    world = np.random.default_rng(7)
    mixes, offsets = world.standard_normal((2, 6, FRAME)), world.standard_normal((2, FRAME))
    mix = mixes[0] if language == 0 else mixes.mean(0)
    place = offsets[0] + language * offset * (offsets[1] - offsets[0])
    rng = np.random.default_rng([seed, language])
    truth = rng.uniform(0, 1, (count, 3)).astype(np.float32)
    shapes = np.concatenate([truth - 0.5, np.sin(4 * truth) - 0.5], axis=1)
    frames = (shapes @ mix + place)[:, None] + rng.standard_normal((count, 6, FRAME))
    return torch.from_numpy(frames.reshape(count, -1).astype(np.float32)), torch.from_numpy(truth)


def train_on(system: LoraSer, data: Data, epochs: int, rate: float, seed: int) -> None:
    torch.manual_seed(seed)
    optimiser = torch.optim.Adam([p for p in system.parameters() if p.requires_grad], lr=rate)
    system.train()
    for _ in range(epochs):
        for places in torch.randperm(len(data[0])).split(32):
            optimiser.zero_grad()
            inputs = {"audio": data[0][places], "audio_mask": torch.ones_like(data[0][places])}
            system.loss(system(inputs), {"attributes": data[1][places]}).backward()
            optimiser.step()


def concordance(system: LoraSer, data: Data) -> float:
    out = answer(system, {"audio": data[0], "audio_mask": torch.ones_like(data[0])}).numpy()
    return float(np.mean([metrics.ccc(data[1][:, place].numpy(), out[:, place]) for place in range(3)]))


def first_language(seed: int, **settings: Any) -> LoraSer:
    torch.manual_seed(seed)
    base = load_encoder("tiny:hubert", seed=seed)
    config = replace(TINY, head_hidden=16, dropout=0.0, **settings)
    system = LoraSer(config, FrameEncoder(base.model, "hubert", normalise=False))
    train_on(system, speech(0, 256, seed), 10, 3e-3, seed)
    return system


def second_language(
    source: LoraSer, seed: int, count: int, epochs: int, *, rate: float = 1e-3, offset: float = 1.0
) -> LoraSer:
    system = copy.deepcopy(source)
    system.begin("zh")
    whole = speech(1, 256, seed, offset=offset)
    train_on(system, (whole[0][:count], whole[1][:count]), epochs, rate, seed)
    return system


def test_lora_check_09_a_second_language_is_gained_and_the_first_kept() -> None:
    # As published: one head for both, the adapter on, nobody says which language is spoken. Languages that differ in
    # how attributes sound, in like recordings: where the second one also lies elsewhere (`offset`), no rate keeps both.
    x_test, y_test = speech(0, 256, 99), speech(1, 256, 99, offset=0.0)
    gained, lost = [], []
    for seed in range(5):
        source = first_language(seed)
        adapted = second_language(source, seed, 256, 10, rate=3e-4, offset=0.0)
        gained.append(concordance(adapted, y_test) - concordance(source, y_test))
        lost.append(concordance(source, x_test) - concordance(adapted, x_test))
    assert np.mean(gained) >= 0.1
    assert np.mean(lost) <= 0.05


def test_a_head_per_language_gains_the_second_and_gives_the_first_back() -> None:
    x_test, y_test = speech(0, 256, 99), speech(1, 256, 99)
    source = first_language(0, head_mode="per_language")
    system = second_language(source, 0, 256, 10)
    assert concordance(system, y_test) >= concordance(source, y_test) + 0.1
    system.use("en")
    assert concordance(system, x_test) == concordance(source, x_test)


def test_a_shared_head_answers_distant_languages_better_than_the_source_but_forgets_some_of_the_first() -> None:
    x_test, y_test = speech(0, 256, 99), speech(1, 256, 99)
    source = first_language(0)
    adapted = second_language(source, 0, 256, 6)
    x_lost = concordance(source, x_test) - concordance(adapted, x_test)
    assert concordance(adapted, y_test) - concordance(source, y_test) > max(0.1, x_lost)
    # The limit of 0.05 that holds in like recordings does not hold here.
    assert 0.05 < x_lost < 0.3


@pytest.mark.slow
def test_lora_check_09_more_of_the_second_language_is_better() -> None:
    y_test = speech(1, 256, 99)
    sources = [first_language(seed) for seed in range(5)]
    plan = ((16, 40), (64, 20), (256, 10))
    means = [
        np.mean([concordance(second_language(source, seed, *size), y_test) for seed, source in enumerate(sources)])
        for size in plan
    ]
    assert means[0] < means[1] < means[2]


@pytest.mark.parametrize("encoder", ["tiny:wavlm", "tiny:hubert"])
def test_lora_check_10_the_merged_graph_says_what_torch_says(encoder: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the press needs onnx: pip install -e '.[export]'")
    onnxruntime = pytest.importorskip("onnxruntime")
    system = build(encoder=encoder)
    system.begin("zh")
    disturb(system, "zh")
    unmerged = answer(system, audio((6_000,)))
    system.merge()
    system.encoder.fold_weight_norm()
    whole = WholeLoraSer(system).eval()
    example = audio((6_000,))
    path = tmp_path / "lora.onnx"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            whole,
            (example["audio"], example["audio_mask"]),
            str(path),
            input_names=["audio", "audio_mask"],
            output_names=["logits"],
            dynamic_axes={"audio": {1: "samples"}, "audio_mask": {1: "samples"}},
            opset_version=17,
            dynamo=False,
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for samples in (6_000, 9_000):
        inputs = audio((samples,))
        (logits,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        assert float(np.abs(logits - answer(system, inputs).numpy()).max()) < 1e-4
    assert float((answer(system, audio((6_000,))) - unmerged).abs().max()) < 1e-4


def learning(system: LoraSer) -> set[str]:
    kinds = set()
    for name, parameter in system.named_parameters():
        if parameter.requires_grad:
            kinds.add(name.split(".")[0] if ".lora_" not in name else "adapter " + name.rpartition(".")[2])
    return kinds


@pytest.mark.parametrize(
    ("mode", "first", "second"),
    [
        ("off_the_shelf", {"heads"}, None),
        ("finetuned", {"encoder", "heads"}, None),
        ("lora", {"adapter en", "heads"}, {"adapter zh", "heads"}),
        ("ft_dual", {"encoder", "heads"}, {"encoder", "heads"}),
        ("ft_lora", {"encoder", "heads"}, {"adapter zh", "heads"}),
        ("packs", {"heads"}, {"adapter zh", "heads"}),
    ],
)
def test_each_mode_trains_what_it_says(mode: str, first: set[str], second: set[str] | None) -> None:
    system = build(mode=mode)
    assert learning(system) == first
    learn(system, audio(), attributes(3))
    if second is None:
        with pytest.raises(ConfigError, match="alone"):
            system.begin("zh")
    else:
        system.begin("zh")
        assert learning(system) == second
        learn(system, audio(), attributes(3))
    assert bool(torch.isfinite(answer(system, audio())).all())


def test_the_convolutions_are_kept_unless_told_otherwise() -> None:
    kept = build(mode="finetuned")
    moved = build(mode="finetuned", freeze_cnn=False)
    assert not any(p.requires_grad for p in kept.encoder.front_end[0].parameters())
    assert all(p.requires_grad for p in moved.encoder.front_end[0].parameters())


def test_frames_from_a_cache_need_no_encoder() -> None:
    system = build(encoder="", mode="off_the_shelf", speech_width=12)
    inputs = {"speech": torch.randn(3, 9, 12), "speech_mask": torch.ones(3, 9)}
    assert answer(system, inputs).shape == (3, 3)
    assert system.parts()["encoder"] == 0
    with pytest.raises(ConfigError, match="no encoder"):
        system.merge()
    with pytest.raises(ConfigError, match="off_the_shelf"):
        build(encoder="", mode="ft_lora")


def test_cached_frames_answer_as_the_frozen_encoder_does() -> None:
    system = build(mode="off_the_shelf")
    states, mask = system.encoder.encode(*audio().values())
    cached = {"speech": states[-1], "speech_mask": mask}
    torch.testing.assert_close(answer(system, cached), answer(system, audio()))


def test_emotions_are_classes_under_cross_entropy() -> None:
    system = build(task="emotion", classes=4)
    output = system(audio())
    assert output.logits.shape == (3, 4)
    assert output.embedding.shape == (3, TINY.head_hidden)
    assert bool(torch.isfinite(system.loss(output, {"emotion": torch.tensor([0, 3, 1])})))


def test_attributes_that_are_unknown_are_left_out_of_the_loss() -> None:
    predicted, truth = torch.rand(8, 3), torch.rand(8, 3)
    truth[2:, 1] = float("nan")
    truth[1:, 2] = float("nan")
    expected = 1 - (batch_ccc(predicted[:, 0], truth[:, 0]) + batch_ccc(predicted[:2, 1], truth[:2, 1])) / 2
    assert float(ccc_loss(predicted, truth)) == pytest.approx(float(expected))


def test_a_sigmoid_keeps_attributes_in_their_range() -> None:
    out = answer(build(out="sigmoid"), audio())
    assert bool(((out > 0) & (out < 1)).all())


def test_an_early_layer_drops_the_later_ones() -> None:
    early, late = build(layer=1), build()
    assert early.encoder.layer_count == 1
    assert early.parts()["encoder"] < late.parts()["encoder"]
    assert answer(early, audio()).shape == (3, 3)


def test_long_clips_are_cropped_in_training_alone() -> None:
    wave = torch.arange(40.0).repeat(3, 1)
    mask = torch.ones(3, 40)
    mask[1, 15:] = 0.0
    mask[2, 5:] = 0.0
    cut, valid = random_crop(wave, mask, 10)
    assert valid.sum(1).tolist() == [10, 10, 5]
    assert bool((cut.diff(dim=1) == 1).all())
    assert random_crop(wave, mask, 40)[0] is wave
    system = build(crop_s=0.2)
    assert system.eval().frames(audio())[0].shape[1] > system.train().frames(audio())[0].shape[1] == 9


def languages() -> LoraSer:
    system = build(mode="packs", languages=("en", "it", "am"), head_mode="per_language")
    for place, language in enumerate(("it", "am")):
        system.begin(language)
        learn(system, audio(seed=place), attributes(3, seed=place))
        disturb(system, language, seed=place)
    return system


def test_languages_can_be_switched_and_pooled() -> None:
    system = languages()
    inputs = audio()
    alone = {}
    for language in ("en", "it", "am"):
        system.use(language)
        alone[language] = answer(system, inputs)
    assert not torch.equal(alone["it"], alone["am"])
    system.pool(("it", "am"), "outputs")
    torch.testing.assert_close(answer(system, inputs), (alone["it"] + alone["am"]) / 2)
    assert system.acting == ("it", "am")
    system.pool(("it", "am"), "weights")
    mean = answer(system, inputs)
    assert not torch.equal(mean, alone["it"])
    system.merge()
    torch.testing.assert_close(answer(system, inputs), mean, atol=1e-5, rtol=1e-4)


def test_pooling_says_what_is_wrong() -> None:
    system = build(mode="packs", languages=("en", "it"), head_mode="per_language")
    with pytest.raises(ConfigError, match="it is not learnt"):
        system.use("it")
    with pytest.raises(ConfigError, match="no language 'de'"):
        system.use("de")
    with pytest.raises(ConfigError, match="pool"):
        system.pool(("en",), "votes")
    shared = build(mode="packs", languages=("en", "it"))
    with pytest.raises(ConfigError, match="it is not learnt"):
        shared.use("it")


def test_learning_a_pack_leaves_the_others_as_they_were() -> None:
    system = languages()
    system.use("it")
    before = answer(system, audio())
    system.begin("am")
    learn(system, audio(), attributes(3))
    system.use("it")
    assert torch.equal(answer(system, audio()), before)


@pytest.mark.parametrize("half", [True, False])
def test_a_pack_is_a_small_file_that_brings_a_language(tmp_path: Path, half: bool) -> None:
    settings = {"mode": "packs", "languages": ("en", "it"), "head_mode": "per_language", "encoder": "tiny:whisper"}
    trained = build(**settings)
    trained.begin("it")
    learn(trained, audio(), attributes(3))
    disturb(trained, "it")
    path = tmp_path / "it.safetensors"
    save_pack(path, trained, "it", half=half)
    fresh = build(**settings)
    base = answer(fresh, audio())
    assert load_pack(path, fresh) == "it"
    expected, loaded = answer(trained, audio()), answer(fresh, audio())
    torch.testing.assert_close(loaded, expected, atol=5e-3 if half else 0, rtol=0)
    fresh.use("en")
    assert torch.equal(answer(fresh, audio()), base)
    numbers = trained.parts()["lora"] * (2 if half else 4) + 4 * trained.parts()["head"] // 2
    assert path.stat().st_size < numbers + 8_000


def test_a_pack_for_another_model_is_refused(tmp_path: Path) -> None:
    settings = {"mode": "packs", "languages": ("en", "it"), "head_mode": "per_language"}
    trained = build(**settings)
    trained.begin("it")
    path = tmp_path / "it.safetensors"
    save_pack(path, trained, "it")
    with pytest.raises(ConfigError, match="encoder"):
        load_pack(path, build(**settings, encoder="tiny:hubert"))
    with pytest.raises(ConfigError, match="rank"):
        load_pack(path, build(**settings, rank=2))
    with pytest.raises(ConfigError, match="no adapter"):
        save_pack(path, trained, "en")
    with pytest.raises(ConfigError, match="no language 'it'"):
        load_pack(path, build(mode="packs", languages=("en", "am"), head_mode="per_language"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"mode": "frozen"}, "mode"),
        ({"head_mode": "both"}, "head_mode"),
        ({"task": "gender"}, "task"),
        ({"languages": ()}, "languages"),
        ({"languages": ("en", "en")}, "languages"),
        ({"encoder": "tiny:roberta"}, "speech encoder"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build(**settings)


def test_presets_fit_their_encoders() -> None:
    assert set(PRESETS) >= {"paper", "paper-hubert", "edge-head", "tiny"}
    for name, config in PRESETS.items():
        assert config.encoder in TRUE_SIZE or name == "tiny"
    edge = build_edge()
    edge.begin("zh")
    assert edge.parts()["lora"] == lora.lora_parameters(2, 384, 1536, 8)
    assert answer(edge, audio((8_000,))).shape == (1, 4)


def build_edge() -> LoraSer:
    return LoraSer(replace(PRESETS["edge-head"], encoder="random:openai/whisper-tiny"))


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "whole"), [("paper", 330_002_883), ("paper-hubert", 329_988_483)])
def test_the_published_sizes(preset: str, whole: int) -> None:
    system = LoraSer(replace(PRESETS[preset], encoder=f"random:{PRESETS[preset].encoder}"))
    system.begin("zh")
    assert sum(system.parts().values()) == whole
    assert sum(p.numel() for p in system.parameters() if p.requires_grad) == 14_549_763
