"""aarch64 and x86-64 give the same answers."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_aarch64_hears_the_recording_as_this_machine_does(root: Path) -> None:
    tools = ["debootstrap", *(() if platform.machine() == "aarch64" else ("qemu-aarch64-static",))]
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and {', '.join(tools)}: apt-get install debootstrap qemu-user-static binfmt-support")
    done = subprocess.run(
        [sys.executable, "deploy/jetson/aarch64.py"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["same"]
    assert summary["there"]["machine"] == "aarch64"
    assert summary["there"]["python"].startswith("3.11.")
    assert summary["utterances"] >= 6
    assert summary["largest_difference"] <= 1e-3


def test_without_root_it_says_what_to_type(jetson: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import aarch64

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit, match=r"need root .* Type: sudo python3"):
        aarch64.main([])


def test_without_the_tools_it_says_what_to_install(jetson: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import aarch64

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    with pytest.raises(SystemExit, match=r"got no debootstrap.* Type: apt-get install debootstrap"):
        aarch64.main([])


def test_every_processor_is_told_to_fuse_the_same_integers() -> None:
    """ONNX Runtime's own choice differs between x86-64 and aarch64, and with it the third decimal."""
    import edge_ser
    from edge_ser.backends.onnx_graph import open_session

    bundle = edge_ser.load("mdat-int8", provider="cpu").bundle
    session = open_session(bundle, bundle.read(bundle.manifest.graphs["model"]), 1)
    assert session.get_session_options().get_session_config_entry("session.qdqisint8allowed") == "0"
