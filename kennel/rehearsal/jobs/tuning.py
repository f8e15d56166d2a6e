"""CreateHyperParameterTuningJob: one training job for each trial; the best one becomes the step's properties."""

import hashlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kennel.rehearsal.jobs.context import Context
from kennel.rehearsal.jobs.contract import JobFailed
from kennel.rehearsal.jobs.language import DefinitionError
from kennel.rehearsal.jobs.training import TrainingJob

NAME_LENGTH = 32  # characters of a tuning job's name, SageMaker's limit
_Summary = dict[str, Any]


def run_tuning(context: Context, name: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Run all trials, one after the other; raise JobFailed when none reports a value of the objective."""
    config, definition = request["HyperParameterTuningJobConfig"], request["TrainingJobDefinition"]
    arn = context.arn("hyper-parameter-tuning-job", name)
    context.create("create_hyper_parameter_tuning_job", {"HyperParameterTuningJobName": name, **request})
    generator = random.Random(config.get("RandomSeed", context.seed))
    count = int(config["ResourceLimits"]["MaxNumberOfTrainingJobs"])
    objective = _objective(config, definition)
    summaries: list[_Summary] = []
    context.record(arn, TrainingJobSummaries=summaries)
    for number in range(1, count + 1):
        suffix = hashlib.sha256(f"{name}/{number}".encode()).hexdigest()[:8]
        trial, now = f"{name}-{number:03d}-{suffix}", datetime.now(UTC)
        summaries.append(
            {
                "TrainingJobName": trial,
                "TrainingJobArn": context.arn("training-job", trial),
                "TrainingJobStatus": "InProgress",
                "TunedHyperParameters": dict(sample(config.get("ParameterRanges", {}), generator)),
                "CreationTime": now,
                "TrainingStartTime": now,
            }
        )
        ended = _trial(context, summaries[-1], definition, objective)
        summaries[-1] = {**summaries[-1], **ended, "TrainingEndTime": datetime.now(UTC)}
    best = _best(summaries, objective["Type"])
    completed = sum(summary["TrainingJobStatus"] == "Completed" for summary in summaries)
    return {
        **request,
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobArn": arn,
        "HyperParameterTuningJobStatus": "Completed",
        "BestTrainingJob": best,
        "TrainingJobSummaries": sorted(summaries, key=lambda summary: summary is not best),
        "TrainingJobStatusCounters": {"Completed": completed, "NonRetryableError": count - completed},
    }


def sample(ranges: Mapping[str, Any], generator: random.Random) -> Iterator[tuple[str, str]]:
    """Yield (name, value) for each parameter; values are strings, as SageMaker passes them."""
    if others := sorted(set(ranges) - {"ContinuousParameterRanges"}):
        raise DefinitionError(f"{', '.join(others)} cannot be rehearsed; ContinuousParameterRanges can.")
    for item in ranges["ContinuousParameterRanges"]:
        yield item["Name"], f"{_between(item, generator):.8g}"


def _between(item: Mapping[str, Any], generator: random.Random) -> float:
    low, high, scale = float(item["MinValue"]), float(item["MaxValue"]), item["ScalingType"]
    if low > high or scale not in ("Linear", "Logarithmic") or (scale == "Logarithmic" and low <= 0):
        raise DefinitionError(f"The range of {item['Name']} ({low} to {high}) does not suit {scale} scaling.")
    if scale == "Logarithmic":
        return math.exp(generator.uniform(math.log(low), math.log(high)))
    return generator.uniform(low, high)


def _objective(config: Mapping[str, Any], definition: Mapping[str, Any]) -> Mapping[str, str]:
    objective: Mapping[str, str] = config["HyperParameterTuningJobObjective"]
    known = [item["Name"] for item in definition["AlgorithmSpecification"].get("MetricDefinitions", [])]
    if objective["MetricName"] not in known:
        raise DefinitionError(f"The objective {objective['MetricName']} is none of the job's metrics ({known}).")
    return objective


def _trial(
    context: Context, summary: _Summary, definition: Mapping[str, Any], objective: Mapping[str, str]
) -> _Summary:
    """Run one trial; return what is new in its summary."""
    parameters = {
        **definition.get("StaticHyperParameters", {}),
        **summary["TunedHyperParameters"],
        "_tuning_objective_metric": objective["MetricName"],
    }
    try:
        job = TrainingJob(context, summary["TrainingJobName"], {**definition, "HyperParameters": parameters})
        done = job.run()
    except JobFailed as error:
        if context.stopping:
            raise
        return {"TrainingJobStatus": "Failed", "FailureReason": str(error)}
    values = {item["MetricName"]: item["Value"] for item in done["FinalMetricDataList"]}
    final = {**objective, "Value": values.get(objective["MetricName"], math.nan)}
    return {"TrainingJobStatus": "Completed", "FinalHyperParameterTuningJobObjectiveMetric": final}


def _best(summaries: Sequence[_Summary], direction: str) -> _Summary:
    def value(summary: _Summary) -> float:
        return float(summary.get("FinalHyperParameterTuningJobObjectiveMetric", {}).get("Value", math.nan))

    rated = [summary for summary in summaries if not math.isnan(value(summary))]
    if not rated:
        reasons = [summary["FailureReason"] for summary in summaries if "FailureReason" in summary]
        raise JobFailed(f"No trial reported the objective. {reasons[0] if reasons else ''}".strip())
    return max(rated, key=value) if direction == "Maximize" else min(rated, key=value)
