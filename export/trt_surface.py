"""Every name of TensorRT and CUDA that the code uses, looked up in the real Python bindings of several versions.

    make bindings                                       # fetches the bindings' wheels into build/bindings
    python export/trt_surface.py build/bindings/*.whl   # writes tests/export/tensorrt_surface.json

Neither TensorRT nor a GPU is needed: the bindings import once their libraries are there, and three empty libraries,
compiled here, are enough for that.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edge_ser.errors import ConfigError, EdgeSerError

ROOT = Path(__file__).resolve().parent.parent
RECORDED = ROOT / "tests" / "export" / "tensorrt_surface.json"

TENSORRT, CUDA = "tensorrt", "cuda.bindings"
_READ = {
    TENSORRT: {
        "export/trt_builder.py": {
            "tensorrt": "",
            "builder": "Builder",
            "network": "INetworkDefinition",
            "item": "ITensor",
            "config": "IBuilderConfig",
            "cache": "ITimingCache",
            "parser": "OnnxParser",
            "problem": "ParserError",
            "profile": "IOptimizationProfile",
            "engine": "ICudaEngine",
            "inspector": "EngineInspector",
        },
        "edge_ser/backends/engine.py": {
            "_tensorrt": "",
            "_runtime": "Runtime",
            "_engine": "ICudaEngine",
            "context": "IExecutionContext",
        },
        "edge_ser/backends/engine_log.py": {"tensorrt": ""},
    },
    CUDA: {"edge_ser/backends/device_memory.py": {"_cuda": "", "cuda": ""}},
}
"""Of each file that uses a package: its variables, and of which class they are; "" is the module itself."""

_STUBBED = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
_LIBRARIES = ("libnvinfer", "libnvonnxparser", "libnvinfer_plugin")

_LOOK = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
def look(name):
    value = module
    for part in name.split("."):
        value = getattr(value, part)
    return ((value.__doc__ or "") if callable(value) else "").strip().split("\\n")[0]
found = {}
for name in sys.argv[2:]:
    try:
        found[name] = look(name)
    except AttributeError:
        pass
print(json.dumps(found))
"""


def used(package: str) -> list[str]:
    """Return every name of a package that the code uses, such as `Builder.create_network`, sorted."""
    names: set[str] = set()
    for path, variables in _READ[package].items():
        names.update(_names(ast.parse((ROOT / path).read_text(encoding="utf-8")), variables))
    return sorted(names)


def _names(tree: ast.AST, variables: dict[str, str]) -> Iterator[str]:
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            parts: list[str] = []
            root: ast.expr = node
            while isinstance(root, ast.Attribute) and root.attr not in variables:
                parts.insert(0, root.attr)
                root = root.value
            name = root.attr if isinstance(root, ast.Attribute) else root.id if isinstance(root, ast.Name) else ""
            if parts and name in variables and not parts[0].startswith("__"):
                owner = variables[name]
                yield f"{owner}.{parts[0]}" if owner else ".".join(parts)


def surface(wheels: Sequence[Path]) -> dict[str, dict[str, str]]:
    """Return, by package and version, the names in use that the real bindings have, with their signatures.

    Args:
        wheels: Wheels of `tensorrt_cu12_bindings`, `tensorrt_cu13_bindings`, `cuda_bindings`, and of what these import.

    Raises:
        ConfigError: A compiler is missing, or a wheel does not import here.
    """
    found = {}
    others = [wheel for wheel in wheels if not wheel.name.startswith(("tensorrt", "cuda_bindings"))]
    for wheel in sorted(set(wheels) - set(others)):
        version = wheel.name.split("-")[1]
        package = TENSORRT if wheel.name.startswith("tensorrt") else CUDA
        with tempfile.TemporaryDirectory() as folder:
            for path in (wheel, *others):
                # Not the sources, which are most of it.
                archive = zipfile.ZipFile(path)
                archive.extractall(folder, [name for name in archive.namelist() if name.endswith((".py", ".so"))])
            if package == TENSORRT:
                _compile_stubs(Path(folder), version.partition(".")[0])
            found[f"{package} {version}"] = _look_up(package, Path(folder), wheel)
    return found


def _compile_stubs(folder: Path, major: str) -> None:
    source = folder / "stub.c"
    source.write_text("\n".join(f"void *{name}(void) {{ return 0; }}" for name in _STUBBED), encoding="utf-8")
    for library in _LIBRARIES:
        name = f"{library}.so.{major}"
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name)]
        try:
            # The symbols in one library; the others only have to be there.
            subprocess.run([*command, *([str(source)] if library == _LIBRARIES[0] else [])], check=True)
        except (OSError, subprocess.CalledProcessError) as problem:
            raise ConfigError(f"the stub {name} does not compile ({problem}); need a C compiler, cc") from None


def _look_up(package: str, folder: Path, wheel: Path) -> dict[str, str]:
    module = "tensorrt_bindings" if package == TENSORRT else "cuda.bindings.runtime"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", _LOOK, module, *used(package)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ConfigError(
            f"{wheel.name} does not import here ({done.stderr.splitlines()[-1]}); need one for this Python"
        )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 1 if a name in use is missing from a version."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=RECORDED)
    options = parser.parse_args(argv)
    try:
        found = surface(options.wheels)
    except EdgeSerError as error:
        print(f"trt_surface: {error}", file=sys.stderr)
        return 1
    options.out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    missing = {version: set(used(version.partition(" ")[0])) - set(names) for version, names in found.items()}
    for version, names in found.items():
        print(f"{version}: {len(names)} names, missing: {', '.join(sorted(missing[version])) or 'none'}")
    return 1 if any(missing.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
