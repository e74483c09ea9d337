"""Nothing leaves the machine, and nothing about the user is written down."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import socket, sys, numpy, edge_ser

def refuse(*words, **more):
    raise AssertionError("a connection was tried")

socket.socket.connect = refuse
recognizer = edge_ser.load()
stream = recognizer.stream()
stream.push(numpy.zeros(32_000, numpy.float32))
stream.finish()
recognizer.recognize(numpy.zeros(16_000, numpy.float32), transcript="good morning")
"""


def test_listening_leaves_no_file_behind(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    hidden = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "XDG_CONFIG_HOME": str(home / "config")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORT_")} | hidden
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # ONNX Runtime would keep a device id here, and send it.
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_onnx_runtime_is_told_to_send_nothing_before_it_is_imported() -> None:
    program = "import edge_ser, os, sys; print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]
