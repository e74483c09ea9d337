from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from train.layers import masked_softmax, masked_variance  # noqa: E402


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("score", [-6e4, -2e4, 0.0, 6e4])
def test_a_row_with_a_valid_score_keeps_all_its_weight_however_low_it_is(dtype: torch.dtype, score: float) -> None:
    scores = torch.tensor([[score, 0.0], [score, score]], dtype=dtype)
    weights = masked_softmax(scores, torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=dtype))
    assert weights.tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_masked_scores_do_not_matter_and_get_no_gradient() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
    mask = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    weights = masked_softmax(scores, mask)
    weights[:, 0].sum().backward()
    assert torch.equal(weights, masked_softmax(scores * mask + (1 - mask) * 1e30, mask))
    assert scores.grad is not None and torch.equal(scores.grad != 0, mask.bool())


def test_a_variance_is_that_of_the_valid_frames() -> None:
    x = torch.randn(1, 6, 3)
    mask = torch.tensor([[1.0] * 4 + [0.0] * 2])
    expected = x[:, :4].var(1, unbiased=False)
    assert torch.allclose(masked_variance(x, x[:, :4].mean(1), mask), expected, atol=1e-6)
