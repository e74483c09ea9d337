"""The unit, the image, the compose file and the package description agree with the program and with each other."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edge_ser.cli import main

# What jetson-containers reads of a package: docs/packages.md there.
PACKAGE_KEYS = {
    *("alias", "build_args", "build_flags", "config", "depends", "disabled", "dockerfile", "docs"),
    *("group", "name", "notes", "path", "prefix", "postfix", "requires", "test"),
}


def unit(jetson: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (jetson / "edge-ser.service").read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def settings(jetson: Path) -> dict[str, str]:
    lines = (jetson / "edge-ser.conf").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def test_the_command_that_the_service_runs_is_one(
    jetson: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    [command] = unit(jetson)["ExecStart"]
    for name, value in settings(jetson).items():
        command = command.replace(f"${{{name}}}", value).replace(f"${name}", value)
    assert "$" not in command
    program, *words = shlex.split(command)
    assert program == "/opt/edge-ser/current/bin/edge-ser"
    ran: list[argparse.Namespace] = []
    monkeypatch.setattr("edge_ser.cli.listen.run", lambda arguments: ran.append(arguments) or 0)
    assert main(words) == 0
    assert (ran[0].format, ran[0].model, ran[0].provider) == ("jsonl", "mdat-int8", "auto")


def test_the_settings_are_those_of_the_unit(jetson: Path) -> None:
    given = " ".join(unit(jetson)["Environment"])
    for name, value in settings(jetson).items():
        assert f"{name}={value}" in given


def test_the_service_has_no_network_and_nothing_to_write(jetson: Path) -> None:
    found = unit(jetson)
    for key, value in {
        "PrivateNetwork": "yes",
        "RestrictAddressFamilies": "AF_UNIX",
        "ProtectSystem": "strict",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "Type": "notify",
        "Restart": "on-failure",
    }.items():
        assert found[key] == [value], key
    assert "WatchdogSec" in found


def test_systemd_finds_the_service_safe(jetson: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not here")
    words = ["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=15"]
    done = subprocess.run(
        [*words, str(jetson / "edge-ser.service")], capture_output=True, text=True, check=False, timeout=60
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze does not look at files")
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


def test_the_image_copies_files_that_exist_and_that_docker_is_shown(root: Path, jetson: Path) -> None:
    text = (jetson / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    shown = (jetson / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert shown[0] == "*"
    allowed = [line[1:] for line in shown if line.startswith("!")]
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        for name in line.split()[:-1]:
            assert (root / name).exists(), name
            assert any(name == place or name.startswith(f"{place}/") for place in allowed), name


def test_the_image_is_run_by_an_ordinary_user_of_the_group_audio(jetson: Path) -> None:
    stages = (jetson / "Dockerfile").read_text(encoding="utf-8").split("\nFROM ")
    for stage in stages:
        if " AS cpu" in stage or " AS tensorrt" in stage:
            assert stage.rstrip().endswith("USER edge-ser")
    assert "--groups audio" in "".join(stages)


def test_every_build_argument_of_the_compose_file_is_one_of_the_image(jetson: Path) -> None:
    composed = compose(jetson)["services"]["edge-ser"]
    declared = re.findall(r"^ARG (\w+)", (jetson / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(composed["build"]["args"]) == set(declared)
    assert composed["network_mode"] == "none"
    assert composed["read_only"] is True
    assert composed["cap_drop"] == ["ALL"]
    assert "privileged" not in composed
    targets = re.findall(r"^FROM \S+ AS (\S+)", (jetson / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"cpu", "tensorrt"} <= set(targets)
    assert targets[-1] == "tensorrt", "what docker build makes by default"


def compose(jetson: Path) -> Any:
    yaml = pytest.importorskip("yaml", reason="reads the compose file: pip install pyyaml")
    return yaml.safe_load((jetson / "compose.yaml").read_text(encoding="utf-8"))


def test_the_package_description_is_one_that_jetson_containers_reads(jetson: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="reads the description: pip install pyyaml")
    folder = jetson / "jetson-containers" / "edge-ser"
    text = (folder / "Dockerfile").read_text(encoding="utf-8")
    header = re.match(r"#---\n(.*?)#---\nARG BASE_IMAGE\nFROM \$\{BASE_IMAGE\}\n", text, re.DOTALL)
    assert header is not None
    package = yaml.safe_load(re.sub(r"^# ?", "", header[1], flags=re.MULTILINE))
    assert set(package) <= PACKAGE_KEYS
    assert package["name"] == folder.name
    assert package["depends"]
    for name in (package["test"], package["docs"]):
        assert (folder / name).is_file(), name
    compile((folder / package["test"]).read_text(encoding="utf-8"), package["test"], "exec")


def test_what_the_readme_names_is_there(root: Path, jetson: Path) -> None:
    text = (jetson / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http|#)([^)#]+)\)", text):
        assert (jetson / target).exists(), target
    for name in re.findall(r"deploy/jetson/[\w./-]*\w", text):
        assert (root / name).exists() or name.endswith("/.env"), name
    for name in settings(jetson):
        assert name in text
    composed = (jetson / "compose.yaml").read_text(encoding="utf-8")
    for name in re.findall(r"\$\{(\w+):-", composed):
        assert name in text, name
