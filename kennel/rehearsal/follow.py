"""Shows a pipeline execution while it runs, and waits for what AWS calls eventually."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from kennel.console import Display
from kennel.errors import KennelError
from kennel.rehearsal.jobs.events import StepEvent

_POLL_S = 0.1
_SHOWN = ("The spot instance", "trial=", "features ", "resuming ", "stopped by SIGTERM")


class Follower:
    """Takes the runner's events: steps go to the display, each epoch as a metric, each trial to the report."""

    def __init__(self, display: Display, epochs: int) -> None:
        self.display, self._all = display, epochs
        self.epochs: list[dict[str, Any]] = []
        self.trials: list[dict[str, Any]] = []
        self._open: dict[str, ExitStack] = {}

    def __call__(self, event: StepEvent) -> None:
        if event.step.startswith("Choose"):
            return  # it takes no time, and what was chosen shows by itself
        if event.kind == "started":
            self._open[event.step] = ExitStack()
            self._open[event.step].enter_context(self.display.step(event.step))
        elif event.kind == "metric" and "valid_accuracy" in event.metrics:
            self._epoch(event)
        elif event.kind == "trial":
            self.trials.append({"trial": event.job, **event.metrics, "chosen": event.detail})
        elif event.kind in ("log", "metric"):
            self._log(event.detail)
        elif event.step in self._open:
            self._close(event)

    def _log(self, line: str) -> None:
        """Show the few lines that say what a job does; a trial of head mode, which is no job, ends with such a line."""
        if line.startswith("trial="):
            said = dict(word.split("=", 1) for word in line.split() if "=" in word)
            row: dict[str, Any] = {"trial": f"{said.pop('trial')}/{said.pop('of', '?')}"}
            row |= {f"valid_{name}": float(said.pop(f"trial_{name}", "nan")) for name in ("accuracy", "loss")}
            self.trials.append(row | {"chosen": ", ".join(f"{name} {value}" for name, value in said.items())})
        if line.startswith(_SHOWN):
            self.display.log(line)

    def _epoch(self, event: StepEvent) -> None:
        """Number the metric lines: the pipeline's metrics are what CloudWatch shall draw, which the epoch is not."""
        job = {"step": event.step, "job": event.job}
        epoch = 1 + sum(job.items() <= seen.items() for seen in self.epochs)
        self.epochs.append({**job, "epoch": epoch, **event.metrics})
        self.display.metric({"epoch": epoch, **event.metrics})
        self.display.advance(epoch / self._all)

    def _close(self, event: StepEvent) -> None:
        with suppress(KennelError), self._open.pop(event.step):  # the pipeline's own status carries the reason
            if event.kind == "failed":
                raise KennelError(event.detail)


@dataclass(frozen=True)
class Waiting:
    """`undelivered` are the events that a rule's target has refused so far: no use to wait for what they set off."""

    undelivered: Sequence[str]

    def wait(self, what: str, ready: Callable[[], Any], *, seconds: float) -> Any:
        """Call `ready` until it answers something true and return that; raises KennelError when it will not."""
        deadline = time.monotonic() + seconds
        while not (answer := ready()):
            if self.undelivered:
                raise KennelError(f"{what} did not happen: {self.undelivered[0]}")
            if time.monotonic() > deadline:
                raise KennelError(f"{what} did not happen within {seconds:.0f} s.")
            time.sleep(_POLL_S)
        return answer


def execution_of(sagemaker: Any, pipeline: str, waiting: Waiting) -> str:
    """The ARN of the pipeline's first execution, which the upload's manifest starts through EventBridge."""

    def started() -> Any:
        found = sagemaker.list_pipeline_executions(PipelineName=pipeline)["PipelineExecutionSummaries"]
        return found and found[0]["PipelineExecutionArn"]

    return str(waiting.wait("The start of the pipeline by the upload's manifest", started, seconds=30))


def finished(sagemaker: Any, execution: str) -> dict[str, Any]:
    """Wait for the execution's end and return its description; raises KennelError with the reason of a failure."""
    while True:
        about: dict[str, Any] = sagemaker.describe_pipeline_execution(PipelineExecutionArn=execution)
        if about["PipelineExecutionStatus"] not in ("Executing", "Stopping"):
            break
        time.sleep(_POLL_S)
    if about["PipelineExecutionStatus"] != "Succeeded":
        raise KennelError(_rejection(sagemaker, execution) or _failure(about))
    return about


def _failure(about: dict[str, Any]) -> str:
    reason = about.get("FailureReason") or about["PipelineExecutionStatus"]
    return f"The pipeline ended as {about['PipelineExecutionStatus']}: {reason}"


def _rejection(sagemaker: Any, execution: str) -> str:
    """What a Fail step says for itself: that a model was not good enough is a result, no accident."""
    steps = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=execution)["PipelineExecutionSteps"]
    said = (step.get("Metadata", {}).get("Fail", {}).get("ErrorMessage", "") for step in steps)
    return next(filter(None, said), "")
