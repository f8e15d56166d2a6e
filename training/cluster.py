"""Which workers run where, from SageMaker's resourceconfig.json. Does not load torch."""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import TrainingError


@dataclass(frozen=True)
class Cluster:
    """All hosts of the job in one order, this host's place, its workers (one a GPU, else one) and its network."""

    hosts: tuple[str, ...]
    current: str
    workers: int
    interface: str  # empty: let the libraries choose
    address: str
    port: str

    def rank(self, local: int) -> int:
        return self.hosts.index(self.current) * self.workers + local

    def environment(self, local: int) -> dict[str, str]:
        """Return torch.distributed's variables for one worker."""
        variables = {
            "MASTER_ADDR": self.address,
            "MASTER_PORT": self.port,
            "RANK": str(self.rank(local)),
            "LOCAL_RANK": str(local),
            "WORLD_SIZE": str(len(self.hosts) * self.workers),
        }
        if self.interface:
            variables |= {"GLOO_SOCKET_IFNAME": self.interface, "NCCL_SOCKET_IFNAME": self.interface}
        return variables


def read_cluster(resources: Mapping[str, Any], environment: Mapping[str, str]) -> Cluster:
    """Raises TrainingError if the hosts and this host do not go together. No file means one host, this one."""
    current = resources.get("current_host", "localhost")
    # Sorted: every host must number the workers alike, whatever order its own file has.
    hosts = tuple(sorted(resources.get("hosts") or [current]))
    if current not in hosts:
        raise TrainingError(f"resourceconfig.json names the current host {current!r}, which is none of {list(hosts)}.")
    interface = resources.get("network_interface_name", "") if len(hosts) > 1 else ""
    if interface not in {name for _, name in socket.if_nameindex()}:
        interface = ""
    alone = "127.0.0.1" if len(hosts) == 1 else hosts[0]
    address = environment.get("MASTER_ADDR", alone)
    return Cluster(hosts, current, _workers(environment), interface, address, environment.get("MASTER_PORT", "29500"))


def _workers(environment: Mapping[str, str]) -> int:
    """Count this host's GPUs as the driver's device files show them, or as CUDA_VISIBLE_DEVICES limits them."""
    devices = [file for file in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", file.name)]
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and devices:
        return max(1, len([one for one in visible.split(",") if one.strip() not in ("", "-1")]))
    return max(1, len(devices))
