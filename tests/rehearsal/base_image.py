"""A base for the container images that the long tests build, also on a machine that reaches no image registry."""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from kennel.rehearsal.containers.engine import ContainerError
from kennel.rehearsal.containers.images import DEFAULT_BASE, Tool

_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
_SUITES = {"3.11": "bookworm", "3.13": "trixie"}  # the Debian releases whose own Python is this one
_PACKAGES = "python3,python3-pip,python3-venv,ca-certificates"
_PULL_S, _BUILD_S = 180, 1800


def base_image(folder: Path) -> str:
    """Return the name of a base image: the official one where it can be pulled, else a Debian that is built here.

    Skip the test on a machine that can have neither.
    """
    if not any(map(shutil.which, ("docker", "podman", "buildah"))):
        pytest.skip("needs docker, podman or buildah")
    tool, built = Tool.find(), f"localhost/kennel-base:{_PYTHON}"
    if tool.image_config(built):
        return built
    with suppress(ContainerError):
        tool.run("pull", DEFAULT_BASE, timeout=_PULL_S)
        return DEFAULT_BASE
    if _PYTHON not in _SUITES or not shutil.which("debootstrap") or os.geteuid():
        pytest.skip(f"{DEFAULT_BASE} cannot be pulled, and building a base needs root, debootstrap and another Python")
    root = folder / "root"
    folder.mkdir(parents=True, exist_ok=True)
    options = ("--variant=minbase", f"--include={_PACKAGES}")
    subprocess.run(["debootstrap", *options, _SUITES[_PYTHON], str(root)], check=True, timeout=_BUILD_S)
    archive = ("--directory", str(root), "--exclude=./dev/*", "--create", "--file", str(folder / "root.tar"), ".")
    subprocess.run(["tar", *archive], check=True)
    shutil.rmtree(root)
    (folder / "Dockerfile").write_text("FROM scratch\nADD root.tar /\n")
    tool.run("build", "--tag", built, str(folder), timeout=_BUILD_S)
    return built
