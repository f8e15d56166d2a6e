"""What any job finds below /opt/ml, and how it says that it failed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kennel.rehearsal.jobs.events import JobFailed
from kennel.rehearsal.jobs.hosts import Outcome

_OPT_ML = "/opt/ml"


def resource_config(instance_type: str, hosts: Sequence[str], host: str, interface: str = "lo") -> dict[str, Any]:
    """resourceconfig.json of `host`."""
    group = "homogeneousCluster"
    return {
        "current_host": host,
        "current_instance_type": instance_type,
        "current_group_name": group,
        "hosts": [*hosts],
        "instance_groups": [{"instance_group_name": group, "instance_type": instance_type, "hosts": [*hosts]}],
        "network_interface_name": interface,
    }


def core_share(hosts: int) -> dict[str, str]:
    """Variables that give each of several hosts on this machine its share of the cores.

    Without them every host's OpenMP threads would wait, spinning, for threads that another host keeps from running.
    """
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // hosts))} if hosts > 1 else {}


def write_config(folder: Path, files: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1))


def inside(root: Path, path: str) -> Path:
    """Where a container's /opt/ml/... lies on this machine."""
    if not path.startswith(f"{_OPT_ML}/") or ".." in path:
        raise JobFailed(f"ClientError: the path {path!r} must lie under {_OPT_ML}/.")
    return root / path.removeprefix(f"{_OPT_ML}/")


def check_outcome(outcome: Outcome, limit_s: float, written: str) -> None:
    """Raise JobFailed unless the job ended by itself and well; `written`: what it said of its failure."""
    if outcome.ended_by == "timeout":
        raise JobFailed(f"MaxRuntimeExceeded: the job was stopped after its {limit_s:g} s (MaxRuntimeInSeconds).")
    if outcome.ended_by == "stop":
        raise JobFailed("Stopped: the pipeline execution was stopped.")
    if outcome.code:
        reason = written.strip()[:1024] or "the program gave no reason; its log ends with:\n" + outcome.log[-1500:]
        raise JobFailed(f"AlgorithmError: {reason} (exit code {outcome.code})")
