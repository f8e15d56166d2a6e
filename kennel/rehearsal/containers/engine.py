"""The interface of a container engine: containers, their network, and the supervised processes that they run as."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import kennel
from kennel.errors import KennelError

REPOSITORY = Path(kennel.__file__).resolve().parents[1]
_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_LINE = 64 * 1024  # bytes; a longer line arrives in pieces
_TAIL = 60  # lines

Program = Literal["training", "inference"]


class ContainerError(KennelError):
    """A container could not be created or started; the text says why."""


@dataclass(frozen=True)
class Network:
    """The network that the hosts of one job share.

    `joins` are the files of namespaces to enter, or the name of a container engine's network; empty: the machine's
    own network. `environment` says how hosts find each other where their names do not resolve.
    """

    joins: tuple[str, ...] = ()
    interface: str = "lo"
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Container:
    """One container. The folder `root` is its /opt/ml; `arguments` follow the image's ENTRYPOINT.

    `image` is its URI, of which the tag counts. `entrypoint` replaces the image's own, as a processing job's
    ContainerEntrypoint does. `network` None: the machine's own network, on which a server can be called.
    """

    program: Program
    root: Path
    image: str = ""
    arguments: Sequence[str] = ()
    entrypoint: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    network: Network | None = None
    host: str = "algo-1"
    hosts: Sequence[str] = ("algo-1",)
    on_line: Callable[[str], object] = field(default=lambda line: None)


class Process:
    """One program under supervisor.py: its output line by line, its end by SIGTERM or SIGKILL, never an orphan.

    `on_line` is called with each line, in a thread of this object's own.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        cwd: Path,
        on_line: Callable[[str], object] = lambda line: None,
        isolation: Mapping[str, Any] | None = None,
        output: int | None = None,
    ) -> None:
        """`output`: a file descriptor that takes standard output and error, in place of `on_line` and `log`."""
        spec: dict[str, Any] = {"command": [*command], "environment": {**environment}, "cwd": str(cwd)}
        spec |= {"namespaces": 0, "join": [], "root": "", "mounts": [], "afterwards": [], **(isolation or {})}
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._on_line = on_line
        self._stdin_lock = threading.Lock()
        self._supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SUPERVISOR)],
            # Not this process's environment: the program could read it from the supervisor.
            env={"PATH": os.environ.get("PATH", os.defpath)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if output is None else output,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._send(json.dumps(spec).encode() + b"\n")

    @property
    def pid(self) -> int:
        """The supervisor's process id; other containers may join its namespaces."""
        return self._supervisor.pid

    @property
    def log(self) -> str:
        return "\n".join(self._tail.copy())

    def poll(self) -> int | None:
        """Return the exit code (128 + n for signal n), or None while the program runs."""
        return self._supervisor.poll()

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit code once all output has been passed on, or None after `timeout` seconds."""
        try:
            code = self._supervisor.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        self._close()
        return code

    def terminate(self) -> None:
        """Send SIGTERM to the program; do nothing when it has ended."""
        self._send(b"T")

    def kill(self) -> None:
        """Kill the program and all that it started; return when they are gone."""
        with self._stdin_lock, contextlib.suppress(OSError):
            assert self._supervisor.stdin
            self._supervisor.stdin.close()
        self._supervisor.wait()
        self._close()

    def stop(self, grace: float) -> int:
        """Send SIGTERM, then SIGKILL after `grace` seconds; return the exit code."""
        self.terminate()
        code = self.wait(grace)
        if code is None:
            self.kill()
            code = self._supervisor.wait()
        return code

    def _send(self, message: bytes) -> None:
        with self._stdin_lock, contextlib.suppress(OSError, ValueError):  # the supervisor has ended, or was told to
            assert self._supervisor.stdin
            self._supervisor.stdin.write(message)

    def _close(self) -> None:
        # A descendant that left the group may hold the pipe open: its output is not worth waiting for.
        self._reader.join(2.0)
        with self._stdin_lock, contextlib.suppress(OSError):
            assert self._supervisor.stdin
            self._supervisor.stdin.close()

    def _read(self) -> None:
        output = self._supervisor.stdout
        if output is None:
            return
        with output, open(output.fileno(), "rb", buffering=_LINE, closefd=False) as stream:
            while line := stream.readline(_LINE):
                text = line.decode("utf-8", errors="replace").rstrip("\r\n")
                self._tail.append(text)
                self._on_line(text)


class ContainerEngine(Protocol):
    """Builds images and starts containers; `notice` tells the user of limits."""

    name: str
    notice: str

    def build(self, tag: str, context: Path) -> None:
        """Make the image `tag` of a Dockerfile's folder, which must outlive the engine; raise ContainerError."""

    def network(self) -> AbstractContextManager[Network]:
        """Return a network for the hosts of one job, cut off from everything else where the engine can."""

    def start(self, container: Container) -> Process:
        """Start `container`; raise ContainerError when that is impossible."""

    def close(self) -> None:
        """Remove what the engine has created, which by default is nothing."""
        return
