"""What the first stage is asked for."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from train.students.encoder_distiller import _within  # noqa: E402


def test_what_a_speaker_is_wrong_by_throughout_does_not_count_within_the_speaker() -> None:
    errors = torch.randn(2, 1, 5).expand(2, 4, 5).reshape(8, 5)
    assert torch.allclose(_within(errors, torch.ones(8, 1), speakers=2), torch.zeros(2, 4, 5), atol=1e-6)


def test_rows_in_which_nobody_speaks_count_for_nothing_within_a_speaker() -> None:
    torch.manual_seed(0)
    said = torch.tensor([1.0, 0.0, 1.0, 1.0]).unsqueeze(1)
    errors = torch.ones(4, 3) * said
    assert torch.equal(_within(errors, said, speakers=1), torch.zeros(1, 4, 3))
    errors = torch.randn(4, 3) * said
    within = _within(errors, said, speakers=1)[0]
    assert torch.equal(within[1], torch.zeros(3)) and torch.allclose(within.sum(0), torch.zeros(3), atol=1e-6)
    assert within.abs().sum() > 0.0
