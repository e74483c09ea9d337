from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from train.layers import masked_softmax  # noqa: E402
from train.students.batches import histories  # noqa: E402
from train.students.mdat import DualAttention, Mdat, MdatConfig  # noqa: E402

TINY = MdatConfig(
    mels=16, speech_width=16, speech_blocks=1, speech_layers=1, vocabulary=50, text_width=16, unit=8, feed_forward=16
)


@pytest.fixture
def model() -> Mdat:
    torch.manual_seed(0)
    return Mdat(TINY).eval()


def no_text(batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(batch, 1, dtype=torch.long), torch.zeros(batch, 1, dtype=torch.long)


def test_masked_softmax_sums_to_one_over_valid_keys_and_a_masked_row_is_zero() -> None:
    mask = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    for dtype in (torch.float32, torch.float16):
        weights = masked_softmax(torch.randn(2, 3).to(dtype), mask.to(dtype))
        assert torch.allclose(weights[0].sum().float(), torch.tensor(1.0), atol=1e-3)
        assert weights[0, 2] == 0
        assert torch.all(weights[1] == 0)


def test_masked_tokens_change_nothing(model: Mdat) -> None:
    audio, voice = torch.randn(1, 12_000) * 0.1, torch.zeros(1, 65)
    ids, mask = torch.tensor([[4, 5, 6]]), torch.ones(1, 3, dtype=torch.long)
    padded_ids = torch.tensor([[4, 5, 6, 44, 45]])
    padded_mask = torch.tensor([[1, 1, 1, 0, 0]])
    plain, _ = model(audio, ids, mask, voice)
    padded, _ = model(audio, padded_ids, padded_mask, voice)
    assert torch.allclose(plain, padded, atol=1e-5)


def test_without_a_token_the_ids_do_not_matter_and_logits_are_finite(model: Mdat) -> None:
    audio, voice = torch.randn(1, 8_000) * 0.1, torch.zeros(1, 65)
    _, mask = no_text()
    first, _ = model(audio, torch.tensor([[3]]), mask, voice)
    second, _ = model(audio, torch.tensor([[17]]), mask, voice)
    assert torch.equal(first, second)
    assert torch.isfinite(first).all()


def test_text_changes_the_answer_but_never_the_embedding(model: Mdat) -> None:
    audio, voice = torch.randn(1, 8_000) * 0.1, torch.zeros(1, 65)
    silent_logits, silent = model(audio, *no_text(), voice)
    logits, embedding = model(audio, torch.tensor([[7, 8]]), torch.ones(1, 2, dtype=torch.long), voice)
    assert torch.equal(silent, embedding)
    assert not torch.allclose(silent_logits, logits)


def test_the_level_of_the_recording_does_not_matter(model: Mdat) -> None:
    audio, voice = torch.randn(1, 8_000) * 0.1, torch.zeros(1, 65)
    loud, _ = model(audio, *no_text(), voice)
    quiet, _ = model(audio * 10 ** (-40 / 20), *no_text(), voice)
    assert torch.allclose(loud, quiet, atol=1e-3)


def test_a_fresh_voice_is_the_unadapted_model_and_a_known_voice_is_not(model: Mdat) -> None:
    frames, embedding = model.listen(torch.randn(1, 8_000) * 0.1)
    fresh = torch.zeros(1, 65)
    noise_at_zero = torch.cat([torch.zeros(1, 1), torch.randn(1, 64)], dim=1)
    assert torch.equal(model.voice(frames, fresh), model.voice(frames, noise_at_zero))
    known = torch.cat([torch.tensor([[20.0]]), embedding + 0.5, torch.ones_like(embedding)], dim=1)
    assert not torch.allclose(model.voice(frames, fresh), model.voice(frames, known))


def test_histories_hold_only_the_past_and_only_where_warm() -> None:
    embedding = torch.randn(2, 4, 3)
    voice = histories(embedding, torch.tensor([1.0, 0.0])).reshape(2, 4, 7)
    assert torch.all(voice[1] == 0)
    assert torch.all(voice[0, 0] == 0)
    assert voice[0, :, 0].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert torch.allclose(voice[0, 3, 1:4], embedding[0, :3].mean(0), atol=1e-6)
    assert torch.allclose(voice[0, 3, 4:], embedding[0, :3].std(0, unbiased=False), atol=1e-3)
    later = embedding.clone()
    later[0, 3] += 100.0
    assert torch.equal(histories(later, torch.ones(2))[:4], histories(embedding, torch.ones(2))[:4])


def test_speech_is_a_set_to_the_fusion_head() -> None:
    torch.manual_seed(0)
    head = DualAttention(speech_width=8, text_width=6, unit=8, feed_forward=16, classes=4, dropout=0.0).eval()
    speech, text, mask = torch.randn(1, 9, 8), torch.randn(1, 3, 6), torch.ones(1, 3)
    shuffled = speech[:, torch.randperm(9)]
    assert torch.allclose(head(speech, text, mask), head(shuffled, text, mask), atol=1e-5)


def test_gradients_without_text_reach_the_missing_text_vector_only() -> None:
    torch.manual_seed(0)
    model = Mdat(TINY)
    logits, _ = model(torch.randn(2, 8_000) * 0.1, *no_text(2), torch.zeros(2, 65))
    logits.square().sum().backward()
    assert model.fusion.no_text.grad is not None and model.fusion.no_text.grad.abs().sum() > 0
    assert model.fusion.co_attention.text.weight.grad is None or not model.fusion.co_attention.text.weight.grad.any()
    assert model.fusion.graph.send.weight.grad is not None and model.fusion.graph.send.weight.grad.abs().sum() > 0


def test_the_shipped_size_is_within_three_million_parameters() -> None:
    assert sum(parameter.numel() for parameter in Mdat(MdatConfig()).parameters()) <= 3_000_000
