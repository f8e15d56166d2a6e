"""PID 1 of a training container: starts the ranks of this host, forwards SIGTERM, writes why a job failed.

It never loads torch, so that it answers SIGTERM while the ranks still import it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from training.distributed.cluster import Cluster, cuda_environment, process_group_timeout, read_cluster
from training.distributed.worker import STOPPED, Failure
from training.errors import TrainingError, sentence
from training.hyperparameters import Hyperparameters
from training.paths import Paths

# Seconds that a host waits before it reports that it lost another host's rank. That host, where the cause is known,
# shall be the first to end: the platform then stops all others, and shows the reason of the first.
LOST_PEER_SECONDS = 15.0


def launch(paths: Paths, overrides: Mapping[str, str]) -> int:
    """Run the training job on this host and return its exit code: 0, 1 or 143."""
    with tempfile.TemporaryDirectory() as folder:
        launcher = Launcher(Path(folder))
        try:
            cluster = read_cluster(paths.read_config("resourceconfig"), os.environ)
            # Only checked: each worker reads the same for itself.
            Hyperparameters.from_strings({**paths.read_config("hyperparameters"), **overrides})
            paths.require_writable()
            code = launcher.run(cluster, [f"--{name.replace('_', '-')}={value}" for name, value in overrides.items()])
            reason = launcher.failure(cluster, code)
        except ValueError as error:
            code, reason = 1, str(error)
        except (TrainingError, OSError) as error:
            code, reason = 1, sentence(error)
    if reason:
        paths.write_reason("failure", reason)
        return 1
    return STOPPED if code else 0


class Launcher:
    """The processes of this host and the signals for them. `folder`: where they leave their failures."""

    def __init__(self, folder: Path) -> None:
        self.stopping = False
        self._folder, self._ranks = folder, 0
        self._process: subprocess.Popen[bytes] | None = None
        # Without a handler the kernel would drop the signal for PID 1.
        signal.signal(signal.SIGTERM, lambda number, frame: self._stop())
        signal.signal(signal.SIGINT, lambda number, frame: self._stop())

    def run(self, cluster: Cluster, options: Sequence[str]) -> int:
        """Start the ranks of this host and return their exit code; a negative one is the signal that ended them."""
        if self.stopping:
            return STOPPED
        package = str(Path(__file__).resolve().parents[2])
        environment = {
            **os.environ,
            **cuda_environment(os.environ),
            **cluster.environment(),
            "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])),
            "TORCHELASTIC_ERROR_FILE": str(self._folder / "error.json"),
            "PARENT_PID": str(os.getpid()),
        }
        self._ranks = cluster.workers if cluster.world_size > 1 else 0  # that torchrun starts
        # In a session of its own, so that Ctrl-C reaches it as one SIGTERM from here.
        self._process = subprocess.Popen(
            command(cluster, self._folder, options), env=environment, start_new_session=True
        )
        if self.stopping:  # the signal came while the process started
            self._stop()
        return self._process.wait()

    def _stop(self) -> None:
        """Ask the ranks to write a checkpoint and end. Ranks that have not all met yet have nothing to write."""
        self.stopping = True
        if not self._process:
            return
        pids = [int(file.stem) for file in self._folder.rglob("*.pid")]  # of the ranks that have met
        if not self._ranks:
            self._process.terminate()
        elif len(pids) < self._ranks:
            self._process.kill()  # torchrun; the kernel kills the ranks with it
        else:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)

    def failure(self, cluster: Cluster, code: int) -> str:
        """Return why the ranks failed, empty if they are done or were stopped."""
        first = first_failure(self._folder)
        if first and first.lost_peer:
            self._wait_for_the_cause()
        if first and not (first.lost_peer and self.stopping):
            return first.message
        if code in (0, STOPPED) or self.stopping:
            return ""
        name = f"Rank 0 on {cluster.current}" if cluster.world_size == 1 else f"torchrun on {cluster.current}"
        return Failure.from_exit(name, code).message

    def _wait_for_the_cause(self) -> None:
        print(f"A rank of another host is gone; waiting {LOST_PEER_SECONDS:g} s for what that host says.", flush=True)
        deadline = time.monotonic() + LOST_PEER_SECONDS
        while not self.stopping and time.monotonic() < deadline:
            time.sleep(0.05)


def first_failure(folder: Path) -> Failure | None:
    """Return the first failure that ranks left below `folder`; one that names a cause goes before a lost peer."""
    failures = [Failure(**json.loads(file.read_text(encoding="utf-8"))) for file in folder.rglob("error.json")]
    return min(failures, key=lambda failure: (failure.lost_peer, failure.timestamp), default=None)


def command(cluster: Cluster, folder: Path, options: Sequence[str]) -> list[str]:
    """Return the command that runs this host's ranks: torchrun's, or the only rank of the job without it."""
    worker = ["-m", "training.distributed.worker", *options]
    if cluster.world_size == 1:
        return [sys.executable, *worker]
    return [
        *(sys.executable, "-m", "training.distributed.agent"),
        f"--nnodes={len(cluster.hosts)}",
        f"--node-rank={cluster.node_rank}",
        f"--nproc-per-node={cluster.workers}",
        f"--master-addr={cluster.address}",
        f"--master-port={cluster.port}",
        f"--rdzv-conf=timeout={max(1, round(process_group_timeout()))}",
        f"--log-dir={folder}",
        *worker,
    ]
