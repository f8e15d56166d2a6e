"""Runs the containers of one job to their end: together, within their time, and gone afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kennel.rehearsal.containers import Container, ContainerEngine, Process
from kennel.rehearsal.containers.process import GRACE_S

_POLL_S = 0.05


@dataclass(frozen=True)
class Outcome:
    """How a job ended. `code`: 0, or that of the first host that failed; `host`: its place in the list."""

    code: int
    host: int
    log: str
    ended_by: str = ""  # "", "interruption", "timeout" or "stop"


def run_hosts(
    engine: ContainerEngine,
    containers: Sequence[Container],
    *,
    limit_s: float,
    interrupted: Callable[[], bool] = lambda: False,
    stopped: Callable[[], bool] = lambda: False,
    grace_s: float = GRACE_S,
) -> Outcome:
    """Start all, wait for all. When one fails, or the time is up, or `interrupted` or `stopped` say so, all get SIGTERM
    and, `grace_s` seconds later, SIGKILL. Leaves no process, whatever is raised."""
    processes: list[Process] = []
    try:
        for container in containers:
            processes.append(engine.start(container))
        ended_by = _wait(processes, time.monotonic() + limit_s, {"interruption": interrupted, "stop": stopped})
        failed = next((place for place, process in enumerate(processes) if process.poll()), 0)
        _stop(processes, grace_s)
        code = processes[failed].wait() or 0
        return Outcome(code, failed, processes[failed].log, ended_by)
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


def _stop(processes: Sequence[Process], grace_s: float) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + grace_s
    for process in processes:
        if process.wait(max(0.0, deadline - time.monotonic())) is None:
            process.kill()
