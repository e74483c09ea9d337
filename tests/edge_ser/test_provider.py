"""Which provider runs a model, what is said about it, and what is said where it cannot."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import edge_ser
from edge_ser.backends import choice, gpu, gpu_packages, onnx_graph, onnx_providers
from edge_ser.backends.gpu import Gpu, find_gpu
from edge_ser.backends.onnx_providers import CUDA_NAME, TENSORRT_NAME, Execution
from edge_ser.cli import doctor, main
from edge_ser.errors import BackendUnavailableError
from edge_ser.testing import write_tiny_bundle
from tests.tiny_int8 import write_tiny_int8_bundle

DESK = Gpu("NVIDIA RTX 4000 Ada", "8.9", 20_000_000_000, shares_memory=False)


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def integers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_int8_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "find_gpu", lambda: find_gpu())
    monkeypatch.setattr(gpu, "_DRIVER", "libcuda-that-is-not-there.so")


@pytest.fixture
def gpu_build(monkeypatch: pytest.MonkeyPatch) -> list[Execution]:
    """A GPU, and an ONNX Runtime built for it that starts; the list holds how sessions were started."""
    started: list[Execution] = []

    def start(graph: bytes, options: Any, execution: Execution) -> Any:
        started.append(execution)
        return onnx_providers.start_session(graph, options, onnx_providers.CPU)

    monkeypatch.setattr(choice, "find_gpu", lambda: DESK)
    monkeypatch.setattr(choice, "providers", lambda: (TENSORRT_NAME, CUDA_NAME, "CPUExecutionProvider"))
    monkeypatch.setattr(onnx_graph, "start_session", start)
    return started


def told(caplog: pytest.LogCaptureFixture, model: Path, **options: Any) -> str:
    """Load a model and return the one line that is said about it."""
    with caplog.at_level(logging.INFO, logger="edge_ser"):
        edge_ser.load(model, **options)
    assert len(caplog.messages) == 1
    return caplog.messages[0]


def test_auto_is_the_cpu_where_there_is_nothing_else(
    floats: Path, caplog: pytest.LogCaptureFixture, no_gpu: None
) -> None:
    line = told(caplog, floats)
    assert "CPU, " in line and line.endswith("(auto: no engine is built, and this ONNX Runtime is the one for the CPU)")


def test_auto_is_the_cpu_where_onnx_runtime_is_built_for_a_gpu_that_is_not_there(
    floats: Path, caplog: pytest.LogCaptureFixture, gpu_build: list[Execution], no_gpu: None
) -> None:
    assert told(caplog, floats).endswith("(auto: there is no NVIDIA driver (libcuda-that-is-not-there.so) here)")


def test_auto_takes_cuda_for_a_model_of_floats(
    floats: Path, caplog: pytest.LogCaptureFixture, gpu_build: list[Execution]
) -> None:
    line = told(caplog, floats)
    assert "CUDA on NVIDIA RTX 4000 Ada (auto: a GPU is here and the model is one of floats)" in line
    assert [execution.provider for execution in gpu_build] == [CUDA_NAME]
    assert gpu_build[0].options["cudnn_conv_algo_search"] == "HEURISTIC"


def test_auto_stays_on_the_cpu_with_integers_that_cuda_has_no_kernels_for(
    integers: Path, caplog: pytest.LogCaptureFixture, gpu_build: list[Execution]
) -> None:
    line = told(caplog, integers)
    assert "CPU, " in line and "no integer kernels, build an engine with export/build_trt.py" in line


def test_auto_goes_on_where_cuda_does_not_start(
    floats: Path, caplog: pytest.LogCaptureFixture, gpu_build: list[Execution], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(graph: bytes, options: Any, execution: Execution) -> Any:
        if execution.provider == CUDA_NAME:
            raise BackendUnavailableError("CUDA does not start (libcublasLt.so.13 is missing); need it")
        return onnx_providers.start_session(graph, options, execution)

    monkeypatch.setattr(onnx_graph, "start_session", start)
    assert told(caplog, floats).endswith("(auto: CUDA does not start (libcublasLt.so.13 is missing))")


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_what_was_asked_for_is_never_replaced(floats: Path, provider: str, no_gpu: None) -> None:
    with pytest.raises(BackendUnavailableError, match=r"there is no NVIDIA driver .*use --provider cpu"):
        edge_ser.load(floats, provider=provider)


def test_cuda_needs_the_build_for_the_gpu(floats: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "find_gpu", lambda: DESK)
    monkeypatch.setattr(choice, "providers", lambda: ("CPUExecutionProvider",))
    with pytest.raises(BackendUnavailableError, match="pip uninstall -y onnxruntime onnxruntime-gpu && pip install"):
        edge_ser.load(floats, provider="cuda")
    with pytest.raises(BackendUnavailableError, match="tensorrt is not importable here"):
        edge_ser.load(floats, provider="tensorrt")


def test_tensorrt_within_onnx_runtime_knows_every_shape_and_keeps_its_engines_privately(
    integers: Path, caplog: pytest.LogCaptureFixture, gpu_build: list[Execution], tmp_path: Path
) -> None:
    line = told(caplog, integers, provider="tensorrt", engine_dir=tmp_path / "engines")
    assert "TensorRT within ONNX Runtime on NVIDIA RTX 4000 Ada (asked for: tensorrt)" in line
    options = gpu_build[0].options
    assert options["trt_engine_cache_path"] == str(tmp_path / "engines" / "onnxruntime")
    assert (tmp_path / "engines" / "onnxruntime").stat().st_mode & 0o777 == 0o700
    assert options["trt_int8_enable"] == "1"
    assert options["trt_profile_min_shapes"] == "audio:1x4000,text_ids:1x1,text_mask:1x1,voice:1x17"
    assert options["trt_profile_max_shapes"] == "audio:1x128000,text_ids:1x16,text_mask:1x16,voice:1x17"


@pytest.mark.parametrize("fails", [True, False])
def test_a_provider_that_does_not_start_is_an_error_and_prints_nothing(
    fails: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    def session(*arguments: Any, **options: Any) -> Any:
        assert options["enable_fallback"] == 0
        print("*** EP Error ***")
        if fails:
            raise RuntimeError("CUDA error 35\nmore")
        return SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(BackendUnavailableError, match=r"does not start \(.*use --provider cpu") as caught:
        onnx_providers.start_session(b"", onnxruntime.SessionOptions(), onnx_providers.cuda_execution(DESK))
    assert len(str(caught.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")


def test_who_asks_for_a_provider_is_told_and_nobody_else(
    floats: Path, caplog: pytest.LogCaptureFixture, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    speech = str(root / "examples" / "conversation.flac")
    log = logging.getLogger("edge_ser")
    level = log.level
    try:
        main(["classify", speech, "--whole", "--model", str(floats)])
        assert caplog.messages == []
        main(["classify", speech, "--whole", "--model", str(floats), "--provider", "auto"])
        assert len(caplog.messages) == 1 and "(auto: " in caplog.messages[0]
    finally:
        log.setLevel(level)


# The driver


class FakeDriver:
    """What ctypes finds in libcuda.so.1."""

    def __init__(self, status: int = 0, count: int = 1) -> None:
        self.status = status
        self.count = count

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.count
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: int) -> int:
        name.value = b"Orin (nvgpu)"
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: int) -> int:
        memory._obj.value = 8_000_000_000
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: int) -> int:
        value._obj.value = {75: 8, 76: 7, 18: 1}[attribute]
        return 0


def test_the_gpu_is_what_its_driver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeDriver())
    assert find_gpu() == Gpu("Orin (nvgpu)", "8.7", 8_000_000_000, shares_memory=True)
    assert find_gpu().slug == "orin-nvgpu"


@pytest.mark.parametrize(("status", "count", "words"), [(100, 0, "the driver answers 100"), (0, 0, "has no GPU")])
def test_a_driver_without_a_gpu_is_said(monkeypatch: pytest.MonkeyPatch, status: int, count: int, words: str) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeDriver(status, count))
    with pytest.raises(BackendUnavailableError, match=words):
        find_gpu()


def test_missing_packages_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, find in (("tensorrt", gpu_packages.import_tensorrt), ("cuda.bindings.runtime", gpu_packages.import_cuda)):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(BackendUnavailableError, match=r"is not importable here.*use --provider cpu"):
            find()


# doctor


def check(name: str) -> doctor.Check:
    return next(found for found in [doctor._onnxruntime(), *doctor._gpu()] if found.name == name)


def versions(*installed: str) -> Callable[[str], str]:
    def version(package: str) -> str:
        if package in installed:
            return "1.31.1"
        raise doctor.importlib.metadata.PackageNotFoundError(package)

    return version


def test_doctor_sees_two_builds_of_onnx_runtime_that_share_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.metadata, "version", versions("onnxruntime", "onnxruntime-gpu"))
    found = check("onnxruntime")
    assert found.status == "warn" and "share one module" in found.detail
    assert "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu" in found.detail
    for build in ("onnxruntime", "onnxruntime-gpu"):
        monkeypatch.setattr(doctor.importlib.metadata, "version", versions(build))
        assert check("onnxruntime").status == "ok"


def test_doctor_says_what_is_left_of_onnx_runtime_after_one_of_two_was_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What pip leaves behind is an empty namespace: importable, and without a version.
    monkeypatch.setattr(doctor.importlib.metadata, "version", versions("onnxruntime-gpu"))
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace())
    with pytest.raises(BackendUnavailableError, match="after one of its two builds was removed"):
        edge_ser.load("mdat-int8")
    found = check("onnxruntime")
    assert found.status == "fail" and "pip install --force-reinstall onnxruntime-gpu" in found.detail


def test_doctor_is_content_without_a_gpu_and_says_what_one_lacks(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check("gpu").status == "ok" and "models run on the CPU" in check("gpu").detail
    monkeypatch.setattr(gpu, "find_gpu", lambda: DESK)
    assert "NVIDIA RTX 4000 Ada, compute capability 8.9, 20.0 GB" in check("gpu").detail
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert check("tensorrt").status == "warn" and "comes with JetPack" in check("tensorrt").detail


def test_a_measurement_names_the_build_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_ser import environment

    monkeypatch.setattr(environment, "version", versions("onnxruntime-gpu"))
    assert environment.environment("onnxruntime")["onnxruntime"] == "1.31.1"
