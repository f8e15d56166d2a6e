"""Builds the images of training/ and inference/ with docker, podman or buildah, each once for the same files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kennel.rehearsal.containers.engine import REPOSITORY, ContainerError, Program

_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
# The Python of this machine: torch is not in the image but mounted from here.
_BASE = f"public.ecr.aws/docker/library/python:{_PYTHON}-slim"
_SUITES = {"3.11": "bookworm", "3.13": "trixie"}  # Debian's own Python
_PACKAGES = "python3,python3-pip,python3-venv,ca-certificates"
_PULL_S, _BUILD_S = 180, 1800
# What pip needs of this machine to reach the package registry.
_REGISTRY = ("/etc/ssl/certs", "/etc/pip.conf")


@dataclass(frozen=True)
class Tool:
    """A container engine's command line. Raises ContainerError with the end of what it printed when it fails."""

    name: str  # docker, podman or buildah
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def find(cls) -> Tool:
        """The first of the three that works here."""
        # Debian's buildah runs without a kernel's overlay driver and without a runtime of its own.
        plain = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
        for tool in (cls("docker"), cls("podman"), cls("buildah", plain)):
            if shutil.which(tool.name) and tool.works("info"):
                return tool
        raise ContainerError(
            "--images needs a container engine: start Docker, or install podman or buildah (apt-get install buildah)."
        )

    def works(self, *arguments: str) -> bool:
        return self._run(arguments, 60).returncode == 0

    def run(self, *arguments: str, timeout: float = 120) -> str:
        done = self._run(arguments, timeout)
        if done.returncode:
            raise ContainerError(f"{self.name} {arguments[0]} failed:\n{(done.stderr or done.stdout)[-2000:]}")
        return done.stdout.strip()

    def _run(self, arguments: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
        command = [self.name, *arguments]
        try:
            return subprocess.run(
                command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, "", f"no end after {timeout:.0f} s")


@dataclass(frozen=True)
class Image:
    """A built image: its name and its OCI configuration (Entrypoint, Env, WorkingDir)."""

    name: str
    config: Mapping[str, Any]


def build(tool: Tool, program: Program) -> Image:
    """Build `program`'s folder on a plain Python, unless there is an image of the same files."""
    context = REPOSITORY / program
    name = f"localhost/kennel-{program}:{_digest(context)}"
    if not _exists(tool, name):
        mounts = [f"--volume={path}:{path}:ro" for path in _REGISTRY if Path(path).exists()]
        more = [] if tool.name == "docker" else mounts  # docker build knows no volumes
        base = f"--build-arg=BASE={_base(tool)}"
        tool.run("build", "--network=host", base, *more, "--tag", name, str(context), timeout=_BUILD_S)
    return Image(name, _config(tool, name))


def _digest(context: Path) -> str:
    """16 hex digits over the files' names and contents and the Python that the base must have."""
    digest = hashlib.sha256(_PYTHON.encode())
    for path in sorted(context.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(context)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def _exists(tool: Tool, name: str) -> bool:
    return tool.works(*_inspect(tool, name))


def _inspect(tool: Tool, name: str) -> tuple[str, ...]:
    return ("inspect", "--type", "image", name) if tool.name == "buildah" else ("image", "inspect", name)


def _config(tool: Tool, name: str) -> Mapping[str, Any]:
    found = json.loads(tool.run(*_inspect(tool, name)))
    config: Mapping[str, Any] = found["OCIv1"]["config"] if tool.name == "buildah" else found[0]["Config"]
    return config


def _base(tool: Tool) -> str:
    """The official Python image where a registry can be reached, else a Debian made here."""
    made = f"localhost/kennel-base:{_PYTHON}"
    if _exists(tool, made):
        return made
    if tool._run(("pull", _BASE), _PULL_S).returncode == 0:
        return _BASE
    suite = _SUITES.get(_PYTHON)
    if not suite or not shutil.which("debootstrap") or os.geteuid():
        raise ContainerError(
            f"{_BASE} cannot be pulled; without a registry a base is made by debootstrap, as root, with Python "
            f"{' or '.join(_SUITES)} (this is {_PYTHON}): apt-get install debootstrap."
        )
    with tempfile.TemporaryDirectory(prefix="kennel-base-") as folder:
        _debian(suite, Path(folder))
        tool.run("build", "--tag", made, folder, timeout=_BUILD_S)
    return made


def _debian(suite: str, folder: Path) -> None:
    """Write a build context for a small Debian with Python into `folder`."""
    root = folder / "root"
    options = ("--variant=minbase", f"--include={_PACKAGES}")
    for command in (
        ("debootstrap", *options, suite, str(root)),
        ("tar", "--directory", str(root), "--exclude=./dev/*", "--create", "--file", str(folder / "root.tar"), "."),
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise ContainerError(f"{command[0]} failed:\n{(done.stderr or done.stdout)[-2000:]}")
    shutil.rmtree(root)
    (folder / "Dockerfile").write_text("FROM scratch\nADD root.tar /\n")
