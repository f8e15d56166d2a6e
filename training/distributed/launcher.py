"""PID 1 of a training container: starts one worker a device, passes signals on, says why a job failed.

It never loads torch: it must answer SIGTERM at once, while the workers are still importing.
"""

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from training.distributed.cluster import Cluster, interface_of, read_cluster
from training.distributed.messages import Hosts, Word
from training.distributed.rendezvous import Stopped, meet
from training.distributed.workers import STOPPED, Failure, Workers
from training.errors import TrainingError, sentence
from training.hyperparameters import Hyperparameters
from training.paths import Paths

POLL = 0.05  # seconds
HEARSAY = 5.0  # seconds in which the cause may still be heard when a worker only says that it lost another


def launch(paths: Paths, overrides: Mapping[str, str]) -> int:
    """Run the training job on this host and return its exit code: 0, 1 or 143."""
    with tempfile.TemporaryDirectory() as folder:
        workers = Workers(Path(folder))
        try:
            cluster = read_cluster(paths.read_config("resourceconfig"), os.environ)
            with meet(cluster, lambda: workers.stopping) as hosts:
                failure = _work(paths, overrides, cluster, hosts, workers)
                if failure:
                    hosts.tell("failed", failure.reason)
                else:
                    hosts.tell("ended")
        except Stopped:
            return STOPPED
        except (TrainingError, OSError) as error:
            failure = Failure(sentence(error))
        finally:
            workers.end()
    if failure:
        _write_failure(paths, failure.reason)
        return 1
    return workers.code or 0


def _work(
    paths: Paths, overrides: Mapping[str, str], cluster: Cluster, hosts: Hosts, workers: Workers
) -> Failure | None:
    """Start this host's workers and wait for them. What is wrong here is returned: the other hosts must hear it."""
    try:
        # Only checked: each worker reads the same for itself.
        Hyperparameters.from_strings({**paths.read_config("hyperparameters"), **overrides})
        paths.require_writable()
        options = [f"--{name.replace('_', '-')}={value}" for name, value in overrides.items()]
        met = replace(cluster, interface=cluster.interface or interface_of(hosts.address))
        workers.start(met, hosts.port, options)
        return _watch(hosts, workers)
    except ValueError as error:
        return Failure(str(error))
    except (TrainingError, OSError) as error:
        return Failure(sentence(error))


def _watch(hosts: Hosts, workers: Workers) -> Failure | None:
    """Wait for all workers; return why when one of any host fails, since the others would wait for it for ever."""
    asked, deadline = False, float("inf")
    while True:
        heard = _obey(hosts.listen(POLL), workers)
        if workers.stopping and not asked:
            asked = True
            hosts.tell("stop")
        failure = heard or workers.failure()
        if failure and failure.follows:
            deadline = min(deadline, time.monotonic() + HEARSAY)
        if failure and (not failure.follows or time.monotonic() > deadline):
            return failure
        if not failure and workers.code is not None:
            return None


def _obey(words: list[Word], workers: Workers) -> Failure | None:
    """Do what the other hosts say; a failure there is one here."""
    for word in words:
        if word.kind == "failed":
            return Failure(word.reason)
        workers.stop()
    return None


def _write_failure(paths: Paths, reason: str) -> None:
    print(reason, file=sys.stderr, flush=True)
    try:
        paths.output.mkdir(parents=True, exist_ok=True)
        (paths.output / "failure").write_text(reason + "\n", encoding="utf-8")
    except OSError as error:
        print(f"The reason could not be written to {paths.output}: {error}", file=sys.stderr, flush=True)
