"""What the first stage is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from edge_ser.errors import ConfigError  # noqa: E402
from train.checkpoint import read_checkpoint, save_checkpoint  # noqa: E402
from train.students.encoder_distiller import EncoderRun, _within  # noqa: E402
from train.students.run_settings import EncoderSettings, read_run  # noqa: E402


def small(folder: Path, passes: int) -> EncoderRun:
    folder.mkdir()
    sizes = {"width": 16, "mels": 16, "blocks": 1, "layers": 2, "precision": "float32"}
    return EncoderRun(EncoderSettings(name="e", tier="clean", corpora=("alpha",), passes=passes, **sizes), folder, 8)


def test_frames_that_go_through_the_layers_twice_begin_as_those_of_a_run_that_did_once(tmp_path: Path) -> None:
    nobody = {"train": [], "validation": [], "test": []}
    once, twice = small(tmp_path / "once", 1), small(tmp_path / "twice", 2)
    once.save({"speakers": nobody})
    twice.start_from(tmp_path / "once", nobody)
    audio = torch.randn(2, 16000, generator=torch.Generator().manual_seed(1)) * 0.1
    for before, after in ((once.model, twice.model), (once.kept, twice.kept)):
        assert torch.equal(before.eval().speech(audio)[2], after.eval().speech(audio)[2])
    twice.save({"speakers": nobody})
    with pytest.raises(ConfigError, match="need at least as many: passes = 2"):
        once.start_from(tmp_path / "twice", nobody)
    weights = {name: value.shape for name, value in twice.model.speech.named_parameters()}
    more = weights.keys() - dict(once.model.speech.named_parameters()).keys()
    assert sum(weights[name].numel() for name in more) == 2 * 16, "a second pass has a share for each channel and layer"
    frames = twice.model.speech(audio)[2]
    (frames * torch.randn(frames.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    assert all(share.grad is not None and share.grad.abs().sum() > 0 for share in twice.model.speech.again)


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


@pytest.mark.parametrize("last", [["encoder-research"], ["encoder-passes", "encoder-passes-research"]])
def test_no_encoder_of_a_chain_goes_through_its_layers_less_often_than_the_one_it_begins_with(last: list[str]) -> None:
    settings = Path(__file__).parents[2] / "train" / "configs" / "students"
    chain = ["encoder", "encoder-longer", "encoder-cut", "encoder-voices", *last]
    passes = [read_run(settings / f"{name}.toml").passes for name in chain]
    assert passes == sorted(passes) and passes[-1] == len(last)


def test_a_run_of_before_there_were_passes_goes_on(tmp_path: Path) -> None:
    nobody = {"train": [], "validation": [], "test": []}
    once = small(tmp_path / "once", 1)
    once.save({"speakers": nobody})
    path = tmp_path / "once" / "last.safetensors"
    tensors, header = read_checkpoint(path)
    settings = {name: value for name, value in header["settings"].items() if name != "passes"}
    save_checkpoint(path, tensors, {**header, "settings": settings})
    assert once.resume()
    twice = EncoderRun(replace(once.settings, passes=2), once.run, 8)
    with pytest.raises(ConfigError, match="was begun with another passes"):
        twice.resume()
