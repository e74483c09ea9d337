"""README stays true: its tree, its commands, its outputs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from edge_ser.cli import main as edge_ser_main


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


def test_every_output_is_the_recorded_one(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/readme.py", "--check"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_tree_is_the_real_one(root: Path, readme: str) -> None:
    block = re.search(r"```\n(edge_ser/ .*?)```", readme, re.DOTALL)
    assert block is not None
    listed = {line.split()[0].rstrip("/") for line in block[1].splitlines()}
    assert [name for name in sorted(listed) if not (root / name).is_dir()] == []
    tracked = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=False)
    if tracked.returncode == 0:
        folders = {name.split("/")[0] for name in tracked.stdout.splitlines() if "/" in name}
        assert {name for name in folders if not name.startswith(".")} <= listed


def test_every_link_leads_somewhere(root: Path, readme: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", readme):
        assert (root / target).exists(), target


def test_every_command_of_the_table_has_its_help(readme: str, capsys: pytest.CaptureFixture[str]) -> None:
    commands = set(re.findall(r"`edge-ser (\w+)", readme))
    assert commands >= {"listen", "classify", "models", "bench"}
    for command in sorted(commands):
        with pytest.raises(SystemExit) as stopped:
            edge_ser_main([command, "--help"])
        assert stopped.value.code == 0
        assert command in capsys.readouterr().out


def test_every_python_command_names_a_file_that_exists(root: Path, readme: str) -> None:
    for line in re.findall(r"^\$ (python .*)$", readme, re.MULTILINE):
        words = shlex.split(line, comments=True)
        path = words[2].replace(".", "/") + ".py" if words[1] == "-m" else words[1]
        assert (root / path).is_file(), line


def test_the_example_is_heard_as_readme_shows_it(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = (root / "benchmarks" / "results" / "listen.txt").read_text(encoding="utf-8").splitlines()
    assert edge_ser_main(["listen", "--input", str(root / "examples" / "conversation.flac"), "--format", "text"]) == 0
    heard = capsys.readouterr().out.splitlines()
    # Another processor may move a confidence by a hundredth: times and words must be the same.
    assert [_words(line) for line in heard] == [_words(line) for line in recorded]


def _words(line: str) -> list[str]:
    return [word for word in line.split() if not re.fullmatch(r"0\.\d\d|[█▏▎▍▌▋▊▉]+", word)]
