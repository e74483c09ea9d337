"""The house rules: who may import whom, and how long a function may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_FUNCTION_LINES = 50
MAX_PARAMETERS = 7
MAX_FILE_LINES = 300
MATPLOTLIB_IMPORTERS = {"picture.py"}
TRAIN_IMPORTERS = {"to_onnx.py", "check_parity.py"}


def sources(shelf: str) -> list[Path]:
    return sorted((ROOT / shelf).rglob("*.py"))


def imported(tree: ast.AST) -> set[str]:
    """Return the top-level modules that any statement of `tree` imports, late ones included."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            names.add("<relative>")
    return names


def forbidden_to(path: Path) -> set[str]:
    shelf = path.relative_to(ROOT).parts[0]
    if shelf == "edge_ser":
        plots = set() if path.name in MATPLOTLIB_IMPORTERS else {"matplotlib"}
        return {"train", "export", "torch", "transformers", "scipy", "<relative>"} | plots
    if shelf == "train":
        return {"export", "<relative>"}
    return {"<relative>"} if path.name in TRAIN_IMPORTERS else {"train", "<relative>"}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    every = function.args
    named = [argument.arg for argument in every.posonlyargs + every.args + every.kwonlyargs]
    return len([name for name in named if name not in ("self", "cls")]) + bool(every.vararg) + bool(every.kwarg)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


ALL = [path for shelf in ("edge_ser", "train", "export") for path in sources(shelf)]


def test_the_rules_see_the_code() -> None:
    assert {"edge_ser/recognizer.py", "edge_ser/backends/onnx_graph.py"} <= {name_of(path) for path in ALL}
    assert imported(ast.parse("def f():\n    import torch.nn\n    from train.x import y")) == {"torch", "train"}
    assert parameters(next(functions(ast.parse("def f(self, a, /, b, *c, d, **e): ...")))) == 5


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_imports_follow_the_dependency_rule(path: Path) -> None:
    assert not imported(ast.parse(path.read_text(encoding="utf-8"))) & forbidden_to(path)


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_functions_are_short(path: Path) -> None:
    for function in functions(ast.parse(path.read_text(encoding="utf-8"))):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        assert lines <= MAX_FUNCTION_LINES, f"{function.name} has {lines} lines"
        assert parameters(function) <= MAX_PARAMETERS, f"{function.name} has {parameters(function)} parameters"


@pytest.mark.parametrize("path", sources("edge_ser"), ids=name_of)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
