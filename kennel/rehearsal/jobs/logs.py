"""A job's log in CloudWatch Logs, written as the job's role: a group a kind of job, a stream a host."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

_DELAY_S = 0.3  # lines are gathered for that long
_BATCH = 500  # events in a call, and the longest line: CloudWatch takes 10,000 and 1 MiB together
_LONGEST = 2000  # characters


class Log:
    """Call it with (host, line), from any thread."""

    def __init__(self, logs: Any, kind: str, job: str) -> None:
        self._logs, self._group = logs, f"/aws/sagemaker/{kind}"
        self._stream = f"{job}/{{}}-{int(time.time())}".format
        self._waiting: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._streams: set[str] = set()
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._timer: threading.Timer | None = None

    def __call__(self, host: str, line: str) -> None:
        event = {"timestamp": int(time.time() * 1000), "message": line[:_LONGEST] or " "}
        with self._lock:
            self._waiting[host].append(event)
            if self._timer is None:
                self._timer = threading.Timer(_DELAY_S, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Send what waits. A job does not fail by its log: a refusal stands in what was denied to the role."""
        with self._sending:
            with self._lock:
                waiting, self._waiting, self._timer = self._waiting, defaultdict(list), None
            with suppress(ClientError, BotoCoreError):
                for host, events in waiting.items():
                    self._send(self._stream(host), events)

    def _send(self, stream: str, events: list[dict[str, Any]]) -> None:
        if stream not in self._streams:
            with suppress(self._logs.exceptions.ResourceAlreadyExistsException):
                self._logs.create_log_group(logGroupName=self._group)
            with suppress(self._logs.exceptions.ResourceAlreadyExistsException):
                self._logs.create_log_stream(logGroupName=self._group, logStreamName=stream)
            self._streams.add(stream)
        for start in range(0, len(events), _BATCH):
            part = events[start : start + _BATCH]
            self._logs.put_log_events(logGroupName=self._group, logStreamName=stream, logEvents=part)


@contextmanager
def log_of(logs: Any, kind: str, job: str) -> Iterator[Log]:
    """`kind`: TrainingJobs or ProcessingJobs. Everything has been sent when the block ends."""
    log = Log(logs, kind, job)
    try:
        yield log
    finally:
        log.flush()
