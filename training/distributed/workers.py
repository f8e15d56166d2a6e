"""The worker processes of this host: started, asked to stop, ended, and why one failed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.distributed.cluster import Cluster
from training.distributed.cuda_compat import environment as environment_for_cuda
from training.distributed.pulse import BEATS, INTERVAL, Pulse

STOPPED = 143  # 128 + SIGTERM, as a shell would say
GRACE = 5.0  # seconds between asking workers to end and making them
_HINTS = {
    -signal.SIGKILL: "was killed, most often for lack of memory: use a larger instance or a smaller batch_size.",
    -signal.SIGBUS: "was ended by SIGBUS, most often for lack of shared memory: give the container more of it.",
}


@dataclass(frozen=True)
class Failure:
    """Why a job cannot go on. `follows`: it only complains of another worker's end."""

    reason: str
    follows: bool = False


@dataclass(frozen=True)
class Worker:
    """One process. `report`: the file in which it says why it failed; beside it, `.begun` says that it began."""

    name: str
    process: "subprocess.Popen[bytes]"
    pulse: Pulse
    report: Path

    @property
    def failed(self) -> bool:
        return self.process.poll() not in (None, 0, STOPPED)

    def failure(self) -> Failure:
        """Say why it failed, from its own report if it left one."""
        with contextlib.suppress(OSError, ValueError):
            said = json.loads(self.report.read_text(encoding="utf-8"))
            return Failure(f"{self.name}: {said['reason']}", said["follows"])
        code = self.process.returncode
        return Failure(f"{self.name} {_HINTS.get(code) or _ended_by(code)}")


class Workers:
    """All workers of this host. It takes SIGTERM at once; without a handler the kernel would drop it for PID 1."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where the workers report."""
        self.stopping = False
        self._folder = folder
        self._all: list[Worker] = []
        self._looked = time.monotonic()
        signal.signal(signal.SIGTERM, lambda number, frame: self.stop())
        signal.signal(signal.SIGINT, lambda number, frame: self.stop())

    def start(self, cluster: Cluster, port: int, arguments: Sequence[str]) -> None:
        """Start one process a device, on its CPUs; all hosts' workers meet at `port` of the first host."""
        allowed = os.sched_getaffinity(0)
        # Workers inherit the block and lift it when they can answer, so that none dies of the signal while it starts.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            for local, cpus in enumerate(cluster.groups):
                os.sched_setaffinity(0, cpus or allowed)
                self._start(cluster, local, port, arguments)
        finally:
            os.sched_setaffinity(0, allowed)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            if self.stopping:  # by SIGINT, meanwhile
                self.stop()

    def _start(self, cluster: Cluster, local: int, port: int, arguments: Sequence[str]) -> None:
        rank = cluster.rank(local)
        report = self._folder / str(rank)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC_")}
        environment |= environment_for_cuda(os.environ) | cluster.environment(local, port)
        package = str(Path(__file__).resolve().parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        environment |= {"REPORT": str(report), "LAUNCHER": str(os.getpid())}
        process = subprocess.Popen([sys.executable, "-m", "training.train.worker", *arguments], env=environment)
        self._all.append(Worker(f"Rank {rank} on {cluster.current}", process, Pulse(process.pid), report))

    def stop(self) -> None:
        """Ask all to write a checkpoint and end."""
        self.stopping = True
        for worker in self._all:
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGTERM)

    @property
    def code(self) -> int | None:
        """The host's exit code once all have ended: 0 if the work is done, whatever signal came meanwhile, or 143."""
        codes = [worker.process.poll() for worker in self._all]
        return None if None in codes else (STOPPED if any(codes) else 0)

    def failure(self) -> Failure | None:
        """Return why a worker failed, if one did: the first that names a cause, else one that lost another worker."""
        failed = sorted((worker for worker in self._all if worker.failed), key=lambda worker: _reported(worker.report))
        failures = [worker.failure() for worker in failed] + self._stuck()
        return min(failures, key=lambda failure: failure.follows, default=None)

    def _stuck(self) -> list[Failure]:
        if time.monotonic() - self._looked < INTERVAL:
            return []
        self._looked = time.monotonic()
        return [
            Failure(f"{worker.name} is stuck: it has not moved for {BEATS * INTERVAL:g} s.")
            for worker in self._all
            if worker.pulse.stuck(begun=worker.report.with_suffix(".begun").exists())
        ]

    def end(self) -> None:
        """Leave no worker: ask, wait, make."""
        for worker in self._all:
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        for worker in self._all:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()


def _reported(report: Path) -> float:
    """Return when a worker said why it failed; those that could not say come last, though before complaints."""
    try:
        return report.stat().st_mtime
    except OSError:
        return float("inf")


def _ended_by(code: int) -> str:
    what = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return f"{what} and gave no reason; see the job's log."
