"""Follows a pipeline run through SageMaker and CloudWatch Logs until it ends: steps, log lines, metrics, cost."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kennel.aws import Client, aws_errors, suppressed
from kennel.console import Display
from kennel.console import Step as Shown
from kennel.pipeline_steps import (
    Step,
    Usage,
    metrics_of,
    printable,
    steps_of,
    trial_of_line,
    trial_of_summary,
    trials_of,
    usages,
)
from kennel.prices import Prices, dollars, total

_POLL_S = 2.0
_THROTTLED = {"ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"}
_LONGEST_WAIT_S = 60.0
_QUIET_LOOKS = 2  # after a job's end: CloudWatch shows the last lines seconds later
_LINES = 15  # of a failed step's log, shown again at the end
_GROUPS = {"TrainingJob": "/aws/sagemaker/TrainingJobs", "ProcessingJob": "/aws/sagemaker/ProcessingJobs"}


@dataclass(frozen=True)
class Ending:
    """How a run ended. `failed` names the step whose failure ended it, or is empty; `cost` None: a price is unknown."""

    status: str
    reason: str
    failed: str
    lines: tuple[str, ...]
    seconds: dict[str, float]
    cost: float | None
    rejected: bool = False  # by the quality gate: a result, not an accident

    @property
    def sentence(self) -> str:
        """Say how a run that did not succeed ended."""
        if self.rejected:
            return self.reason
        where = f"in step {self.failed}" if self.failed else "without a failed step"
        return f"The run ended as {self.status} {where}: {self.reason}"

    @property
    def last_lines(self) -> list[str]:
        """Return the end of the failed step's log under a heading, or nothing where there is no log."""
        return [f"The log of {self.failed} ends with:", *(f"  {line}" for line in self.lines)] if self.lines else []


@dataclass
class _Job:
    """What is read of a step's job; of more than one where the step was tried again or has trials, by their names."""

    tails: dict[str, "Tail"] = field(default_factory=dict)
    used: dict[str, list[Usage]] = field(default_factory=dict)
    trials: list[dict[str, Any]] = field(default_factory=list)  # summaries of a tuning job's training jobs
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES))
    quiet_looks: int = 0

    @property
    def settled(self) -> bool:
        return self.quiet_looks >= _QUIET_LOOKS


class Follower:
    """Shows the run `execution` on `display`; remembers the metrics of each epoch and the rows of trials.

    `client` makes a boto3 client of a service. Without `prices` no cost is shown; `epochs` (0: unknown) lets an epoch
    move the bar.
    """

    def __init__(
        self,
        client: Client,
        execution: str,
        display: Display,
        *,
        prices: Prices | None = None,
        epochs: int = 0,
        poll_s: float | None = None,
    ) -> None:
        self._sagemaker, self._logs = client("sagemaker"), client("logs")
        self._execution, self._display, self._prices = execution, display, prices
        self._all_epochs, self._poll_s = epochs, _POLL_S if poll_s is None else poll_s
        self._jobs: dict[str, _Job] = {}
        self._steps: list[Step] = []
        self._shown: dict[str, Shown] = {}
        self._searched: list[dict[str, Any]] = []
        self.epochs: list[dict[str, Any]] = []  # step, job, epoch, metrics

    @property
    def trials(self) -> list[dict[str, Any]]:
        """Return a row for each trial, of a tuning job or of a search within one job."""
        tuned = [job.trials for job in self._jobs.values()]
        return self._searched + [
            trial_of_summary(number, len(trials), one) for trials in tuned for number, one in enumerate(trials, 1)
        ]

    def run(self) -> Ending:
        """Follow to the end; raise KennelError when AWS refuses to tell."""
        wait = self._poll_s
        while True:
            about: dict[str, Any] = {}
            with aws_errors(), suppressed(*_THROTTLED):
                about = self._look()
            if not about:
                wait = min(wait * 2, _LONGEST_WAIT_S)
            else:
                wait = self._poll_s
                over = about["PipelineExecutionStatus"] not in ("Executing", "Stopping")
                if over and all(job.settled for job in self._jobs.values()):
                    return self._ending(about)
            time.sleep(wait)

    def _look(self) -> dict[str, Any]:
        """Take one round. The run's status comes first: what is read after its end is complete."""
        about: dict[str, Any] = self._sagemaker.describe_pipeline_execution(PipelineExecutionArn=self._execution)
        self._steps = steps_of(self._sagemaker, self._execution)
        for step in self._steps:
            if not step.name.startswith("Choose"):  # it takes no time, and what was chosen shows by itself
                self._show(step)
        if self._prices:
            self._display.footer(f"Cost so far: {dollars(self._cost())}")
        return about

    def _show(self, step: Step) -> None:
        shown = self._shown.get(step.name)
        if shown is None or (shown.status != "running" and not step.ended):  # it begins, or is tried again
            shown = self._shown[step.name] = self._display.begin(step.name, step.seconds)
        if step.job:
            self._read(step, self._jobs.setdefault(step.name, _Job()))
        if step.ended and shown.status == "running":
            self._display.end(shown, step.status, step.reason or shown.detail, step.seconds)

    def _read(self, step: Step, job: _Job) -> None:
        if job.settled:
            return
        if self._prices:
            job.used[step.job] = usages(self._sagemaker, step)
        quiet = True
        for label, line in self._new_lines(step, job):
            quiet = False
            job.lines.append(printable(line))
            self._display.line(line, job=label)
            self._remember(step, label, line)
        job.quiet_looks = job.quiet_looks + 1 if step.ended and quiet else 0

    def _remember(self, step: Step, label: str, line: str) -> None:
        values = metrics_of(line)
        if "epoch" in values:
            self.epochs.append({"step": step.name, "job": label, **values, "epoch": int(values["epoch"])})
            if self._all_epochs:
                self._display.advance(values["epoch"] / self._all_epochs)
        elif "trial" in values:
            self._searched.append(trial_of_line(line))
            self._display.advance(values["trial"] / max(values.get("of", 0), values["trial"]))

    def _new_lines(self, step: Step, job: _Job) -> Iterator[tuple[str, str]]:
        if step.kind != "TuningJob":
            yield from self._tail(job, step.kind, step.job).read()
            return
        job.trials = trials_of(self._sagemaker, step.job)
        for number, trial in enumerate(job.trials, 1):
            for host, line in self._tail(job, "TrainingJob", trial["TrainingJobName"]).read():
                yield " ".join(filter(None, (f"trial {number}", host))), line

    def _tail(self, job: _Job, kind: str, name: str) -> "Tail":
        return job.tails.setdefault(name, Tail(self._logs, kind, name))

    def _cost(self) -> float | None:
        if self._prices is None:
            return None
        used = [one for job in self._jobs.values() for all_ in job.used.values() for one in all_]
        return total(one.cost(self._prices) for one in used)

    def _ending(self, about: dict[str, Any]) -> Ending:
        failed = next((step for step in self._steps if step.status == "failed"), None)
        reason = failed.reason if failed else about.get("FailureReason", "")
        lines = self._jobs[failed.name].lines if failed and failed.name in self._jobs else ()
        return Ending(
            status=about["PipelineExecutionStatus"],
            reason=reason or about["PipelineExecutionStatus"],
            failed=failed.name if failed else "",
            lines=tuple(lines),
            seconds={step.name: step.seconds for step in self._steps},
            cost=self._cost(),
            rejected=bool(failed and failed.rejects),
        )


class Tail:
    """Reads the log of one job out of CloudWatch Logs: each line once, none lost, however often one looks.

    `kind` is TrainingJob or ProcessingJob. A job has a stream a host, and new ones after a spot interruption.
    """

    def __init__(self, logs: Any, kind: str, job: str) -> None:
        self._logs, self._group, self._job = logs, _GROUPS[kind], job
        self._tokens: dict[str, str] = {}

    def read(self) -> Iterator[tuple[str, str]]:
        """Yield (host, line) of what has arrived since the last call; host is empty while there is only one."""
        streams = self._streams()
        hosts = {_host(stream) for stream in streams}
        for stream in streams:
            for line in self._new(stream):
                yield _host(stream) if len(hosts) > 1 else "", line

    def _streams(self) -> list[str]:
        pages = self._logs.get_paginator("describe_log_streams")
        try:
            found = pages.paginate(logGroupName=self._group, logStreamNamePrefix=f"{self._job}/")
            return sorted(found.search("logStreams[].logStreamName"))
        except self._logs.exceptions.ResourceNotFoundException:
            return []  # the account's first job has not written yet

    def _new(self, stream: str) -> Iterator[str]:
        """Yield the stream's new lines. An empty page is not the end: that is where the token stays the same."""
        while True:
            known = self._tokens.get(stream)
            more = {"nextToken": known} if known else {}
            page = self._logs.get_log_events(logGroupName=self._group, logStreamName=stream, startFromHead=True, **more)
            # Before the lines are passed on: whoever stops reading in the middle has seen these.
            self._tokens[stream] = page["nextForwardToken"]
            yield from (event["message"] for event in page["events"])
            if page["nextForwardToken"] == known:
                return


def _host(stream: str) -> str:
    """Return `algo-2` of `<job>/algo-2-1700000000`, as SageMaker names streams."""
    return "-".join(stream.rpartition("/")[2].split("-")[:2])
