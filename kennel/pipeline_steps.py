"""The steps of a pipeline run and the jobs behind them, as SageMaker describes them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kennel.lines import printable
from kennel.prices import Prices

_STATUS = {"Succeeded": "done", "Failed": "failed", "Stopped": "stopped"}
_UNKNOWN = {"ValidationException", "ResourceNotFound"}
_KINDS = ("TrainingJob", "ProcessingJob", "TuningJob")


@dataclass(frozen=True)
class Step:
    """One step. `kind` and `job` are empty for a step without a job of its own; `status` as the board has it."""

    name: str
    status: str
    seconds: float
    reason: str
    kind: str = ""
    job: str = ""

    @property
    def ended(self) -> bool:
        return self.status != "running"


def steps_of(sagemaker: Any, execution: str) -> list[Step]:
    """All steps that have begun, oldest first."""
    pages = sagemaker.get_paginator("list_pipeline_execution_steps")
    found = pages.paginate(PipelineExecutionArn=execution, SortOrder="Ascending")
    return [_step(one) for page in found for one in page["PipelineExecutionSteps"]]


def _step(about: Mapping[str, Any]) -> Step:
    name = str(about["StepName"])
    status = _STATUS.get(about["StepStatus"], "running")
    seconds = _between(about.get("StartTime"), about.get("EndTime") if status != "running" else None)
    reason = " ".join(printable(line) for line in str(about.get("FailureReason", "")).splitlines())
    if "CacheHitResult" in about:
        return Step(name, status, seconds, "nothing new to do: the result of an earlier run is used")
    for kind in _KINDS:
        if arn := about.get("Metadata", {}).get(kind, {}).get("Arn"):
            return Step(name, status, seconds, reason, kind, _named(str(arn).rpartition("/")[2], name))
    return Step(name, status, seconds, reason)


def _named(job: str, step: str) -> str:
    """ARNs are in small letters, log streams in the job's own, and the job's name holds the step's."""
    return re.sub(re.escape(f"-{step}-"), f"-{step}-", job, count=1, flags=re.IGNORECASE)


@dataclass(frozen=True)
class Usage:
    """What a job has used: `seconds` are billable ones on each of the instances."""

    instance_type: str
    instances: int
    seconds: float

    def cost(self, prices: Prices) -> float | None:
        return prices.cost(self.instance_type, self.instances, self.seconds)


def usages(sagemaker: Any, step: Step) -> list[Usage]:
    """What the step's job (or each trial of it) has used so far; nothing where SageMaker does not know the job.

    A step may name its job a moment before that exists, and long after it was forgotten.
    """
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]

    try:
        return _usages(sagemaker, step)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _UNKNOWN:
            return []
        raise


def _usages(sagemaker: Any, step: Step) -> list[Usage]:
    if step.kind == "TrainingJob":
        return [training_usage(sagemaker.describe_training_job(TrainingJobName=step.job))]
    if step.kind == "ProcessingJob":
        about = sagemaker.describe_processing_job(ProcessingJobName=step.job)
        cluster = about["ProcessingResources"]["ClusterConfig"]
        seconds = _between(about.get("ProcessingStartTime"), about.get("ProcessingEndTime"))
        return [Usage(cluster["InstanceType"], cluster.get("InstanceCount", 1), seconds)]
    if step.kind == "TuningJob":
        return _trial_usages(sagemaker, step.job)
    return []


def training_usage(about: Mapping[str, Any]) -> Usage:
    """From DescribeTrainingJob's answer. Billable seconds have spot's discount in them already."""
    cluster = about["ResourceConfig"]
    ran = _between(about.get("TrainingStartTime"), about.get("TrainingEndTime"))
    return Usage(cluster["InstanceType"], cluster.get("InstanceCount", 1), about.get("BillableTimeInSeconds", ran))


def trials_of(sagemaker: Any, tuning: str) -> list[dict[str, Any]]:
    """Summaries of a tuning job's training jobs, oldest first."""
    pages = sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
    found = pages.paginate(HyperParameterTuningJobName=tuning, SortBy="CreationTime", SortOrder="Ascending")
    return [one for page in found for one in page["TrainingJobSummaries"]]


def _trial_usages(sagemaker: Any, tuning: str) -> list[Usage]:
    about = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=tuning)
    cluster = about["TrainingJobDefinition"]["ResourceConfig"]
    kind, count = cluster["InstanceType"], cluster.get("InstanceCount", 1)
    trials = trials_of(sagemaker, tuning)
    return [Usage(kind, count, _between(one.get("TrainingStartTime"), one.get("TrainingEndTime"))) for one in trials]


def _between(start: datetime | None, end: datetime | None) -> float:
    """Seconds from start to end, or to now; 0 for what has not begun."""
    return max(0.0, ((end or datetime.now(UTC)) - start).total_seconds()) if start else 0.0
