"""What runs a container, said without saying how."""

from __future__ import annotations

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
OnLine = Callable[[str], object]


class ContainerError(KennelError):
    """A container could not be made or started; the text says why."""


@dataclass(frozen=True)
class Network:
    """What the hosts of one job share. `joins`: files of the namespaces to enter, or the name of a container
    engine's network; empty: the machine's own network."""

    joins: tuple[str, ...] = ()
    interface: str = "lo"
    environment: Mapping[str, str] = field(default_factory=dict)  # how hosts find each other where names do not


@dataclass(frozen=True, kw_only=True)
class Container:
    """One container. `root` is seen as /opt/ml inside; `arguments` follow the image's ENTRYPOINT.

    `entrypoint` replaces the image's own, as a processing job's ContainerEntrypoint does. `network` None: the
    machine's own network, on which a server can be asked.
    """

    program: Program
    root: Path
    arguments: Sequence[str] = ()
    entrypoint: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    network: Network | None = None
    host: str = "algo-1"
    hosts: Sequence[str] = ("algo-1",)
    on_line: OnLine = field(default=lambda line: None)


class ContainerEngine(Protocol):
    """`isolates` says whether a job's network is cut off for real; `notice` is what its user should know, or empty."""

    name: str
    isolates: bool
    notice: str

    def network(self) -> AbstractContextManager[Network]:
        """A network for the hosts of one job, cut off from everything else where the engine can."""

    def start(self, container: Container) -> Process:
        """Start it; raises ContainerError when that is impossible."""

    def close(self) -> None:
        """Remove what the engine keeps between containers."""
