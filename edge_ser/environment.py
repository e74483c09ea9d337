"""What something was made or measured with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ONNX_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
"""Builds of ONNX Runtime: packages that are one module."""


def environment(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of packages, and what machine this is."""
    found = {
        "machine": platform.machine(),
        "processor": _processor(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
    }
    return found | {package: _version(package) for package in packages}


def _version(package: str) -> str:
    if package != ONNX_RUNTIMES[0]:
        return version(package)
    for build in ONNX_RUNTIMES:
        try:
            return version(build)
        except PackageNotFoundError:
            continue
    raise PackageNotFoundError(package)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(names, platform.processor())
