"""The bundle: what is written opens as the same, and nothing else opens."""

import copy
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_ser import bundle as bundle_module
from edge_ser.bundle import Bundle, Input, Manifest, Output, TrainingCorpus, bundled_names, find_bundle
from edge_ser.calibration import Calibration, RiskRow
from edge_ser.errors import BundleError
from edge_ser.testing import write_tiny_bundle

FILES = {"model.onnx": b"a graph", "tokenizer.json": b"{}", "notes/receipt.json": b"[]"}
MANIFEST = Manifest(
    name="small-int8",
    system="mdat",
    precision="int8",
    labels=("angry", "happy", "neutral", "sad"),
    min_duration_s=0.25,
    max_duration_s=8.0,
    graphs={"model": "model.onnx"},
    inputs=(
        Input("audio", "audio", "float32", (1, "samples")),
        Input("text_ids", "text_ids", "int64", (1, "tokens"), {"max_tokens": 64}),
        Input("text_mask", "text_mask", "int64", (1, "tokens")),
        Input("voice", "voice", "float32", (1, 7), {"embedding_size": 3, "space": "mdat-1"}),
    ),
    outputs=(
        Output("logits", "float32", (1, 4)),
        Output("embedding", "float32", (1, 3)),
        Output("attributes", "float32", (1, 1)),
    ),
    attributes=("arousal",),
    calibration=Calibration(1.5, 0.1, (RiskRow(0.05, 0.9, 0.01), RiskRow(0.1, 0.7, 0.05))),
    licence="Apache-2.0",
    training_data=(TrainingCorpus("cremad", "ODbL", 4000, 80),),
)

words = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(str.strip)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
risk_rows = st.lists(st.floats(0.01, 0.99), max_size=4, unique=True).map(
    lambda risks: tuple(RiskRow(risk, 1 - risk, risk / 2) for risk in sorted(risks))
)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    labels = tuple(draw(st.lists(words.filter(str.isprintable), min_size=2, max_size=6, unique=True)))
    shortest = draw(st.floats(0.01, 5))
    return replace(
        MANIFEST,
        name=draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True)),
        system=draw(words),
        labels=labels,
        min_duration_s=shortest,
        max_duration_s=shortest + draw(st.floats(0, 20)),
        outputs=(Output("logits", "float32", (1, len(labels))), *MANIFEST.outputs[1:]),
        calibration=Calibration(draw(st.floats(0.01, 10)), draw(st.floats(0.01, 0.99)), draw(risk_rows)),
        licence=draw(words),
        provenance=draw(st.dictionaries(words, plain, max_size=3)),
        metrics=draw(st.dictionaries(words, plain, max_size=3)),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Bundle.write(tmp_path / "small-int8", MANIFEST, FILES).folder


def manifest_of(folder: Path) -> dict[str, object]:
    parsed: dict[str, object] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return parsed


def put_manifest(folder: Path, manifest: object) -> None:
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


@given(manifest=manifests(), model=st.binary(max_size=50))
@settings(max_examples=40, deadline=None)
def test_what_is_written_opens_as_the_same(
    manifest: Manifest, model: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("bundles") / "x"
    files = {**FILES, "model.onnx": model}
    written = Bundle.write(folder, manifest, files)
    opened = Bundle.open(folder)
    assert opened == written
    assert replace(opened.manifest, files={}) == manifest
    assert {name: opened.read(name) for name in opened.manifest.files} == files


def test_files_can_be_copied_from_paths(tmp_path: Path) -> None:
    source = tmp_path / "exported.onnx"
    source.write_bytes(b"from a path")
    bundle = Bundle.write(tmp_path / "b", MANIFEST, {**FILES, "model.onnx": source})
    assert bundle.read("model.onnx") == b"from a path"


@given(name=st.sampled_from(sorted(FILES)), bit=st.integers(0, 7), data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_is_found(folder: Path, name: str, bit: int, data: st.DataObject) -> None:
    good = FILES[name]
    damaged = bytearray(good)
    damaged[data.draw(st.integers(0, len(good) - 1))] ^= 1 << bit
    (folder / name).write_bytes(damaged)
    try:
        with pytest.raises(BundleError, match="damaged or changed"):
            Bundle.open(folder)
    finally:
        (folder / name).write_bytes(good)


def test_a_wrong_hash_tells_what_was_expected_and_what_came(folder: Path) -> None:
    expected = Bundle.open(folder).manifest.files["model.onnx"]
    (folder / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    empty_sha256 = "e3b0c44298fc"
    assert expected[:12] in str(caught.value)
    assert empty_sha256 in str(caught.value)
    assert "copy the whole bundle again" in str(caught.value)


REQUIRED = [
    (key,)
    for key in (
        "format_version name system precision labels attributes sample_rate_hz min_duration_s max_duration_s graphs "
        "inputs outputs calibration licence training_data provenance metrics files base"
    ).split()
]
NESTED = [
    *(("inputs", 0, key) for key in ("name", "kind", "dtype", "shape", "parameters")),
    ("inputs", 1, "parameters", "max_tokens"),
    ("inputs", 3, "parameters", "embedding_size"),
    ("inputs", 3, "parameters", "space"),
    *(("outputs", 0, key) for key in ("name", "dtype", "shape")),
    *(("calibration", key) for key in ("temperature", "default_risk", "risks")),
    *(("calibration", "risks", 0, key) for key in ("risk", "min_confidence", "min_probability")),
    *(("training_data", 0, key) for key in ("corpus", "licence", "utterances", "speakers")),
    ("graphs", "model"),
    ("files", "model.onnx"),
    ("files", "tokenizer.json"),
]
Path_ = tuple[str | int, ...]


def at(manifest: object, path: Path_) -> object:
    for key in path:
        manifest = manifest[key]  # type: ignore[index]
    return manifest


@pytest.mark.parametrize("path", REQUIRED + NESTED, ids=lambda path: ".".join(map(str, path)))
def test_every_missing_key_is_named(folder: Path, path: Path_) -> None:
    manifest = manifest_of(folder)
    del at(manifest, path[:-1])[path[-1]]  # type: ignore[attr-defined]
    put_manifest(folder, manifest)
    with pytest.raises(BundleError, match=str(path[-1]).replace(".", r"\.")):
        Bundle.open(folder)


FREE = [("provenance",), ("metrics",), ("inputs", 0, "parameters")]
WRONG: list[object] = [True, -1.5, [[]], [{}], {"a": []}, "", float("inf")]


@pytest.mark.parametrize("path", REQUIRED + NESTED, ids=lambda path: ".".join(map(str, path)))
def test_every_wrong_type_is_refused(folder: Path, path: Path_) -> None:
    original = manifest_of(folder)
    for wrong in WRONG:
        if path in FREE and isinstance(wrong, dict):
            continue
        manifest = copy.deepcopy(original)
        at(manifest, path[:-1])[path[-1]] = wrong  # type: ignore[index]
        put_manifest(folder, manifest)
        with pytest.raises(BundleError):
            Bundle.open(folder)


@given(text=st.binary(max_size=60) | plain.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=100, deadline=None)
def test_anything_else_as_a_manifest_is_a_plain_error(text: bytes) -> None:
    with pytest.raises(BundleError, match="here"):
        Manifest.from_json(text, "here")


def leaves(value: object, path: Path_ = ()) -> list[Path_]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(leaf for key, inner in items for leaf in leaves(inner, (*path, key)))]


@given(data=st.data(), value=plain)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutated_manifest_opens_or_is_a_plain_error(data: st.DataObject, value: object) -> None:
    original = json.loads(replace(MANIFEST, files={"model.onnx": "0" * 64}).to_json())
    manifest = copy.deepcopy(original)
    path = data.draw(st.sampled_from(leaves(original)[1:]))
    at(manifest, path[:-1])[path[-1]] = value  # type: ignore[index]
    text = json.dumps(manifest).encode()
    try:
        read = Manifest.from_json(text, "here")
    except BundleError as error:
        assert str(error).startswith("here")
    else:
        assert Manifest.from_json(read.to_json().encode(), "here") == read


@pytest.mark.parametrize("constant", [float("nan"), float("inf")])
def test_what_json_does_not_know_is_refused_in_free_fields_too(folder: Path, constant: float) -> None:
    put_manifest(folder, {**manifest_of(folder), "metrics": {"ua": constant}})
    with pytest.raises(BundleError, match="not valid JSON"):
        Bundle.open(folder)


def test_nesting_without_end_is_a_plain_error() -> None:
    with pytest.raises(BundleError, match="not valid JSON"):
        Manifest.from_json(b"[" * 200_000, "here")


@pytest.mark.parametrize(
    ("version", "words"), [(2, "newer than 1"), (99, "pip install --upgrade edge-ser"), (0, "older than 1")]
)
def test_another_format_version_says_which_side_is_old(folder: Path, version: int, words: str) -> None:
    put_manifest(folder, {**manifest_of(folder), "format_version": version})
    with pytest.raises(BundleError, match=words):
        Bundle.open(folder)


def test_a_newer_version_is_named_before_its_unknown_content(folder: Path) -> None:
    put_manifest(folder, {"format_version": 2})
    with pytest.raises(BundleError, match="newer"):
        Bundle.open(folder)


def test_inputs_of_later_kinds_need_a_newer_release(folder: Path) -> None:
    manifest = manifest_of(folder)
    manifest["inputs"][0]["kind"] = "video"  # type: ignore[index]
    put_manifest(folder, manifest)
    with pytest.raises(BundleError, match=r"unknown input kind 'video'.* or a newer edge-ser"):
        Bundle.open(folder)


MFCC = Input("mfcc", "mfcc", "float32", (1, "frames", 39), {"recipe": "mfcc39", "length": "repeat", "seconds": 7.0})
PICTURE = Input(
    *("spectrogram", "spectrogram", "float32", (1, 1, 64, 64)),
    {"spec": "log_stft200", "unit": "ms", "clip_s": 5.0, "size": 64},
)


def test_features_that_the_runtime_computes_are_written_as_they_are_read(tmp_path: Path) -> None:
    inputs = (MANIFEST.inputs[0], MFCC, PICTURE)
    bundle = Bundle.write(tmp_path / "b", replace(MANIFEST, inputs=inputs), FILES)
    assert Bundle.open(bundle.folder).manifest.inputs == inputs


@pytest.mark.parametrize(
    ("item", "change", "words"),
    [
        (MFCC, {"recipe": "mfcc13"}, "'recipe' is 'mfcc13', need one of mfcc39, mfcc40"),
        (MFCC, {"recipe": "mfcc40"}, r"shape \[1, 'frames', 39\], need \[1, any size, 40\]"),
        (MFCC, {"length": "stretch"}, "'length' is 'stretch'"),
        (MFCC, {"seconds": 1e9}, "'seconds' is 1000000000.0, need from 0.1 to 600"),
        (MFCC, {"seconds": 0.0}, "'seconds' is 0.0, need from 0.1 to 600"),
        (MFCC, {"window_ms": 25}, "'window_ms' is 25, need 30 or 40"),
        (PICTURE, {"spec": "wavelet"}, "'spec' is 'wavelet'"),
        (PICTURE, {"unit": "hours"}, "'unit' is 'hours'"),
        (PICTURE, {"size": 10**9}, "at most 4096"),
        (PICTURE, {"size": 32}, r"need \[1, 1, 32, 32\]"),
        (PICTURE, {"clip_s": -1}, "'clip_s' is -1, need from 0.1 to 600"),
    ],
)
def test_features_that_cannot_be_computed_are_refused(
    tmp_path: Path, item: Input, change: dict[str, object], words: str
) -> None:
    changed = replace(item, parameters={**item.parameters, **change})
    with pytest.raises(BundleError, match=words):
        Bundle.write(tmp_path / "b", replace(MANIFEST, inputs=(MANIFEST.inputs[0], changed)), FILES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": ("angry", "happy")}, r"'logits' has shape \[1, 4\], need \[1, 2\] for 2 labels"),
        ({"attributes": ("arousal", "valence")}, r"'attributes' has shape \[1, 1\], need \[1, 2\]"),
        ({"min_duration_s": 9.0}, "above 'max_duration_s'"),
        ({"sample_rate_hz": 8000}, "'sample_rate_hz' is 8000, need 16000"),
        ({"inputs": MANIFEST.inputs[1:]}, "no input of kind 'audio'"),
        ({"inputs": MANIFEST.inputs[:2]}, "both of 'text_ids' and 'text_mask'"),
        ({"inputs": (*MANIFEST.inputs, MANIFEST.inputs[0])}, "twice"),
        ({"inputs": (replace(MANIFEST.inputs[3], shape=(1, 8)),)}, r"'voice' has shape \[1, 8\], need \[1, 7\]"),
        ({"inputs": (replace(MANIFEST.inputs[0], kind="video"),)}, "unknown input kind 'video'"),
        ({"inputs": (replace(MANIFEST.inputs[0], dtype="float64"),)}, "is float64, need float32"),
        ({"outputs": MANIFEST.outputs[:1]}, "no 'attributes'"),
        ({"outputs": (replace(MANIFEST.outputs[0], dtype="float16"),)}, "is float16, need float32"),
        ({"graphs": {"model": "other.onnx"}}, "need 'other.onnx' there"),
        ({"graphs": {"speech": "model.onnx"}}, "names no 'model'.* or 'speech' and 'fusion'"),
        ({"graphs": {"speech": "model.onnx", "fusion": "model.onnx"}}, "'graphs' and 'inputs' disagree on text"),
        ({"precision": "fp8"}, "need fp32 or int8"),
        ({"name": "../evil"}, "letters, digits"),
        ({"provenance": {"when": float("nan")}}, "not JSON"),
        ({"provenance": {"when": object()}}, "not JSON"),
        ({"calibration": replace(MANIFEST.calibration, risks=MANIFEST.calibration.risks[::-1])}, "rising risk"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_not_written(tmp_path: Path, change: dict[str, object], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        Bundle.write(tmp_path / "b", replace(MANIFEST, **change), FILES)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


ESCAPES = [
    "/etc/passwd",
    "../x",
    "a/../../x",
    "..",
    "a\\b",
    "C:x",
    "",
    ".",
    "a//b",
    "./a",
    "a/",
    "manifest.json",
    "a\0b",
]


@pytest.mark.parametrize("name", ESCAPES)
def test_file_names_stay_in_the_folder(folder: Path, tmp_path: Path, name: str) -> None:
    manifest = manifest_of(folder)
    manifest["files"][name] = "0" * 64  # type: ignore[index]
    put_manifest(folder, manifest)
    with pytest.raises(BundleError, match="does not stay in the bundle's folder"):
        Bundle.open(folder)
    with pytest.raises(BundleError, match="does not stay in the bundle's folder"):
        Bundle.write(tmp_path / "other", MANIFEST, {**FILES, name: b""})


def test_a_link_out_of_the_folder_is_refused_before_it_is_read(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(FILES["model.onnx"])
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to(outside)
    with pytest.raises(BundleError, match="link out of the bundle"):
        Bundle.open(folder)


def test_links_in_a_circle_are_refused(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to(folder / "model.onnx")
    with pytest.raises(BundleError):
        Bundle.open(folder)


def test_a_link_inside_the_folder_opens(folder: Path) -> None:
    (folder / "model.onnx").rename(folder / "real.onnx")
    (folder / "model.onnx").symlink_to("real.onnx")
    assert Bundle.open(folder).read("model.onnx") == FILES["model.onnx"]


def test_only_listed_files_are_opened(folder: Path) -> None:
    (folder / "extra.bin").write_bytes(b"never read")
    opened: list[str] = []
    listening = True

    def listen(event: str, arguments: tuple[object, ...]) -> None:
        if listening and event == "open" and isinstance(arguments[0], (str, os.PathLike)):
            opened.append(Path(arguments[0]).name)

    sys.addaudithook(listen)
    bundle = Bundle.open(folder)
    listening = False
    assert {"manifest.json", *(Path(name).name for name in FILES)} == set(opened)
    with pytest.raises(BundleError, match=r"extra\.bin"):
        bundle.read("extra.bin")


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=name):
        Bundle.open(folder)


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx"])
def test_a_folder_in_place_of_a_file_is_a_plain_error(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(BundleError, match=name):
        Bundle.open(folder)


@pytest.mark.parametrize("sha256", ["0" * 63, "0" * 63 + "G", "A" * 64])
def test_a_hash_that_is_none_is_refused(folder: Path, sha256: str) -> None:
    manifest = manifest_of(folder)
    manifest["files"]["model.onnx"] = sha256  # type: ignore[index]
    put_manifest(folder, manifest)
    with pytest.raises(BundleError, match=r"hash of 'model\.onnx'.*64 hexadecimal digits"):
        Bundle.open(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no folder .*nowhere"):
        Bundle.open(tmp_path / "nowhere")


def test_writing_replaces_a_bundle_whole(folder: Path) -> None:
    files = {name: content for name, content in FILES.items() if "/" not in name}
    assert Bundle.write(folder, replace(MANIFEST, name="second"), files).manifest.name == "second"
    assert {entry.name for entry in folder.iterdir()} == {"manifest.json", "model.onnx", "tokenizer.json"}
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]


def test_a_failed_write_leaves_the_old_bundle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Bundle.open(folder)
    rename = Path.rename

    def fail_for_drafts(self: Path, target: Path) -> Path:
        if self.name.startswith(".") and not self.name.endswith("-old"):
            raise OSError(28, "no space left")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_drafts)
    with pytest.raises(BundleError, match="no space"):
        Bundle.write(folder, replace(MANIFEST, name="second"), FILES)
    assert Bundle.open(folder) == before
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]


def test_what_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    with pytest.raises(BundleError, match="is no bundle"):
        Bundle.write(tmp_path / "thesis", MANIFEST, FILES)
    assert (tmp_path / "thesis" / "chapter").read_text() == "years of work"


def test_a_missing_source_file_is_a_plain_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot copy"):
        Bundle.write(tmp_path / "b", MANIFEST, {**FILES, "model.onnx": tmp_path / "nowhere"})


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    models = tmp_path / "models"
    for name in ("mdat-int8", "hump-cat-int8"):
        Bundle.write(models / name, replace(MANIFEST, name=name), FILES)
    (models / "empty").mkdir()
    monkeypatch.setattr(bundle_module, "_MODELS_FOLDER", models)
    monkeypatch.chdir(tmp_path)
    return models


@pytest.mark.usefixtures("shelf")
def test_bundled_names_are_those_with_a_manifest() -> None:
    assert bundled_names() == ("hump-cat-int8", "mdat-int8")


def test_a_bundle_is_found_by_name_or_folder(shelf: Path, folder: Path) -> None:
    assert find_bundle("mdat-int8").manifest.name == "mdat-int8"
    assert find_bundle(folder) == find_bundle(str(folder)) == Bundle.open(folder)
    folder.rename(shelf.parent / "mdat-int8")
    assert find_bundle("mdat-int8").folder == shelf / "mdat-int8"
    assert find_bundle("./mdat-int8").manifest.name == "small-int8"


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize(
    ("wanted", "words"),
    [("mdat-int", "did you mean 'mdat-int8'"), ("zzz", "hump-cat-int8, mdat-int8"), ("", "edge-ser models")],
)
def test_an_unknown_name_lists_what_there_is(wanted: str, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        find_bundle(wanted)


def test_a_name_without_any_model_says_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "_MODELS_FOLDER", tmp_path / "models")
    with pytest.raises(BundleError, match="bundled: none"):
        find_bundle("mdat-int8")


def test_a_link_to_a_bundle_stays_one_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    (tmp_path / "link").symlink_to(tmp_path / "tiny")
    opened = Bundle.open(tmp_path / "tiny")
    files: dict[str, bytes | Path] = {name: opened.read(name) for name in opened.manifest.files}
    Bundle.write(tmp_path / "link", replace(opened.manifest, licence="another"), files)
    assert (tmp_path / "link").is_symlink() and sorted(path.name for path in tmp_path.iterdir()) == ["link", "tiny"]
    assert Bundle.open(bundle).manifest.licence == "another"


def test_a_place_where_nothing_can_be_written_is_one_clear_error(tmp_path: Path) -> None:
    opened = Bundle.open(write_tiny_bundle(tmp_path / "tiny"))
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match=r"cannot write .*choose another"):
        Bundle.write(tmp_path / "file" / "x", opened.manifest, {})


def test_labels_that_a_terminal_would_obey_are_refused(tmp_path: Path) -> None:
    folder = Path(write_tiny_bundle(tmp_path / "tiny"))
    plain = json.loads((folder / "manifest.json").read_text())
    plain["labels"][0] = "x\x1b]0;mine\x07"
    (folder / "manifest.json").write_text(json.dumps(plain))
    with pytest.raises(BundleError, match="labels"):
        Bundle.open(folder)
