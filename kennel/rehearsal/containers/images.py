"""Builds the images of training/ and inference/, and runs containers from them with docker, podman or buildah."""

import atexit
import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from kennel.rehearsal.containers.engine import Container, ContainerEngine, ContainerError, Network, Process
from kennel.rehearsal.containers.local import NamespaceEngine

# The Python of this machine, since torch is not in the training image but mounted from here.
DEFAULT_BASE = f"public.ecr.aws/docker/library/python:{sys.version_info[0]}.{sys.version_info[1]}-slim"
_NOTICE = "torch is mounted into the training image, which in the cloud has it from its base."
_BUILD_S = 1800
_PIP_FILES = ("/etc/ssl/certs", "/etc/pip.conf")  # what pip needs of this machine to reach its package index
_MOUNTED = "/opt/kennel"  # where the containers see torch and the hook that finds it
# After the image's own packages, so that only packages that the image lacks come from here.
_HOOK = f'import sys\nsys.path.append("{_MOUNTED}/packages")\n'


def image_engine(scratch: Path, base: str | None = None) -> ContainerEngine:
    """Return an engine that builds images on `base` (None: DEFAULT_BASE) and runs them; raise ContainerError.

    The folder `scratch` must outlive the engine.
    """
    tool = Tool.find()
    kind = BuildahEngine if tool.name == "buildah" else DockerEngine
    return kind(tool, base or DEFAULT_BASE, scratch)


@dataclass(frozen=True)
class Tool:
    name: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def find(cls) -> Self:
        """Return the first of the three that works on this machine; raise ContainerError when none does."""
        # buildah's chroot isolation needs no OCI runtime.
        for tool in (cls("docker"), cls("podman"), cls("buildah", {"BUILDAH_ISOLATION": "chroot"})):
            if shutil.which(tool.name) and tool.succeeds("info"):
                return tool
        raise ContainerError(
            "--images needs a container engine: start Docker, or install podman or buildah (apt-get install buildah)."
        )

    def succeeds(self, *arguments: str) -> bool:
        return self._run(arguments, 60).returncode == 0

    def run(self, *arguments: str, timeout: float = 120) -> str:
        """Return what the command prints; raise ContainerError with the end of its output when it fails."""
        done = self._run(arguments, timeout)
        if done.returncode:
            raise ContainerError(f"{self.name} {arguments[0]} failed:\n{(done.stderr or done.stdout)[-2000:]}")
        return done.stdout.strip()

    def image_config(self, name: str) -> Mapping[str, Any] | None:
        """Return the OCI configuration of the image `name`, or None when this machine has no such image."""
        buildah = self.name == "buildah"
        done = self._run(("inspect", "--type", "image", name) if buildah else ("image", "inspect", name), 60)
        if done.returncode:
            return None
        found = json.loads(done.stdout)
        config: Mapping[str, Any] = found["OCIv1"]["config"] if buildah else found[0]["Config"]
        return config

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

    @property
    def environment(self) -> dict[str, str]:
        return dict(item.split("=", 1) for item in self.config.get("Env") or [])


def build(tool: Tool, context: Path, base: str) -> Image:
    """Return the image of the folder `context` on `base`; build it unless there is one of the same files.

    Building takes a minute or more. Raise ContainerError when it fails.
    """
    name = f"localhost/kennel:{digest(context, base)}"
    config = tool.image_config(name)
    if config is None:
        # docker build has no --volume.
        files = [f"--volume={path}:{path}:ro" for path in _PIP_FILES if tool.name != "docker" and Path(path).exists()]
        options = ("--network=host", f"--build-arg=BASE={base}", *files, "--tag", name)
        try:
            tool.run("build", *options, str(context), timeout=_BUILD_S)
        except ContainerError as error:
            raise ContainerError(f"{error}\nThe base was {base}; --base-image takes another one.") from None
        config = tool.image_config(name)
    return Image(name, config or {})


def digest(context: Path, base: str) -> str:
    """Return 16 hex digits over the base and the names and contents of the files in `context`."""
    found = hashlib.sha256(base.encode())
    for path in sorted(context.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            found.update(f"{path.relative_to(context)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()[:16]


class _ImageEngine(ContainerEngine):
    """Images that a container engine builds on `base`; `images` are those built so far, by tag.

    The training image gets torch from this machine, which in the cloud it has from its base.
    """

    notice = _NOTICE

    def __init__(self, tool: Tool, base: str, scratch: Path) -> None:
        self._tool, self._base = tool, base
        self.name = f"images ({tool.name})"
        self.images: dict[str, Image] = {}
        found = importlib.util.find_spec("torch")
        if not found or not found.origin:
            raise ContainerError("The training image needs torch from this environment: make env")
        hook = scratch / "hook"
        hook.mkdir(parents=True, exist_ok=True)
        (hook / "sitecustomize.py").write_text(_HOOK)
        self._torch = [(str(hook), f"{_MOUNTED}/hook"), (str(Path(found.origin).parents[1]), f"{_MOUNTED}/packages")]

    def mounts(self, container: Container) -> list[tuple[str, str]]:
        """Return (folder of this machine, folder in the container) pairs."""
        return self._torch if container.program == "training" else []

    def environment(self, container: Container, image: Image) -> dict[str, str]:
        """Return the variables of the container on top of the image's own."""
        if container.program != "training":
            return {**container.environment}
        path = os.pathsep.join(filter(None, [image.environment.get("PYTHONPATH", ""), f"{_MOUNTED}/hook"]))
        return {"PYTHONPATH": path, **container.environment}

    def build(self, tag: str, context: Path) -> None:
        self.images[tag] = build(self._tool, context, self._base)

    def image_of(self, container: Container) -> Image:
        tag = container.image.rpartition(":")[2]
        if tag not in self.images:
            raise ContainerError(f"There is no image {container.image!r}.")
        return self.images[tag]


class BuildahEngine(_ImageEngine):
    """Containers whose file systems buildah makes and whose processes run in namespaces of this program's own.

    `buildah run` does not forward SIGTERM, which spot interruptions and a server's shutdown need.
    """

    def __init__(self, tool: Tool, base: str, scratch: Path) -> None:
        if os.geteuid():
            raise ContainerError("buildah needs root here; without it use docker or podman.")
        super().__init__(tool, base, scratch)
        self._namespaces = NamespaceEngine()
        self._containers: list[tuple[str, Process]] = []
        atexit.register(self.close)

    def network(self) -> AbstractContextManager[Network]:
        return self._namespaces.network()

    def start(self, container: Container) -> Process:
        self._remove([one for one in self._containers if one[1].poll() is not None])
        image = self.image_of(container)
        name = self._tool.run("from", "--pull-never", image.name)
        isolation = self._namespaces.isolation(container)
        mounts = [("/dev", "/dev"), ("/sys", "/sys"), *self.mounts(container)]
        isolation |= {"root": self._tool.run("mount", name), "mounts": [*isolation["mounts"], *mounts]}
        process = Process(
            [*(container.entrypoint or image.config["Entrypoint"]), *container.arguments],
            environment={"HOME": "/root", **image.environment, **self.environment(container, image)},
            cwd=Path(image.config.get("WorkingDir") or "/"),
            on_line=container.on_line,
            isolation=isolation,
        )
        self._containers.append((name, process))
        return process

    def close(self) -> None:
        self._remove([*self._containers])
        atexit.unregister(self.close)

    def _remove(self, containers: Sequence[tuple[str, Process]]) -> None:
        for container in containers:
            with contextlib.suppress(ValueError):  # another thread was quicker
                self._containers.remove(container)
                self._tool.succeeds("rm", container[0])


class DockerEngine(_ImageEngine):
    @contextmanager
    def network(self) -> Iterator[Network]:
        name = f"kennel-{uuid.uuid4().hex[:12]}"
        self._tool.run("network", "create", "--internal", name)
        try:
            yield Network(joins=(name,), interface="eth0")
        finally:
            self._tool.succeeds("network", "rm", name)

    def start(self, container: Container) -> Process:
        name = f"kennel-{uuid.uuid4().hex[:12]}"
        return Process(
            [self._tool.name, *self.arguments(container, name)],
            environment={**os.environ, **self._tool.environment},
            cwd=Path("/"),
            on_line=container.on_line,
            # The engine's daemon runs the container: it would go on when only its client ends.
            isolation={"afterwards": [self._tool.name, "rm", "--force", name]},
        )

    def arguments(self, container: Container, name: str) -> list[str]:
        image = self.image_of(container)
        first, *rest = container.entrypoint or image.config["Entrypoint"]
        mounts = [(str(container.root), "/opt/ml"), *self.mounts(container)]
        variables = self.environment(container, image)
        if container.network:
            network = ["--network", container.network.joins[0], "--network-alias", container.host]
        else:  # a server: publish its port on this machine's loopback interface only
            port = variables["SAGEMAKER_BIND_TO_PORT"]
            variables["BIND_ADDRESS"] = "0.0.0.0"
            network = ["--publish", f"127.0.0.1:{port}:{port}"]
        options = [f"--volume={source}:{target}" for source, target in mounts]
        options += [f"--env={key}={value}" for key, value in variables.items()]
        return [
            *("run", "--rm", "--name", name, "--hostname", container.host, *network, *options),
            *("--entrypoint", first, image.name, *rest, *container.arguments),
        ]
