"""Every name of TensorRT and CUDA in the code is one of the real bindings, of each version; the fakes have no other."""

from __future__ import annotations

import inspect
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from export.trt_surface import CUDA, RECORDED, TENSORRT, main, surface, used
from tests import fake_tensorrt

SURFACE: dict[str, dict[str, str]] = json.loads(RECORDED.read_text(encoding="utf-8"))
FAKES = ("Builder", "Runtime", "OnnxParser", "ICudaEngine", "IExecutionContext", "EngineInspector", "IBuilderConfig")
FAKES += ("INetworkDefinition", "IOptimizationProfile", "ITimingCache", "ITensor", "ParserError")


def test_it_was_recorded_from_two_versions_or_more_of_each() -> None:
    versions = {name.split()[1].split(".")[0] for name in SURFACE if name.startswith(f"{TENSORRT} ")}
    assert versions == {"10", "11"} and f"{TENSORRT} 10.3.0" in SURFACE, "JetPack 6.2 has 10.3"
    assert len([name for name in SURFACE if name.startswith(CUDA)]) >= 2


@pytest.mark.parametrize("version", SURFACE)
def test_every_name_in_the_code_is_real(version: str) -> None:
    names = used(version.partition(" ")[0])
    assert len(names) > 20
    assert sorted(set(names) - set(SURFACE[version])) == [], "mended? make surface"


def test_names_that_tensorrt_11_dropped_would_be_seen() -> None:
    code = (Path(__file__).parents[2] / "export" / "trt_builder.py").read_text(encoding="utf-8")
    for gone in ("EXPLICIT_BATCH", "int8_calibrator", "BuilderFlag.INT8", "BuilderFlag.FP16"):
        assert gone not in code
        assert all(gone not in names for names in SURFACE.values())


@pytest.mark.parametrize("version", [name for name in SURFACE if name.startswith(TENSORRT)])
@pytest.mark.parametrize("name", FAKES)
def test_a_fake_has_nothing_that_the_real_class_lacks(name: str, version: str) -> None:
    fake = getattr(fake_tensorrt, name)
    fields = getattr(fake, "__dataclass_fields__", {})
    for attribute in {*dir(fake), *fields}:
        if not attribute.startswith("_"):
            assert f"{name}.{attribute}" in SURFACE[version], f"{name}.{attribute}"
            check_parameters(getattr(fake, attribute, None), SURFACE[version][f"{name}.{attribute}"])


@pytest.mark.parametrize("version", [name for name in SURFACE if name.startswith(CUDA)])
def test_the_fake_of_cuda_takes_what_the_real_one_takes(version: str) -> None:
    functions = [name for name in dir(fake_tensorrt.FakeCuda) if name.startswith("cuda")]
    for name in functions:
        value = getattr(fake_tensorrt.FakeCuda, name)
        if inspect.isfunction(value):
            assert name in SURFACE[version]
            check_parameters(value, SURFACE[version][name])


def check_parameters(fake: Any, signature: str) -> None:
    """Compare how many parameters there are; overloaded functions of the real bindings do not tell."""
    if not inspect.isfunction(fake) or "*args" in signature or "(" not in signature:
        return
    inside = signature[signature.index("(") + 1 : signature.rindex(")")].partition(") ->")[0]
    told = [word for word in inside.split(",") if word.strip() and not word.strip().startswith("self")]
    needed = [word for word in told if "=" not in word]
    assert len(needed) <= len(inspect.signature(fake).parameters) - 1 <= len(told), signature


@pytest.fixture
def wheels() -> list[Path]:
    found = sorted((Path(__file__).parents[2] / "build" / "bindings").glob("*.whl"))
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    if not [wheel for wheel in found if tag in wheel.name]:
        pytest.skip(f"no bindings of TensorRT for {tag} in build/bindings: make bindings")
    if shutil.which("cc") is None:
        pytest.skip("no C compiler (cc): the bindings need three stub libraries")
    return found


def test_the_record_is_what_the_real_bindings_say(wheels: list[Path]) -> None:
    found = surface(wheels)
    assert {version: sorted(names) for version, names in found.items()} == {
        version: sorted(names) for version, names in SURFACE.items() if version in found
    }
    assert set(found) == set(SURFACE)


def test_a_name_that_is_not_there_is_reported(
    wheels: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("export.trt_surface.used", lambda package: ["Builder", "Builder.create_castle"])
    chosen = [str(wheel) for wheel in wheels if wheel.name.startswith("tensorrt_cu12")]
    assert main([*chosen, "--out", str(tmp_path / "surface.json")]) == 1
    assert "1 names, missing: Builder.create_castle" in capsys.readouterr().out
