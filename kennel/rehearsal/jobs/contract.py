"""SageMaker's contract with a job's containers: files below /opt/ml, start and end of all hosts, the failure reason."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kennel.rehearsal.containers.engine import Container, ContainerEngine, Process

_OPT_ML = "/opt/ml"
DAY_S = 86_400.0  # a job's limit where it names none
_POLL_S = 0.05
GRACE_S = 120.0  # between SIGTERM and SIGKILL, as SageMaker waits
_REASON_LENGTH = 1024  # characters of a failure file that SageMaker reports


class JobFailed(RuntimeError):
    """A job or a step failed; the text becomes its FailureReason."""


def resource_config(instance_type: str, hosts: Sequence[str], host: str, interface: str = "lo") -> dict[str, Any]:
    group = "homogeneousCluster"
    return {
        "current_host": host,
        "current_instance_type": instance_type,
        "current_group_name": group,
        "hosts": [*hosts],
        "instance_groups": [{"instance_group_name": group, "instance_type": instance_type, "hosts": [*hosts]}],
        "network_interface_name": interface,
    }


def write_config(folder: Path, files: Mapping[str, Any]) -> None:
    """Write each of `files` (name -> content) into `folder` as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1))


def path_on_machine(root: Path, path: str) -> Path:
    """Return where a container's `path` below /opt/ml is on this machine; raise JobFailed for any other path."""
    if not path.startswith(f"{_OPT_ML}/") or ".." in path:
        raise JobFailed(f"ClientError: the path {path!r} must lie under {_OPT_ML}/.")
    return root / path.removeprefix(f"{_OPT_ML}/")


@dataclass(frozen=True)
class Outcome:
    """How a job ended. `code` and `log` are those of the host that failed first, or 0 and the first host's."""

    code: int
    log: str
    ended_by: str = ""  # "", "interruption", "timeout" or "stop"


def run_hosts(
    engine: ContainerEngine,
    containers: Sequence[Container],
    *,
    limit_s: float,
    interrupted: Callable[[], bool] = lambda: False,
    stopped: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Start all hosts and return when all have ended; leave no process behind, whatever is raised.

    When one host fails, when `limit_s` seconds are over, or when `interrupted` or `stopped` returns true, all hosts
    get SIGTERM and, GRACE_S seconds later, SIGKILL.
    """
    processes: list[Process] = []
    try:
        for container in containers:
            processes.append(engine.start(container))
        ended_by = _wait(processes, time.monotonic() + limit_s, {"interruption": interrupted, "stop": stopped})
        failed = next((process for process in processes if process.poll()), processes[0])
        _stop(processes)
        return Outcome(failed.wait() or 0, failed.log, ended_by)
    finally:
        for process in processes:
            process.kill()


def _wait(processes: Sequence[Process], deadline: float, reasons: dict[str, Callable[[], bool]]) -> str:
    while True:
        codes = [process.poll() for process in processes]
        if any(codes) or None not in codes:
            return ""
        for reason, applies in reasons.items():
            if applies():
                return reason
        if time.monotonic() > deadline:
            return "timeout"
        time.sleep(_POLL_S)


def _stop(processes: Sequence[Process]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + GRACE_S
    for process in processes:
        if process.wait(max(0.0, deadline - time.monotonic())) is None:
            process.kill()


def check_outcome(outcome: Outcome, limit_s: float, failure_files: Sequence[Path]) -> None:
    """Raise JobFailed unless the job ended by itself and well.

    `failure_files` is one path for each host; the file that was written first gives the reason, since later ones may
    only say that another host is lost or that SIGTERM came.
    """
    if outcome.ended_by == "timeout":
        raise JobFailed(f"MaxRuntimeExceeded: the job was stopped after its {limit_s:g} s (MaxRuntimeInSeconds).")
    if outcome.ended_by == "stop":
        raise JobFailed("Stopped: the pipeline execution was stopped.")
    if outcome.code:
        written = sorted((path for path in failure_files if path.is_file()), key=lambda path: path.stat().st_mtime_ns)
        reasons = (path.read_text(errors="replace").strip() for path in written)
        reason = next(filter(None, reasons), "")[:_REASON_LENGTH]
        reason = reason or "the program gave no reason; its log ends with:\n" + outcome.log[-1500:]
        raise JobFailed(f"AlgorithmError: {reason} (exit code {outcome.code})")
