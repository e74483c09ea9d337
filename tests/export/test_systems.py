"""The published systems in tiny sizes: from settings to graphs, to integers, to events."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the press needs torch: pip install -e '.[export]'")
onnx = pytest.importorskip("onnx", reason="the press needs onnx: pip install -e '.[export]'")
pytest.importorskip("transformers", reason="the published systems need the workshop: pip install -e '.[train]'")

import edge_ser  # noqa: E402
import export.dynamic_int8  # noqa: E402
import export.quantize_split  # noqa: E402
import export.system_bundle  # noqa: E402
import export.to_onnx  # noqa: E402
from edge_ser.bundle import Bundle  # noqa: E402
from edge_ser.errors import BundleError, ConfigError  # noqa: E402
from edge_ser.sources import read_samples  # noqa: E402
from export.dynamic_int8 import dynamic_blocks, quantise_dynamic, quantise_tables  # noqa: E402
from export.quantize import main as quantize  # noqa: E402
from export.receipt import count_operators, open_session  # noqa: E402
from export.split_graphs import GraphChain  # noqa: E402
from train.bundle_tokenizer import tokenizer_file  # noqa: E402
from train.checkpoint import save_checkpoint  # noqa: E402
from train.encoders import load_tokenizer  # noqa: E402
from train.experiment import Workbench, read_experiment  # noqa: E402
from train.graphs import SystemGraphs  # noqa: E402
from train.run_folder import stored_state  # noqa: E402

ROOT = Path(__file__).parents[2]
SYSTEMS = ("mdat", "hump-cat", "camulenet", "mha", "lora")
WORDS = "I hate this"


def settings(system: str) -> str:
    return str(ROOT / "train" / "configs" / "smoke" / f"{system}.toml")


def workbench(system: str, tmp_path: Path) -> Workbench:
    return Workbench(read_experiment(Path(settings(system))), None, tmp_path / "cache")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("systems")
    for system in SYSTEMS:
        arguments = [settings(system), "--random", "--out", str(folder / system), "--lengths", "0.4", "1"]
        assert export.to_onnx.main(arguments) == 0
    return {system: folder / system for system in SYSTEMS}


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return read_samples(ROOT / "examples" / "conversation.flac")


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_runtime_says_what_training_says(
    system: str, bundles: dict[str, Path], speech: np.ndarray, tmp_path: Path
) -> None:
    recognizer = edge_ser.load(bundles[system])
    graphs = SystemGraphs(workbench(system, tmp_path))
    ids = load_tokenizer("tiny:roberta")(WORDS)
    for start_s, seconds, words in ((1.0, 0.42, WORDS), (4.0, 0.5, None), (9.0, 3.0, WORDS)):
        if seconds > recognizer.max_duration_s:
            continue
        samples = speech[int(16_000 * start_s) : int(16_000 * (start_s + seconds))]
        expected = graphs.reference(samples, ids if words else ())
        judged = recognizer.judge(samples, transcript=words)
        exponentials = np.exp(expected["logits"] / graphs.temperature)
        assert list(judged.probabilities.values()) == pytest.approx(exponentials / exponentials.sum(), abs=1e-4)
        assert judged.text_used == (words is not None and system in ("mdat", "mha"))
        # Weights that nobody trained are never sure.
        assert judged.uncertain


def test_padding_words_and_company_change_nothing(bundles: dict[str, Path], tmp_path: Path) -> None:
    graphs = SystemGraphs(workbench("mdat", tmp_path))
    chain = GraphChain({name: bundles["mdat"] / f"{name}.onnx" for name in ("speech", "text", "fusion")})
    rng = np.random.default_rng(3)
    said = [export.system_bundle.made_up(seconds, tokens, rng) for seconds, tokens in ((2.0, 9), (0.4, 0), (1.1, 1))]
    together = chain(export.system_bundle.told(graphs, said))
    for place, utterance in enumerate(said):
        alone = chain(export.system_bundle.told(graphs, [utterance]))
        assert np.abs(together["logits"][place] - alone["logits"][0]).max() < 1e-5
        expected = graphs.reference(utterance.samples, utterance.ids)["logits"]
        assert np.abs(together["logits"][place] - expected).max() < 1e-5


def test_words_may_come_later_and_are_read_once(bundles: dict[str, Path], speech: np.ndarray) -> None:
    recognizer = edge_ser.load(bundles["mdat"])
    backend: Any = recognizer._backend
    read: list[str] = []
    plain = backend._run

    def counting(session: Any, inputs: Any) -> Any:
        read.extend(name for name, own in backend._sessions.items() if own is session)
        return plain(session, inputs)

    backend._run = counting
    stream = recognizer.stream()
    events = [event for event in [*stream.push(speech), *stream.finish()] if isinstance(event, edge_ser.Emotion)]
    assert "text" not in read and events and not any(event.text_used for event in events)
    again = [stream.revise(event.utterance, transcript=WORDS) for event in events[-2:]]
    assert read.count("text") == 1
    assert all(event.text_used and event.revision == 1 for event in again)
    heard = speech[int(16_000 * again[0].start_s) : int(16_000 * again[0].end_s)]
    speeches = read.count("speech")
    expected = recognizer.judge(heard, transcript=WORDS).probabilities
    assert again[0].probabilities == pytest.approx(expected, abs=1e-5)
    assert read.count("speech") == speeches + 1 and read.count("text") == 1


def test_attributes_go_through_export_int8_and_runtime_to_the_event(
    bundles: dict[str, Path], speech: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rating"
    assert quantize([str(bundles["lora"]), "--out", str(out)]) == 0
    assert "x as fast" in capsys.readouterr().out
    manifest = Bundle.open(out).manifest
    assert (manifest.precision, manifest.attributes) == ("int8", ("arousal", "valence", "dominance"))
    samples = speech[16_000:48_000]
    event = edge_ser.load(out).recognize(samples)
    expected = SystemGraphs(workbench("lora", tmp_path)).reference(samples, ())["attributes"]
    assert event.attributes is not None and list(event.attributes) == ["arousal", "valence", "dominance"]
    assert list(event.attributes.values()) == pytest.approx(np.clip(expected, 0, 1), abs=0.02)
    said = json.loads(event.to_json())["attributes"]
    assert said == pytest.approx(event.attributes) and all(0 <= value <= 1 for value in said.values())


def test_the_emotion_of_attributes_is_the_nearest_one(tmp_path: Path) -> None:
    import torch

    from train.graphs import ANCHORS, FusionGraph
    from train.systems import Output, System

    class Says(System):
        def forward(self, inputs: Any) -> Output:
            return Output(inputs["speech"], inputs["speech"])

    logits, _, attributes = FusionGraph(Says(), ("speech",), True)(torch.tensor(list(ANCHORS.values())))
    assert [list(ANCHORS)[int(place)] for place in logits.argmax(1)] == ["angry", "happy", "neutral", "sad"]
    assert torch.equal(attributes, torch.tensor(list(ANCHORS.values())))


def test_int8_counts_what_runs_in_integers_and_names_its_blocks(
    bundles: dict[str, Path], speech: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "int8"
    assert quantize([str(bundles["mdat"]), "--out", str(out)]) == 0
    bundle = Bundle.open(out)
    receipt = json.loads(bundle.read("receipt.json"))
    counted = [count_operators(bundle.path(name)) for name in bundle.manifest.graphs.values()]
    assert receipt["integer_operators"] == sum(integer for integer, _ in counted) >= 6
    assert {row["name"] for row in receipt["blocks"]} == {"speech/layers.0", "text/layer.0", "text/layer.1"}
    assert min(row["cosine"] for row in receipt["blocks"]) > 0.99
    assert list(receipt["cosine"]) == ["0.4", "0.5", "1", "2", "4", "8"] and receipt["ua_before"] is None
    samples = speech[16_000:40_000]
    answers = [edge_ser.load(folder).judge(samples, transcript=WORDS) for folder in (bundles["mdat"], out)]
    assert answers[0].probabilities == pytest.approx(answers[1].probabilities, abs=0.01)
    assert "random" in bundle.read("MODEL_CARD.md").decode()


def test_a_corrupted_block_goes_back_to_float_and_a_hopeless_graph_is_not_written(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = quantise_dynamic

    def corrupting(graph: Path, out: Path, nodes: Any) -> None:
        honest(graph, out, nodes)
        if any("layers.1" in name for name in nodes):
            model = onnx.load(str(out))
            for tensor in model.graph.initializer:
                if tensor.data_type == onnx.TensorProto.INT8 and "layers.1" in _reader(model, tensor.name):
                    values = np.random.default_rng(0).integers(-127, 127, tensor.dims).astype(np.int8)
                    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
            onnx.save(model, str(out))

    monkeypatch.setattr(export.quantize_split, "quantise_dynamic", corrupting)
    out = tmp_path / "mended"
    assert quantize([str(bundles["camulenet"]), "--out", str(out), "--cosine", "0.9999"]) == 0
    rows = json.loads((out / "receipt.json").read_text())["blocks"]
    assert {row["name"]: row["precision"] for row in rows} == {"speech/layers.0": "int8", "speech/layers.1": "fp32"}
    never = tmp_path / "never"
    capsys.readouterr()
    assert quantize([str(bundles["camulenet"]), "--out", str(never), "--cosine", "1.01"]) == 1
    message = capsys.readouterr().err
    assert not never.exists() and "speech/layers.0" in message and len(message.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [out]


def _reader(model: Any, name: str) -> str:
    return next(node.name for node in model.graph.node if name in node.input)


def test_a_student_without_sound_is_told_what_it_needs(
    fp32_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quantize([str(fp32_bundle), "--out", str(tmp_path / "never")]) == 1
    assert "--calibration MANIFEST" in capsys.readouterr().err


def test_large_weights_lie_beside_their_graph_and_are_protected(
    bundles: dict[str, Path], speech: np.ndarray, tmp_path: Path
) -> None:
    graphs = SystemGraphs(workbench("mdat", tmp_path))
    about = {"licence": "none", "provenance": {"weights": "random", "settings": "mdat.toml"}}
    out = tmp_path / "large"
    export.system_bundle.export_system(graphs, out, about, tokenizer_file("tiny:roberta"), 1e-4, (0.4, 1.0), 100_000)
    names = set(Bundle.open(out).manifest.files)
    assert {"speech.onnx.data", "text.onnx.data"} <= names and "fusion.onnx.data" not in names
    samples = speech[16_000:40_000]
    expected = edge_ser.load(bundles["mdat"]).judge(samples, transcript=WORDS).probabilities
    assert edge_ser.load(out).judge(samples, transcript=WORDS).probabilities == pytest.approx(expected, abs=1e-6)
    assert quantize([str(out), "--out", str(tmp_path / "large-int8")]) == 0
    got = edge_ser.load(tmp_path / "large-int8").judge(samples, transcript=WORDS).probabilities
    assert got == pytest.approx(expected, abs=0.01)
    _unlist(out, "speech.onnx.data")
    with pytest.raises(BundleError, match="keeps weights in another file"):
        edge_ser.load(out)
    with (tmp_path / "large-int8" / "text.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match="damaged or changed"):
        edge_ser.load(tmp_path / "large-int8")


def _unlist(folder: Path, name: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"][name]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_graphs_that_do_not_fit_each_other_are_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    bundle = Bundle.open(bundles["mdat"])
    files: dict[str, bytes | Path] = {name: bundle.path(name) for name in bundle.manifest.files}
    other = {**files, "fusion.onnx": bundles["mha"] / "text.onnx"}
    with pytest.raises(BundleError, match="no graph answers with embedding, logits"):
        edge_ser.load(Bundle.write(tmp_path / "wrong", bundle.manifest, other).folder)
    lora = {**files, "speech.onnx": files["text.onnx"], "text.onnx": files["fusion.onnx"]}
    with pytest.raises(BundleError, match="takes speech, speech_mask, which nothing gives"):
        edge_ser.load(Bundle.write(tmp_path / "order", bundle.manifest, lora).folder)


def test_trained_weights_are_exported(tmp_path: Path, speech: np.ndarray) -> None:
    import torch

    system = workbench("mha", tmp_path).system(seed=7)
    weights = tmp_path / "best.safetensors"
    save_checkpoint(weights, stored_state(system), {})
    out = tmp_path / "trained"
    arguments = [settings("mha"), "--weights", str(weights), "--out", str(out), "--lengths", "0.5"]
    assert export.to_onnx.main(arguments) == 0
    graphs = SystemGraphs(workbench("mha", tmp_path), weights)
    samples = speech[16_000:32_000]
    expected = torch.softmax(torch.from_numpy(graphs.reference(samples, ())["logits"]), -1)
    assert list(edge_ser.load(out).judge(samples).probabilities.values()) == pytest.approx(expected.numpy(), abs=1e-5)
    assert Bundle.open(out).manifest.provenance["weights"] == "best.safetensors"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([settings("mdat")], "need --weights"),
        ([settings("mdat"), "--random", "--weights", "w.safetensors"], "need --weights"),
        ([settings("mdat"), "--weights", "nowhere.safetensors"], "nowhere.safetensors"),
        ([settings("mdat"), "--random", "--encoder", "nose=tiny:hubert"], "no encoder 'nose'"),
        ([settings("mdat"), "--random", "--tolerance", "0"], "nothing written"),
        (["nowhere.toml", "--random"], "no settings at nowhere.toml"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.to_onnx.main([*arguments, "--out", str(tmp_path / "never")]) == 1
    message = capsys.readouterr().err
    assert words in message and len(message.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_a_feature_that_the_runtime_does_not_compute_is_refused(tmp_path: Path) -> None:
    text = Path(settings("hump-cat")).read_text()
    text = text.replace('kind = "mfcc39"', 'kind = "lpcc"').replace("[features.mfcc]", "[features.lpcc]")
    changed = tmp_path / "lpcc.toml"
    changed.write_text(f'{text}\n[model]\nfeatures = ["hubert", "lpcc", "prosody"]\n')
    with pytest.raises(ConfigError, match="computes no lpcc"):
        SystemGraphs(Workbench(read_experiment(changed), None, tmp_path / "cache")).feature_inputs()


def test_the_tokenizer_of_random_encoders_is_that_of_training() -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(tokenizer_file("tiny:roberta").decode())
    for sentence in (WORDS, "äöü ñ 日本 \n x", "\0\x7f"):
        assert tokenizer.encode(sentence).ids == load_tokenizer("tiny:roberta")(sentence)


def test_a_table_of_vectors_keeps_eight_bits_a_number(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = (rng.standard_normal((4096, 80)) * 10.0 ** rng.uniform(-2, 2, (4096, 1))).astype(np.float32)
    helper, info = onnx.helper, onnx.helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["vectors"], "look_up")],
        "table",
        [info("ids", onnx.TensorProto.INT64, ["n"])],
        [info("vectors", onnx.TensorProto.FLOAT, ["n", 80])],
        [onnx.numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert quantise_tables(model) == 1
    onnx.checker.check_model(model)
    onnx.save(model, str(tmp_path / "table.onnx"))
    ids = np.arange(4096)
    (got,) = open_session(tmp_path / "table.onnx").run(None, {"ids": ids})
    assert (np.abs(got - table).max(1) <= np.abs(table).max(1) / 253).all()
    assert (tmp_path / "table.onnx").stat().st_size < table.nbytes * 0.27


def test_blocks_are_told_apart_in_every_family(bundles: dict[str, Path]) -> None:
    found = {name: set(dynamic_blocks(bundles[name] / "speech.onnx")) for name in ("mdat", "lora", "camulenet")}
    # The third encoder layer in a row of two is not there; the layers of WavLM are not called as modules.
    assert found == {"mdat": {"layers.0"}, "lora": {"layers.0", "layers.1"}, "camulenet": {"layers.0", "layers.1"}}


def test_no_words_need_no_text_graph_to_run(bundles: dict[str, Path], tmp_path: Path, speech: np.ndarray) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(bundles["mha"], folder)
    recognizer = edge_ser.load(folder)
    backend: Any = recognizer._backend
    backend._sessions["text"] = None
    assert not recognizer.judge(speech[16_000:32_000]).text_used
