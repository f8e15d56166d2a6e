"""What every job of one execution shares."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kennel.rehearsal.containers import ContainerEngine
from kennel.rehearsal.interfaces import PipelineExecution
from kennel.rehearsal.jobs.events import Closed, OnEvent, StepEvent
from kennel.rehearsal.jobs.logs import Log, log_of
from kennel.rehearsal.jobs.store import Store


@dataclass
class Context:
    """`client(service, role_arn)` makes a boto3 client; `interruptions`: how many spot jobs are still to be hit."""

    execution: PipelineExecution
    client: Callable[[str, str | None], Any]
    engine: ContainerEngine
    work: Path
    on_event: OnEvent
    interruptions: int
    seed: int
    closed: threading.Event

    def create(self, operation: str, request: Mapping[str, Any]) -> Any:
        """Ask the control plane as the pipeline's role, so that its policy is used; the work is done here."""
        return getattr(self.client("sagemaker", self.execution.role_arn), operation)(**request)

    def store(self, role_arn: str) -> Store:
        return Store(self.client("s3", role_arn))

    def job_name(self, step: str, limit: int = 63) -> str:
        """`pipelines-<execution>-<step>-<hash>`, as SageMaker names jobs; the same for the same execution."""
        suffix = hashlib.sha256(f"{self.execution.id}/{step}".encode()).hexdigest()[:10]
        return f"pipelines-{self.execution.id}-{step}"[: limit - 11].rstrip("-") + f"-{suffix}"

    def arn(self, kind: str, name: str) -> str:
        partition, service, region, account = self.execution.arn.split(":")[1:5]
        return f"arn:{partition}:{service}:{region}:{account}:{kind}/{name}"

    @property
    def region(self) -> str:
        return self.execution.arn.split(":")[3]

    @property
    def stopping(self) -> bool:
        """Whether StopPipelineExecution was called; raises Closed when there is no time for a job's farewell."""
        if self.closed.is_set():
            raise Closed("The rehearsal ended while the pipeline ran.")
        return self.execution.status == "Stopping"

    def logs(self, kind: str, job: str, role_arn: str) -> AbstractContextManager[Log]:
        """The job's CloudWatch log (`kind`: TrainingJobs or ProcessingJobs), written as its role."""
        return log_of(self.client("logs", role_arn), kind, job)

    def note(self, arn: str, **facts: Any) -> None:
        """Let the control plane's Describe of the job answer `facts`."""
        self.execution.jobs.setdefault(arn.lower(), {}).update(facts)

    @contextmanager
    def timed(self, kind: str, arn: str) -> Iterator[None]:
        """Note when the job (`kind`: Training or Processing) began and ended, and what of it would be billed."""
        began = datetime.now(UTC)
        self.note(arn, **{f"{kind}StartTime": began})
        try:
            yield
        finally:
            ended = datetime.now(UTC)
            seconds = max(1, round((ended - began).total_seconds()))
            self.note(arn, **{f"{kind}EndTime": ended})
            if kind == "Training":
                self.note(arn, TrainingTimeInSeconds=seconds, BillableTimeInSeconds=seconds)

    def watch(self, step: str, definitions: Sequence[Mapping[str, str]] = (), label: str = "") -> Watch:
        return Watch(self.on_event, step, [(item["Name"], re.compile(item["Regex"])) for item in definitions], label)


@dataclass
class Watch:
    """Reads a job's log: passes each line on and keeps the latest value of each metric in `final`."""

    on_event: OnEvent
    step: str
    metrics: Sequence[tuple[str, re.Pattern[str]]]
    label: str = ""
    final: dict[str, float] = field(default_factory=dict)
    log: Callable[[str, str], object] = field(default=lambda host, line: None)

    def line(self, text: str, host: str = "") -> bool:
        """Report one line of `host`'s log; return whether it held a metric."""
        self.log(host or "algo-1", text)
        found = dict(self._values(text))
        self.final.update(found)
        label = " ".join(filter(None, (self.label, host)))
        self.on_event(StepEvent(self.step, "metric" if found else "log", text, found, label))
        return bool(found)

    def say(self, text: str) -> None:
        self.on_event(StepEvent(self.step, "log", text, {}, self.label))

    def _values(self, text: str) -> list[tuple[str, float]]:
        matches = ((name, pattern.search(text)) for name, pattern in self.metrics)
        found = []
        for name, match in matches:
            try:
                if match:
                    found.append((name, float(match[1])))
            except ValueError:
                continue  # SageMaker passes over what is no number
        return found
