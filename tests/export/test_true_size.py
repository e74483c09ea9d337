"""The press at true size; minutes and gigabytes, so only with -m slow."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the press needs torch: pip install -e '.[export]'")
pytest.importorskip("onnx", reason="the press needs onnx: pip install -e '.[export]'")
pytest.importorskip("transformers", reason="the published systems need the workshop: pip install -e '.[train]'")

from benchmarks.true_size_export import build, measure, table  # noqa: E402
from export.receipt import open_session  # noqa: E402
from export.split_graphs import export_part, files_of  # noqa: E402
from train.encoders import load_encoder  # noqa: E402
from train.graphs import Part, TextGraph  # noqa: E402
from train.settings import FeatureSettings  # noqa: E402

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def test_mdat_at_paper_size_is_the_same_and_faster_in_integers(tmp_path: Path) -> None:
    row = measure("mdat", *build("mdat", tmp_path))
    assert row["parameters"] == 639_866_884 and row["difference_to_pytorch"] < 1e-4
    assert row["smallest_cosine"] >= 0.99
    assert row["speed_ratio"] >= 1.8
    assert row["bytes"][1] < 0.3 * row["bytes"][0]
    assert row["peak_memory_bytes"][1] < row["peak_memory_bytes"][0]
    assert "mdat" in table([row])


def test_an_encoder_of_more_than_two_gigabytes_keeps_its_weights_beside_its_graph(tmp_path: Path) -> None:
    source = "random:xlm-roberta-large"
    graph = TextGraph(load_encoder(source), FeatureSettings("text", source=source)).eval()
    names = ("text_ids", "text_mask")
    part = Part(graph, names, ("text",), {name: {0: "batch", 1: "tokens"} for name in (*names, "text")})
    ids = np.random.default_rng(0).integers(4, 250, (2, 9))
    mask = np.ones_like(ids)
    mask[1, 5:] = 0
    path = tmp_path / "text.onnx"
    export_part(part, {"text_ids": ids, "text_mask": mask}, path)
    assert [file.name for file in files_of(path).values()] == ["text.onnx", "text.onnx.data"]
    assert path.stat().st_size < 2**24 and files_of(path)["text.onnx.data"].stat().st_size > 2**31
    assert sorted(file.name for file in tmp_path.iterdir()) == ["text.onnx", "text.onnx.data"]
    with torch.no_grad():
        expected = graph(torch.from_numpy(ids[:, :7]), torch.from_numpy(mask[:, :7])).numpy()
    (got,) = open_session(path).run(None, {"text_ids": ids[:, :7], "text_mask": mask[:, :7]})
    assert np.abs(got - expected).max() < 1e-4


@pytest.mark.skipif(importlib.util.find_spec("optimum") is None, reason="needs optimum: pip install -e '.[optimum]'")
def test_optimum_writes_the_same_graphs() -> None:
    command = [sys.executable, "benchmarks/optimum_check.py", "--tiny"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
