"""CAMuLeNet: the twelve acceptance checks by number, then its switches and parts."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from safetensors.torch import save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from edge_ser.errors import ConfigError  # noqa: E402
from edge_ser.mfcc40 import mfcc40  # noqa: E402
from edge_ser.spectrogram import spectrogram_image  # noqa: E402
from train.corpora.utterance import Utterance  # noqa: E402
from train.encoders import load_encoder  # noqa: E402
from train.examples import Example, collate  # noqa: E402
from train.folds import speaker_folds  # noqa: E402
from train.image_encoders import AlexNet, load_imagenet, say_random_alexnet  # noqa: E402
from train.layers import mean_neighbours  # noqa: E402
from train.recurrent import MaskedBiGru, fit_middle, last_states  # noqa: E402
from train.systems import configure, count_parameters  # noqa: E402
from train.systems.camulenet import PRESETS, Camulenet, CamulenetConfig, CamulenetGraph  # noqa: E402

TINY = PRESETS["tiny"]
Batch = dict[str, Tensor]


def build(**overrides: object) -> Camulenet:
    torch.manual_seed(0)
    return Camulenet(replace(TINY, **overrides)).eval()  # type: ignore[arg-type]


def inputs_for(config: CamulenetConfig, frames: tuple[int, ...] = (25, 12), mfccs: tuple[int, ...] = (51, 30)) -> Batch:
    """Random features; row i has frames[i] valid frames of speech and mfccs[i] of MFCC."""
    torch.manual_seed(1)
    batch: Batch = {"spectrogram": torch.randn(len(frames), 1, config.image_size, config.image_size)}
    for name, lengths, width in (("speech", frames, config.speech_width), ("mfcc", mfccs, config.mfcc_width)):
        mask = torch.stack([(torch.arange(max(lengths)) < length).float() for length in lengths])
        batch[f"{name}_mask"] = mask
        batch[name] = torch.randn(len(lengths), max(lengths), width) * mask.unsqueeze(-1)
    return batch


def targets_for(gender: tuple[int, ...] = (0, 1)) -> Batch:
    return {"emotion": torch.arange(len(gender)) % 4, "gender": torch.tensor(gender)}


def pad(batch: Batch, speech: int, mfcc: int, noise: float = 0.0) -> Batch:
    """Append frames to both sequences, masked; zeros, or noise that a mask must hide."""
    padded = dict(batch)
    for name, extra in (("speech", speech), ("mfcc", mfcc)):
        more = torch.randn(len(batch[name]), extra, batch[name].shape[-1]) * noise
        padded[name] = torch.cat([batch[name], more], dim=1)
        padded[f"{name}_mask"] = nn.functional.pad(batch[f"{name}_mask"], (0, extra))
    return padded


def gradients(system: Camulenet, batch: Batch, targets: Batch) -> dict[str, Tensor]:
    system.zero_grad()
    loss = system.loss(system(batch), targets)
    loss.backward()
    return {name: value.grad.clone() for name, value in system.named_parameters() if value.grad is not None}


SWITCHES: list[dict[str, object]] = [
    {},
    {"attn_norm": "softmax"},
    {"query": "content"},
    {"mfcc_pool": "attn"},
    {"mfcc_pool": "last"},
    {"mfcc_pool": "flatten"},
    {"mfcc_pool_frames": 4},
    {"skip": "post"},
    {"mask_pad": False},
    {"multitask": False},
    {"coattention": False},
    {"gender_head": "ce"},
    {"spec": "logmel128", "spec_unit": "samples"},
]


def name_of(overrides: dict[str, object]) -> str:
    return "-".join(f"{key}={value}" for key, value in overrides.items()) or "published"


# --- the acceptance checks ---


@pytest.mark.parametrize(("positions", "clip_s", "mfccs"), [(1500, 30.0, 3001), (500, 10.0, 1001), (250, 5.0, 501)])
def test_camulenet_check_01_shapes_at_true_size(positions: int, clip_s: float, mfccs: int) -> None:
    config = CamulenetConfig(positions=positions, clip_s=clip_s)
    assert config.mfcc_frames == mfccs == len(mfcc40(np.zeros(int(clip_s * 16_000), np.float32)))
    with torch.device("meta"):  # Shapes alone, no memory.
        system = Camulenet(config).eval()
        views = system.views(
            {
                "speech": torch.zeros(2, positions, 1024),
                "speech_mask": torch.ones(2, positions),
                # Any length, for on this device each frame takes its time: that the BiGRU gives T_m x 512 at 501,
                # 1,001 and 3,001 frames is the next check.
                "mfcc": torch.zeros(2, 7, 40),
                "mfcc_mask": torch.ones(2, 7),
                "spectrogram": torch.zeros(2, 1, 224, 224),
            }
        )
        pooled = AlexNet(tap="pool")(torch.zeros(2, 1, 224, 224))
    assert views.image.shape == (2, 4096)
    assert pooled.shape == (2, 9216)
    assert views.frames.shape == (2, 7, 512)
    assert views.x_s.shape == views.x_m.shape == (2, 1024)
    assert views.query is not None and views.query.shape == (2, positions)
    assert views.speech.shape == (2, positions, 1024)
    assert views.attended.shape == views.y.shape == (2, 1024)
    assert views.z.shape == (2, 3072)


@pytest.mark.parametrize("mfccs", [3001, 1001, 501])
def test_camulenet_check_01_the_bigru_gives_512_numbers_for_each_mfcc_frame(mfccs: int) -> None:
    gru = MaskedBiGru(40, CamulenetConfig().gru_width, layers=2, dropout=0.0).eval()
    with torch.no_grad():
        assert gru(torch.zeros(1, mfccs, 40), torch.ones(1, mfccs)).shape == (1, mfccs, 512)


@pytest.mark.parametrize("overrides", SWITCHES, ids=name_of)
def test_camulenet_check_01_shapes_of_every_switch(overrides: dict[str, object]) -> None:
    system = build(**overrides)
    output = system(inputs_for(TINY))
    assert output.logits.shape == (2, 4)
    assert output.embedding.shape == (2, 8)
    genders = 2 if overrides.get("gender_head") == "ce" else 1
    assert (output.gender is None) if "multitask" in overrides else output.gender.shape == (2, genders)
    assert torch.isfinite(output.logits).all()


@pytest.mark.parametrize("overrides", [{}, {"attn_norm": "softmax"}, {"query": "content"}], ids=name_of)
def test_camulenet_check_02_attended_frames_are_the_weighted_sum(overrides: dict[str, object]) -> None:
    views = build(**overrides).views(inputs_for(TINY))
    assert views.query is not None
    for row in range(2):
        by_hand = sum(views.query[row, place] * views.speech[row, place] for place in range(views.speech.shape[1]))
        assert torch.allclose(views.attended[row], by_hand, atol=1e-5)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"attn_norm": "softmax"},
        {"query": "content"},
        {"mfcc_pool": "attn"},
        {"mfcc_pool": "last"},
        {"coattention": False},
        {"mfcc_pool_frames": 4},
    ],
    ids=name_of,
)
def test_camulenet_check_03_padding_invariance(overrides: dict[str, object]) -> None:
    system = build(**overrides)
    batch = inputs_for(TINY, frames=(20, 12))
    plain = system.views(batch).z
    assert (plain - system.views(pad(batch, speech=5, mfcc=70)).z).abs().max() < 1e-5
    assert (plain - system.views(pad(batch, speech=5, mfcc=70, noise=3.0)).z).abs().max() < 1e-5


def test_camulenet_check_03_without_the_mask_padding_is_seen() -> None:
    system = build(mask_pad=False)
    batch = inputs_for(TINY, frames=(20, 12))
    assert not torch.allclose(system.views(batch).z, system.views(pad(batch, 5, 0, noise=3.0)).z, atol=1e-3)


@pytest.mark.parametrize("overrides", [{"attn_norm": "softmax"}, {"query": "content"}], ids=name_of)
def test_camulenet_check_04_softmax_weights_sum_to_one_over_valid_frames(overrides: dict[str, object]) -> None:
    batch = inputs_for(TINY, frames=(25, 12, 25), mfccs=(51, 30, 9))
    batch["speech_mask"][2] = 0.0
    views = build(**overrides).views(batch)
    assert views.query is not None
    assert torch.allclose(views.query[:2].sum(1), torch.ones(2), atol=1e-5)
    assert torch.all(views.query[1, 12:] == 0)
    assert torch.all(views.query[2] == 0)


def test_camulenet_check_05_gamma_lifts_the_loss_and_changes_no_gradient() -> None:
    batch, targets = inputs_for(TINY), targets_for()
    none, some = build(gamma=0.0), build(gamma=0.2)
    lift = some.loss(some(batch), targets) - none.loss(none(batch), targets)
    assert lift.item() == pytest.approx(0.2, abs=1e-6)
    first, second = gradients(none, batch, targets), gradients(some, batch, targets)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("gender_head", ["bce", "ce"])
def test_camulenet_check_06_without_gender_labels_it_trains_and_the_gender_head_gets_nothing(gender_head: str) -> None:
    system, batch = build(gender_head=gender_head), inputs_for(TINY)
    found = gradients(system, batch, targets_for((-1, -1)))
    assert all(torch.isfinite(value).all() for value in found.values())
    assert torch.all(found["gender.weight"] == 0) and torch.all(found["gender.bias"] == 0)
    assert found["emotion.weight"].abs().sum() > 0


@pytest.mark.parametrize("gender_head", ["bce", "ce"])
def test_camulenet_check_06_an_unknown_gender_leaves_the_mean_to_the_known(gender_head: str) -> None:
    system, batch = build(gender_head=gender_head, alpha=0.0, gamma=0.0, beta=1.0), inputs_for(TINY)
    output = system(batch)
    assert output.gender is not None
    loss = system.loss(output, targets_for((1, -1)))
    if gender_head == "bce":
        assert loss.item() == pytest.approx(-nn.functional.logsigmoid(output.gender[0, 0]).item(), rel=1e-5)
    else:
        assert loss.item() == pytest.approx(-output.gender[0].log_softmax(0)[1].item(), rel=1e-5)


def test_camulenet_check_07_beta_zero_equals_multitask_off() -> None:
    batch, targets = inputs_for(TINY), targets_for()
    off, zero = build(multitask=False), build(beta=0.0)
    zero.load_state_dict(off.state_dict(), strict=False)
    without, found = gradients(off, batch, targets), gradients(zero, batch, targets)
    assert set(found) - set(without) == {"gender.weight", "gender.bias"}
    assert all(torch.allclose(without[name], found[name], atol=1e-7) for name in without)


@pytest.mark.parametrize("overrides", [one for one in SWITCHES if one != {"mask_pad": False}], ids=name_of)
def test_camulenet_check_08_a_batch_of_one_equals_a_batch_of_many(overrides: dict[str, object]) -> None:
    system, batch = build(**overrides), inputs_for(TINY, frames=(25, 12, 7), mfccs=(51, 30, 8))
    together = system(batch).logits
    for row, (frames, mfccs) in enumerate(((25, 51), (12, 30), (7, 8))):
        one = {name: value[row : row + 1] for name, value in batch.items()}
        for name, length in (("speech", frames), ("mfcc", mfccs)):
            one[name], one[f"{name}_mask"] = one[name][:, :length], one[f"{name}_mask"][:, :length]
        assert torch.allclose(system(one).logits[0], together[row], atol=1e-5)


def test_camulenet_check_09_no_speaker_in_two_folds_and_every_utterance_tested_once() -> None:
    rng = np.random.default_rng(0)
    clips = [
        Utterance(path=Path(f"{speaker}-{take}.wav"), speaker=f"s{speaker}", corpus="alpha", emotion="sad")
        for speaker in range(13)
        for take in range(int(rng.integers(3, 20)))
    ]
    folds = speaker_folds(clips, 10, seed=0)
    assert len(folds) == 10
    assert sorted(place for fold in folds for place in fold.test) == list(range(len(clips)))
    owner: dict[str, int] = {}
    for number, fold in enumerate(folds):
        sides = [{clips[place].speaker for place in side} for side in (fold.train, fold.validation, fold.test)]
        assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
        for speaker in sides[2]:
            assert owner.setdefault(speaker, number) == number


def test_camulenet_check_10_parameters_as_counted() -> None:
    common = {
        "alexnet_conv": 2_454_208,
        "alexnet_fc6": 37_752_832,
        "alexnet_fc7": 16_781_312,
        "bigru": 1_640_448,
        "w_s": 4_195_328,
        "w_m": 525_312,
        "w_ms": 3_073_500,
        "w_q": 2_254_500,
        "w_w": 1_051_648,
        "heads": 410_501,
    }
    totals = {
        "published-flattened": 332_283_589,
        "paper": 70_139_589,
        "five-second": 65_387_089,
        "pool-tap": 20_848_325,
    }
    with torch.device("meta"):  # Sizes alone, no memory.
        systems = {name: Camulenet(PRESETS[name]) for name in totals}
    assert {name: count_parameters(system) for name, system in systems.items()} == totals
    assert systems["paper"].parts() == common
    assert systems["published-flattened"].parts() == {**common, "w_m": 262_669_312}
    for positions in (250, 1500):
        with torch.device("meta"):
            parts = Camulenet(CamulenetConfig(positions=positions)).parts()
        assert parts["w_ms"] + parts["w_q"] == 2048 * positions + positions + positions**2 + positions + 2 * positions


@pytest.mark.parametrize("overrides", SWITCHES, ids=name_of)
def test_camulenet_check_10_parts_sum_to_every_parameter(overrides: dict[str, object]) -> None:
    system = build(**overrides)
    assert sum(system.parts().values()) == count_parameters(system)


@pytest.mark.parametrize("tap", ["fc7", "pool"])
def test_camulenet_check_11_gradients_reach_everything_but_whisper(tap: str) -> None:
    torch.manual_seed(0)
    whisper = load_encoder("tiny:whisper")
    system = build(
        speech_width=whisper.width, image_encoder="alexnet", image_size=64, image_units=32, alex_tap=tap
    ).train()
    batch = inputs_for(system.config, frames=(25,) * 4, mfccs=(51,) * 4)
    layers, batch["speech_mask"] = whisper.encode(torch.randn(4, 8000) * 0.1, torch.ones(4, 8000))
    batch["speech"] = layers[-1]
    found = gradients(system, batch, targets_for((0, 1, 0, 1)))
    assert set(found) == {name for name, _ in system.named_parameters()}
    silent = [name for name, value in found.items() if not (torch.isfinite(value).all() and value.abs().sum() > 0)]
    assert not silent
    assert all(value.grad is None for value in whisper.parameters())


def export(system: Camulenet, path: Path, batch: Batch) -> tuple[str, ...]:
    graph = CamulenetGraph(system).eval()
    free = {name: {0: "batch"} for name in (*graph.inputs, *graph.outputs)}
    for name in ("mfcc", "mfcc_mask"):
        free[name][1] = "mfcc_frames"
    if system.config.query == "content":
        for name in ("speech", "speech_mask"):
            free[name][1] = "frames"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            tuple(batch[name] for name in graph.inputs),
            str(path),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_axes=free,
            opset_version=17,
            dynamo=False,
        )
    return graph.outputs


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"attn_norm": "softmax", "mfcc_pool": "attn"},
        {"query": "content", "mfcc_pool_frames": 4},
        {"query": "content", "mfcc_pool": "last"},
        {"image_encoder": "alexnet", "image_size": 64, "image_units": 16},
        {"coattention": False},
        {"skip": "post", "gender_head": "ce"},
    ],
    ids=name_of,
)
def test_camulenet_check_12_onnx_equals_torch_with_and_without_the_gender_head(
    overrides: dict[str, object], tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    said = {}
    for says in (False, True):
        system = build(export_gender=says, **overrides)
        names = export(system, tmp_path / f"{says}.onnx", inputs_for(system.config))
        assert ("gender" in names) is says
        session = onnxruntime.InferenceSession(str(tmp_path / f"{says}.onnx"))
        wanted = {one.name for one in session.get_inputs()}
        # Other lengths than those exported with, where the graph leaves them free.
        frames = (33, 9, 1) if overrides.get("query") == "content" else (25, 12, 4)
        batch = inputs_for(system.config, frames=frames, mfccs=(77, 40, 1))
        got = session.run(None, {name: value.numpy() for name, value in batch.items() if name in wanted})
        output = system(batch)
        expected = (output.logits, output.embedding, output.gender)[: len(names)]
        for array, value in zip(got, expected, strict=True):
            assert value is not None and np.abs(array - value.detach().numpy()).max() < 1e-4
        said[says] = got[0]
    assert np.array_equal(said[False], said[True])


# --- parts and switches ---


def test_the_bigru_is_that_of_packed_sequences() -> None:
    torch.manual_seed(0)
    ours = MaskedBiGru(5, 4, layers=2, dropout=0.2).eval()
    theirs = nn.GRU(5, 4, num_layers=2, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for layer in range(2):
            for half, suffix in ((ours.onward, ""), (ours.backward_, "_reverse")):
                for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                    getattr(theirs, f"{kind}_l{layer}{suffix}").copy_(getattr(half[layer], f"{kind}_l0"))
    x, lengths = torch.randn(3, 9, 5), torch.tensor([9, 4, 1])
    mask = (torch.arange(9) < lengths.unsqueeze(1)).float()
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
    states, final = theirs(packed)
    expected, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True)
    frames = ours(x, mask)
    assert torch.allclose(frames, expected, atol=1e-6)
    assert torch.allclose(last_states(frames, mask), torch.cat([final[2], final[3]], dim=-1), atol=1e-6)
    assert count_parameters(ours) == count_parameters(theirs)


def test_a_row_without_frames_is_finite_zeros() -> None:
    gru = MaskedBiGru(5, 4, layers=2, dropout=0.0)
    assert torch.all(gru(torch.randn(1, 6, 5), torch.zeros(1, 6)) == 0)
    batch = inputs_for(TINY, frames=(25, 0), mfccs=(51, 0))
    for overrides in ({}, {"query": "content"}, {"mfcc_pool": "last"}, {"mfcc_pool": "attn"}):
        assert torch.isfinite(build(**overrides)(batch).logits).all()


def test_sequences_without_a_mask_are_valid_throughout() -> None:
    system, batch = build(), inputs_for(TINY)
    bare = {name: x for name, x in batch.items() if not name.endswith("_mask")}
    masks = {f"{name}_mask": torch.ones(bare[name].shape[:2]) for name in ("speech", "mfcc")}
    assert torch.equal(system(bare).logits, system({**bare, **masks}).logits)


def test_a_row_without_a_spectrogram_is_refused() -> None:
    with pytest.raises(ConfigError, match="have no spectrogram"):
        build()({**inputs_for(TINY), "spectrogram_mask": torch.tensor([[1.0], [0.0]])})


def test_neighbouring_frames_are_averaged_over_what_is_valid() -> None:
    x = torch.arange(10.0).reshape(1, 5, 2)
    mean, mask = mean_neighbours(torch.cat([x, torch.zeros(1, 2, 2)], dim=1), torch.tensor([[1.0] * 5 + [0.0] * 2]), 3)
    assert mask.tolist() == [[1.0, 1.0, 0.0]]
    assert torch.allclose(mean[0], torch.tensor([[2.0, 3.0], [7.0, 8.0], [0.0, 0.0]]))


def test_frames_are_padded_or_cut_in_the_middle_of_what_is_valid() -> None:
    x = torch.arange(6.0).reshape(1, 6, 1).expand(2, -1, -1)
    mask = torch.tensor([[1.0] * 6, [1.0] * 3 + [0.0] * 3])
    cut, kept = fit_middle(x, mask, 2)
    assert cut[..., 0].tolist() == [[2.0, 3.0], [0.0, 1.0]]
    assert kept.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    padded, kept = fit_middle(x, mask, 8)
    assert padded.shape == (2, 8, 1) and kept[0].tolist() == [1.0] * 6 + [0.0] * 2


def test_layer_normed_weights_are_those_of_layer_norm_over_valid_frames() -> None:
    system = build()
    views = system.views(inputs_for(TINY, frames=(25, 12)))
    joint = torch.cat([views.x_m, views.x_s], dim=-1)
    scores = torch.relu(system.query.mix(torch.relu(system.query.up(joint))))
    assert torch.allclose(views.query[0], system.query.norm(scores)[0], atol=1e-5)
    assert torch.allclose(views.query[1, :12], nn.functional.layer_norm(scores[1, :12], (12,)), atol=1e-5)
    assert torch.all(views.query[1, 12:] == 0)


def test_a_content_query_is_the_scaled_product_of_keys_and_the_utterance() -> None:
    system = build(query="content")
    batch = inputs_for(TINY)
    views = system.views(batch)
    joint = torch.cat([views.x_m, views.x_s], dim=-1)
    scores = (system.query.key(batch["speech"]) @ system.query.ask(joint).unsqueeze(-1)).squeeze(-1) / 8**0.5
    assert torch.allclose(views.query[1, :12], scores[1, :12].softmax(0), atol=1e-5)


def test_the_position_query_never_looks_at_the_frames_and_the_content_query_does() -> None:
    batch = inputs_for(TINY)
    other = {**batch, "speech": batch["speech"] * 3 + 1}
    position, content = build(), build(query="content")
    assert torch.equal(position.views(batch).query, position.views(other).query)
    assert not torch.allclose(content.views(batch).query, content.views(other).query, atol=1e-3)


def test_the_ablations_are_what_they_say() -> None:
    batch = inputs_for(TINY)
    off = build(coattention=False).views(batch)
    assert off.query is None
    assert torch.allclose(off.z[0], torch.cat([batch["speech"][0].mean(0), off.x_m[0], off.x_s[0]]), atol=1e-5)
    assert off.y is off.attended
    post = build(skip="post").views(batch)
    assert post.z.shape == (2, TINY.speech_width + TINY.positions)
    assert (post.z[:, TINY.speech_width :] >= 0).all()
    assert build(multitask=False)(batch).gender is None


def test_the_loss_is_the_weighted_sum_by_hand() -> None:
    system, batch, targets = build(), inputs_for(TINY), targets_for()
    output = system(batch)
    emotion = -output.logits.log_softmax(-1)[[0, 1], [0, 1]].mean()
    chance = torch.sigmoid(output.gender[:, 0])
    gender = -(torch.log(1 - chance[0]) + torch.log(chance[1])) / 2
    assert system.loss(output, targets).item() == pytest.approx((0.4 * emotion + 0.1 * gender + 0.2).item(), rel=1e-5)


def test_statistics_of_the_training_set_standardise_and_are_saved() -> None:
    rng = np.random.default_rng(0)
    config = replace(TINY, image_size=16)
    examples = [
        Example(
            path=Path(f"{place}.wav"),
            speaker="s",
            corpus="c",
            features={
                "speech": rng.standard_normal((20, 16)).astype(np.float32),
                "mfcc": mfcc40(wave),
                "spectrogram": spectrogram_image(wave, config.spectrogram),
            },
            emotion=place % 4,
        )
        for place in range(4)
        for wave in [(rng.standard_normal(8000 + 1000 * place) * 0.1).astype(np.float32)]
    ]
    system = Camulenet(config).eval()
    system.fit_statistics(examples)
    batch, _ = collate(examples)
    image = system.standard_image(batch["spectrogram"])
    assert image.mean().abs() < 1e-4 and image.std(unbiased=False) == pytest.approx(1.0, abs=1e-4)
    mfcc = system.standard_mfcc(batch["mfcc"])[batch["mfcc_mask"] > 0]
    assert mfcc.mean(0).abs().max() < 1e-3 and torch.allclose(mfcc.std(0, unbiased=False), torch.ones(40), atol=1e-3)
    assert torch.isfinite(system(batch).logits).all()
    again = Camulenet(config).eval()
    again.load_state_dict(system.state_dict())
    assert torch.equal(again(batch).logits, system(batch).logits)


def test_a_constant_feature_keeps_deviation_one() -> None:
    system = build()
    system.standard_mfcc.fit([np.full((5, 40), 3.0, np.float16)])
    assert torch.all(system.standard_mfcc.deviation == 1.0) and torch.all(system.standard_mfcc.mean == 3.0)


def test_it_learns_a_toy() -> None:
    torch.manual_seed(0)
    system = Camulenet(replace(TINY, query="content"))
    batch = inputs_for(TINY, frames=(25,) * 8, mfccs=(20,) * 8)
    targets = {"emotion": torch.arange(8) % 4, "gender": torch.arange(8) % 2}
    batch["speech"] += nn.functional.one_hot(targets["emotion"], 16).float().unsqueeze(1) * 2
    optimiser = torch.optim.Adam(system.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        system.loss(system(batch), targets).backward()
        optimiser.step()
    assert (system.eval()(batch).logits.argmax(-1) == targets["emotion"]).all()


@pytest.mark.parametrize(
    "bad",
    [
        {"spec": "cqt"},
        {"alex_tap": "fc8"},
        {"mfcc_pool": "max"},
        {"query": "both"},
        {"skip": "post", "query": "content"},
        {"skip": "post", "coattention": False},
        {"mfcc_pool_frames": 0},
    ],
    ids=name_of,
)
def test_switches_that_do_not_fit_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="need"):
        configure(CamulenetConfig, PRESETS, "tiny", bad)


def test_a_missing_feature_or_another_picture_is_said() -> None:
    system, batch = build(), inputs_for(TINY)
    with pytest.raises(ConfigError, match="got no mfcc"):
        system({name: value for name, value in batch.items() if not name.startswith("mfcc")})
    with pytest.raises(ConfigError, match=r"a\.wav has no spectrogram"):
        system.fit_statistics(
            [Example(Path("a.wav"), "s", "c", {"speech": np.zeros((1, 16)), "mfcc": np.zeros((1, 40))})]
        )
    with pytest.raises(ConfigError, match="image_size"):
        system({**batch, "spectrogram": torch.zeros(2, 1, 16, 16)})


def imagenet_like(units: int) -> dict[str, Tensor]:
    torch.manual_seed(3)
    donor = AlexNet(size=64, units=units).state_dict()
    tensors = {name: torch.randn_like(value) for name, value in donor.items()}
    tensors["features.0.weight"] = torch.randn(64, 3, 11, 11)
    return {**tensors, "classifier.6.weight": torch.randn(10, units)}


def test_imagenet_weights_are_read_with_colours_summed(tmp_path: Path) -> None:
    tensors = imagenet_like(8)
    save_file(tensors, tmp_path / "alexnet.safetensors")
    config = replace(TINY, image_encoder="alexnet", image_size=64, image_units=8)
    system = Camulenet(replace(config, image_weights=str(tmp_path / "alexnet.safetensors")))
    grey = torch.randn(1, 1, 64, 64)
    coloured = nn.functional.conv2d(grey.expand(-1, 3, -1, -1), tensors["features.0.weight"], stride=4, padding=2)
    first = system.image.features[0]
    assert torch.allclose(first(grey) - first.bias[None, :, None, None], coloured, atol=1e-3)
    assert torch.equal(system.image.classifier[4].weight, tensors["classifier.4.weight"])
    pool = AlexNet(size=64, tap="pool")
    load_imagenet(pool, tmp_path / "alexnet.safetensors")
    assert torch.equal(pool.features[10].bias, tensors["features.10.bias"])


def test_imagenet_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    encoder, path = AlexNet(size=64, units=8), tmp_path / "alexnet.safetensors"
    with pytest.raises(ConfigError, match="no AlexNet weights"):
        load_imagenet(encoder, path)
    path.write_bytes(b"no tensors")
    with pytest.raises(ConfigError, match="not safetensors"):
        load_imagenet(encoder, path)
    tensors = imagenet_like(8)
    save_file({name: value for name, value in tensors.items() if name != "features.3.bias"}, path)
    with pytest.raises(ConfigError, match=r"lacks features\.3\.bias"):
        load_imagenet(encoder, path)
    save_file({**tensors, "classifier.1.bias": torch.zeros(9)}, path)
    with pytest.raises(ConfigError, match=r"classifier\.1\.bias .* shape \(9,\)"):
        load_imagenet(encoder, path)
    with pytest.raises(ConfigError, match="image_size is 40"):
        AlexNet(size=40)


def test_random_alexnet_weights_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    say_random_alexnet.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            build(image_encoder="alexnet", image_size=64, image_units=8)
    assert [record.message for record in caplog.records if "ImageNet" in record.message] == [caplog.records[0].message]


def test_the_desk_preset_is_small_and_takes_any_length() -> None:
    torch.manual_seed(0)
    system = Camulenet(PRESETS["desk"]).eval()
    assert count_parameters(system) < 800_000
    batch = inputs_for(PRESETS["desk"], frames=(300, 3), mfccs=(601, 7))
    assert torch.isfinite(system(batch).logits).all()


@pytest.mark.parametrize(
    "overrides", [{}, {"attn_norm": "softmax"}, {"query": "content", "mfcc_pool": "attn"}], ids=name_of
)
def test_half_precision_trains_and_the_loss_stays_in_float32(overrides: dict[str, object]) -> None:
    system = build(**overrides).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = system.loss(system(inputs_for(TINY)), targets_for())
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in system.parameters())


@pytest.mark.slow
def test_camulenet_true_size_takes_a_step_and_trains_every_part() -> None:
    torch.manual_seed(0)
    config = PRESETS["five-second"]
    system = Camulenet(config)
    assert count_parameters(system) == 65_387_089
    batch = inputs_for(config, frames=(250, 120), mfccs=(501, 240))
    found = gradients(system, batch, targets_for())
    assert len(found) == len(list(system.parameters()))
    assert all(torch.isfinite(value).all() for value in found.values())
