"""One run on this machine, from a folder of images to an evaluated model."""

import errno
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from kennel.board import Board
from kennel.errors import KennelError
from kennel.local.bucket import FolderBucket
from kennel.local.jobs import Jobs, Stopped
from kennel.local.record import RunFolder
from kennel.rehearsal.containers import ContainerEngine, ContainerError
from kennel.rehearsal.jobs.events import JobFailed
from kennel.upload.upload import upload_dataset


class Interrupted(KennelError):
    """The run was stopped on request and can go on."""


class LocalRun:
    """`stopped` says whether the operator wants the end."""

    def __init__(self, run: RunFolder, engine: ContainerEngine, board: Board, stopped: Callable[[], bool]) -> None:
        self._run, self._board, self._stopped = run, board, stopped
        self._log: IO[str] | None = None
        self._jobs = Jobs(run, engine, self._line, stopped)

    def go(self) -> None:
        """Do what is not done yet. Raises Interrupted, or KennelError with the reason of a failure."""
        record = self._run.record
        record.status, record.reason = "running", ""
        self._run.save()
        try:
            with (self._run.path / "run.log").open("a", encoding="utf-8") as self._log:
                self._step("Read", self._read)
                self._step("Prepare", self._jobs.prepare)
                self._step("Train", self._jobs.train)
                self._step("Evaluate", self._jobs.evaluate)
            self._jobs.clear()
            record.status = "done"
        except (Stopped, KeyboardInterrupt):
            record.status = "interrupted"
            raise Interrupted(f"stopped. Go on with `kennel train --resume {record.run}`.") from None
        except BaseException as error:
            record.status, record.reason = "failed", str(error)
            raise
        finally:
            self._run.save()

    def _step(self, name: str, work: Callable[[], None]) -> None:
        record, began = self._run.record, time.monotonic()
        if name in record.seconds:
            return self._board.step(name, "done", record.seconds[name], "done before")
        self._board.step(name, "running")
        status, reason = "failed", ""
        try:
            work()
            status = "done"
        except (Stopped, KeyboardInterrupt):
            status = "stopped"
            raise
        except (JobFailed, ContainerError, OSError) as error:
            reason = _reason(error)
            raise KennelError(f"{name} failed: {reason} The log: {self._run.path / 'run.log'}") from error
        finally:
            seconds = time.monotonic() - began
            self._board.step(name, status, seconds, reason)
        record.seconds[name] = round(seconds, 3)
        self._run.save()

    def _read(self) -> None:
        """Pack the images as an upload does, under the same fingerprint."""
        record, place = self._run.record, self._run.path / "ml" / "bucket"
        shutil.rmtree(place, ignore_errors=True)
        weights = Path(record.weights) if record.weights else None
        sent = upload_dataset(
            Path(record.data), bucket="local", s3=FolderBucket(place), weights=weights, progress=self._unless_stopped
        )
        record.fingerprint, record.images = sent.fingerprint, sent.images
        shutil.rmtree(self._jobs.dataset, ignore_errors=True)
        self._jobs.dataset.parent.mkdir(parents=True, exist_ok=True)
        (place / sent.manifest_key.removesuffix(".manifest")).rename(self._jobs.dataset)
        shutil.rmtree(place)

    def _unless_stopped(self, doing: str, done: int, total: int) -> None:
        if self._stopped():
            raise Stopped

    def _line(self, host: str, text: str) -> None:
        self._board.line(text, job=host)
        if self._log and not self._log.closed:
            self._log.write(f"{host} {text}\n" if host else f"{text}\n")
            self._log.flush()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk of {error.filename or 'the run'} is full: free some space, or choose another with --runs."
    # The first line: where the program gave no reason, its log's end follows, which has been shown.
    return str(error).removeprefix("AlgorithmError: ").strip().split("\n")[0]
