from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install -e '.[train]'")

from edge_ser.errors import ConfigError
from train.pictures import (
    COLOURS,
    MARKERS,
    Bar,
    bar_picture,
    confusion_picture,
    confusion_pictures,
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
    curve_picture({"mean": {0: (0.3, 0.1), 5: (0.5, 0.0)}}, paths[1], labels=("shots", "UA"))
    bar_picture([Bar("a", [0.5, 0.6], (0.4, 0.7)), Bar("b", [0.6], published=0.7)], paths[2])
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
    confusion_pictures([(name, np.eye(2, dtype=int)) for name in "abcd"], ("a", "b"), tmp_path / "four.png")
    assert shape_of(tmp_path / "four.png")[0] > shape_of(tmp_path / "four.png")[1]


def test_a_class_that_never_occurs_and_a_run_without_validation_can_be_drawn(tmp_path: Path) -> None:
    confusion_picture([[0, 0], [1, 2]], ("never", "sad"), tmp_path / "matrix.png")
    bare = [{"epoch": 1.0, "loss": 1.0, "learning_rate": 1e-3}]
    learning_picture(bare, 1, tmp_path / "learning.png")
    assert (tmp_path / "learning.png").read_bytes()[:4] == PNG


def test_curves_differ_by_colour_mark_and_line_for_readers_without_colour(tmp_path: Path) -> None:
    assert len(set(COLOURS)) == len(COLOURS) == len(set(MARKERS)) == len(MARKERS)
    curves = {"one": {1: (0.0, 0.1), 2: (1.0, 0.1)}, "two": {1: (1.0, 0.1), 2: (0.0, 0.1)}}
    curve_picture(curves, tmp_path / "curves.svg")
    drawn = (tmp_path / "curves.svg").read_text(encoding="utf-8")
    assert "stroke-dasharray" in drawn


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.png or \.svg"):
        bar_picture([Bar("a", [1.0])], tmp_path / "bars.gif")
    with pytest.raises(ConfigError, match="one name a class"):
        confusion_picture([[1]], ("a", "b"), tmp_path / "matrix.png")
    with pytest.raises(ConfigError, match="2 labels"):
        embedding_picture(np.zeros((3, 2)), ["a", "b"], tmp_path / "map.png")
