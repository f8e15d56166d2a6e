"""Containers from the real images: what their Dockerfiles say about paths, entry points and signals is run."""

from __future__ import annotations

import atexit
import importlib.util
import os
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from kennel.rehearsal.containers.build import Image, Tool, build
from kennel.rehearsal.containers.engine import Container, ContainerEngine, ContainerError, Network, Program
from kennel.rehearsal.containers.local import NamespaceEngine
from kennel.rehearsal.containers.process import Process

_MOUNTED = "/opt/kennel"  # where torch and the hook that finds it are seen inside
# After the image's own packages, so that only what the image lacks comes from here.
_HOOK = f'import sys\nsys.path.append("{_MOUNTED}/packages")\n'


def image_engine(scratch: Path) -> ContainerEngine:
    """Build both images with what this machine has; `scratch` must outlive the engine. Raises ContainerError."""
    tool = Tool.find()
    images: dict[Program, Image] = {program: build(tool, program) for program in ("training", "inference")}
    environment = _Torch(scratch)
    if tool.name == "buildah":
        return _Unpacked(tool, images, environment)
    return _Client(tool, images, environment)


class _Torch:
    """This machine's torch, for the training image, which in the cloud has it from its base."""

    def __init__(self, scratch: Path) -> None:
        found = importlib.util.find_spec("torch")
        if not found or not found.origin:
            raise ContainerError("The training image needs torch from this environment: make env")
        hook = scratch / "hook"
        hook.mkdir(parents=True, exist_ok=True)
        (hook / "sitecustomize.py").write_text(_HOOK)
        self._mounts = [(str(hook), f"{_MOUNTED}/hook")]
        self._mounts.append((str(Path(found.origin).parents[1]), f"{_MOUNTED}/packages"))

    def mounts(self, program: Program) -> list[tuple[str, str]]:
        return self._mounts if program == "training" else []

    def variables(self, program: Program, inherited: str = "") -> dict[str, str]:
        path = os.pathsep.join(filter(None, [inherited, f"{_MOUNTED}/hook"]))
        return {"PYTHONPATH": path} if program == "training" else {}


class _Unpacked:
    """Images unpacked by buildah, run by this program's own keeper: `buildah run` would not pass SIGTERM on."""

    name = "images (buildah)"
    isolates = True
    notice = "torch is mounted into the training image, which in the cloud has it from its base."

    def __init__(self, tool: Tool, images: dict[Program, Image], torch: _Torch) -> None:
        if os.geteuid():
            raise ContainerError("buildah needs root here; without it use docker or podman.")
        self._tool, self._images, self._torch = tool, images, torch
        self._namespaces = NamespaceEngine()
        self._made: dict[Program, str] = {}
        self._roots: dict[Program, str] = {}
        atexit.register(self.close)
        for program, image in images.items():
            self._made[program] = tool.run("from", "--pull-never", image.name)
            self._roots[program] = tool.run("mount", self._made[program])

    def network(self) -> AbstractContextManager[Network]:
        return self._namespaces.network()

    def start(self, container: Container) -> Process:
        config = self._images[container.program].config
        inherited = dict(item.split("=", 1) for item in config.get("Env") or [])
        isolation = self._namespaces.isolation(container)
        mounts = [(path, path) for path in ("/dev", "/sys")] + self._torch.mounts(container.program)
        isolation |= {"image": self._roots[container.program], "binds": [*isolation["binds"], *mounts]}
        environment = {
            "HOME": "/root",
            **inherited,
            **self._torch.variables(container.program, inherited.get("PYTHONPATH", "")),
            **container.environment,
        }
        return Process(
            [*(container.entrypoint or config["Entrypoint"]), *container.arguments],
            environment=environment,
            cwd=Path(config.get("WorkingDir") or "/"),
            on_line=container.on_line,
            isolation=isolation,
        )

    def close(self) -> None:
        for made in self._made.values():
            self._tool.works("rm", made)
        self._made.clear()
        atexit.unregister(self.close)


class _Client:
    """Docker or podman through their command line."""

    isolates = True
    notice = _Unpacked.notice

    def __init__(self, tool: Tool, images: dict[Program, Image], torch: _Torch) -> None:
        self._tool, self._images, self._torch = tool, images, torch
        self.name = f"images ({tool.name})"

    @contextmanager
    def network(self) -> Iterator[Network]:
        name = f"kennel-{uuid.uuid4().hex[:12]}"
        self._tool.run("network", "create", "--internal", name)
        try:
            yield Network(joins=(name,), interface="eth0")
        finally:
            self._tool.works("network", "rm", name)

    def start(self, container: Container) -> Process:
        name = f"kennel-{uuid.uuid4().hex[:12]}"
        return Process(
            [self._tool.name, *self.arguments(container, name)],
            environment={**os.environ, **self._tool.environment},
            cwd=Path("/"),
            on_line=container.on_line,
            # The engine's own daemon holds the container: ending the client alone would leave it.
            isolation={"afterwards": [self._tool.name, "rm", "--force", name]},
        )

    def arguments(self, container: Container, name: str) -> list[str]:
        """What follows `docker` or `podman`."""
        image = self._images[container.program]
        first, *rest = container.entrypoint or image.config["Entrypoint"]
        mounts = [(str(container.root), "/opt/ml"), *self._torch.mounts(container.program)]
        inherited = dict(item.split("=", 1) for item in image.config.get("Env") or []).get("PYTHONPATH", "")
        variables = {**container.environment, **self._torch.variables(container.program, inherited)}
        if container.network:
            reach = ["--network", container.network.joins[0], "--network-alias", container.host]
        else:  # a server: its port, on this machine's loopback only
            port = variables["SAGEMAKER_BIND_TO_PORT"]
            variables["BIND_ADDRESS"] = "0.0.0.0"
            reach = ["--publish", f"127.0.0.1:{port}:{port}"]
        options = [f"--volume={source}:{target}" for source, target in mounts]
        options += [f"--env={key}={value}" for key, value in variables.items()]
        return [
            *("run", "--rm", "--name", name, "--hostname", container.host, *reach, *options),
            *("--entrypoint", first, image.name, *rest, *container.arguments),
        ]

    def close(self) -> None:
        """Each container is removed by its keeper."""
