"""How a small encoder hears."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from train.students.small_encoders import SpeechEncoder  # noqa: E402


def test_a_second_pass_goes_through_the_layers_in_order_as_far_as_its_shares_say() -> None:
    twice = SpeechEncoder(width=16, mels=16, blocks=1, layers=2, passes=2, dropout=0.0).eval()
    audio, depths = torch.randn(1, 16000, generator=torch.Generator().manual_seed(1)) * 0.1, []
    for share in (0.0, 1.0):
        for each in twice.again:
            torch.nn.init.constant_(each, share)
        depths.append(twice(audio)[2])
    x = twice.position(twice(audio)[1])
    for layer in twice.layers:
        x = layer(x, None)
    assert torch.allclose(depths[0], twice.norm(x), atol=1e-5)
    for layer in twice.layers:
        x = layer(x, None)
    assert torch.allclose(depths[1], twice.norm(x), atol=1e-5)
