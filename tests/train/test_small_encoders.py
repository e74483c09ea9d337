"""How a small encoder hears: the front end's stretches, and one utterance as several vocal tracts would say it."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from train.log_mel import LogMel  # noqa: E402
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
    for one in alone:
        one.load_state_dict(together.state_dict())
    first, second = speech(1.0, 1), speech(1.0, 2)
    plain, early, frames, embedding = together.hear(torch.cat([first, second]))
    for place, audio in enumerate((first, second)):
        parts = [one.hear(audio) for one in alone]
        for got, number in ((early, 1), (frames, 2), (embedding, 3)):
            mean = torch.stack([part[number] for part in parts]).mean(0)
            assert torch.allclose(got[place], mean[0], atol=1e-5)
        # MFCCs are of the voice as it is.
        assert torch.allclose(plain[place], encoder(1.0).hear(audio)[0][0], atol=1e-6)
    assert not torch.allclose(frames[0], encoder(1.0).hear(first)[2][0], atol=1e-3)
