"""A run of a stage's pipeline: what it is started with, what it can cost at most, its start."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kennel.aws import Client, aws_errors, output
from kennel.console import duration
from kennel.errors import KennelError
from kennel.prices import Prices, dollars, total
from kennel.rehearsal.jobs.language import DefinitionError, resolve_parameters
from training.hyperparameters import HEAD_MODES

_DAY = 86_400  # seconds: a job's limit where it names none


@dataclass(frozen=True)
class Job:
    """A step's job at its longest: `seconds` on each of `instances`, `copies` times (the trials of a tuning job)."""

    step: str
    instance_type: str
    instances: int
    seconds: int
    copies: int = 1

    def cost(self, prices: Prices) -> float | None:
        return prices.cost(self.instance_type, self.instances * self.copies, self.seconds)


@dataclass(frozen=True)
class Plan:
    """A run that could be started. `jobs` are the longest that it can have."""

    stage: str
    pipeline: str
    bucket: str
    region: str
    parameters: Mapping[str, str]
    values: Mapping[str, Any]  # the parameters with their defaults
    jobs: tuple[Job, ...]
    prices: Prices

    @property
    def most(self) -> float | None:
        """Dollars, or None where a price is unknown."""
        return total(job.cost(self.prices) for job in self.jobs)


def plan_run(client: Client, stage: str, dataset: str, given: Mapping[str, str], prices: Prices) -> Plan:
    """Check everything that can be checked before anything is started; raise KennelError."""
    pipeline = output(stage, "Pipeline", "PipelineName")
    bucket = output(stage, "Data", "DataBucketName")
    sagemaker = client("sagemaker")
    with aws_errors():
        described = sagemaker.describe_pipeline(PipelineName=pipeline)
    definition = json.loads(described["PipelineDefinition"])
    manifest = given.get("DataManifest") or choose_manifest(client("s3"), bucket, dataset)
    parameters = {**given, "DataManifest": manifest}
    try:
        values = resolve_parameters(definition, parameters)
        jobs = longest_jobs(definition, values)
    except DefinitionError as error:
        raise KennelError(str(error)) from None
    except (KeyError, TypeError, ValueError) as error:
        raise KennelError(f"The definition of pipeline {pipeline} is not one of this app ({error!r}).") from error
    return Plan(stage, pipeline, bucket, sagemaker.meta.region_name, parameters, values, tuple(jobs), prices)


def longest_jobs(definition: Mapping[str, Any], values: Mapping[str, Any]) -> list[Job]:
    """Return the jobs of the branch that `values` choose, each at its time limit.

    Trials of the whole network are a job each. Where only Prepare finds out whether the whole network learns, it is
    taken to: that costs most.
    """
    tuned = int(values.get("TuneTrials", 0)) > 0 and values.get("Mode") not in HEAD_MODES
    suffix = "Tuned" * tuned + "Spot" * (values.get("Spot") == "true")
    names = ("Prepare", f"Tune{suffix}" if tuned else f"Train{suffix}", f"Evaluate{suffix}")
    steps = {step["Name"]: step for step in _flat(definition["Steps"])}
    return [_job(steps[name], values) for name in names if name in steps]


def _flat(steps: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for step in steps:
        yield step
        for branch in ("IfSteps", "ElseSteps"):
            yield from _flat(step["Arguments"].get(branch, ()))


def _job(step: Mapping[str, Any], values: Mapping[str, Any]) -> Job:
    def value(of: Any) -> Any:
        return values[of["Get"].removeprefix("Parameters.")] if isinstance(of, dict) else of

    arguments, copies = step["Arguments"], 1
    if step["Type"] == "Tuning":
        copies = int(value(arguments["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"]))
        arguments = arguments["TrainingJobDefinition"]
    cluster = arguments.get("ResourceConfig") or arguments["ProcessingResources"]["ClusterConfig"]
    limit = int(value(arguments.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", _DAY)))
    return Job(step["Name"], value(cluster["InstanceType"]), int(value(cluster.get("InstanceCount", 1))), limit, copies)


def choose_manifest(s3: Any, bucket: str, dataset: str) -> str:
    """Return the key of a data set's manifest: of `dataset` (a name, a key or an s3:// address), or the newest of all.

    Raise KennelError where there is none.
    """
    key = dataset.removeprefix(f"s3://{bucket}/")
    prefix = key if key.endswith(".manifest") else f"datasets/{dataset}/" if dataset else "datasets/"
    found = _manifests(s3, bucket, prefix)
    if not found:
        missing = f"There is no data set {dataset!r}" if dataset else "There is no data set"
        raise KennelError(
            f"{missing} in s3://{bucket}: send one with `kennel upload FOLDER`, which starts the pipeline."
        )
    return max(found)[1]


def _manifests(s3: Any, bucket: str, prefix: str) -> list[tuple[Any, str]]:
    with aws_errors():
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        listed = [one for page in pages for one in page.get("Contents", [])]
    return [(one["LastModified"], one["Key"]) for one in listed if one["Key"].endswith(".manifest")]


def start(client: Client, plan: Plan) -> str:
    pairs = [{"Name": name, "Value": value} for name, value in plan.parameters.items()]
    with aws_errors():
        started = client("sagemaker").start_pipeline_execution(
            PipelineName=plan.pipeline, PipelineExecutionDescription="kennel train", PipelineParameters=pairs
        )
    return str(started["PipelineExecutionArn"])


def cost_lines(plan: Plan, estimated: str) -> list[str]:
    """Return what is printed before the question: each job's limit, the sum, the estimate (empty: unknown)."""
    lines = [f"Data: {plan.parameters['DataManifest']}"]
    for job in plan.jobs:
        copies = f"{job.copies} trials x " if job.copies > 1 else ""
        machines = f"{job.instances} x {job.instance_type}"
        cost = job.cost(plan.prices)
        price = dollars(cost) if cost is not None else "price unknown"
        lines.append(f"  {job.step}: {copies}{machines}, at most {duration(job.seconds)}: {price}")
    unknown = sorted({job.instance_type for job in plan.jobs if job.cost(plan.prices) is None})
    if unknown:
        lines.append(f"The price of {', '.join(unknown)} is unknown here, so nobody can say what this costs at most.")
    else:
        lines.append(f"At most {dollars(plan.most)}, if every job runs into its time limit.")
    lines += [estimated] if estimated else []
    lines.append(
        f"{plan.prices.note(plan.region)} Storage, and SageMaker's retries after faults of its own, come on top."
    )
    return lines


def attach_lines(execution: str) -> list[str]:
    return [
        f"Follow it:  kennel train --follow {execution}",
        f"Stop it:    aws sagemaker stop-pipeline-execution --pipeline-execution-arn {execution}",
    ]
