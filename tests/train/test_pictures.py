from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install -e '.[train]'")

from edge_ser.errors import ConfigError
from train.pictures import (
    COLOURS,
    MARKERS,
    bar_picture,
    confusion_picture,
    curve_picture,
    embedding_picture,
    learning_picture,
)

PNG = b"\x89PNG"
HISTORY = [
    {"epoch": float(n), "loss": 1.0 / n, "learning_rate": 1e-3, "validation_loss": 1.2 / n, "validation_ua": n / 4}
    for n in range(1, 4)
]


def shape_of(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[16:24]
    return int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_every_picture_is_drawn_by_its_suffix(tmp_path: Path, suffix: str) -> None:
    paths = [tmp_path / "deep" / f"{name}{suffix}" for name in ("matrix", "curve", "bars", "map", "learning")]
    confusion_picture([[3, 1], [0, 2]], ("angry", "sad"), paths[0], "title")
    curve_picture([0, 5], {"mean": [0.3, 0.5]}, paths[1], labels=("shots", "UA"), bands={"mean": [(0, 1), (0, 1)]})
    bar_picture({"a": 0.5, "b": 0.6}, paths[2], intervals={"a": (0.4, 0.7)}, published={"b": 0.7})
    embedding_picture(np.random.default_rng(0).standard_normal((9, 5)), ["x"] * 4 + ["y"] * 5, paths[3])
    learning_picture(HISTORY, 2, paths[4])
    for path in paths:
        start = path.read_bytes()
        assert start[:4] == PNG if suffix == ".png" else b"<svg" in start


def test_a_matrix_shows_shares_and_counts_and_grows_with_its_classes(tmp_path: Path) -> None:
    confusion_picture([[3, 1], [0, 2]], ("angry", "sad"), tmp_path / "two.svg")
    drawn = (tmp_path / "two.svg").read_text(encoding="utf-8")
    for text in ("75 %", "25 %", "100 %", "angry", "truth"):
        assert f"<!-- {text}" in drawn
    confusion_picture(np.eye(2, dtype=int), ("a", "b"), tmp_path / "small.png")
    confusion_picture(np.eye(7, dtype=int), tuple("abcdefg"), tmp_path / "large.png")
    assert shape_of(tmp_path / "large.png")[0] > shape_of(tmp_path / "small.png")[0]


def test_a_class_that_never_occurs_and_a_run_without_validation_can_be_drawn(tmp_path: Path) -> None:
    confusion_picture([[0, 0], [1, 2]], ("never", "sad"), tmp_path / "matrix.png")
    bare = [{"epoch": 1.0, "loss": 1.0, "learning_rate": 1e-3}]
    learning_picture(bare, 1, tmp_path / "learning.png")
    assert (tmp_path / "learning.png").read_bytes()[:4] == PNG


def test_curves_differ_by_colour_mark_and_line_for_readers_without_colour(tmp_path: Path) -> None:
    assert len(set(COLOURS)) == len(COLOURS) == len(set(MARKERS)) == len(MARKERS)
    curve_picture([1, 2], {"one": [0, 1], "two": [1, 0]}, tmp_path / "curves.svg")
    drawn = (tmp_path / "curves.svg").read_text(encoding="utf-8")
    assert "stroke-dasharray" in drawn


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.png or \.svg"):
        bar_picture({"a": 1.0}, tmp_path / "bars.gif")
    with pytest.raises(ConfigError, match="one name a class"):
        confusion_picture([[1]], ("a", "b"), tmp_path / "matrix.png")
    with pytest.raises(ConfigError, match="1 values for 2 places"):
        curve_picture([1, 2], {"a": [1]}, tmp_path / "curve.png")
    with pytest.raises(ConfigError, match="2 labels"):
        embedding_picture(np.zeros((3, 2)), ["a", "b"], tmp_path / "map.png")
