"""The scripts of deploy/jetson, run as far as a machine without a GPU can."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = ("install.sh", "build_engine.sh", "start.sh")


@pytest.fixture
def installed(root: Path, jetson: Path, tmp_path: Path) -> Path:
    """An installation as install.sh lays it out, around this interpreter."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    edge_ser = tmp_path / "bin" / "edge-ser"
    edge_ser.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    for program in (python, edge_ser):
        program.chmod(0o755)
    device = tmp_path / "device"
    device.mkdir()
    for name in ("build_engine.sh", "start.sh", "smoke_test.py", "event_comparison.py"):
        shutil.copy(jetson / name, device)
    (device / "export").symlink_to(root / "export")
    (device / "examples").symlink_to(root / "examples")
    return tmp_path


def run(words: list[object], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, words)), env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_shell_takes_them_and_shellcheck_has_no_word_against_them(jetson: Path, name: str) -> None:
    script = jetson / name
    assert os.access(script, os.X_OK)
    shell = script.read_text(encoding="utf-8").splitlines()[0].split("/")[-1].split()[-1]
    assert run([shell, "-n", script]).returncode == 0
    if shutil.which("shellcheck"):
        checked = run(["shellcheck", script])
        assert checked.returncode == 0, checked.stdout


def test_the_smoke_test_passes_here(installed: Path) -> None:
    done = run([sys.executable, installed / "device" / "smoke_test.py", "--provider", "cpu"])
    assert done.returncode == 0, done.stdout
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["passed"]
    assert [check["name"] for check in last["checks"]] == ["device", "packages", "recording", "as the CPU", "speed"]


def test_the_smoke_test_says_in_a_line_what_is_wrong(installed: Path) -> None:
    done = run([sys.executable, installed / "device" / "smoke_test.py", "--model", "no-such-model"])
    assert done.returncode == 1
    assert re.search(r"^FAIL +recording .*no-such-model", done.stdout, re.MULTILINE)
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(("provider", "status"), [("cpu", 0), ("auto", 0), ("tensorrt", 1)])
def test_where_there_is_no_tensorrt_only_who_insists_on_it_fails(installed: Path, provider: str, status: int) -> None:
    pytest.importorskip("onnx", reason="engines are built with the extra export")
    if run([sys.executable, "-c", "import tensorrt"]).returncode == 0:
        pytest.skip("TensorRT is here")
    done = run([installed / "device" / "build_engine.sh"], EDGE_SER_PROVIDER=provider)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert bool(done.stderr) is (provider != "cpu")


def test_the_container_passes_words_on_and_adds_model_and_provider(installed: Path) -> None:
    path = f"{installed / 'bin'}:{os.environ['PATH']}"
    environment = {"PATH": path, "EDGE_SER_PROVIDER": "cpu", "EDGE_SER_MODEL": "a-model"}
    done = run([installed / "device" / "start.sh", "listen", "--device", "USB"], **environment)
    assert done.stdout.split() == ["listen", "--device", "USB", "--model", "a-model", "--provider", "cpu"]
    assert run([installed / "device" / "start.sh", "devices"], **environment).stdout.split() == ["devices"]


def test_installing_needs_root_and_says_so(jetson: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("this is root")
    done = run([jetson / "install.sh"])
    assert done.returncode == 1
    assert "need root. Type: sudo" in done.stderr


def test_the_installer_tells_its_options_and_refuses_others(jetson: Path) -> None:
    shown = run([jetson / "install.sh", "--help"])
    assert shown.returncode == 0
    for option in ("--cpu", "--wheel", "--no-service", "--roll-back", "--uninstall", "--purge"):
        assert option in shown.stdout
    assert run([jetson / "install.sh", "--fast"]).returncode == 2
