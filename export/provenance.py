"""What a file was made with."""

from __future__ import annotations

import platform
from importlib.metadata import version


def environment(*packages: str) -> dict[str, str]:
    """Return Python's, the machine's and the packages' versions."""
    found = {"python": platform.python_version(), "machine": platform.machine(), "processor": _processor()}
    return found | {package: version(package) for package in packages}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"
