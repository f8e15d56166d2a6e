"""What this host's processor and devices offer, and which workers SageMaker's resourceconfig.json puts on which host.

It does not load torch.
"""

import math
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import TrainingError

DEVICES = Path("/dev")
NODES = Path("/sys/devices/system/node")  # Linux: one folder for each NUMA node
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: microseconds of CPU and the period in which they may be used
CUDA_COMPAT = Path("/usr/local/cuda/compat")
CUDA_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Cluster:
    """All hosts of the job in one order, the current one, and how its workers run and talk."""

    hosts: tuple[str, ...]
    current: str
    workers: int  # on each host
    threads: int  # of each worker; 0: let the libraries choose
    interface: str  # of the network; empty: let the libraries choose
    address: str  # of the first host
    port: int  # of the first host, where all workers meet

    @property
    def node_rank(self) -> int:
        """This host's number, from 0."""
        return self.hosts.index(self.current)

    @property
    def world_size(self) -> int:
        """The number of workers on all hosts together."""
        return len(self.hosts) * self.workers

    def environment(self) -> dict[str, str]:
        """Return the environment variables that all workers of this host have in common."""
        variables = {"SM_CURRENT_HOST": self.current}
        if self.world_size == 1:
            variables |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        if self.interface:
            variables |= {"GLOO_SOCKET_IFNAME": self.interface, "NCCL_SOCKET_IFNAME": self.interface}
        if self.threads:
            variables["OMP_NUM_THREADS"] = str(self.threads)
        return variables


def read_cluster(resources: Mapping[str, Any], environment: Mapping[str, str]) -> Cluster:
    """Return the cluster that resourceconfig.json describes; an empty one means one host, this one.

    Raise TrainingError if the current host is none of the hosts, or MASTER_PORT is no port.
    """
    current = resources.get("current_host", "localhost")
    # Sorted: every host must number the workers alike, whatever order its own file has.
    hosts = tuple(sorted(resources.get("hosts") or [current]))
    if current not in hosts:
        raise TrainingError(f"resourceconfig.json names the current host {current!r}, which is none of {list(hosts)}.")
    alone = len(hosts) == 1
    address = "127.0.0.1" if alone else environment.get("MASTER_ADDR", hosts[0])
    interface = "lo" if address == "127.0.0.1" else str(resources.get("network_interface_name", ""))
    if interface not in {name for _, name in socket.if_nameindex()}:
        interface = ""
    cpus = worker_cpus(environment)
    threads = 0 if "OMP_NUM_THREADS" in environment else _threads(cpus)
    port = _port(environment)
    return Cluster(hosts, current, len(cpus), threads, interface, address, _free_port() if alone else port)


def process_group_timeout() -> float:
    """Return for how many seconds hosts and workers wait for each other: PROCESS_GROUP_TIMEOUT_SECONDS, or 600."""
    # Hosts start as far apart as their images and data take to come.
    return float(os.environ.get("PROCESS_GROUP_TIMEOUT_SECONDS") or 600)


def worker_cpus(environment: Mapping[str, str]) -> tuple[frozenset[int], ...]:
    """Return the CPUs of each worker of this host: one worker for each GPU, or for each NUMA node that may be used.

    An empty set stands for any CPU: on hosts with GPUs, and for the only worker of a host without.
    """
    gpus = _gpus(environment)
    if gpus:
        return (frozenset(),) * gpus
    allowed = frozenset(os.sched_getaffinity(0))
    nodes = [
        _cpus(node / "cpulist") & allowed
        for node in sorted(NODES.glob("node[0-9]*"), key=lambda node: int(node.name[4:]))
    ]
    groups = tuple(node for node in nodes if node)  # some nodes hold nothing but memory
    return groups if len(groups) > 1 and frozenset.union(*groups) == allowed else (frozenset(),)


def bind_to_numa_node(environment: Mapping[str, str]) -> None:
    """Bind this worker to the CPUs of its NUMA node. (torchrun's --numa-binding is for GPUs only.)"""
    cpus = worker_cpus(environment)
    local_rank = int(environment.get("LOCAL_RANK", "0"))
    if environment.get("LOCAL_WORLD_SIZE", "1") == str(len(cpus)) and cpus[local_rank]:
        os.sched_setaffinity(0, cpus[local_rank])


def cuda_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return LD_LIBRARY_PATH with CUDA's compatibility libraries first if they are newer than the host's driver.

    The base image's own entry point would have done it, which ours replaces.
    """
    library = CUDA_COMPAT / "libcuda.so.1"
    if not library.exists() or not CUDA_DRIVER.is_file():
        return {}
    driver, ours = _version(CUDA_DRIVER.read_text(encoding="utf-8")), _version(library.resolve().name)
    if not driver or driver >= ours:
        return {}
    return {"LD_LIBRARY_PATH": ":".join(filter(None, [str(CUDA_COMPAT), variables.get("LD_LIBRARY_PATH")]))}


def _port(environment: Mapping[str, str]) -> int:
    text = environment.get("MASTER_PORT", "29500")
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise TrainingError(f"MASTER_PORT must be a port from 1 to 65535, not {text!r}.")
    return int(text)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _gpus(environment: Mapping[str, str]) -> int:
    """Count this host's GPUs as the driver's device files show them, or as CUDA_VISIBLE_DEVICES limits them."""
    devices = [file for file in DEVICES.glob("nvidia*") if re.fullmatch(r"nvidia\d+", file.name)]
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and devices:
        return len([one for one in visible.split(",") if one.strip() not in ("", "-1")])
    return len(devices)


def _threads(cpus: tuple[frozenset[int], ...]) -> int:
    """Return the threads of each worker; 0 (the libraries know best) for one worker that may use all CPUs."""
    allowed, quota = len(os.sched_getaffinity(0)), _quota()
    if len(cpus) == 1 and quota >= allowed:
        return 0
    smallest = min(len(group) or allowed // len(cpus) for group in cpus)
    return max(1, min(smallest, math.ceil(quota / len(cpus))))


def _quota() -> float:
    """Return how many CPUs' time this container may use; infinite where nothing says so."""
    try:
        limit, period = QUOTA.read_text(encoding="utf-8").split()
        return int(limit) / int(period)
    except (OSError, ValueError):  # "max" is no limit
        return 1e9


def _cpus(file: Path) -> frozenset[int]:
    """Parse the kernel's list of CPUs, "0-3,8-11"; nothing where it cannot be read."""
    try:
        parts = [part.split("-") for part in file.read_text(encoding="utf-8").strip().split(",") if part]
        return frozenset(cpu for part in parts for cpu in range(int(part[0]), int(part[-1]) + 1))
    except (OSError, ValueError):
        return frozenset()


def _version(text: str) -> tuple[int, ...]:
    """Return the first dotted number with a major version of three digits, as drivers have: 580.95.05."""
    found = re.search(r"\b(\d{3}(?:\.\d+)+)\b", text)
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def cores() -> int:
    """Return how many cores this process may keep busy; OMP_NUM_THREADS limits them where workers share a host."""
    allowed = len(os.sched_getaffinity(0))
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(allowed, int(limit)) if limit.isdecimal() and int(limit) else allowed


def cpu_flags() -> frozenset[str]:
    """Return the instruction sets of the first core under Linux's names; empty where /proc/cpuinfo has none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


def supports_bfloat16() -> bool:
    """Return whether bfloat16 has instructions of its own; emulated it is four times slower than float32."""
    return bool({"amx_bf16", "avx512_bf16"} & cpu_flags())


def prefers_int8() -> bool:
    """Return whether int8 is this processor's fastest precision: VNNI is faster than AVX-512's bfloat16, not AMX's."""
    flags = cpu_flags()
    return "amx_bf16" not in flags and bool({"avx512_vnni", "avx_vnni"} & flags)
