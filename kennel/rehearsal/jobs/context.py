"""What the jobs of one pipeline execution share: clients, names, the control plane's records, and their logs."""

import hashlib
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from kennel.rehearsal.containers.engine import ContainerEngine
from kennel.rehearsal.interfaces import PipelineExecution
from kennel.rehearsal.jobs.contract import JobFailed
from kennel.rehearsal.jobs.store import Store

_FLUSH_S = 0.3  # how long lines are collected before they are sent
_BATCH = 500  # events in one PutLogEvents: CloudWatch takes 10,000, and 1 MiB in all
_MESSAGE_LENGTH = 2000  # characters


@dataclass
class Context:
    """One execution and its surroundings.

    `client(service, role_arn)` returns a boto3 client; `interrupt_spot`: a spot job is still to be interrupted;
    `closed` is set when the rehearsal ends.
    """

    execution: PipelineExecution
    client: Callable[[str, str | None], Any]
    engine: ContainerEngine
    work: Path
    interrupt_spot: bool
    closed: threading.Event

    def create(self, operation: str, request: Mapping[str, Any]) -> Any:
        """Call the control plane as the pipeline's role, so that its policy is checked; the job itself runs here."""
        return getattr(self.client("sagemaker", self.execution.role_arn), operation)(**request)

    def store(self, role_arn: str) -> Store:
        return Store(self.client("s3", role_arn))

    def job_name(self, step: str, limit: int = 63) -> str:
        """Return `pipelines-<execution>-<step>-<hash>`, as SageMaker names jobs; the same for the same execution."""
        suffix = hashlib.sha256(f"{self.execution.id}/{step}".encode()).hexdigest()[:10]
        return f"pipelines-{self.execution.id}-{step}"[: limit - 11].rstrip("-") + f"-{suffix}"

    def arn(self, kind: str, name: str) -> str:
        return ":".join([*self.execution.arn.split(":")[:5], f"{kind}/{name}"])

    @property
    def region(self) -> str:
        return self.execution.arn.split(":")[3]

    @property
    def stopping(self) -> bool:
        """Return whether StopPipelineExecution was called; raise JobFailed when the rehearsal ends."""
        if self.closed.is_set():
            raise JobFailed("The rehearsal ended while the pipeline ran.")
        return self.execution.status == "Stopping"

    def record(self, arn: str, **facts: Any) -> None:
        """Let the control plane's Describe of the job at `arn` answer `facts` too."""
        self.execution.jobs.setdefault(arn.lower(), {}).update(facts)

    @contextmanager
    def timed(self, kind: str, arn: str) -> Iterator[None]:
        """Record when the job (`kind`: Training or Processing) began and ended, and its billable seconds."""
        began = datetime.now(UTC)
        self.record(arn, **{f"{kind}StartTime": began})
        try:
            yield
        finally:
            ended = datetime.now(UTC)
            seconds = max(1, round((ended - began).total_seconds()))
            self.record(arn, **{f"{kind}EndTime": ended})
            if kind == "Training":
                self.record(arn, TrainingTimeInSeconds=seconds, BillableTimeInSeconds=seconds)

    def log(self, kind: str, job: str, role_arn: str) -> "JobLog":
        """Return the job's log (`kind`: TrainingJobs or ProcessingJobs), which is written as the job's role."""
        return JobLog(self.client("logs", role_arn), f"/aws/sagemaker/{kind}", job)


class JobLog:
    """The log of one job in CloudWatch Logs: one group for each kind of job, one stream for each host.

    `final` has the latest value of each metric in `metrics` (as MetricDefinitions). Use it as a context manager: all
    lines have been sent when the block ends. `write` may be called from any thread.
    """

    def __init__(self, client: Any, group: str, job: str) -> None:
        self._client, self._group = client, group
        self._stream = f"{job}/{{}}-{int(time.time())}".format
        self._created: set[str] = set()
        self._pending: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.metrics: Sequence[Mapping[str, str]] = ()
        self.final: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def write(self, line: str, host: str = "algo-1") -> None:
        event = {"timestamp": int(time.time() * 1000), "message": line[:_MESSAGE_LENGTH] or " "}
        with self._lock:
            self._pending[host].append(event)
        for metric in self.metrics:
            with suppress(ValueError):  # SageMaker ignores a value that is not a number
                if found := re.search(metric["Regex"], line):
                    self.final[metric["Name"]] = float(found[1])

    def _run(self) -> None:
        while not self._ended.wait(_FLUSH_S):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        """Send the pending lines. A denied call does not fail the job: the control plane reports it as denied."""
        with self._lock:
            pending, self._pending = self._pending, defaultdict(list)
        with suppress(ClientError, BotoCoreError):
            for host, events in pending.items():
                self._send(self._stream(host), events)

    def _send(self, stream: str, events: list[dict[str, Any]]) -> None:
        if stream not in self._created:
            with suppress(self._client.exceptions.ResourceAlreadyExistsException):
                self._client.create_log_group(logGroupName=self._group)
            with suppress(self._client.exceptions.ResourceAlreadyExistsException):
                self._client.create_log_stream(logGroupName=self._group, logStreamName=stream)
            self._created.add(stream)
        for start in range(0, len(events), _BATCH):
            batch = events[start : start + _BATCH]
            self._client.put_log_events(logGroupName=self._group, logStreamName=stream, logEvents=batch)
