"""What runs an engine: recorded passes, no copy that is not needed, memory given back; on fakes that compute."""

from __future__ import annotations

import gc
import hashlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_ser.backends import engine as engine_module
from edge_ser.backends import open_backend
from edge_ser.backends.engine import Engine
from edge_ser.backends.engine_record import EngineKey, EngineRecord
from edge_ser.backends.engine_store import StoredEngine, graph_sha256
from edge_ser.backends.gpu import Gpu
from edge_ser.bundle import Bundle
from edge_ser.errors import BackendUnavailableError, EngineMismatchError
from edge_ser.frontend import FrontEnd
from edge_ser.testing import write_tiny_bundle
from export.trt_builder import build
from export.trt_plan import Wanted, make_plan
from tests import fake_tensorrt
from tests.fake_tensorrt import DESK, ORIN, FakeTensorrt


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", attributes=("arousal",)))


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> FakeTensorrt:
    return fake_tensorrt.install(monkeypatch)


def opened(bundle: Bundle, tensorrt: Any, gpu: Gpu = DESK) -> Engine:
    data = build(tensorrt, make_plan(bundle, Wanted("fp32")), b"").engine
    key = EngineKey("tiny", gpu.slug, tensorrt.__version__, "fp32")
    sha256 = hashlib.sha256(data).hexdigest()
    record = EngineRecord(key, gpu.name, gpu.capability, graph_sha256(bundle), sha256)
    return Engine(bundle, StoredEngine(record, data), gpu, threads=1)


def inputs(bundle: Bundle, samples: int, seed: int = 0, words: str | None = None) -> dict[str, np.ndarray]:
    audio = np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)
    return FrontEnd(bundle).inputs(audio, words)


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert set(one) == set(other)
    for name in one:
        assert one[name] == pytest.approx(other[name], abs=1e-6), name


@pytest.mark.parametrize("gpu", [DESK, ORIN])
def test_it_answers_as_the_graph_does_at_the_first_time_and_out_of_its_recording(
    bundle: Bundle, tensorrt: FakeTensorrt, gpu: Gpu
) -> None:
    reference, engine = open_backend(bundle, "cpu"), opened(bundle, tensorrt, gpu)
    for seed in range(5):
        for samples, words in ((4000, None), (17_000, "i am happy"), (128_000, None)):
            told = inputs(bundle, samples, seed, words)
            same(engine.run(told), reference.run(told))
    assert tensorrt.cuda.calls.count("cudaStreamBeginCapture") == 3
    assert tensorrt.cuda.calls.count("cudaGraphLaunch") == 3 * 3
    assert engine.name == "TensorRT 10.3.0" and engine.provider == f"{gpu.name}, fp32 engine"


def test_a_recorded_pass_asks_cuda_for_one_launch_and_nothing_else(bundle: Bundle, tensorrt: FakeTensorrt) -> None:
    engine = opened(bundle, tensorrt)
    for _ in range(2):
        engine.run(inputs(bundle, 8000))
    tensorrt.cuda.calls.clear()
    engine.run(inputs(bundle, 8000, seed=3))
    assert tensorrt.cuda.calls == ["cudaGraphLaunch", "cudaStreamSynchronize"]


def test_where_memory_is_shared_nothing_is_copied(bundle: Bundle, tensorrt: FakeTensorrt) -> None:
    engine = opened(bundle, tensorrt, ORIN)
    engine.run(inputs(bundle, 8000))
    assert not [call for call in tensorrt.cuda.calls if call == "cudaMalloc" or call.startswith("cudaMemcpyAsync")]


def test_where_it_is_not_each_value_is_copied_once(bundle: Bundle, tensorrt: FakeTensorrt) -> None:
    engine = opened(bundle, tensorrt)
    tensorrt.cuda.calls.clear()
    engine.run(inputs(bundle, 8000))
    copies = [call.split()[1] for call in tensorrt.cuda.calls if call.startswith("cudaMemcpyAsync")]
    assert copies == len(bundle.manifest.inputs) * ["cudaMemcpyHostToDevice"] + len(bundle.manifest.outputs) * [
        "cudaMemcpyDeviceToHost"
    ]


def test_an_answer_stays_what_it_was(bundle: Bundle, tensorrt: FakeTensorrt) -> None:
    engine = opened(bundle, tensorrt)
    first = engine.run(inputs(bundle, 8000))
    kept = {name: values.copy() for name, values in first.items()}
    engine.run(inputs(bundle, 8000, seed=9))
    same(first, kept)


def test_where_nothing_can_be_recorded_it_goes_on_without(bundle: Bundle, tensorrt: FakeTensorrt) -> None:
    tensorrt.cuda.can_capture = False
    reference, engine = open_backend(bundle, "cpu"), opened(bundle, tensorrt)
    for seed in range(4):
        told = inputs(bundle, 8000, seed)
        same(engine.run(told), reference.run(told))
    assert tensorrt.cuda.calls.count("cudaStreamBeginCapture") == 1
    assert "cudaGraphLaunch" not in tensorrt.cuda.calls


def test_only_so_many_recordings_are_kept_the_latest_ones(
    bundle: Bundle, tensorrt: FakeTensorrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_MOST_RECORDINGS", 2)
    engine = opened(bundle, tensorrt)
    for samples in (4000, 5000, 6000):
        for _ in range(3):
            engine.run(inputs(bundle, samples))
    calls = tensorrt.cuda.calls
    assert calls.count("cudaGraphExecDestroy") == 1
    calls.clear()
    engine.run(inputs(bundle, 6000))
    engine.run(inputs(bundle, 4000))
    assert calls.count("cudaGraphLaunch") == 1


def test_its_memory_is_given_back(bundle: Bundle, tensorrt: FakeTensorrt) -> None:
    engine = opened(bundle, tensorrt)
    engine.run(inputs(bundle, 8000))
    assert tensorrt.cuda.memory
    del engine
    gc.collect()
    assert not tensorrt.cuda.memory and "cudaStreamDestroy" in tensorrt.cuda.calls


def test_it_is_asked_again_with_words_without_the_gpu(bundle: Bundle, tensorrt: FakeTensorrt) -> None:
    engine = opened(bundle, tensorrt)
    told = inputs(bundle, 8000, words="i am happy")
    heard = engine.run(told)
    tensorrt.cuda.calls.clear()
    again = engine.fuse({**told, "frames": heard["frames"]})
    same(again, {name: heard[name] for name in again})
    assert "logits" in again and tensorrt.cuda.calls == []


def test_threads_take_turns(bundle: Bundle, tensorrt: FakeTensorrt) -> None:
    reference, engine = open_backend(bundle, "cpu"), opened(bundle, tensorrt)
    told = [inputs(bundle, 4000 + 100 * (seed % 3), seed) for seed in range(12)]
    answers: dict[int, dict[str, np.ndarray]] = {}
    threads = [threading.Thread(target=lambda n=n: answers.update({n: engine.run(told[n])})) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, answer in answers.items():
        same(answer, reference.run(told[number]))


def test_a_length_that_it_was_not_built_for_is_said(bundle: Bundle, tensorrt: FakeTensorrt) -> None:
    with pytest.raises(EngineMismatchError, match=r"was not built for audio \[1, 200000\]"):
        opened(bundle, tensorrt).run(inputs(bundle, 200_000))


def test_an_engine_of_another_graph_is_said(bundle: Bundle, tensorrt: FakeTensorrt, tmp_path: Path) -> None:
    silent = Bundle.open(write_tiny_bundle(tmp_path / "silent", text=False))
    data = build(tensorrt, make_plan(silent, Wanted("fp32")), b"").engine
    record = EngineRecord(EngineKey("tiny", "gpu", "10.3.0", "fp32"), "GPU", "8.7", "0", "0")
    with pytest.raises(EngineMismatchError, match="the manifest says audio, text_ids"):
        Engine(bundle, StoredEngine(record, data), DESK, threads=1)


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("starts", BackendUnavailableError, "CUDA initialization failure with error: 35"),
        ("version", EngineMismatchError, "version tag does not match"),
        ("memory", BackendUnavailableError, "memory is used up"),
        ("context", BackendUnavailableError, "makes no execution context"),
    ],
)
def test_what_goes_wrong_is_one_line(
    fault: str,
    error: type[Exception],
    words: str,
    bundle: Bundle,
    tensorrt: FakeTensorrt,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = build(tensorrt, make_plan(bundle, Wanted("fp32")), b"").engine
    record = EngineRecord(EngineKey("tiny", "gpu", "10.3.0", "fp32"), "GPU", "8.7", "0", "0")
    if fault == "starts":
        tensorrt.starts = False
    elif fault == "version":
        tensorrt.__version__ = "10.4.0"
    elif fault == "memory":
        tensorrt.cuda.free_bytes = 100
    else:
        monkeypatch.setattr(fake_tensorrt.ICudaEngine, "create_execution_context", lambda self, strategy: None)
    with pytest.raises(error, match=words) as caught:
        Engine(bundle, StoredEngine(record, data), DESK, threads=1)
    assert len(str(caught.value).splitlines()) == 1
