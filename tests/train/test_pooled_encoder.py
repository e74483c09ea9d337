"""The pooled single-encoder baseline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from edge_ser.errors import ConfigError  # noqa: E402
from train.examples import Example, collate  # noqa: E402
from train.systems import configure, count_parameters  # noqa: E402
from train.systems.pooled_encoder import PRESETS, PooledEncoder, PooledEncoderConfig  # noqa: E402


@pytest.fixture
def system() -> PooledEncoder:
    torch.manual_seed(0)
    return PooledEncoder(PRESETS["tiny"]).eval()


@pytest.mark.parametrize(
    ("preset", "width"),
    [
        ("wav2vec2-base", 768),
        ("hubert-base", 768),
        ("wavlm-base", 768),
        ("whisper-base", 512),
        ("whisper-medium", 1024),
    ],
)
def test_parameters_by_encoder(preset: str, width: int) -> None:
    with torch.device("meta"):
        system = PooledEncoder(PRESETS[preset])
    expected = {"cnn": 64 * 5 + 64 + 2 * 64, "heads": 64 * (width // 2) * 128 + 128 + 128 * 4 + 4}
    assert system.parts() == expected
    assert count_parameters(system) == sum(expected.values())


def test_every_preset_takes_its_width_and_gives_its_classes() -> None:
    for config in PRESETS.values():
        with torch.device("meta"):
            output = PooledEncoder(config).eval()(
                {"speech": torch.zeros(2, 7, config.speech_width), "speech_mask": torch.ones(2, 7)}
            )
        assert output.logits.shape == (2, config.classes)
        assert output.embedding.shape == (2, config.hidden)
        assert output.gender is None


def test_it_is_the_convolution_over_the_mean(system: PooledEncoder) -> None:
    speech = torch.randn(1, 9, 16)
    vector = speech.mean(1)
    signal = system.cnn[0](vector.unsqueeze(1))
    pooled = torch.relu(system.cnn[1](signal)).unfold(-1, 2, 2).amax(-1)
    logits = system.emotion(torch.relu(system.hidden[0](pooled.flatten(1))))
    assert torch.allclose(system({"speech": speech, "speech_mask": torch.ones(1, 9)}).logits, logits, atol=1e-6)


def test_padding_order_and_company_change_nothing(system: PooledEncoder) -> None:
    speech, mask = torch.randn(2, 9, 16), torch.ones(2, 9)
    mask[1, 4:] = 0
    together = system({"speech": speech, "speech_mask": mask}).logits
    alone = system({"speech": speech[1:, [3, 1, 0, 2]], "speech_mask": torch.ones(1, 4)}).logits
    assert torch.allclose(together[1], alone[0], atol=1e-6)


def test_no_frame_at_all_is_finite(system: PooledEncoder) -> None:
    assert torch.isfinite(system({"speech": torch.randn(1, 3, 16), "speech_mask": torch.zeros(1, 3)}).logits).all()


def test_every_parameter_learns_and_a_toy_is_learnt() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    examples = [
        Example(
            path=Path(f"{place}.wav"),
            speaker="s",
            corpus="c",
            features={"speech": (rng.standard_normal((5 + place, 16)) + 3 * np.eye(16)[place % 4]).astype(np.float32)},
            emotion=place % 4,
        )
        for place in range(16)
    ]
    inputs, targets = collate(examples)
    system = PooledEncoder(PRESETS["tiny"])
    optimiser = torch.optim.Adam(system.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        system.loss(system(inputs), targets).backward()
        optimiser.step()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in system.cnn[1].parameters())
    assert (system.eval()(inputs).logits.argmax(-1) == targets["emotion"]).float().mean() > 0.9


def test_what_does_not_fit_is_said(system: PooledEncoder) -> None:
    with pytest.raises(ConfigError, match="no speech"):
        system({})
    with pytest.raises(ConfigError, match="speech_width"):
        system({"speech": torch.zeros(1, 3, 8), "speech_mask": torch.ones(1, 3)})
    with pytest.raises(ConfigError, match="speech_width"):
        system({"speech": torch.zeros(1, 3, 2, 16), "speech_mask": torch.ones(1, 3)})
    with pytest.raises(ConfigError, match="odd"):
        configure(PooledEncoderConfig, PRESETS, "tiny", {"kernel": 4})
