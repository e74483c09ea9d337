from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from edge_ser.errors import ConfigError  # noqa: E402
from train.encoders import load_encoder  # noqa: E402
from train.experiment import SYSTEMS, Workbench, read_experiment  # noqa: E402
from train.feature_kinds import EncoderAtLength, at_length, hand_crafted  # noqa: E402
from train.fit import predict  # noqa: E402
from train.settings import Experiment, FeatureSettings  # noqa: E402
from train.synthetic_corpus import write_synthetic_corpus  # noqa: E402
from train.text import read_sentences  # noqa: E402

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    path
    for path in (ROOT / "train" / "configs").rglob("*.toml")
    if "-paper" in path.name or path.parent.name == "smoke"
)
SETTINGS = """
system = "mdat"
name = "made-up"
preset = "tiny"
corpora = ["synthetic0"]

[features.speech]
kind = "encoder"
source = "tiny:wav2vec2"
layers = [0, 1]
pool = 2

[features.text]
kind = "text"
source = "tiny:roberta"
sentences = "constructed"

[fit]
epochs = 2
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_synthetic_corpus(folder, speakers=6, per_class=1, languages=2)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def experiment(tmp_path: Path, text: str = SETTINGS) -> Experiment:
    path = tmp_path / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return read_experiment(path)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_settings_file_opens(path: Path, tmp_path: Path) -> None:
    read = read_experiment(path)
    # The system exists, reads these features and knows the [model] settings.
    bench = Workbench(read, None, tmp_path)
    assert read.name.endswith(path.stem)
    assert bench.classes or read.task == "attributes"
    assert "python -m train.finetune" in path.read_text(encoding="utf-8")


def test_each_of_the_five_systems_has_a_paper_and_a_smoke_file() -> None:
    for name in ("mdat", "hump-cat", "camulenet", "mha", "lora"):
        assert ROOT / "train" / "configs" / f"{name}-paper.toml" in CONFIGS
        assert ROOT / "train" / "configs" / "smoke" / f"{name}.toml" in CONFIGS


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_is_where_the_table_says(name: str, tmp_path: Path) -> None:
    bench = Workbench(Experiment(name, "x", preset="tiny"), None, tmp_path)
    assert bench.kind.__name__ == SYSTEMS[name][1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('system = "mdat"', "no setting sytem"),
        ('name = "made-up"', "lacks name"),
        ('kind = "encoder"', "kind is 'enkoder'"),
        ("layers = [0, 1]", "layers is"),
        ("epochs = 2", "fit.*no setting epoch"),
        ("pool = 2", "pool is '2'; need int"),
        ("[fit]", "not TOML"),
    ],
)
def test_a_wrong_settings_file_is_named_with_what_is_wrong(tmp_path: Path, change: str, message: str) -> None:
    wrong = {
        'system = "mdat"': 'sytem = "mdat"',
        'name = "made-up"': "",
        'kind = "encoder"': 'kind = "enkoder"',
        "layers = [0, 1]": 'layers = ["a"]',
        "epochs = 2": "epoch = 2",
        "pool = 2": 'pool = "2"',
        "[fit]": "[fit",
    }[change]
    with pytest.raises(ConfigError, match=message) as caught:
        experiment(tmp_path, SETTINGS.replace(change, wrong))
    assert "settings.toml" in str(caught.value)


def test_no_settings_file_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no settings at"):
        read_experiment(tmp_path / "absent.toml")


def test_systems_features_and_sources_that_do_not_fit_are_named(tmp_path: Path) -> None:
    good = experiment(tmp_path)
    with pytest.raises(ConfigError, match="system is 'mdta'"):
        Workbench(replace(good, system="mdta"), None, tmp_path)
    with pytest.raises(ConfigError, match="preset is 'huge'"):
        Workbench(replace(good, preset="huge"), None, tmp_path)
    with pytest.raises(ConfigError, match="does not read mfcc"):
        Workbench(replace(good, features={"mfcc": FeatureSettings("mfcc39")}), None, tmp_path)
    with pytest.raises(ConfigError, match="no encoder 'speach' here; need one of speech, text"):
        Workbench(good, None, tmp_path, {"speach": "tiny:wavlm"})
    with pytest.raises(ConfigError, match="no setting colour"):
        Workbench(replace(good, model={"colour": 1}), None, tmp_path)


def test_clips_are_those_of_the_corpora_with_a_label(data: Path, cache: Path, tmp_path: Path) -> None:
    bench = Workbench(experiment(tmp_path), data, cache)
    assert {clip.corpus for clip in bench.clips()} == {"synthetic0"}
    assert len(bench.clips(["synthetic0", "synthetic1"])) == 48
    with pytest.raises(ConfigError, match="no corpus emodb; it has synthetic0, synthetic1"):
        bench.clips(["emodb"])
    with pytest.raises(ConfigError, match="pass --data"):
        Workbench(experiment(tmp_path), None, cache).clips()


def test_a_split_shares_no_speaker(data: Path, cache: Path, tmp_path: Path) -> None:
    split = Workbench(experiment(tmp_path), data, cache).split()
    sides = [{clip.speaker for clip in side} for side in (split.train, split.validation, split.test)]
    assert all(sides) and not (sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2])


def test_widths_layers_and_classes_of_a_system_follow_the_encoders(data: Path, cache: Path, tmp_path: Path) -> None:
    bench = Workbench(experiment(tmp_path), data, cache)
    examples = bench.examples(bench.clips()[:5], "train")
    assert examples[0].features["speech"].shape[1:] == (2, 32)
    assert examples[0].features["text"].shape[1] == 32
    assert predict(bench.system(1), examples).shape == (5, 4)
    assert bench.system(1).config.unit == 8
    assert bench.system(1, unit=16).config.unit == 16


def test_several_layers_of_text_are_mixed_as_those_of_speech_are(data: Path, cache: Path, tmp_path: Path) -> None:
    text = SETTINGS.replace('sentences = "constructed"', 'sentences = "constructed"\nlayers = "weighted_sum"')
    bench = Workbench(experiment(tmp_path, text), data, cache)
    examples = bench.examples(bench.clips()[:3], "train")
    assert examples[0].features["text"].shape[1:] == (3, 32)
    system = bench.system()
    assert system.config.text_layers == 3 and len(system.layer_mix["text"].weights) == 3
    assert predict(system, examples).shape == (3, 4)
    single = Workbench(experiment(tmp_path), data, cache)
    last = single.examples(single.clips()[:3], "train")[0].features["text"]
    np.testing.assert_array_equal(examples[0].features["text"][:, 2], last)
    # An empty transcript is no token of any layer.
    feature = bench.experiment.features["text"]
    silent = [replace(clip, transcript="") for clip in bench.clips()[:1]]
    (empty,) = bench._text(replace(feature, sentences="transcript"), silent, None)
    assert empty.shape == (0, 3, 32)


def test_mfccs_can_be_standardised_and_prosody_standardises_itself(data: Path, cache: Path, tmp_path: Path) -> None:
    mfcc = FeatureSettings("mfcc39", standardise=True, options={"hop_ms": 10})
    good = replace(experiment(tmp_path), system="mean-pool", features={"speech": mfcc}, model={"speech_width": 39})
    bench = Workbench(good, data, cache)
    system = bench.system()
    system.fit_statistics(bench.examples(bench.clips()[:4]))
    assert predict(system, bench.examples(bench.clips()[:4])).shape == (4, 4)
    assert abs(float(system.standards["speech"].mean[12])) > 0
    prosody = {"prosody": FeatureSettings("prosody", standardise=True)}
    with pytest.raises(ConfigError, match="kind 'prosody'; need frames of an encoder or MFCCs"):
        Workbench(replace(good, system="mdre", features=prosody, model={}), data, cache).system()


def test_tokens_of_a_sentence_are_limited_by_its_feature() -> None:
    with pytest.raises(ConfigError, match="tokens is 2; need a whole number of 3 or more"):
        FeatureSettings("text", "tiny:roberta", options={"tokens": 2})
    with pytest.raises(ConfigError, match="options of encoder are none; got tokens"):
        FeatureSettings("encoder", "tiny:wavlm", options={"tokens": 64})


def test_weights_come_from_the_seed_alone(data: Path, cache: Path, tmp_path: Path) -> None:
    bench = Workbench(experiment(tmp_path), data, cache)
    torch.manual_seed(99)
    first = bench.system(1).state_dict()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert all(torch.equal(first[name], tensor) for name, tensor in bench.system(1).state_dict().items())
    assert torch.equal(torch.get_rng_state(), before)
    assert any(not torch.equal(first[name], tensor) for name, tensor in bench.system(2).state_dict().items())


def test_another_encoder_of_the_command_line_wins(data: Path, cache: Path, tmp_path: Path) -> None:
    clips = Workbench(experiment(tmp_path), data, cache).clips()[:1]
    one, other = (
        Workbench(experiment(tmp_path), data, cache, {"speech": source}).examples(clips, "train")[0]
        for source in ("tiny:wav2vec2", "tiny:wavlm")
    )
    assert not np.array_equal(one.features["speech"], other.features["speech"])


def drawn(data: Path, cache: Path, kind: str, side: str | None) -> list[str]:
    """Return the sentences that go with the first clips."""
    text = FeatureSettings("text", "tiny:roberta", sentences=kind)
    bench = Workbench(Experiment("mdat", "x", preset="tiny", features={"text": text}), data, cache)
    seen: list[str] = []
    original = bench._text

    import train.experiment as module

    def keep(*given: object) -> str:
        sentence = original_sentence(*given)
        seen.append(sentence)
        return sentence

    original_sentence = module.sentence_of
    module.sentence_of = keep
    try:
        original(text, bench.clips()[:40], side)
    finally:
        module.sentence_of = original_sentence
    return seen


def test_constructed_text_has_the_clips_emotion_and_never_crosses_sides(data: Path, cache: Path) -> None:
    sentences = {s.text: s for s in read_sentences(data / "text" / "goemotions.csv.gz")}
    by_side = {side: drawn(data, cache, "constructed", side) for side in ("train", "validation", "test")}
    clips = Workbench(Experiment("mdat", "x", preset="tiny"), data, cache).clips()[:40]
    for side, split in (("train", "train"), ("validation", "dev"), ("test", "test")):
        for clip, text in zip(clips, by_side[side], strict=True):
            assert (sentences[text].emotion, sentences[text].split) == (clip.emotion4, split)
    assert not set(by_side["train"]) & (set(by_side["test"]) | set(by_side["validation"]))
    assert by_side["train"] == drawn(data, cache, "constructed", "train")


def test_uninformative_text_is_of_one_class_and_transcripts_are_the_clips_own(data: Path, cache: Path) -> None:
    sentences = {s.text: s for s in read_sentences(data / "text" / "goemotions.csv.gz")}
    assert {sentences[text].emotion for text in drawn(data, cache, "uninformative", "test")} == {"neutral"}
    clips = Workbench(Experiment("mdat", "x", preset="tiny"), data, cache).clips()[:40]
    assert drawn(data, cache, "transcript", None) == [clip.transcript for clip in clips]


def test_drawn_text_without_a_side_would_leak_and_is_refused(data: Path, cache: Path, tmp_path: Path) -> None:
    bench = Workbench(experiment(tmp_path), data, cache)
    with pytest.raises(ConfigError, match="text would leak"):
        bench.examples(bench.clips()[:1])


def test_no_text_leaves_the_modality_out(data: Path, cache: Path, tmp_path: Path) -> None:
    settings = experiment(tmp_path, SETTINGS.replace('"constructed"', '"none"'))
    bench = Workbench(settings, data, cache)
    examples = bench.examples(bench.clips()[:2])
    assert "text" not in examples[0].features
    assert predict(bench.system(), examples).shape == (2, 4)


def test_long_utterances_are_cut_and_answer_under_one_name(tmp_path: Path, cache: Path) -> None:
    rng = np.random.default_rng(0)
    for name, seconds in (("long", 2.5), ("short", 0.6), ("rest", 4.3)):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * rng.standard_normal(int(16_000 * seconds)), 16_000)
    with (tmp_path / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows(
            [
                ["path", "corpus", "speaker", "emotion4", "start_s", "end_s", "duration_s"],
                ["long.wav", "c", "a", "sad", "", "", "2.5"],
                ["short.wav", "c", "b", "sad", "", "", "0.6"],
                ["rest.wav", "c", "c", "sad", "0.3", "1.3", "1.0"],
                ["rest.wav", "c", "c", "happy", "1.3", "4.3", ""],
            ]
        )
    audio = {"audio": FeatureSettings("audio")}
    settings = Experiment("lora", "x", preset="tiny", manifest=str(tmp_path / "clips.csv"), segment_s=1.0)
    bench = Workbench(replace(settings, features=audio), None, cache)
    clips = bench.clips()
    examples = bench.examples(clips)
    lengths = [len(example.features["audio"]) for example in examples]
    # The last half second of `long` is less than a second and is left out.
    assert lengths == [16_000, 16_000, 9_600, 16_000, 16_000, 16_000, 16_000]
    assert [example.path.name for example in examples] == [
        *["long.wav"] * 2, "short.wav", "rest.wav#t=0.3,1.3", *["rest.wav#t=1.3,4.3"] * 3
    ]  # fmt: skip
    whole, _ = soundfile.read(tmp_path / "rest.wav", dtype="float32")
    assert np.allclose(examples[4].features["audio"], whole[20_800:36_800], atol=1e-4)


def test_clips_are_brought_to_a_length() -> None:
    wave = np.arange(8, dtype=np.float32)
    second = 1 / 16_000

    def fitted(length: str, samples: int) -> list[float]:
        return at_length(wave, FeatureSettings("audio", length=length, seconds=samples * second)).tolist()

    assert fitted("crop", 3) == [0, 1, 2]
    assert fitted("centre", 4) == [2, 3, 4, 5]
    assert fitted("repeat", 10) == [*range(8), 0, 1]
    assert fitted("zeros", 10) == [*range(8), 0, 0]
    assert fitted("zeros", 3) == [0, 1, 2]
    assert at_length(wave, FeatureSettings("audio")) is wave
    with pytest.raises(ConfigError, match="seconds above 0"):
        FeatureSettings("audio", length="crop")


def test_frames_of_added_silence_are_not_kept() -> None:
    encoder = load_encoder("tiny:wav2vec2-base")
    wave = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    padded = FeatureSettings("encoder", "tiny:wav2vec2-base", length="zeros", seconds=10)
    assert EncoderAtLength("x", encoder, padded)(wave).shape == (49, 32)
    assert EncoderAtLength("x", encoder, replace(padded, length="repeat"))(wave).shape == (499, 32)
    assert EncoderAtLength("x", encoder, replace(padded, layers="weighted_sum", pool=3))(wave).shape == (17, 3, 32)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        (FeatureSettings("mfcc39", length="repeat", seconds=7), (349, 39)),
        (FeatureSettings("mfcc39", options={"window_ms": 30}), (49, 39)),
        (FeatureSettings("mfcc39", options={"hop_ms": 10}), (97, 39)),
        (FeatureSettings("mfcc40"), (101, 40)),
        (FeatureSettings("prosody"), (103,)),
        (FeatureSettings("spectrogram", seconds=1, options={"size": 64}), (1, 64, 64)),
        (FeatureSettings("audio", length="crop", seconds=0.5), (8_000,)),
    ],
    ids=lambda value: value.kind if isinstance(value, FeatureSettings) else "",
)
def test_hand_crafted_features_have_their_shapes(settings: FeatureSettings, shape: tuple[int, ...]) -> None:
    wave = 0.1 * np.sin(2 * np.pi * 150 * np.arange(16_000) / 16_000).astype(np.float32)
    assert hand_crafted(settings)(wave).shape == shape


def test_whatever_changes_values_changes_the_name_in_the_cache() -> None:
    variants = [
        FeatureSettings("mfcc39"),
        FeatureSettings("mfcc39", options={"window_ms": 30}),
        FeatureSettings("mfcc39", options={"hop_ms": 10}),
        FeatureSettings("mfcc39", length="repeat", seconds=7),
        FeatureSettings("mfcc39", length="repeat", seconds=5),
        FeatureSettings("spectrogram"),
        FeatureSettings("spectrogram", seconds=30),
        FeatureSettings("spectrogram", options={"unit": "samples"}),
    ]
    assert len({hand_crafted(settings).name for settings in variants}) == len(variants)
    with pytest.raises(ConfigError, match="options of prosody are compat_drop_last"):
        FeatureSettings("prosody", options={"size": 3})


def test_features_are_computed_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = experiment(tmp_path)
    first = Workbench(settings, data, tmp_path / "cache")
    clips = first.clips()[:3]
    before = first.examples(clips, "train")
    monkeypatch.setattr("train.feature_cache._states", lambda *_: pytest.fail("computed again"))
    again = Workbench(settings, data, tmp_path / "cache").examples(clips, "train")
    for one, other in zip(before, again, strict=True):
        for name in ("speech", "text"):
            assert np.array_equal(one.features[name], other.features[name])


def test_a_stage_is_only_for_systems_that_have_stages(data: Path, cache: Path, tmp_path: Path) -> None:
    bench = Workbench(replace(experiment(tmp_path), stage="it"), data, cache)
    with pytest.raises(ConfigError, match="mdat has no stages"):
        bench.begin_stage(bench.system())
