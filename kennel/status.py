"""What is deployed, what runs, what waits for approval, and what to do next.

boto3 and not sagemaker-core: importing its typed resources takes ten times as long (1.3 s against 0.13 s) and these
are five read-only calls.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kennel.aws import Client, aws_errors, client, stack_name
from kennel.console import AsJson, Stage, print_json

_EXECUTIONS = 3
_PACKAGES = 10
_COLOURS = {"Succeeded": "green", "Approved": "green", "InService": "green", "Failed": "red", "Rejected": "red"}
_APPROVE = "aws sagemaker update-model-package --model-package-arn {} --model-approval-status Approved"


@dataclass(frozen=True)
class Status:
    """One stage, as --json prints it. `endpoint` is the endpoint's status, empty where there is none.

    `executions`, newest first: name, status, started, reason, arn, and the steps as (name, status, reason) in order of
    start. `packages`, newest first: version, arn, approval, created, live.
    """

    stage: str
    stacks: dict[str, str] = field(default_factory=dict)
    executions: Sequence[Mapping[str, Any]] = ()
    endpoint: str = ""
    packages: Sequence[Mapping[str, Any]] = ()

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
        run = self.executions[0]["status"] if self.executions else ""
        if newest and newest["approval"] == "PendingManualApproval":
            return f"Version {newest['version']} waits for approval: `{_APPROVE.format(newest['arn'])}`."
        if run == "Executing":
            return f"The pipeline runs: `kennel train --follow {self.executions[0]['arn']}` shows it."
        if run == "Failed":
            return f"The last run failed, for the reason above; `kennel train --stage {self.stage}` starts another."
        if self.endpoint == "InService":
            return f"Ask it: `kennel invoke photo.jpg --stage {self.stage}`."
        return f"The endpoint is {self.endpoint}; look again later." if self.endpoint else ""


def gather(stage: str, client: Client) -> Status:
    """Read everything about `stage` with clients from `client`. An empty account is no error."""
    prefix = stack_name(stage, "")
    with aws_errors():
        pages = client("cloudformation").get_paginator("describe_stacks").paginate()
        found = [one for one in pages.search("Stacks[]") if one["StackName"].startswith(prefix)]
        if not found:
            return Status(stage)
        known: dict[str, str] = {}
        for stack in found:
            known |= {one["ParameterKey"]: one.get("ParameterValue", "") for one in stack.get("Parameters", [])}
            known |= {one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs", [])}
        sagemaker = client("sagemaker")
        return Status(
            stage=stage,
            stacks={stack["StackName"]: stack["StackStatus"] for stack in sorted(found, key=itemgetter("StackName"))},
            packages=_packages(sagemaker, known.get("ModelPackageGroupName", ""), known.get("ModelPackageArn", "")),
            executions=_executions(sagemaker, known.get("PipelineName", "")),
            endpoint=_endpoint(sagemaker, known.get("EndpointName", "")),
        )


def _executions(sagemaker: Any, pipeline: str) -> list[dict[str, Any]]:
    if not pipeline:
        return []
    listed = sagemaker.list_pipeline_executions(PipelineName=pipeline, MaxResults=_EXECUTIONS)
    return [_execution(sagemaker, one) for one in listed["PipelineExecutionSummaries"][:_EXECUTIONS]]


def _execution(sagemaker: Any, summary: Mapping[str, Any]) -> dict[str, Any]:
    arn = summary["PipelineExecutionArn"]
    pages = sagemaker.get_paginator("list_pipeline_execution_steps")
    steps = pages.paginate(PipelineExecutionArn=arn, SortOrder="Ascending").search("PipelineExecutionSteps[]")
    return {
        "name": arn.rsplit("/", 1)[-1],
        "status": summary["PipelineExecutionStatus"],
        "started": summary.get("StartTime"),
        "reason": summary.get("PipelineExecutionFailureReason", ""),
        "steps": [(step["StepName"], step["StepStatus"], step.get("FailureReason", "")) for step in steps],
        "arn": arn,
    }


def _endpoint(sagemaker: Any, name: str) -> str:
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]

    try:
        return str(sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"]) if name else ""
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != "ValidationException":
            raise
        return ""  # no model is released yet


def _packages(sagemaker: Any, group: str, live: str) -> list[dict[str, Any]]:
    if not group:
        return []
    listed = sagemaker.list_model_packages(
        ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Descending", MaxResults=_PACKAGES
    )
    return [
        {
            "version": int(one.get("ModelPackageVersion", 0)),
            "arn": one["ModelPackageArn"],
            "approval": one.get("ModelApprovalStatus", ""),
            "created": one.get("CreationTime"),
            "live": one["ModelPackageArn"] == live,
        }
        for one in listed["ModelPackageSummaryList"]
    ]


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
        console.print(_grid(f"Pipeline run {run['name']}", _lines(run)))
    if status.packages:
        rows = [(f"version {one['version']}", one["approval"] + ", live" * one["live"]) for one in status.packages]
        console.print(_grid("Models", rows))
    console.print(f"→ {status.next}", markup=False, style="bold", soft_wrap=True)


def _lines(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    when = f" since {run['started']:%Y-%m-%d %H:%M}" if run["started"] else ""
    yield "status", run["status"] + (f": {run['reason']}" if run["reason"] else when)
    for name, status, reason in run["steps"]:
        yield f"  {name}", status + (f": {reason}" if reason else "")


def _grid(title: str, rows: Any) -> Table:
    table = Table(box=None, pad_edge=False, title=escape(title), title_justify="left", title_style="bold")
    table.show_header = False
    for name, text in rows:
        colour = _COLOURS.get(text.split(":")[0].split(",")[0], "")
        table.add_row(escape(name), f"[{colour}]{escape(text)}[/]" if colour else escape(text))
    return table
