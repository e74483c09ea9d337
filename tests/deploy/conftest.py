"""Fixtures of the tests of deploy/jetson."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def jetson(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder deploy/jetson, whose modules can be imported."""
    folder = root / "deploy" / "jetson"
    monkeypatch.syspath_prepend(str(folder))
    return folder
