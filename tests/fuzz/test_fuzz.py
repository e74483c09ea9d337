"""The coverage-guided fuzzer, a few seconds a target; what it found stays in tests/edge_ser/test_faults.py."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.fuzz import MISSING, NAMES
from tests.fuzz.targets import TARGETS

FUZZ = Path(__file__).with_name("fuzz.py")
SECONDS = 5


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_a_clear_error_comes_out(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip(MISSING)
    command = [sys.executable, str(FUZZ), name, "--seconds", str(SECONDS), "--corpus", str(tmp_path / "corpus")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=SECONDS + 60)
    output = done.stderr.decode(errors="replace")

    assert done.returncode == 0, output[-4000:]
    assert int(re.findall(r"Done (\d+) runs", output)[-1]) > 100


def test_every_target_can_be_named() -> None:
    assert tuple(TARGETS) == NAMES


def test_without_atheris_it_says_what_to_install(tmp_path: Path) -> None:
    # -S: without what is installed.
    done = subprocess.run([sys.executable, "-S", str(FUZZ), "csv"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr.strip()) == (3, MISSING)
