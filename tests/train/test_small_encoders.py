"""How a small encoder hears: the front end's stretches, and one utterance as several vocal tracts would say it."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from edge_ser.errors import ConfigError  # noqa: E402
from train.log_mel import LogMel  # noqa: E402
from train.students.config import StudentConfig  # noqa: E402
from train.students.small_encoders import SpeechEncoder  # noqa: E402


def encoder(*tracts: float) -> SpeechEncoder:
    torch.manual_seed(1)
    return SpeechEncoder(width=16, mels=16, blocks=1, layers=1, passes=2, dropout=0.0, tracts=tracts).eval()


def speech(seconds: float, seed: int) -> torch.Tensor:
    return torch.randn(1, int(seconds * 16000), generator=torch.Generator().manual_seed(seed)) * 0.1


def test_a_stretch_moves_a_tone_to_where_it_says() -> None:
    tone = torch.sin(2.0 * math.pi * 1000.0 / 16000.0 * torch.arange(16000)).unsqueeze(0)
    higher = torch.sin(2.0 * math.pi * 1200.0 / 16000.0 * torch.arange(16000)).unsqueeze(0)
    plain, moved = LogMel(64, (1.0, 1.2))(tone).split(64, dim=1)
    assert plain.mean(-1).argmax() == LogMel(64)(tone).mean(-1).argmax()
    assert moved.mean(-1).argmax() == LogMel(64)(higher).mean(-1).argmax() != plain.mean(-1).argmax()


@pytest.mark.parametrize("tracts", [(0.8, 1.25), (1.0, 0.8, 1.25)])
def test_what_is_heard_is_the_mean_over_the_tracts_whoever_else_is_in_the_batch(tracts: tuple[float, ...]) -> None:
    together, alone = encoder(*tracts), [encoder(tract) for tract in tracts]
    first, second = speech(1.0, 1), speech(1.0, 2)
    plain, *heard = together(torch.cat([first, second]))
    for place, audio in enumerate((first, second)):
        parts = [one(audio)[1:] for one in alone]
        for number, got in enumerate(heard):
            assert torch.allclose(got[place], torch.stack([part[number][0] for part in parts]).mean(0), atol=1e-5)
        # MFCCs are of the voice as it is.
        assert torch.allclose(plain[place], encoder(1.0)(audio)[0][0], atol=1e-6)
    assert not torch.allclose(heard[1][0], encoder(1.0)(first)[2][0], atol=1e-3)


def test_a_second_pass_goes_through_the_layers_in_order_as_far_as_its_shares_say() -> None:
    twice = SpeechEncoder(width=16, mels=16, blocks=1, layers=2, passes=2, dropout=0.0).eval()
    audio, depths = speech(1.0, 1), []
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


@pytest.mark.parametrize("tracts", [[], [1.0, 1.0], [0.0, 1.0]])
def test_tracts_that_nobody_has_are_refused(tracts: list[float]) -> None:
    with pytest.raises(ConfigError, match="tracts are"):
        StudentConfig("lora", tracts=tracts)  # type: ignore[arg-type]
