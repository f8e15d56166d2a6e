"""PID 1 of a training container: starts one worker a device, passes signals on, says why a job failed.

It never loads torch: it must answer SIGTERM at once, while the workers are still importing.
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
from types import FrameType
from typing import Any

from training.cluster import Cluster, read_cluster
from training.cuda_compat import environment as environment_for_cuda
from training.errors import TrainingError, sentence
from training.hyperparameters import Hyperparameters
from training.paths import Paths

STOPPED = 143  # 128 + SIGTERM, as a shell would say
GRACE = 10.0  # seconds between asking the other workers to end and making them
POLL = 0.05  # seconds


class _Signals:
    """Remembers SIGTERM and passes it on; without a handler the kernel drops it for PID 1."""

    def __init__(self) -> None:
        self.stopping = False
        self.workers: list[subprocess.Popen[bytes]] = []
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True
        _terminate(self.workers)


def launch(paths: Paths, overrides: Mapping[str, str]) -> int:
    """Run the training job on this host and return its exit code: 0, 1 or 143."""
    signals = _Signals()
    with tempfile.TemporaryDirectory() as reasons:
        try:
            settings = Hyperparameters.from_strings({**read_config(paths, "hyperparameters"), **overrides})
            cluster = read_cluster(read_config(paths, "resourceconfig"), os.environ)
            if not signals.stopping:
                _start(signals, cluster, settings, Path(reasons))
            code, reason = _wait(signals, Path(reasons))
        except (TrainingError, ValueError, OSError) as error:
            _end(signals.workers)
            code, reason = 1, str(error) if isinstance(error, ValueError) else sentence(error)
    if code == 1:
        _write_failure(paths, reason)
    return code


def read_config(paths: Paths, name: str) -> dict[str, Any]:
    """Return one of SageMaker's configuration files, or nothing where a launcher wrote none."""
    file = paths.config / f"{name}.json"
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainingError(f"{file} is no JSON: {error}.") from None
    if not isinstance(content, dict):
        raise TrainingError(f"{file} must hold a JSON object.")
    return content


def _start(signals: _Signals, cluster: Cluster, settings: Hyperparameters, reasons: Path) -> None:
    package = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    for local in range(cluster.workers):
        environment = {**os.environ, **environment_for_cuda(os.environ), **cluster.environment(local)}
        environment["PYTHONPATH"] = path
        command = [sys.executable, "-m", "training.worker", json.dumps(settings.to_strings())]
        command += [str(reasons / str(cluster.rank(local))), str(os.getpid())]
        signals.workers.append(subprocess.Popen(command, env=environment))
        if signals.stopping:  # the signal came between two starts
            _terminate(signals.workers)


def _wait(signals: _Signals, reasons: Path) -> tuple[int, str]:
    """Wait for all workers; when one fails the others are ended, since they would wait for it for ever."""
    while True:
        codes = [worker.poll() for worker in signals.workers]
        failed = [code for code in codes if code not in (None, 0, STOPPED)]
        if failed and not (signals.stopping and set(failed) == {-signal.SIGTERM}):
            _end(signals.workers)
            return 1, _first_reason(reasons, codes)
        if None not in codes:
            return (STOPPED if signals.stopping or any(codes) else 0), ""
        time.sleep(POLL)


def _end(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    _terminate(workers)
    deadline = time.monotonic() + GRACE
    for worker in workers:
        try:
            worker.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _terminate(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            worker.send_signal(signal.SIGTERM)


def _first_reason(reasons: Path, codes: Sequence[int | None]) -> str:
    """Return what the first worker that failed wrote; the others mostly complain of losing it."""
    written = sorted((file for file in reasons.iterdir()), key=lambda file: file.stat().st_mtime_ns)
    for file in written:
        return f"Worker {file.name}: {file.read_text(encoding='utf-8')}"
    number, code = next((number, code) for number, code in enumerate(codes) if code not in (None, 0, STOPPED))
    if code == -signal.SIGKILL:
        return (
            f"Worker {number} was killed, most often for lack of memory: use a larger instance or a smaller batch_size."
        )
    return f"Worker {number} ended with code {code} and gave no reason; see the job's log."


def _write_failure(paths: Paths, reason: str) -> None:
    print(reason, file=sys.stderr, flush=True)
    try:
        paths.output.mkdir(parents=True, exist_ok=True)
        (paths.output / "failure").write_text(reason + "\n", encoding="utf-8")
    except OSError as error:
        print(f"The reason could not be written to {paths.output}: {error}", file=sys.stderr, flush=True)
