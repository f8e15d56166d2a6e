"""Follows a pipeline run: steps, log lines, metrics and cost, until it ends."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kennel.aws import plainly
from kennel.board import Board
from kennel.lines import printable
from kennel.pipeline_steps import Step, Usage, steps_of, trials_of, usages
from kennel.prices import Prices, dollars, total
from kennel.train.tail import Tail

_POLL_S = 2.0
_THROTTLED = {"ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"}
_LONGEST_WAIT_S = 60.0
_QUIET_LOOKS = 2  # after a job's end: CloudWatch shows the last lines seconds later
_LINES = 15  # of a failed step's log, shown again at the end


@dataclass(frozen=True)
class Ending:
    """How a run ended. `failed` names the step whose failure ended it, or is empty; `cost` None: a price is unknown."""

    status: str
    reason: str
    failed: str
    lines: tuple[str, ...]
    seconds: dict[str, float]
    cost: float | None


@dataclass
class _Job:
    """What is read of a step's job; of more than one where the step was tried again or has trials, by their names."""

    tails: dict[str, Tail] = field(default_factory=dict)
    used: dict[str, list[Usage]] = field(default_factory=dict)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES))
    quiet_looks: int = 0

    @property
    def settled(self) -> bool:
        return self.quiet_looks >= _QUIET_LOOKS


class Follower:
    """Shows the run `execution` on `board`. `client` makes a boto3 client of a service."""

    def __init__(self, client: Callable[[str], Any], execution: str, board: Board, prices: Prices) -> None:
        self._sagemaker, self._logs = client("sagemaker"), client("logs")
        self._execution, self._board, self._prices = execution, board, prices
        self._jobs: dict[str, _Job] = {}
        self._steps: list[Step] = []

    def run(self) -> Ending:
        """Follow to the end; raises KennelError when AWS refuses to tell."""
        wait = _POLL_S
        while True:
            with plainly():
                about = self._unless_throttled(self._look)
            if about is None:
                wait = min(wait * 2, _LONGEST_WAIT_S)
            else:
                wait = _POLL_S
                if about["PipelineExecutionStatus"] not in ("Executing", "Stopping") and self._settled():
                    return self._ending(about)
            time.sleep(wait)

    def _unless_throttled(self, look: Callable[[], Any]) -> Any:
        from botocore.exceptions import ClientError  # type: ignore[import-untyped]

        try:
            return look()
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _THROTTLED:
                return None
            raise

    def _look(self) -> dict[str, Any]:
        """One round. The run's status comes first: what is read after its end is complete."""
        about: dict[str, Any] = self._sagemaker.describe_pipeline_execution(PipelineExecutionArn=self._execution)
        self._steps = steps_of(self._sagemaker, self._execution)
        for step in self._steps:
            if step.name.startswith("Choose"):
                continue  # it takes no time, and what was chosen shows by itself
            if step.name not in self._board.rows:
                self._board.step(step.name, "running", step.seconds)
            if step.kind:
                self._read(step, self._jobs.setdefault(step.name, _Job()))
            if step.ended:
                self._board.step(step.name, step.status, step.seconds, step.reason)
        self._board.cost(f"Cost so far: {dollars(self._cost())}")
        return about

    def _read(self, step: Step, job: _Job) -> None:
        if job.settled:
            return
        job.used[step.job] = usages(self._sagemaker, step)
        quiet = True
        for label, line in self._new_lines(step, job):
            quiet = False
            job.lines.append(printable(line))
            self._board.line(line, job=label)
        job.quiet_looks = job.quiet_looks + 1 if step.ended and quiet else 0

    def _new_lines(self, step: Step, job: _Job) -> Iterator[tuple[str, str]]:
        if step.kind != "TuningJob":
            yield from self._tail(job, step.kind, step.job).read()
            return
        for number, trial in enumerate(trials_of(self._sagemaker, step.job) if job.used[step.job] else [], 1):
            for host, line in self._tail(job, "TrainingJob", trial["TrainingJobName"]).read():
                yield " ".join(filter(None, (f"trial {number}", host))), line

    def _tail(self, job: _Job, kind: str, name: str) -> Tail:
        return job.tails.setdefault(name, Tail(self._logs, kind, name))

    def _settled(self) -> bool:
        return all(job.settled for job in self._jobs.values())

    def _cost(self) -> float | None:
        return total(
            used.cost(self._prices) for job in self._jobs.values() for all_ in job.used.values() for used in all_
        )

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
        )
