"""What the steps of a pipeline run, the jobs behind them and the lines of their logs say."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kennel.aws import suppressed
from kennel.prices import Prices

_STATUS = {"Succeeded": "done", "Failed": "failed", "Stopped": "stopped"}
# Of a job that does not exist: a step may name it a moment before, and long after it was forgotten.
_UNKNOWN = ("ValidationException", "ResourceNotFound")
_KINDS = ("TrainingJob", "ProcessingJob", "TuningJob")
_METRIC_LINE = re.compile(r"(epoch|trial)=\d+ ")
_PAIR = re.compile(r"(\w+)=([-+]?(?:[0-9.]+(?:e[-+]?\d+)?|nan|inf))(?=\s|$)", re.I)


def metrics_of(line: str) -> dict[str, float]:
    """Return the numbers of a line `epoch=3 train_loss=0.1 ...` or `trial=3 of=50 ...`, none of any other line."""
    if not _METRIC_LINE.match(line):
        return {}
    found = {}
    for name, text in _PAIR.findall(line):
        try:
            found[name] = float(text)
        except ValueError:
            continue  # 1.2.3 is no number
    return found


def printable(line: str) -> str:
    """Return the line without what could steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in line.rstrip())


@dataclass(frozen=True)
class Step:
    """One step. `status` is running, done, failed or stopped; `kind` and `job` are empty for a step without a job."""

    name: str
    status: str
    seconds: float
    reason: str
    kind: str = ""
    job: str = ""
    rejects: bool = False  # a Fail step: its reason is a result of the run, not an accident

    @property
    def ended(self) -> bool:
        return self.status != "running"


def steps_of(sagemaker: Any, execution: str) -> list[Step]:
    """Return all steps that have begun, oldest first."""
    pages = sagemaker.get_paginator("list_pipeline_execution_steps")
    found = pages.paginate(PipelineExecutionArn=execution, SortOrder="Ascending")
    return [_step(one) for one in found.search("PipelineExecutionSteps[]")]


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
    return Step(name, status, seconds, reason, rejects="Fail" in about.get("Metadata", {}))


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
    """Return what the step's job, or each trial of it, has used so far; nothing where SageMaker knows no such job."""
    with suppressed(*_UNKNOWN):
        if step.kind == "TrainingJob":
            return [training_usage(sagemaker.describe_training_job(TrainingJobName=step.job))]
        if step.kind == "ProcessingJob":
            return [_processing_usage(sagemaker.describe_processing_job(ProcessingJobName=step.job))]
        if step.kind == "TuningJob":
            return _trial_usages(sagemaker, step.job)
    return []


def _processing_usage(about: Mapping[str, Any]) -> Usage:
    cluster = about["ProcessingResources"]["ClusterConfig"]
    seconds = _between(about.get("ProcessingStartTime"), about.get("ProcessingEndTime"))
    return Usage(cluster["InstanceType"], cluster.get("InstanceCount", 1), seconds)


def training_usage(about: Mapping[str, Any]) -> Usage:
    """Return what DescribeTrainingJob's answer says. Billable seconds have spot's discount in them already."""
    cluster = about["ResourceConfig"]
    ran = _between(about.get("TrainingStartTime"), about.get("TrainingEndTime"))
    return Usage(cluster["InstanceType"], cluster.get("InstanceCount", 1), about.get("BillableTimeInSeconds", ran))


def trials_of(sagemaker: Any, tuning: str) -> list[dict[str, Any]]:
    """Return the summaries of a tuning job's training jobs, oldest first; none where SageMaker knows no such job."""
    pages = sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
    found = pages.paginate(HyperParameterTuningJobName=tuning, SortBy="CreationTime", SortOrder="Ascending")
    with suppressed(*_UNKNOWN):
        return list(found.search("TrainingJobSummaries[]"))
    return []


def trial_of_summary(number: int, count: int, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return one training job of a tuning job as a row: its number, its objective, what was chosen for it."""
    final = summary.get("FinalHyperParameterTuningJobObjectiveMetric", {})
    chosen = ", ".join(f"{name} {value}" for name, value in summary.get("TunedHyperParameters", {}).items())
    return {"trial": f"{number}/{count}", final.get("MetricName", "objective"): final.get("Value"), "chosen": chosen}


def trial_of_line(line: str) -> dict[str, Any]:
    """Return a line `trial=3 of=50 trial_accuracy=...` of a search within one job as such a row."""
    pairs = dict(word.split("=", 1) for word in line.split() if "=" in word)
    row: dict[str, Any] = {"trial": f"{pairs.pop('trial')}/{pairs.pop('of', '?')}"}
    row |= {f"valid_{name}": float(pairs.pop(f"trial_{name}", "nan")) for name in ("accuracy", "loss")}
    return row | {"chosen": ", ".join(f"{name} {value}" for name, value in pairs.items())}


def _trial_usages(sagemaker: Any, tuning: str) -> list[Usage]:
    about = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=tuning)
    cluster = about["TrainingJobDefinition"]["ResourceConfig"]
    kind, count = cluster["InstanceType"], cluster.get("InstanceCount", 1)
    trials = trials_of(sagemaker, tuning)
    return [Usage(kind, count, _between(one.get("TrainingStartTime"), one.get("TrainingEndTime"))) for one in trials]


def _between(start: datetime | None, end: datetime | None) -> float:
    """Return the seconds from start to end, or to now; 0 for what has not begun."""
    return max(0.0, ((end or datetime.now(UTC)) - start).total_seconds()) if start else 0.0
