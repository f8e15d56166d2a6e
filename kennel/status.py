"""What is deployed, what runs, what waits for approval, and what to do next.

boto3 and not sagemaker-core: importing its typed resources takes ten times as long (1.3 s against 0.13 s) and these
are five read-only calls.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kennel.aws import client, plainly, stack_name
from kennel.console import AsJson, Stage, print_json
from kennel.errors import KennelError

_EXECUTIONS = 3
_PACKAGES = 10
_COLOURS = {"Succeeded": "green", "Approved": "green", "InService": "green", "Failed": "red", "Rejected": "red"}
_APPROVE = "aws sagemaker update-model-package --model-package-arn {} --model-approval-status Approved"


@dataclass(frozen=True)
class Execution:
    name: str
    status: str
    started: datetime | None
    reason: str
    steps: tuple[tuple[str, str, str], ...]  # (name, status, reason), in order of start
    arn: str = ""


@dataclass(frozen=True)
class Package:
    version: int
    arn: str
    approval: str
    created: datetime | None
    live: bool


@dataclass(frozen=True)
class Status:
    """One stage. `packages` are newest first; `endpoint` is the endpoint's status, empty where there is none."""

    stage: str
    stacks: dict[str, str] = field(default_factory=dict)
    executions: tuple[Execution, ...] = ()
    endpoint: str = ""
    packages: tuple[Package, ...] = ()

    @property
    def next(self) -> str:
        """Say what the operator does next."""
        troubled = [name for name, status in self.stacks.items() if "FAILED" in status or "ROLLBACK" in status]
        if not self.stacks:
            return f"Nothing is deployed: run `make deploy STAGE={self.stage}`."
        if troubled:
            return f"{', '.join(troubled)} needs attention: the stack's events say why."
        return self._next_of_models() or f"Nothing is trained yet: `kennel upload FOLDER --stage {self.stage}`."

    def _next_of_models(self) -> str:
        newest = self.packages[0] if self.packages else None
        run = self.executions[0].status if self.executions else ""
        if newest and newest.approval == "PendingManualApproval":
            return f"Version {newest.version} waits for approval: `{_APPROVE.format(newest.arn)}`."
        if run == "Executing":
            return f"The pipeline runs: `kennel train --follow {self.executions[0].arn}` shows it."
        if run == "Failed":
            return f"The last run failed, for the reason above; `kennel train --stage {self.stage}` starts another."
        if self.endpoint == "InService":
            return f"Ask it: `kennel invoke photo.jpg --stage {self.stage}`."
        return f"The endpoint is {self.endpoint}; look again later." if self.endpoint else ""


def gather(stage: str, client: Callable[[str], Any]) -> Status:
    """Read everything about `stage`; `client` makes a boto3 client of a service. An empty account is no error."""
    with plainly():
        stacks = _stacks(client("cloudformation"), stack_name(stage, ""))
    if not stacks:
        return Status(stage)
    known = {key: value for stack in stacks for key, value in _values(stack).items()}
    sagemaker = client("sagemaker")
    packages = _packages(sagemaker, known.get("ModelPackageGroupName", ""), known.get("ModelPackageArn", ""))
    return Status(
        stage=stage,
        stacks={stack["StackName"]: stack["StackStatus"] for stack in stacks},
        executions=_executions(sagemaker, known.get("PipelineName", "")),
        endpoint=_endpoint(sagemaker, known.get("EndpointName", "")),
        packages=packages,
    )


def _stacks(cloudformation: Any, prefix: str) -> list[dict[str, Any]]:
    pages = cloudformation.get_paginator("describe_stacks").paginate()
    found = [stack for page in pages for stack in page["Stacks"] if stack["StackName"].startswith(prefix)]
    return sorted(found, key=lambda stack: str(stack["StackName"]))


def _values(stack: dict[str, Any]) -> dict[str, str]:
    outputs = {one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs", [])}
    parameters = {one["ParameterKey"]: one.get("ParameterValue", "") for one in stack.get("Parameters", [])}
    return {**parameters, **outputs}


def _executions(sagemaker: Any, pipeline: str) -> tuple[Execution, ...]:
    if not pipeline:
        return ()
    with plainly():
        listed = sagemaker.list_pipeline_executions(PipelineName=pipeline, MaxResults=_EXECUTIONS)
        summaries = listed["PipelineExecutionSummaries"]
        return tuple(_execution(sagemaker, summary) for summary in summaries[:_EXECUTIONS])


def _execution(sagemaker: Any, summary: dict[str, Any]) -> Execution:
    arn = summary["PipelineExecutionArn"]
    steps = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn, SortOrder="Ascending")
    return Execution(
        name=arn.rsplit("/", 1)[-1],
        status=summary["PipelineExecutionStatus"],
        started=summary.get("StartTime"),
        reason=summary.get("PipelineExecutionFailureReason", ""),
        steps=tuple(
            (step["StepName"], step["StepStatus"], step.get("FailureReason", ""))
            for step in steps["PipelineExecutionSteps"]
        ),
        arn=arn,
    )


def _endpoint(sagemaker: Any, name: str) -> str:
    if not name:
        return ""
    try:
        with plainly():
            described = sagemaker.describe_endpoint(EndpointName=name)
    except KennelError as error:
        if "Could not find" in str(error) or "ValidationException" in str(error):
            return ""
        raise
    return str(described["EndpointStatus"])


def _packages(sagemaker: Any, group: str, live: str) -> tuple[Package, ...]:
    if not group:
        return ()
    with plainly():
        listed = sagemaker.list_model_packages(
            ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Descending", MaxResults=_PACKAGES
        )
    return tuple(
        Package(
            version=int(one.get("ModelPackageVersion", 0)),
            arn=one["ModelPackageArn"],
            approval=one.get("ModelApprovalStatus", ""),
            created=one.get("CreationTime"),
            live=bool(live) and one["ModelPackageArn"] == live,
        )
        for one in listed["ModelPackageSummaryList"]
    )


def status(stage: Stage = "Dev", as_json: AsJson = False) -> None:
    """Show stacks, pipeline runs, models and the endpoint, and say what to do next.

    [bold]Examples[/]

      kennel status

      kennel status --stage Prod --json
    """
    show_status(gather(stage, client), as_json=as_json)


def show_status(status: Status, *, as_json: bool) -> None:
    if as_json:
        return print_json({**dataclasses.asdict(status), "next": status.next})
    console = Console(highlight=False)
    if status.stacks:
        console.print(_grid("Stack", status.stacks.items()))
        console.print(_grid("Endpoint", [("status", status.endpoint or "none: no model is released yet")]))
    for run in status.executions:
        console.print(_grid(f"Pipeline run {run.name}", _lines(run)))
    if status.packages:
        rows = [(f"version {one.version}", one.approval + (", live" if one.live else "")) for one in status.packages]
        console.print(_grid("Models", rows))
    console.print(f"→ {status.next}", markup=False, style="bold", soft_wrap=True)


def _lines(run: Execution) -> Iterator[tuple[str, str]]:
    when = f" since {run.started:%Y-%m-%d %H:%M}" if run.started else ""
    yield "status", run.status + (f": {run.reason}" if run.reason else when)
    for name, status, reason in run.steps:
        yield f"  {name}", status + (f": {reason}" if reason else "")


def _grid(title: str, rows: Any) -> Table:
    table = Table(box=None, pad_edge=False, title=escape(title), title_justify="left", title_style="bold")
    table.show_header = False
    for name, text in rows:
        colour = _COLOURS.get(text.split(":")[0].split(",")[0], "")
        table.add_row(escape(name), f"[{colour}]{escape(text)}[/]" if colour else escape(text))
    return table
