"""The public names: those of `__all__`, no more, no fewer."""

import inspect
import re
import types
from pathlib import Path

import pytest

import edge_ser
from edge_ser import errors, events


def test_what_is_listed_is_what_is_visible() -> None:
    for name in edge_ser.__all__:
        assert getattr(edge_ser, name) is getattr(edge_ser, name)
    visible = {
        name
        for name, value in vars(edge_ser).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert visible == set(edge_ser.__all__) - {"__version__"}
    assert dir(edge_ser) == sorted(edge_ser.__all__)
    assert len(set(edge_ser.__all__)) == len(edge_ser.__all__)


def test_every_event_and_every_error_is_public() -> None:
    for module in (events, errors):
        classes = {
            name
            for name, value in vars(module).items()
            if inspect.isclass(value) and value.__module__ == module.__name__
        }
        assert {name for name in classes if not name.startswith("_")} <= set(edge_ser.__all__)


def test_every_error_is_an_edge_ser_error() -> None:
    for name in edge_ser.__all__:
        value = getattr(edge_ser, name)
        if inspect.isclass(value) and issubclass(value, Exception):
            assert issubclass(value, edge_ser.EdgeSerError)


def test_everything_public_says_what_it_is() -> None:
    for name in edge_ser.__all__:
        if not name.startswith("__"):
            assert inspect.getdoc(getattr(edge_ser, name)), name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Recogniser'"):
        edge_ser.Recogniser  # type: ignore[attr-defined]  # noqa: B018


def test_the_version_is_that_of_the_project() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    stated = re.search(r'^version = "(.+)"$', project, flags=re.MULTILINE)
    assert stated is None or stated[1] == edge_ser.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", edge_ser.__version__)
