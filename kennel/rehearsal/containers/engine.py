"""The interface of a container engine: the container that it starts and the network that it provides."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import kennel
from kennel.errors import KennelError
from kennel.rehearsal.containers.process import Process

REPOSITORY = Path(kennel.__file__).resolve().parents[1]

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

    `entrypoint` replaces the image's own, as a processing job's ContainerEntrypoint does. `network` None: the
    machine's own network, on which a server can be called.
    """

    program: Program
    root: Path
    arguments: Sequence[str] = ()
    entrypoint: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    network: Network | None = None
    host: str = "algo-1"
    hosts: Sequence[str] = ("algo-1",)
    on_line: Callable[[str], object] = field(default=lambda line: None)


class ContainerEngine(Protocol):
    """Starts containers. `isolates` is true when a job's network is cut off; `notice` tells the user of limits."""

    name: str
    isolates: bool
    notice: str

    def network(self) -> AbstractContextManager[Network]:
        """Return a network for the hosts of one job, cut off from everything else where the engine can."""

    def start(self, container: Container) -> Process:
        """Start `container`; raise ContainerError when that is impossible."""

    def close(self) -> None:
        """Remove what the engine has created, which by default is nothing."""
        return
