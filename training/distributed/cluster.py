"""Which workers run where, from SageMaker's resourceconfig.json and this host's devices. Does not load torch."""

import fcntl
import math
import os
import re
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import TrainingError

DEVICES = Path("/dev")
NODES = Path("/sys/devices/system/node")  # Linux: one folder a NUMA node
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: microseconds of CPU and the period in which they may be used
_SIOCGIFADDR = 0x8915  # linux/sockios.h


@dataclass(frozen=True)
class Cluster:
    """All hosts of the job in one order, this host's place, its workers and their network."""

    hosts: tuple[str, ...]
    current: str
    groups: tuple[frozenset[int], ...]  # the CPUs of each worker; an empty group: whatever there is
    threads: tuple[int, ...]  # of each worker; empty: let the libraries choose
    interface: str  # empty: let the libraries choose
    address: str  # of the first host
    port: int

    @property
    def workers(self) -> int:
        return len(self.groups)

    @property
    def place(self) -> int:
        return self.hosts.index(self.current)

    def rank(self, local: int) -> int:
        return self.place * self.workers + local

    def environment(self, local: int, port: int) -> dict[str, str]:
        """Return torchrun's variables for one worker; the workers meet at `port` of the first host."""
        variables = {
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(port),
            "RANK": str(self.rank(local)),
            "LOCAL_RANK": str(local),
            "GROUP_RANK": str(self.place),
            "WORLD_SIZE": str(len(self.hosts) * self.workers),
            "LOCAL_WORLD_SIZE": str(self.workers),
        }
        if self.interface:
            variables |= {"GLOO_SOCKET_IFNAME": self.interface, "NCCL_SOCKET_IFNAME": self.interface}
        if self.threads:
            variables["OMP_NUM_THREADS"] = str(self.threads[local])
        return variables


def read_cluster(resources: Mapping[str, Any], environment: Mapping[str, str]) -> Cluster:
    """Raises TrainingError if the hosts and this host do not go together. No file means one host, this one."""
    current = resources.get("current_host", "localhost")
    # Sorted: every host must number the workers alike, whatever order its own file has.
    hosts = tuple(sorted(resources.get("hosts") or [current]))
    if current not in hosts:
        raise TrainingError(f"resourceconfig.json names the current host {current!r}, which is none of {list(hosts)}.")
    alone = len(hosts) == 1
    interface = "lo" if alone else str(resources.get("network_interface_name", ""))
    if interface not in {name for _, name in socket.if_nameindex()}:
        interface = ""
    address = "127.0.0.1" if alone else environment.get("MASTER_ADDR", hosts[0])
    groups = _groups(environment)
    threads = () if "OMP_NUM_THREADS" in environment else _threads(groups)
    return Cluster(hosts, current, groups, threads, interface, address, _port(environment))


def interface_of(address: str) -> str:
    """Return the network interface that has this IPv4 address, or nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(any_socket, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has none
                continue
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return ""


def _port(environment: Mapping[str, str]) -> int:
    text = environment.get("MASTER_PORT", "29500")
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise TrainingError(f"MASTER_PORT must be a port from 1 to 65535, not {text!r}.")
    return int(text)


def _groups(environment: Mapping[str, str]) -> tuple[frozenset[int], ...]:
    """Return one empty group a GPU, else one group a NUMA node that this process may use, else one empty group."""
    gpus = _gpus(environment)
    if gpus:
        return (frozenset(),) * gpus
    allowed = _allowed()
    nodes = [_cpus(node / "cpulist") & allowed for node in sorted(NODES.glob("node[0-9]*"), key=_number)]
    groups = tuple(node for node in nodes if node)  # some nodes hold nothing but memory
    return groups if len(groups) > 1 and frozenset.union(*groups) == allowed else (frozenset(),)


def _gpus(environment: Mapping[str, str]) -> int:
    """Count this host's GPUs as the driver's device files show them, or as CUDA_VISIBLE_DEVICES limits them."""
    devices = [file for file in DEVICES.glob("nvidia*") if re.fullmatch(r"nvidia\d+", file.name)]
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and devices:
        return len([one for one in visible.split(",") if one.strip() not in ("", "-1")])
    return len(devices)


def _threads(groups: tuple[frozenset[int], ...]) -> tuple[int, ...]:
    """Return the threads of each worker; none (the libraries know best) for one worker that may use all CPUs."""
    allowed, quota = len(_allowed()), _quota()
    if len(groups) == 1 and quota >= allowed:
        return ()
    share = math.ceil(quota / len(groups))
    return tuple(max(1, min(len(group) or allowed // len(groups), share)) for group in groups)


def _quota() -> float:
    """Return how many CPUs' time this container may use; infinite where nothing says so."""
    try:
        limit, period = QUOTA.read_text(encoding="utf-8").split()
        return int(limit) / int(period)
    except (OSError, ValueError):  # "max" is no limit
        return 1e9


def _allowed() -> frozenset[int]:
    return frozenset(os.sched_getaffinity(0))


def _number(node: Path) -> int:
    return int(node.name.removeprefix("node"))


def _cpus(file: Path) -> frozenset[int]:
    """Parse the kernel's list of CPUs, "0-3,8-11"; nothing where it cannot be read."""
    try:
        parts = [part.split("-") for part in file.read_text(encoding="utf-8").strip().split(",") if part]
        return frozenset(cpu for part in parts for cpu in range(int(part[0]), int(part[-1]) + 1))
    except (OSError, ValueError):
        return frozenset()
