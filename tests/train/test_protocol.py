from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from edge_ser.errors import ConfigError  # noqa: E402
from train.corpora.utterance import Utterance, read_utterances  # noqa: E402
from train.examples import Example  # noqa: E402
from train.protocol import PROTOCOLS, main  # noqa: E402
from train.protocols.adaptation import AdaptSettings, adapt, adapted_names, only  # noqa: E402
from train.protocols.content import content_of  # noqa: E402
from train.protocols.fusion import Fusion, reading  # noqa: E402
from train.protocols.low_resource import LowResource, divided  # noqa: E402
from train.protocols.parts import Job, Part, PartStore  # noqa: E402
from train.protocols.references import (  # noqa: E402
    cross_reference,
    first_language_reference,
    learns_once,
    shot_reference,
    within_reference,
)
from train.protocols.study import Request, Study, Variant  # noqa: E402
from train.protocols.tables import Line, Table, compare  # noqa: E402
from train.protocols.variants import read_settings, variants_of  # noqa: E402
from train.settings import Experiment, FeatureSettings  # noqa: E402
from train.systems import Inputs, Output, System  # noqa: E402

CLASSES = ("angry", "happy", "neutral", "sad")
SETTINGS = """
system = "mdat"
name = "tiny"
preset = "tiny"
corpora = ["alpha"]
[features.speech]
kind = "encoder"
source = "tiny:wav2vec2"
[fit]
epochs = 4
learning_rate = 0.05
batch_size = 16
device = "cpu"
[k_shot]
shots = [0, 1, 2]
learning_rate = 0.05
epochs = 20
[fractions]
fractions = [0.25]
unit = "speaker"
learning_rate = 0.05
epochs = 20
[leave_speakers_out]
folds = 4
"""
VARIANTS = """
[[variants]]
name = "whole"
[[variants]]
name = "small"
[variants.model]
modules = ["gat"]
"""


class Tiny(System):
    """A linear system."""

    reads = ("speech",)

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(4)
        self.body = torch.nn.Linear(4, 6)
        self.classifier = torch.nn.Linear(6, 4)

    def forward(self, inputs: Inputs) -> Output:
        frames, mask = inputs["speech"], inputs["speech_mask"].unsqueeze(-1)
        mean = (frames * mask).sum(1) / mask.sum(1).clamp(min=1)
        embedding = torch.tanh(self.body(self.norm(mean)))
        return Output(self.classifier(embedding), embedding)


@dataclass
class FakeBench:
    """Features that tell the emotion, turned elsewhere in the corpus beta."""

    folder: Path
    sides: list[str | None]
    asked: dict[str, Counter[Path]] = field(default_factory=dict)

    def clips(self, corpora: Sequence[str] | None = None) -> list[Utterance]:
        every = read_utterances(self.folder / "speech" / "manifest.csv")
        return [clip for clip in every if not corpora or clip.corpus in corpora]

    def examples(self, clips: Sequence[Utterance], side: str | None = None) -> list[Example]:
        self.sides.append(side)
        self.asked.setdefault(str(side), Counter()).update(clip.path for clip in clips)
        return [self._example(clip) for clip in clips]

    def system(self, seed: int | None = None) -> Tiny:
        torch.manual_seed(seed or 0)
        return Tiny()

    def _example(self, clip: Utterance) -> Example:
        rng = np.random.default_rng(sum(clip.path.name.encode()))
        label = CLASSES.index(clip.emotion4)
        centre = np.roll(np.eye(4)[label], 1 if clip.corpus == "beta" else 0)
        frames = (centre + 0.3 * rng.standard_normal((int(rng.integers(3, 6)), 4))).astype(np.float32)
        return Example(clip.path, clip.speaker, clip.corpus, {"speech": frames}, label)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(SETTINGS, encoding="utf-8")
    return path


def ran(name: str, settings: Path, miniature: Path, *options: str, out: str = "out") -> dict[str, Any]:
    bench = FakeBench(miniature, [])
    folder = settings.parent / out
    arguments = [name, str(settings), "--data", str(miniature), "--out", str(folder), "--seeds", "2", *options]
    assert main(arguments, lambda experiment: bench) == 0
    result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return result


def figures(line: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = line["figures"]
    return found


def test_cross_language_judges_on_the_whole_target(
    settings: Path, miniature: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = ran("cross-language", settings, miniature, "--source", "alpha", "--target", "beta")
    (line,) = result["tables"][0]["lines"]
    assert (line["source"], line["target"]) == ("alpha", "beta")
    assert line["answers"] == 2 * 32 and line["speakers"] == 4
    assert figures(line)["UA"]["fits"] == 2
    assert sum(map(sum, line["confusion"])) == 64
    shown = capsys.readouterr().out
    assert "published" in shown and "by speaker 95 %" in shown and "true class by row" in shown
    assert (settings.parent / "out" / "confusion.png").stat().st_size > 1000
    assert (settings.parent / "out" / "embedding-tiny-alpha-to-beta.png").is_file()


@pytest.fixture(scope="module")
def k_shot(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished k-shot protocol."""
    path = tmp_path_factory.mktemp("k-shot") / "tiny.toml"
    path.write_text(SETTINGS, encoding="utf-8")
    ran("k-shot", path, miniature, "--source", "alpha", "--target", "beta")
    return path.parent / "out"


def test_k_shot_adapts_and_reports_both_queries(k_shot: Path) -> None:
    result = json.loads((k_shot / "result.json").read_text(encoding="utf-8"))
    whole, query, unheard = result["tables"]
    assert [line["shots"] for line in query["lines"]] == ["0", "1", "2"]
    assert whole["lines"][0]["answers"] == 2 * 32
    # 2 shots of 4 classes are no part of the query, and so are the speakers of the support where they are left out.
    assert {line["answers"] for line in query["lines"]} == {2 * 24}
    assert {line["answers"] for line in unheard["lines"]} == {2 * 16}
    zero, _, two = (figures(line)["UA"]["mean"] for line in unheard["lines"])
    assert two > zero + 0.1
    gain = unheard["comparisons"][0]
    assert gain["better"].endswith("2 shots") and gain["difference"] == pytest.approx(two - zero)
    assert {"k-shot.png", "k-shot-unheard.png"} <= {path.name for path in k_shot.iterdir()}


def test_no_shot_is_the_source_model(k_shot: Path) -> None:
    parts = [json.loads(path.read_text()) for path in (k_shot / "parts").glob("k-shot*.json")]
    for seed in (1, 2):
        own = [part for part in parts if part["facts"]["seed"] == seed and part["facts"]["shots"] == 0]
        whole, zero = sorted(own, key=lambda part: -len(part["files"]))
        answers = dict(zip(whole["files"], whole["logits"], strict=True))
        np.testing.assert_allclose([answers[file] for file in zero["files"]], zero["logits"], atol=1e-4)


def test_no_clip_leaves_the_weights_bit_identical(settings: Path, miniature: Path, tmp_path: Path) -> None:
    variants = variants_of(read_settings(settings), tmp_path)
    bench = FakeBench(miniature, [])
    study = Study(variants, {}, Request(), lambda experiment: bench, PartStore(tmp_path / "parts", {}))
    system = bench.system(3)
    before = {name: tensor.clone() for name, tensor in system.state_dict().items()}
    adapt(study, variants[0], system, [], AdaptSettings(), 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in system.state_dict().items())
    adapt(study, variants[0], system, study.clips("beta")[:8], AdaptSettings(adapt="head"), 1)
    moved = {name for name, tensor in system.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"classifier.weight", "classifier.bias"}


def test_one_source_model_serves_every_shot_and_target(k_shot: Path) -> None:
    assert len(list((k_shot / "parts").glob("source_*.safetensors"))) == 2


def test_speakers_left_out_and_within_a_corpus(settings: Path, miniature: Path) -> None:
    line = ran("leave-speakers-out", settings, miniature, out="left")["tables"][0]["lines"][0]
    assert line["answers"] == 2 * 96 and line["speakers"] == 12 and figures(line)["UA"]["fits"] == 8
    assert figures(line)["UA"]["pooled"] > 0.6
    line = ran("within-corpus", settings, miniature, "--source", "beta", out="within")["tables"][0]["lines"][0]
    assert line["division"] == "speakers" and figures(line)["UA"]["fits"] == 8


def test_fractions_of_speakers(settings: Path, miniature: Path) -> None:
    (table,) = ran("fractions", settings, miniature, "--source", "alpha", "--target", "beta")["tables"]
    assert [line["share"] for line in table["lines"]] == ["0", "0.25"]
    assert {line["answers"] for line in table["lines"]} == {2 * 24}
    none, some = (figures(line)["UA"]["mean"] for line in table["lines"])
    assert some > none


def test_an_ablation_draws_bars_and_tests_its_variants(settings: Path, miniature: Path) -> None:
    settings.write_text(SETTINGS + VARIANTS, encoding="utf-8")
    result = ran("ablation", settings, miniature, "--source", "alpha", "--target", "beta")
    (table,) = result["tables"]
    assert [line["system"] for line in table["lines"]] == ["whole", "small"]
    (comparison,) = table["comparisons"]
    assert comparison["better"] == "whole" and {"t", "p", "low", "high"} <= set(comparison)
    assert (settings.parent / "out" / "ablation-alpha-beta.png").is_file()


def test_a_second_language_from_nested_subsets(settings: Path, miniature: Path) -> None:
    settings.write_text(SETTINGS + "[low_resource]\nsizes = [4, 500, 1000]\n", encoding="utf-8")
    second, first = ran("low-resource", settings, miniature, "--source", "alpha", "--target", "beta")["tables"]
    # Two of beta's four speakers are learnt from: more than their 16 clips there are not, and they are learnt once.
    assert [line["clips"] for line in second["lines"]] == ["0", "4", "16"]
    assert any("1 speaker(s) have few ways" in note for note in second["notes"])
    assert {line["speakers"] for line in second["lines"]} == {1}
    none, _, most = (figures(line)["UA"]["mean"] for line in second["lines"])
    assert most > none
    judged = [(line["judged"], line["clips"]) for line in first["lines"]]
    assert judged[0] == ("first language before", "0") and len(judged) == 5
    assert (settings.parent / "out" / "low-resource.png").is_file()


def test_official_parts_are_taken_where_every_clip_has_one(miniature: Path) -> None:
    clips = FakeBench(miniature, []).clips(["alpha"])
    parts = ["train"] * 60 + ["dev"] * 16 + ["test1"] * 16 + ["test2"] * 4
    official = [replace(clip, partition=part) for clip, part in zip(clips, parts, strict=True)]
    fold = divided(official, LowResource(), 1)
    assert [len(side) for side in (fold.train, fold.validation, fold.test)] == [60, 16, 16]
    assert divided(clips, LowResource(), 1).name == "split"


def test_fusion_sets_both_modalities_against_either_and_against_empty_words(settings: Path, miniature: Path) -> None:
    words = '[features.text]\nkind = "text"\nsource = "tiny:roberta"\nsentences = "constructed"\n'
    settings.write_text(SETTINGS + words, encoding="utf-8")
    result = ran("fusion", settings, miniature)
    (table,) = result["tables"]
    reads = ["speech", "text", "speech + text", "speech + uninformative text"]
    assert [line["reads"] for line in table["lines"]] == reads
    assert [one["better"] for one in table["comparisons"]] == [
        "tiny: speech + text",
        "tiny: speech + text",
        "tiny: speech + uninformative text",
    ]
    assert all(one["low"] <= one["high"] for one in table["comparisons"])
    other = ran("fusion", settings, miniature, "--source", "beta")["tables"][0]["lines"][0]
    assert {fact["corpora"] for fact in other["fits"]} == {"beta"} and other["confusion"] != table["lines"][0][
        "confusion"
    ]
    assert "constructed" in table["notes"][0] and "constructed" in result["notes"][0]


def test_a_variant_reads_what_the_condition_allows() -> None:
    features = {"speech": FeatureSettings("encoder", "a"), "text": FeatureSettings("text", "b")}
    mha = Variant("m", Experiment(system="mha", name="m", features=features))
    speech = reading(mha, "speech", Fusion()).experiment
    assert set(speech.features) == {"speech"} and dict(speech.model) == {"modalities": "audio", "attention": "self"}
    empty = reading(mha, "speech + uninformative text", Fusion()).experiment
    assert empty.features["text"].sentences == "uninformative" and not empty.model
    with pytest.raises(ConfigError, match="need"):
        reading(Variant("m", experiment("mdat")), "speech", Fusion())


def test_what_is_there_is_not_made_again(settings: Path, miniature: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--source", "alpha", "--target", "beta")
    first = ran("cross-language", settings, miniature, *options)
    parts = settings.parent / "out" / "parts"
    removed = next(iter(sorted(parts.glob("cross-language*.json"))))
    before = removed.read_text(encoding="utf-8")
    removed.unlink()
    made: list[str] = []
    write = PartStore.write
    monkeypatch.setattr(PartStore, "write", lambda self, part: (made.append(part.key), write(self, part))[1])
    assert ran("cross-language", settings, miniature, *options) == first
    assert len(made) == 1 and removed.read_text(encoding="utf-8") == before


def test_a_pack_that_is_made_again_is_the_same(
    settings: Path, miniature: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.write_text(SETTINGS + "[low_resource]\nsizes = [4, 8]\n", encoding="utf-8")
    monkeypatch.setattr(Tiny, "config", SimpleNamespace(languages=("en", "xx")), raising=False)
    monkeypatch.setattr(Tiny, "begin", lambda self, language: self.classifier.reset_parameters(), raising=False)
    ran("low-resource", settings, miniature, "--source", "alpha", "--target", "beta")
    packs = sorted((settings.parent / "out" / "parts").glob("pack_*_n8*.safetensors"))
    before = packs[0].read_bytes()
    packs[0].unlink()
    for path in (settings.parent / "out" / "parts").glob("low-resource*_n8_second*.json"):
        path.unlink()
    torch.manual_seed(99)
    ran("low-resource", settings, miniature, "--source", "alpha", "--target", "beta")
    assert packs[0].read_bytes() == before


def test_content_that_changed_under_one_name_needs_another_folder(tmp_path: Path) -> None:
    PartStore(tmp_path, {"protocol": "a"})
    PartStore(tmp_path, {"protocol": "a"}, {"encoder x": "1"})
    PartStore(tmp_path, {"protocol": "a"}, {"encoder y": "2"})
    PartStore(tmp_path, {"protocol": "a"}, {"encoder x": "1", "encoder y": "2"})
    with pytest.raises(ConfigError, match="another encoder x"):
        PartStore(tmp_path, {"protocol": "a"}, {"encoder x": "3"})


def test_contents_are_those_of_encoders_sentences_and_audio(miniature: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    features = {"text": FeatureSettings("text", str(tmp_path), sentences="constructed")}
    read = Experiment(system="mdat", name="m", features=features)
    first = content_of([read], {}, miniature)
    assert {name.split()[0] for name in first} == {"encoder", "sentences", "audio"}
    (tmp_path / "config.json").write_text("{ }", encoding="utf-8")
    second = content_of([read], {}, miniature)
    assert [name for name in first if first[name] != second[name]] == [f"encoder {tmp_path}"]


def test_nobody_of_the_source_is_judged_as_a_target(settings: Path, miniature: Path, tmp_path: Path) -> None:
    class Shared(FakeBench):
        def clips(self, corpora: Sequence[str] | None = None) -> list[Utterance]:
            return [replace(clip, speaker=clip.speaker.replace("beta", "alpha")) for clip in super().clips(corpora)]

    request = Request((("alpha",),), ("beta",))
    bench = Shared(miniature, [])
    variants = variants_of(read_settings(settings), tmp_path)
    study = Study(variants, {}, request, lambda experiment: bench, PartStore(tmp_path / "parts", {}))
    with pytest.raises(ConfigError, match=r"speaker alpha.* is in the source and in beta"):
        study.targets(("alpha",))


def test_seeds_that_share_a_source_model_judge_the_whole_target_once(settings: Path, miniature: Path) -> None:
    settings.write_text(SETTINGS.replace("shots = [0, 1, 2]", "shots = [0]\nsource_seeds = 1"), encoding="utf-8")
    whole, query, _ = ran("k-shot", settings, miniature, "--source", "alpha", "--target", "beta")["tables"]
    assert figures(whole["lines"][0])["UA"]["fits"] == 1 and figures(query["lines"][0])["UA"]["fits"] == 2
    assert any("share 1 source model" in note for note in query["notes"])


def test_what_was_fitted_otherwise_is_made_anew_and_another_protocol_needs_another_folder(
    settings: Path, miniature: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--source", "alpha", "--target", "beta")
    ran("cross-language", settings, miniature, *options)
    parts = settings.parent / "out" / "parts"
    before = {path.name for path in parts.glob("cross-language*.json")}
    settings.write_text(SETTINGS.replace("epochs = 4", "epochs = 5"), encoding="utf-8")
    ran("cross-language", settings, miniature, *options)
    assert len({path.name for path in parts.glob("cross-language*.json")} - before) == len(before) == 2
    arguments = ["k-shot", str(settings), "--data", str(miniature), "--out", str(settings.parent / "out")]
    assert main([*arguments, *options], lambda experiment: FakeBench(miniature, [])) == 1
    assert "choose another --out" in capsys.readouterr().err


def test_a_part_that_another_process_holds_is_left_to_it(tmp_path: Path) -> None:
    store, other = PartStore(tmp_path, {}), PartStore(tmp_path, {})
    order: list[str] = []

    def job(key: str) -> Job:
        def make() -> Part:
            order.append(key)
            return Part(key, {}, ("a",), ("s",), np.array([0]), np.zeros((1, 4), np.float32))

        return Job(key, make)

    with other.held("first") as mine:
        assert mine
        with store.held("first", wait=False) as second:
            assert not second
    assert [part.key for part in store.run([job("first"), job("second")])] == ["first", "second"]
    assert order == ["first", "second"]
    assert [part.key for part in other.run([job("second")])] == ["second"] and len(order) == 2


def test_sentences_are_those_of_the_side(settings: Path, miniature: Path) -> None:
    bench = FakeBench(miniature, [])
    arguments = ["leave-speakers-out", str(settings), "--data", str(miniature), "--out", str(settings.parent / "out")]
    assert main([*arguments, "--seeds", "1"], lambda experiment: bench) == 0
    assert set(bench.sides) == {"train", "validation", "test"}
    result = json.loads((settings.parent / "out" / "result.json").read_text(encoding="utf-8"))
    # Every speaker judges once, reads the test's sentences then, and the other sides' in all other folds.
    assert result["tables"][0]["lines"][0]["answers"] == sum(bench.asked["test"].values()) == 96
    assert min(bench.asked["train"].values()) >= 1


def test_listing_and_help_tell_a_stranger_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in PROTOCOLS)
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "python -m train.protocol k-shot" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing", "x.toml"], "need NAME"),
        (["k-shot", "SETTINGS"], "pass --target"),
        (["k-shot", "SETTINGS", "--source", "alpha", "--target", "alpha"], "source and target"),
        (["k-shot", "missing.toml"], "no settings at"),
        (["k-shot", "SETTINGS", "--encoder", "speech"], "need FEATURE=FOLDER"),
        (["ablation", "SETTINGS"], "at least two"),
        (["cross-language", "SETTINGS", "--seeds", "0"], "1 or more"),
        (["k-shot", "[k_shot]\nshots = 5"], "shots is 5"),
        (["k-shot", "[k_shot]\nshots = []"], "at least one number"),
        (["k-shot", "[k_shot]\nadapt = 'x'"], "adapt is 'x'"),
        (["k-shot", "[k_shot]\nshots = [50]"], "take fewer shots"),
        (["fractions", "[fractions]\nadapt = 'x'"], "adapt is 'x'"),
    ],
)
def test_mistakes_are_said_in_one_line(
    arguments: list[str], said: str, settings: Path, miniature: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "[" in arguments[1]:
        # Said before anything is trained: training would fail first.
        settings.write_text(SETTINGS.split("[k_shot]")[0] + arguments[1] + "\n", encoding="utf-8")
        arguments = [arguments[0], "SETTINGS", "--source", "alpha", "--target", "beta"]
    typed = [str(settings) if word == "SETTINGS" else word for word in arguments]
    out = ["--data", str(miniature), "--out", str(settings.parent / "out")]
    assert main([*typed, *out], lambda experiment: FakeBench(miniature, [])) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error


def test_what_moves_in_an_adaptation() -> None:
    system = Tiny()
    every = {name for name, _ in system.named_parameters()}
    assert adapted_names(system, "full") == every
    assert adapted_names(system, "head") == {"classifier.weight", "classifier.bias"}
    assert adapted_names(system, "norm_bias") == {"norm.weight", "norm.bias", "body.bias", "classifier.bias"}
    with only(system, {"body.bias"}):
        assert [name for name, p in system.named_parameters() if p.requires_grad] == ["body.bias"]
    assert all(parameter.requires_grad for parameter in system.parameters())
    system.body.requires_grad_(False)
    assert adapted_names(system, "full") == every - {"body.weight", "body.bias"}


def experiment(system: str) -> Experiment:
    return Experiment(system=system, name=system)


def test_published_figures_stand_beside_ours_where_the_names_of_corpora_are_equal() -> None:
    mdat, bilstm = Variant("m", experiment("mdat")), Variant("b", experiment("bilstm"))
    figures, table = cross_reference(mdat, ("emodb",), "emovo", CLASSES)
    assert table is not None and figures["UA"].value == pytest.approx(0.5625)
    assert cross_reference(bilstm, ("emodb",), "urdu", CLASSES)[0]["UA"].value == pytest.approx(0.7246)
    assert cross_reference(mdat, ("cremad",), "emovo", CLASSES) == ({}, None)
    assert cross_reference(mdat, ("cremad", "emodb"), "emovo", CLASSES) == ({}, None)
    assert shot_reference(mdat, ("emodb",), "emovo", 15, CLASSES)[0]["UA"].value == pytest.approx(0.9356)
    assert shot_reference(mdat, ("emodb",), "emovo", 3, CLASSES) == ({}, None)
    third = replace(mdat, published="3")
    assert cross_reference(third, ("iemocap",), "urdu", CLASSES)[0]["UA"].value == pytest.approx(0.4541)


def test_published_figures_within_a_corpus_are_over_as_many_classes() -> None:
    mdat = Variant("m", experiment("mdat"))
    assert within_reference(mdat, "emodb", CLASSES) == ({}, None)
    assert within_reference(mdat, "urdu", CLASSES)[0]["UA"].value == pytest.approx(0.9433)
    camulenet = Variant("c", experiment("camulenet"))
    assert set(within_reference(camulenet, "cremad", CLASSES)[0]) == {"WA", "WF1"}
    mha = Variant("m", experiment("mha"), "Self-noSP")
    found, _ = within_reference(mha, "iemocap", tuple("abcdefg"))
    assert found["UA"].value == pytest.approx(0.464) and found["UA"].sd == pytest.approx(0.042)


def answered(right: float, seed: int) -> Part:
    rng = np.random.default_rng(seed)
    truth = rng.integers(4, size=200)
    said = np.where(rng.random(200) < right, truth, (truth + 1) % 4)
    speakers = tuple(f"s{place % 8}" for place in range(200))
    return Part(str(seed), {"seed": seed}, ("f",) * 200, speakers, truth, np.eye(4, dtype=np.float32)[said])


def test_a_line_gives_means_over_fits_and_intervals_over_speakers() -> None:
    line = Line({"system": "a"}, [answered(0.8, seed) for seed in range(5)])
    result = line.result()["figures"]["UA"]
    assert result["mean"] == pytest.approx(0.8, abs=0.05) and result["fits"] == 5
    assert result["low"] < result["pooled"] < result["high"]
    worse = Line({"system": "b"}, [answered(0.5, seed) for seed in range(5)])
    comparison = compare(line, worse, ("a", "b"))
    assert comparison.low > 0.1 and comparison.p < 0.001
    assert compare(worse, line, ("b", "a")).p > 0.99


def test_folds_are_averaged_within_a_seed_before_anything_is_tested() -> None:
    one = Line({"system": "a"}, [answered(0.8, fold) for fold in range(4)])
    # Seeds that add nothing: the same folds again.
    parts = [replace(part, facts={"seed": seed}) for seed in (1, 2, 3) for part in one.parts]
    line = Line({"system": "a"}, parts)
    assert line.observations["UA"] == pytest.approx([float(np.mean(one.values["UA"]))] * 3)
    alone = Line({"system": "a"}, [replace(part, facts={"seed": 1}) for part in one.parts])
    assert alone.observations["UA"] == alone.values["UA"] and alone.overlapping and not line.overlapping
    assert any("folds" in note for note in Table("t", [alone]).result()["notes"])
    assert line.result()["figures"]["UA"]["observations"] == 3


def test_published_rows_stand_where_their_method_has_learnt_as_much() -> None:
    once, twice = (Variant("l", experiment("lora"), f"WavLM {method}") for method in ("LoRA", "FT+LoRA"))
    assert learns_once(once) and not learns_once(twice)
    found, table = first_language_reference(once, ("msp-podcast",), "attributes")
    assert table is not None and found["Val."].value == pytest.approx(0.651)
    assert first_language_reference(once, ("msp-podcast", "x"), "attributes") == ({}, None)


def test_attributes_are_judged_by_ccc() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((40, 3))
    speakers = tuple(f"s{place % 8}" for place in range(40))
    part = Part("a", {}, ("f",) * 40, speakers, truth, (truth + 0.1 * rng.standard_normal((40, 3))).astype(np.float32))
    line = Line({"system": "a"}, [part])
    assert line.metric == "CCC" and set(line.result()["figures"]) == {"CCC", "Aro.", "Val.", "Dom."}
    assert "confusion" not in line.result()
    noisy = replace(part, logits=(part.logits + rng.standard_normal((40, 3))).astype(np.float32))
    found = compare(line, Line({"system": "b"}, [noisy]), ("a", "b"), "Val.")
    assert found.metric == "Val." and 0 < found.low < found.difference < found.high


def test_a_variant_of_another_system_begins_with_that_systems_preset() -> None:
    raw = {
        "system": "mdat",
        "name": "base",
        "preset": "tiny",
        "model": {"unit": 8},
        "features": {"speech": {"kind": "prosody"}, "mfcc": {"kind": "mfcc39"}},
        "variants": [
            {"name": "one", "model": {"pool": "attn"}, "features": ["speech"]},
            {"name": "two", "system": "bilstm", "published": "BiLSTM baseline", "fit": {"epochs": 3}},
        ],
    }
    one, two = variants_of(raw, Path("."))
    assert dict(one.experiment.model) == {"unit": 8, "pool": "attn"} and set(one.experiment.features) == {"speech"}
    assert (two.experiment.system, dict(two.experiment.model), two.experiment.fit.epochs) == ("bilstm", {}, 3)
    with pytest.raises(ConfigError, match="each name once"):
        variants_of({**raw, "variants": [{"name": "a"}, {"name": "a"}]}, Path("."))
    with pytest.raises(ConfigError, match="unheard_of"):
        variants_of({**raw, "variants": [{"name": "a", "unheard_of": 1}]}, Path("."))
