"""The graph is what the hashes protect, and nothing beside it."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest
from onnx.external_data_helper import convert_model_to_external_data

from edge_ser import load
from edge_ser.backends import onnx_graph
from edge_ser.bundle import Bundle
from edge_ser.errors import BundleError
from edge_ser.testing import write_tiny_bundle


@pytest.fixture
def leaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose graph reads weights from a file beside it that the manifest does not list."""
    folder = write_tiny_bundle(tmp_path / "tiny")
    bundle = Bundle.open(folder)
    drafts = tmp_path / "drafts"
    drafts.mkdir()
    graph = onnx.load(folder / "model.onnx")
    convert_model_to_external_data(graph, location="weights.bin", size_threshold=0)
    onnx.save(graph, drafts / "model.onnx")
    Bundle.write(
        folder,
        bundle.manifest,
        {name: (drafts if name == "model.onnx" else folder) / name for name in bundle.manifest.files},
    )
    (drafts / "weights.bin").rename(folder / "weights.bin")
    # Where an older ONNX Runtime would look for it.
    monkeypatch.chdir(folder)
    return folder


def test_weights_in_a_file_without_a_hash_are_refused(leaning: Path) -> None:
    with pytest.raises(BundleError, match="keeps weights in another file") as caught:
        load(leaning)
    assert len(str(caught.value).splitlines()) == 1


def test_the_runtime_itself_does_not_find_them(leaning: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_graph, "_EXTERNAL_DATA", re.compile(b"(?!)"))
    with pytest.raises(BundleError, match="does not open in ONNX Runtime") as caught:
        load(leaning)
    assert len(str(caught.value).splitlines()) == 1


def test_longer_spellings_of_the_same_bytes_are_refused_too(leaning: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(leaning)
    plain = b"\n\x08location\x12\x0bweights.bin"
    graph = bundle.read("model.onnx")
    assert plain in graph
    for spelling in (b"\n\x88\x80\x00location", b"\x8a\x00\x08location", b"\x8a\x80\x00\x88\x00location"):
        entry = onnx.StringStringEntryProto.FromString(spelling)
        assert entry.key == "location"
        files: dict[str, bytes | Path] = {name: leaning / name for name in bundle.manifest.files}
        files["model.onnx"] = graph.replace(b"\n\x08location", spelling)
        folder = Bundle.write(tmp_path / spelling.hex(), bundle.manifest, files).folder
        with pytest.raises(BundleError, match="keeps weights in another file"):
            load(folder)
