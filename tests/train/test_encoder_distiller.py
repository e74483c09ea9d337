"""What the first stage is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from edge_ser.errors import ConfigError  # noqa: E402
from train.checkpoint import read_checkpoint, save_checkpoint  # noqa: E402
from train.students.bank import FRAME_SAMPLES, Bank, Item, Recording  # noqa: E402
from train.students.encoder_distiller import EncoderRun, _within  # noqa: E402
from train.students.pooled_teacher import pooled_item  # noqa: E402
from train.students.run_settings import EncoderSettings, read_run  # noqa: E402

SIZES = {"width": 16, "mels": 16, "blocks": 1, "layers": 2, "precision": "float32"}


def small(folder: Path, passes: int, **sizes: object) -> EncoderRun:
    folder.mkdir()
    settings = EncoderSettings(name="e", tier="clean", corpora=("alpha",), passes=passes, **{**SIZES, **sizes})
    return EncoderRun(settings, folder, 8)


def has_learnt(run: EncoderRun) -> EncoderRun:
    """Return the run, its weights no longer those that the seed gives every run."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    run.average.update_parameters(run.model)
    return run


def test_frames_that_go_through_the_layers_twice_begin_as_those_of_a_run_that_did_once(tmp_path: Path) -> None:
    nobody = {"train": [], "validation": [], "test": []}
    once, twice = has_learnt(small(tmp_path / "once", 1)), small(tmp_path / "twice", 2)
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


def bank_heard_by(run: EncoderRun) -> Bank:
    """Return a bank whose teacher hears what the run's encoder hears, mixed into eight numbers."""
    rng, frames = np.random.default_rng(0), 30
    items = [Item(n, n * frames * FRAME_SAMPLES, frames * FRAME_SAMPLES, n % 4) for n in range(40)]
    recordings = [Recording(Path(f"{n}.wav"), f"s{n % 5}", n % 4) for n in range(40)]
    audio = (3000.0 * rng.standard_normal(40 * frames * FRAME_SAMPLES)).astype(np.int16)
    audio *= np.repeat(rng.random(40 * frames) < 0.7, FRAME_SAMPLES)
    wave = torch.from_numpy(audio.astype(np.float32) / 32767.0).view(40, -1)
    with torch.no_grad():
        heard = run.model.eval().speech(wave)[2].flatten(0, 1).numpy()
    targets = heard @ rng.standard_normal((heard.shape[1], 8)) / 4.0
    return Bank(recordings, items, audio, targets.astype(np.float16), np.ones(40 * frames, np.float16))


def test_a_run_begins_with_an_encoder_that_was_kept_without_its_heads(tmp_path: Path) -> None:
    nobody = {"train": [], "validation": [], "test": []}
    before, after = has_learnt(small(tmp_path / "before", 1)), small(tmp_path / "after", 2)
    bank = bank_heard_by(before)
    before.save({"speakers": nobody})
    (before.run / "last.safetensors").unlink()
    after.start_from(before.run, nobody)
    after.learn_targets(bank)
    item = bank.items[7]
    wave, heard = torch.from_numpy(bank.wave(item, 0, 30))[None], torch.from_numpy(bank.frames(item, 0, 30))
    targets = after.model.pooled(torch.from_numpy(pooled_item(bank, item))[None])
    for run in (after.model, after.kept):
        frames, embedding = run.eval().embed(wave)
        assert torch.allclose(frames, before.kept.eval().speech(wave)[2], atol=0.05), "half precision is all it lost"
        found = run.frames(frames)[0], run.vector(embedding)[0], run.emotion(embedding)[0]
        for said, wanted in zip(found, (heard, targets.vector[0], targets.emotion[0]), strict=True):
            error = (said - wanted).square().mean() / wanted.square().mean()
            assert error < 0.3, "the heads are fitted: what a teacher makes of what is heard is found again"


def test_what_a_run_may_not_begin_with_is_refused_with_a_reason(tmp_path: Path) -> None:
    before, after = small(tmp_path / "before", 1), small(tmp_path / "after", 1)
    own = {"train": ["s0"], "validation": ["s1"], "test": ["s2"]}
    before.save({"speakers": own})
    after.start_from(before.run, own)
    for heard, reason in ((["s2"], "has heard s2, who must be unheard"), (["s0", "x"], "has heard x, of no corpus")):
        before.save({"speakers": {**own, "train": heard}})
        with pytest.raises(ConfigError, match=reason):
            after.start_from(before.run, own)
    before.save({"speakers": own})
    for number, sizes in enumerate(({"width": 32}, {"mels": 32}, {"blocks": 2}, {"layers": 1})):
        other = small(tmp_path / f"other-{number}", 1, **sizes)
        for kept_alone in (False, True):
            if kept_alone:
                (before.run / "last.safetensors").unlink()
            with pytest.raises(ConfigError, match=f"has {next(iter(sizes))} = "):
                other.start_from(before.run, own)
        before.save({"speakers": own})
    with pytest.raises(ConfigError, match="holds neither"):
        after.start_from(tmp_path, own)


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
