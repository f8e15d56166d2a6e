"""Containers without a file system of their own: an image's program in namespaces of its own, or as a bare process."""

import contextlib
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kennel.rehearsal.containers import supervisor
from kennel.rehearsal.containers.engine import (
    REPOSITORY,
    Container,
    ContainerEngine,
    ContainerError,
    Network,
    Process,
)

_PRIVATE = supervisor.NEWNS | supervisor.NEWUTS | supervisor.NEWPID
_READY_S = 60.0


def pick_engine() -> ContainerEngine:
    """Return the engine of private namespaces where this machine allows them, else the one of bare processes."""
    with tempfile.TemporaryDirectory(prefix="kennel-") as folder:
        engine = NamespaceEngine()
        return engine if engine.works(Path(folder)) else ProcessEngine()


class _Programs(ContainerEngine):
    """Images as folders: a program runs from the build context of its image, with this environment's packages.

    Before any image is built, every container runs the program of this checkout.
    """

    def __init__(self) -> None:
        self._contexts: dict[str, Path] = {}

    def build(self, tag: str, context: Path) -> None:
        self._contexts[tag] = context

    def folder(self, container: Container) -> Path:
        """Return the folder in which the container's program is a package; raise ContainerError for no such image."""
        if not self._contexts:
            return REPOSITORY
        context = self._contexts.get(container.image.rpartition(":")[2])
        if context is None:
            raise ContainerError(f"There is no image {container.image!r}.")
        # The Dockerfiles copy the build context to a folder of the program's name.
        with contextlib.suppress(FileExistsError):
            (context.parent / container.program).symlink_to(context.name)
        return context.parent


class ProcessEngine(_Programs):
    """Bare processes, for machines that refuse namespaces: OPT_ML instead of /opt/ml, and the machine's own network."""

    name = "processes"
    notice = "This machine refuses private namespaces: jobs see its network, and OPT_ML stands in for /opt/ml."

    @contextmanager
    def network(self) -> Iterator[Network]:
        """Return no network of its own, only a free port on which the hosts of one job find each other."""
        yield Network(environment={"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())})

    def start(self, container: Container) -> Process:
        folder = self.folder(container)
        environment = {**_environment(container, folder), "OPT_ML": str(container.root)}
        return Process(_command(container), environment=environment, cwd=folder, on_line=container.on_line)


class NamespaceEngine(_Programs):
    """Each container in PID, mount and UTS namespaces; the hosts of a job in one network that has only loopback."""

    name = "namespaces"
    notice = ""

    def __init__(self, *, user: bool | None = None) -> None:
        """`user`: use a user namespace too, which needs no root; None: when this process is not root."""
        super().__init__()
        self._user = supervisor.NEWUSER if (os.geteuid() != 0 if user is None else user) else 0

    @contextmanager
    def network(self) -> Iterator[Network]:
        spaces = ("user", "net") if self._user else ("net",)
        ready = threading.Event()
        holder = Process(
            [],
            environment={},
            cwd=REPOSITORY,
            on_line=lambda line: ready.set() if line == "ready" else None,
            isolation={"namespaces": self._user | supervisor.NEWNET},
        )
        try:
            while not ready.wait(0.02):
                if holder.poll() is not None:
                    holder.wait()  # for the rest of its output
                    raise ContainerError(f"A private network could not be made: {holder.log}")
            yield Network(joins=tuple(f"/proc/{holder.pid}/ns/{space}" for space in spaces))
        finally:
            holder.kill()

    def start(self, container: Container) -> Process:
        folder = self.folder(container)
        return Process(
            _command(container),
            environment=_environment(container, folder),
            cwd=folder,
            on_line=container.on_line,
            isolation=self.isolation(container),
        )

    def isolation(self, container: Container) -> dict[str, Any]:
        """Return what the supervisor's spec says of this container's namespaces and mounts."""
        beside = container.root.with_name(container.root.name + ".host")
        (beside / "scratch").mkdir(parents=True, exist_ok=True)
        hosts_file = beside / "hosts"
        hosts_file.write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", *container.hosts)))
        joins = container.network.joins if container.network else ()
        return {
            "namespaces": _PRIVATE | (0 if joins else self._user),
            "join": joins,
            "host": container.host,
            "mounts": [(str(hosts_file), "/etc/hosts"), (str(container.root), "/opt/ml")],
            "scratch": str(beside / "scratch"),
        }

    def works(self, scratch: Path) -> bool:
        """Return whether this machine allows namespaces, by starting a container in `scratch`."""
        (scratch / "ml").mkdir(parents=True, exist_ok=True)
        probe = ("sh", "-c", "test -d /opt/ml && test -d /proc/1")
        try:
            with self.network() as network:
                container = Container(program="training", root=scratch / "ml", entrypoint=probe, network=network)
                return self.start(container).wait(_READY_S) == 0
        except ContainerError:
            return False


def free_port() -> int:
    """Return a port of the loopback interface on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _command(container: Container) -> Sequence[str]:
    entrypoint = container.entrypoint or ("python3", "-m", container.program)
    interpreter = sys.executable if entrypoint[0] in ("python", "python3") else entrypoint[0]
    return (interpreter, *entrypoint[1:], *container.arguments)


def _environment(container: Container, folder: Path) -> dict[str, str]:
    """Return a container's environment: nothing of this process's but where programs are."""
    home = container.root.with_name(container.root.name + ".home")
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(folder),
        "PYTHONUNBUFFERED": "1",
        **container.environment,
        **(container.network.environment if container.network else {}),
    }
