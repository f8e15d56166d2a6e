"""Starts the pipeline of a stage, after saying what it can cost, and follows it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from kennel.aws import output, plainly
from kennel.console import Display
from kennel.errors import KennelError
from kennel.prices import Prices, dollars, total
from kennel.train.bound import Job, longest_jobs, typed
from kennel.train.choose import choose_manifest
from kennel.train.follow import Ending, Follower

Client = Callable[[str], Any]


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
    """Check everything that can be checked before anything is started; raises KennelError."""
    pipeline = output(stage, "Pipeline", "PipelineName")
    bucket = output(stage, "Data", "DataBucketName")
    sagemaker = client("sagemaker")
    with plainly():
        described = sagemaker.describe_pipeline(PipelineName=pipeline)
    definition = json.loads(described["PipelineDefinition"])
    manifest = given.get("DataManifest") or choose_manifest(client("s3"), bucket, dataset)
    parameters = {**given, "DataManifest": manifest}
    values = typed(definition, parameters)
    try:
        jobs = longest_jobs(definition, values, prices)
    except (KeyError, TypeError, ValueError) as error:
        raise KennelError(f"The definition of pipeline {pipeline} is not one of this app ({error!r}).") from error
    return Plan(stage, pipeline, bucket, sagemaker.meta.region_name, parameters, values, tuple(jobs), prices)


def start(client: Client, plan: Plan) -> str:
    """Start the run and return its ARN."""
    pairs = [{"Name": name, "Value": value} for name, value in plan.parameters.items()]
    with plainly():
        started = client("sagemaker").start_pipeline_execution(
            PipelineName=plan.pipeline, PipelineExecutionDescription="kennel train", PipelineParameters=pairs
        )
    return str(started["PipelineExecutionArn"])


def follow(client: Client, execution: str, prices: Prices, console: Console) -> Ending:
    """Show the run until it ends; raises KennelError, and KeyboardInterrupt, which leaves the run alone."""
    with Display(console) as display:
        return Follower(client, execution, display, prices=prices).run()


def cost_lines(plan: Plan, estimated: str) -> list[str]:
    """What is said before the question: each job's limit, the sum, and what is to be expected (empty: unknown)."""
    lines = [f"Data: {plan.parameters['DataManifest']}"]
    for job in plan.jobs:
        copies = f"{job.copies} trials x " if job.copies > 1 else ""
        machines = f"{job.instances} x {job.instance_type}"
        cost = job.cost(plan.prices)
        price = dollars(cost) if cost is not None else "price unknown"
        lines.append(f"  {job.step}: {copies}{machines}, at most {_hours(job.seconds)}: {price}")
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


def _hours(seconds: int) -> str:
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds / 60:g} min"


def attach_lines(execution: str) -> list[str]:
    return [
        f"Follow it:  kennel train --follow {execution}",
        f"Stop it:    aws sagemaker stop-pipeline-execution --pipeline-execution-arn {execution}",
    ]
