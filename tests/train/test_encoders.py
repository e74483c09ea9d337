from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from safetensors.torch import load_file, save_file  # noqa: E402

from edge_ser.errors import ConfigError  # noqa: E402
from train import lora  # noqa: E402
from train.encoders import (  # noqa: E402
    TINY,
    TRUE_SIZE,
    Encoder,
    EncoderSpec,
    WholeEncoder,
    build_encoder,
    frame_count,
    layer_numbers,
    load_encoder,
    load_tokenizer,
    parameter_count,
)
from train.feature_kinds import EncoderAtLength  # noqa: E402
from train.layers import LayerMix  # noqa: E402
from train.run_folder import stored_state  # noqa: E402
from train.settings import FeatureSettings  # noqa: E402
from train.teacher import hidden_states  # noqa: E402

PUBLISHED = {
    "facebook/wav2vec2-base": 94_371_712,
    "facebook/wav2vec2-base-960h": 94_371_712,
    "facebook/hubert-base-ls960": 94_371_712,
    "microsoft/wavlm-base": 94_381_936,
    "microsoft/wavlm-base-plus": 94_381_936,
    "facebook/wav2vec2-xls-r-300m": 315_438_720,
    "facebook/hubert-large-ll60k": 315_438_720,
    "microsoft/wavlm-large": 315_453_120,
    "openai/whisper-medium": 307_216_384,
    "openai/whisper-small": 88_154_112,
    "openai/whisper-base": 20_590_592,
    "openai/whisper-tiny": 8_208_384,
    "openai/whisper-tiny.en": 8_208_384,
    "roberta-base": 124_055_040,
    "roberta-large": 354_310_144,
    "xlm-roberta-base": 277_453_056,
    "xlm-roberta-large": 558_840_832,
}
SPEECH = sorted(name for name in TINY if "roberta" not in name)
WAVEFORM = [name for name in SPEECH if name != "whisper"]


def batch(encoder: Encoder, lengths: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs padded with nonsense, which must not matter, and their mask."""
    generator = torch.Generator().manual_seed(1)
    shape = (len(lengths), max(lengths))
    if encoder.modality == "text":
        inputs = torch.randint(4, 250, shape, generator=generator)
    else:
        inputs = torch.randn(shape, generator=generator) * 0.1 + 0.02
    mask = torch.zeros(shape)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1.0
    return inputs, mask


def sizes(encoder: Encoder) -> tuple[int, ...]:
    return (9, 14, 9) if encoder.modality == "text" else (6_000, 9_100, 6_000)


@pytest.mark.parametrize("name", sorted(TRUE_SIZE))
def test_true_size_configurations_have_the_published_number_of_parameters(name: str) -> None:
    assert parameter_count(TRUE_SIZE[name]) == PUBLISHED[name]


def test_every_published_encoder_can_be_built() -> None:
    assert set(TRUE_SIZE) == set(PUBLISHED)


@pytest.mark.parametrize(
    ("seconds", "frames"), [(1, 49), (3, 149), (5, 249), (7, 349), (10, 499), (12, 599), (15, 749)]
)
def test_frames_follow_the_recurrence(seconds: int, frames: int) -> None:
    assert frame_count(seconds * 16_000) == frames


def test_a_waveform_shorter_than_a_frame_has_none() -> None:
    assert frame_count(399) == 0
    assert frame_count(400) == 1
    assert frame_count(0) == 0


@pytest.mark.parametrize("name", sorted(TINY))
def test_states_are_input_then_layers_and_padding_is_zero(name: str) -> None:
    encoder = load_encoder(f"tiny:{name}")
    inputs, mask = batch(encoder, sizes(encoder))
    states, frames = encoder.encode(inputs, mask)
    assert len(states) == encoder.layer_count + 1 == 3
    assert {state.shape for state in states} == {(3, frames.shape[1], encoder.width)}
    assert all(bool((state[frames == 0] == 0).all()) for state in states)
    if name in WAVEFORM:
        assert frames.sum(1).tolist() == [frame_count(6_000), frame_count(9_100), frame_count(6_000)]


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_batch_says_what_each_row_says_alone(name: str) -> None:
    encoder = load_encoder(f"tiny:{name}")
    inputs, mask = batch(encoder, sizes(encoder))
    states, frames = encoder.encode(inputs, mask)
    for row, length in enumerate(sizes(encoder)):
        alone, own = encoder.encode(inputs[row : row + 1, :length], mask[row : row + 1, :length])
        valid = int(own.sum())
        assert valid == int(frames[row].sum())
        for state, single in zip(states, alone, strict=True):
            torch.testing.assert_close(state[row, :valid], single[0, :valid], atol=1e-5, rtol=1e-4)


def test_group_norm_encoders_say_that_padding_would_matter() -> None:
    invariant = {name: load_encoder(f"tiny:{name}").padding_invariant for name in TINY}
    assert {name for name, flag in invariant.items() if not flag} == {"wav2vec2-base", "hubert-base", "wavlm-base"}


@pytest.mark.parametrize("name", [*WAVEFORM, "roberta", "xlm-roberta"])
def test_the_last_state_is_what_transformers_computes(name: str) -> None:
    encoder = load_encoder(f"tiny:{name}")
    inputs, mask = batch(encoder, sizes(encoder)[:1])
    read = inputs
    if getattr(encoder, "normalise", False):
        variance = inputs.var(1, unbiased=False, keepdim=True)
        read = (inputs - inputs.mean(1, keepdim=True)) / torch.sqrt(variance + 1e-7)
    states, _ = encoder.encode(inputs, mask)
    with torch.no_grad():
        expected = encoder.model(read).last_hidden_state
    torch.testing.assert_close(states[-1], expected, atol=1e-5, rtol=1e-4)


def test_whisper_without_padding_is_the_position_table_cut_to_length() -> None:
    encoder = load_encoder("tiny:whisper")
    inputs, mask = batch(encoder, (8_000,))
    states, frames = encoder.encode(inputs, mask)
    mel = encoder.features(inputs[0].numpy(), sampling_rate=16_000, padding="do_not_pad", return_tensors="pt")
    with torch.no_grad():
        expected = hidden_states(encoder.model, mel.input_features)
    assert frames.shape == (1, 25)
    torch.testing.assert_close(states[1], expected[1], atol=1e-5, rtol=1e-4)


def test_whisper_padded_to_30_s_is_what_transformers_computes() -> None:
    encoder = load_encoder("tiny:whisper", whisper_pad_s=30.0)
    inputs, mask = batch(encoder, (8_000,))
    states, frames = encoder.encode(inputs, mask)
    mel = encoder.features(inputs[0].numpy(), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        expected = encoder.model(mel.input_features).last_hidden_state
    assert frames.shape == (1, 1_500)
    assert int(frames.sum()) == 25
    torch.testing.assert_close(states[-1][0, :25], expected[0, :25], atol=1e-4, rtol=1e-3)


def test_whisper_refuses_clips_beyond_its_positions() -> None:
    with pytest.raises(ConfigError, match="31"):
        load_encoder("tiny:whisper").encode(torch.zeros(1, 31 * 16_000), torch.ones(1, 31 * 16_000))
    with pytest.raises(ConfigError, match="whisper_pad_s"):
        load_encoder("tiny:whisper", whisper_pad_s=31.0)


@pytest.mark.parametrize("name", SPEECH)
def test_clips_of_a_few_samples_and_missing_ones_stay_finite(name: str) -> None:
    encoder = load_encoder(f"tiny:{name}")
    mask = torch.zeros(2, 120)
    mask[0] = 1.0
    states, frames = encoder.encode(torch.randn(2, 120) * 0.1, mask)
    assert frames.sum(1).tolist()[1] == 0
    assert int(frames[0].sum()) >= 1
    assert all(bool(torch.isfinite(state).all()) for state in states)
    assert bool((states[-1][1] == 0).all())


def test_normalisation_respects_the_mask_and_makes_loudness_irrelevant() -> None:
    encoder = load_encoder("tiny:wav2vec2")
    inputs, mask = batch(encoder, (6_000, 9_100))
    quiet, _ = encoder.encode(inputs, mask)
    loud, _ = encoder.encode(4.0 * inputs + 0.3, mask)
    torch.testing.assert_close(quiet[-1], loud[-1], atol=1e-3, rtol=1e-3)
    assert not load_encoder("tiny:wavlm-base").normalise


def test_later_layers_need_not_run_and_can_be_dropped() -> None:
    encoder = load_encoder("tiny:hubert")
    inputs, mask = batch(encoder, (6_000,))
    whole, _ = encoder.encode(inputs, mask)
    early, _ = encoder.encode(inputs, mask, last=1)
    assert len(early) == 2
    before = encoder.fingerprint()
    cut, _ = encoder.cut(1).encode(inputs, mask)
    assert torch.equal(cut[-1], whole[1])
    assert torch.equal(early[-1], whole[1])
    assert encoder.fingerprint() != before
    with pytest.raises(ConfigError, match="layer 2"):
        encoder.encode(inputs, mask, last=2)
    with pytest.raises(ConfigError, match="3 layers"):
        encoder.cut(3)


def test_a_frozen_encoder_learns_nothing_and_stays_in_eval_mode() -> None:
    encoder = load_encoder("tiny:hubert").train()
    assert encoder.training
    assert not any(module.training for module in encoder.model.modules())
    states, _ = encoder.encode(*batch(encoder, (6_000,)))
    assert not states[-1].requires_grad
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize("name", SPEECH)
def test_fine_tuning_reaches_the_front_end_only_where_it_is_not_kept(name: str) -> None:
    for freeze in (True, False):
        encoder = build_encoder(EncoderSpec(f"tiny:{name}", mode="finetuned", freeze_cnn=freeze))
        states, _ = encoder.encode(*batch(encoder, (6_000,)))
        states[-1].square().mean().backward()
        front = [parameter for part in encoder.front_end for parameter in part.parameters()]
        assert all((parameter.grad is None) == freeze for parameter in front)
        assert all(parameter.grad is not None for parameter in encoder.layers[0].parameters())
        assert encoder.train().model.training


def test_choosing_no_mode_there_is_says_which_there_are() -> None:
    with pytest.raises(ConfigError, match="frozen, finetuned, lora"):
        load_encoder("tiny:hubert").set_mode("warm")


def test_layers_are_numbers_the_last_or_all() -> None:
    encoder = load_encoder("tiny:hubert")
    assert layer_numbers(encoder, "last") == (2,)
    assert layer_numbers(encoder, "weighted_sum") == (0, 1, 2)
    assert layer_numbers(encoder, [1, 2]) == (1, 2)
    for wrong in ((), (3,), (-1,)):
        with pytest.raises(ConfigError, match="0 to 2"):
            layer_numbers(encoder, wrong)


def test_frames_of_a_clip_are_those_of_the_clip_alone() -> None:
    for name in ("hubert", "whisper"):
        encoder = load_encoder(f"tiny:{name}")
        for samples in (200, 399, 659, 720, 992, 8_000):
            row = torch.zeros(1, samples)
            _, frames = encoder.encode(row, torch.ones_like(row))
            assert encoder.frames_of(samples) == int(frames.sum()), (name, samples)


@pytest.mark.parametrize(("samples", "frames"), [(659, 1), (992, 2), (16_000, 49), (200_000, 499)])
def test_a_clip_that_silence_follows_keeps_its_own_frames(samples: int, frames: int) -> None:
    settings = FeatureSettings(kind="encoder", source="tiny:hubert", length="zeros", seconds=10.0)
    compute = EncoderAtLength("tiny", load_encoder("tiny:hubert"), settings)
    assert len(compute(np.full(samples, 0.1, np.float32))) == frames == frame_count(min(samples, 160_000))
    cut = EncoderAtLength("tiny", compute.encoder, replace(settings, length="crop"))
    assert (compute.name, cut.name) == ("tiny-v2", "tiny")


def test_what_would_hold_adapters_twice_is_not_stored() -> None:
    encoder = load_encoder("tiny:hubert")
    lora.wrap_lora(encoder, rank=2)
    lora.add_adapter(encoder, "it")
    lora.set_active(encoder, ["it"])
    encoder.set_mode("lora")
    before = encoder.fingerprint(), stored_state(encoder).keys()
    lora.merge(encoder)
    for store in (encoder.fingerprint, lambda: stored_state(encoder), lambda: lora.adapter_state(encoder, "it")):
        with pytest.raises(ConfigError, match="unmerge"):
            store()
    lora.unmerge(encoder)
    assert before == (encoder.fingerprint(), stored_state(encoder).keys())


def test_a_layer_mix_starts_as_the_mean_and_learns() -> None:
    x, mix = torch.randn(2, 5, 3, 4), LayerMix(3)
    torch.testing.assert_close(mix(x), x.mean(2))
    mix(x).square().sum().backward()
    assert mix.weights.grad is not None and mix.weights.grad.any()


def test_random_weights_depend_on_the_seed_alone() -> None:
    state = torch.random.get_rng_state()
    first = load_encoder("tiny:wavlm", seed=3).fingerprint()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert load_encoder("tiny:wavlm", seed=3).fingerprint() == first
    assert load_encoder("tiny:wavlm", seed=4).fingerprint() != first


def saved(folder: Path, name: str, normalise: bool | None = None) -> Path:
    encoder = load_encoder(f"tiny:{name}", seed=5)
    encoder.model.save_pretrained(folder)
    if name == "whisper":
        encoder.features.save_pretrained(folder)
    elif normalise is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": normalise}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", ["wav2vec2", "hubert", "wavlm", "whisper", "roberta", "xlm-roberta"])
def test_a_folder_gives_back_the_encoder_that_was_saved(tmp_path: Path, name: str) -> None:
    folder = saved(tmp_path / name, name)
    encoder, original = load_encoder(folder), load_encoder(f"tiny:{name}", seed=5)
    assert encoder.family == original.family
    states, _ = encoder.encode(*batch(encoder, sizes(encoder)))
    expected, _ = original.encode(*batch(original, sizes(original)))
    torch.testing.assert_close(states[-1], expected[-1])


def test_a_saved_processor_decides_about_normalisation(tmp_path: Path) -> None:
    assert not load_encoder(saved(tmp_path / "off", "wav2vec2", normalise=False)).normalise
    assert load_encoder(saved(tmp_path / "on", "wav2vec2", normalise=True)).normalise


@pytest.mark.parametrize("name", ["hubert", "whisper", "roberta"])
def test_a_checkpoint_with_a_tensor_missing_is_refused(tmp_path: Path, name: str) -> None:
    folder = saved(tmp_path / name, name)
    tensors = load_file(folder / "model.safetensors")
    dropped = next(key for key in tensors if key.endswith("layer_norm.weight") or key.endswith("LayerNorm.weight"))
    save_file({k: t for k, t in tensors.items() if k != dropped}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match="lacks tensors"):
        load_encoder(folder)


def test_a_checkpoint_with_other_key_names_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "whisper", "whisper")
    tensors = load_file(folder / "model.safetensors")
    save_file({f"other.{k}": t for k, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match="lacks tensors"):
        load_encoder(folder)


def test_random_weights_from_a_saved_configuration(tmp_path: Path) -> None:
    folder = saved(tmp_path / "hubert", "hubert")
    drawn = load_encoder(folder, random_init=True, seed=1)
    assert drawn.width == 32
    assert drawn.fingerprint() != load_encoder(folder).fingerprint()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("tiny:bert", "tiny: and one of"),
        ("random:nobody/nothing", "random: and one of"),
        ("./nowhere", "no folder"),
        ("/nowhere/at/all", "no folder"),
    ],
)
def test_unknown_sources_say_what_there_is(source: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_encoder(source)


def test_folders_that_hold_no_encoder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot load"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}), encoding="utf-8")
    with pytest.raises(ConfigError, match="vit"):
        load_encoder(tmp_path)


def test_a_family_can_be_demanded() -> None:
    assert load_encoder("tiny:wavlm", family="wavlm").family == "wavlm"
    with pytest.raises(ConfigError, match="need hubert"):
        load_encoder("tiny:wavlm", family="hubert")


def test_tokenizers(tmp_path: Path) -> None:
    tokenizer = load_tokenizer("tiny:roberta", max_tokens=6)
    assert tokenizer("ab") == [0, 4 + ord("a"), 4 + ord("b"), 2]
    assert len(tokenizer("a long sentence")) == 6
    with pytest.raises(ConfigError, match="tokenizer"):
        load_tokenizer(tmp_path)


def test_sentences_beyond_the_positions_are_refused() -> None:
    encoder = load_encoder("tiny:roberta")
    ids = torch.full((1, 513), 9)
    with pytest.raises(ConfigError, match="513 tokens"):
        encoder.encode(ids, torch.ones(1, 513))


def test_folding_weight_norm_changes_nothing() -> None:
    encoder = load_encoder("tiny:wavlm")
    inputs, mask = batch(encoder, (6_000,))
    before, _ = encoder.encode(inputs, mask)
    encoder.fold_weight_norm()
    after, frames = WholeEncoder(encoder, 1)(inputs, mask)
    torch.testing.assert_close(after, before[1])
    assert frames.shape == after.shape[:2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["facebook/hubert-base-ls960", "openai/whisper-tiny", "roberta-base"])
def test_true_size_random_encoders_run(name: str) -> None:
    encoder = load_encoder(f"random:{name}")
    inputs, mask = batch(encoder, (24,) if encoder.modality == "text" else (16_000,))
    states, _ = encoder.encode(inputs, mask)
    assert bool(torch.isfinite(states[-1]).all())
    assert sum(parameter.numel() for parameter in encoder.parameters()) == PUBLISHED[name]


@pytest.mark.slow
def test_a_true_size_xls_r_does_not_see_padding() -> None:
    encoder = load_encoder("random:facebook/wav2vec2-xls-r-300m")
    inputs, mask = batch(encoder, (8_000, 12_000))
    states, _ = encoder.encode(inputs, mask)
    alone, frames = encoder.encode(inputs[:1, :8_000], mask[:1, :8_000])
    assert float((states[-1][0, : frames.shape[1]] - alone[-1][0]).abs().max()) < 1e-4
