"""What something was made or measured with."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path


def environment(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of packages, and what machine this is."""
    found = {
        "machine": platform.machine(),
        "processor": _processor(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
    }
    return found | {package: version(package) for package in packages}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(names, platform.processor())
