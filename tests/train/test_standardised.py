"""Frames standardised by what the training set shows."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from train.examples import Example, collate  # noqa: E402
from train.protocols.adaptation import adapted_names  # noqa: E402
from train.systems.hump_cat import HumpCat  # noqa: E402
from train.systems.hump_cat_config import PRESETS as HUMP_CAT  # noqa: E402
from train.systems.lora_multilingual import PRESETS as LORA  # noqa: E402
from train.systems.lora_multilingual import LoraSer  # noqa: E402
from train.systems.mdat import PRESETS, Mdat  # noqa: E402
from train.systems.standardised import Standardised  # noqa: E402


def clip(frames: int, rng: np.random.Generator) -> Example:
    # Channels with offsets and scales far apart, as frozen encoders have them.
    speech = rng.standard_normal((frames, 16)) * np.geomspace(0.01, 100, 16) + np.linspace(-50, 50, 16)
    return Example(Path(f"{frames}.wav"), "anna", "alpha", {"speech": speech.astype(np.float32)}, emotion=1)


@pytest.fixture
def examples() -> list[Example]:
    rng = np.random.default_rng(0)
    return [clip(frames, rng) for frames in (20, 31, 44)]


@pytest.fixture
def system(examples: list[Example]) -> Standardised:
    torch.manual_seed(0)
    system = Standardised(Mdat(PRESETS["tiny"]), {"speech": (16,)})
    system.fit_statistics(examples)
    return system.eval()


def test_every_channel_counts_the_same(system: Standardised, examples: list[Example]) -> None:
    scaled = [
        Example(e.path, e.speaker, e.corpus, {"speech": e.features["speech"] * 7 + 3}, e.emotion) for e in examples
    ]
    other = Standardised(system.system, {"speech": (16,)})
    other.fit_statistics(scaled)
    first, second = system(collate(examples)[0]).logits, other.eval()(collate(scaled)[0]).logits
    torch.testing.assert_close(first, second, atol=1e-3, rtol=1e-3)


def test_padding_changes_nothing(system: Standardised, examples: list[Example]) -> None:
    together = system(collate(examples)[0]).logits
    alone = torch.cat([system(collate([example])[0]).logits for example in examples])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_statistics_go_with_the_weights_and_are_no_parameters(system: Standardised, examples: list[Example]) -> None:
    fresh = Standardised(Mdat(PRESETS["tiny"]), {"speech": (16,)})
    fresh.load_state_dict(system.state_dict())
    inputs = collate(examples)[0]
    assert torch.equal(fresh.eval()(inputs).logits, system(inputs).logits)
    assert sum(system.parts().values()) == sum(p.numel() for p in system.parameters())


def test_the_last_layers_are_found_behind_the_statistics(system: Standardised) -> None:
    assert adapted_names(system, "head") == {
        name for name, _ in system.named_parameters() if name.startswith("system.classifier")
    }


def test_a_system_that_says_what_it_adapts_adapts_that() -> None:
    names = adapted_names(HumpCat(HUMP_CAT["tiny"]), "full")
    assert names and {name.split(".")[0] for name in names} == {"inner", "outer", "self_attention", "classifier"}


def test_what_only_some_systems_have_is_there_behind_the_statistics_too() -> None:
    speech = {"speech": (2, 24)}
    inner = HumpCat(HUMP_CAT["tiny"])
    wrapped = Standardised(inner, speech)
    own = {f"system.{name}" for name in adapted_names(inner, "full")}
    assert adapted_names(wrapped, "full") == own
    assert 0 < len(own) < len(list(wrapped.parameters()))
    logits = torch.eye(4).repeat(8, 1) * 30.0
    wrong = torch.arange(32) % 4
    wrong[::4] = 1
    found = wrapped.fit_temperature(logits, wrong)
    assert found > 1.0 and float(wrapped.temperature) == float(inner.temperature) == pytest.approx(found)
    copied = copy.deepcopy(wrapped)
    copied.fit_temperature(logits, torch.arange(32) % 4)
    assert float(wrapped.temperature) == pytest.approx(found)
    language = LoraSer(replace(LORA["tiny"], encoder="tiny:hubert"))
    Standardised(language, {}).begin("zh")
    assert language.acting == ("zh",)


@pytest.mark.parametrize("name", ["temperature", "fit_temperature", "adapting_parameters", "begin"])
def test_what_a_system_lacks_its_standardised_self_lacks(system: Standardised, name: str) -> None:
    assert not hasattr(system, name)
