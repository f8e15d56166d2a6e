"""What is deployed, what runs, what is released, and what to do next.

boto3 and not sagemaker-core: importing its typed resources takes ten times as long (1.3 s against 0.13 s) and these
are a few read-only calls.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kennel import releases
from kennel.aws import Client, aws_errors, client, stack_name, suppressed
from kennel.console import AsJson, Stage, print_json
from kennel.releases import Release

_EXECUTIONS = 3
_RELEASES = 5
_COLOURS = {"Succeeded": "green", "InService": "green", "Failed": "red"}


@dataclass(frozen=True)
class Status:
    """One stage, as --json prints it. `endpoint` is the endpoint's status, empty where there is none.

    `executions`, newest first: name, status, started, reason, arn, and the steps as (name, status, reason) in order of
    start. `releases`: newest version first. `diverged`: the endpoint serves another configuration than its stack says.
    """

    stage: str
    stacks: dict[str, str] = field(default_factory=dict)
    executions: Sequence[Mapping[str, Any]] = ()
    endpoint: str = ""
    releases: Sequence[Release] = ()
    diverged: bool = False

    @property
    def next(self) -> str:
        troubled = [name for name, status in self.stacks.items() if _is_troubled(name, status)]
        if not self.stacks:
            return f"Nothing is deployed: run `make deploy STAGE={self.stage}`."
        if self.diverged:
            return (
                "The endpoint serves another configuration than its stack says: SageMaker rolled a release back by "
                f"itself. `kennel releases --stage {self.stage}` says which; approve another version."
            )
        if troubled:
            return f"{', '.join(troubled)} needs attention: the stack's events say why."
        return self._next_of_models() or f"Nothing is trained yet: `kennel upload FOLDER --stage {self.stage}`."

    def _next_of_models(self) -> str:
        run = self.executions[0]["status"] if self.executions else ""
        if not_served := self._not_served():
            return not_served
        if run == "Executing":
            return f"The pipeline runs: `kennel train --follow {self.executions[0]['arn']}` shows it."
        if run == "Failed":
            return f"The last run failed, for the reason above; `kennel train --stage {self.stage}` starts another."
        if self.endpoint == "InService":
            return f"Ask it: `kennel invoke photo.jpg --stage {self.stage}`."
        return f"The endpoint is {self.endpoint}; look again later." if self.endpoint else ""

    def _not_served(self) -> str:
        """Say why the version that is wanted is not the one served, or nothing where it is."""
        wanted = self._wanted()
        if wanted is None:
            return ""
        name, approve = f"Version {wanted.version}", f"`kennel approve {wanted.version} --stage {self.stage}`"
        return {
            "waiting": f"{name} waits for approval: {approve}.",
            "approved": f"{name} is approved and not served yet: it waits for the stack; if it does not begin in a few "
            "minutes, the promote function's log says why.",
            "releasing": f"{name} is being released; look again later.",
            "baking": f"{name} is being released and bakes under its alarms; look again later.",
        }.get(wanted.state, f"{name} is not served, {wanted.sentence}: {wanted.why}. {approve} tries it again.")

    def _wanted(self) -> Release | None:
        """Return the version that is to be released, or else failed to be since the live one is, or else is new."""
        since = next((one.since for one in self.releases if one.state == "live"), "")
        under_way = [one for one in self.releases if one.state in ("approved", "releasing", "baking")]
        failed = [one for one in self.releases if one.state in releases.FAILED and one.since > since]
        waiting = [one for one in self.releases[:1] if one.state == "waiting"]
        return next(iter([*under_way, *failed, *waiting]), None)


def _is_troubled(name: str, status: str) -> bool:
    # The hosting stack is at rest after a release that was rolled back, which the releases tell better.
    is_rolled_back_release = name.endswith("-Hosting") and status == "UPDATE_ROLLBACK_COMPLETE"
    return ("FAILED" in status or "ROLLBACK" in status) and not is_rolled_back_release


def gather(stage: str, client: Client) -> Status:
    """Read everything about `stage` with clients from `client`. An empty account is no error."""
    prefix, tag = stack_name(stage, ""), {"Key": "kennel:stage", "Value": stage}
    with aws_errors():
        pages = client("cloudformation").get_paginator("describe_stacks").paginate()
        # The tag tells our stacks from another team's of such a name.
        all_ = pages.search("Stacks[]")
        found = [one for one in all_ if one["StackName"].startswith(prefix) and tag in one.get("Tags", [])]
        if not found:
            return Status(stage)
        known: dict[str, str] = {}
        for stack in found:
            known |= {one["ParameterKey"]: one.get("ParameterValue", "") for one in stack.get("Parameters", [])}
            known |= {one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs", [])}
        sagemaker = client("sagemaker")
        stacks = {stack["StackName"]: stack["StackStatus"] for stack in sorted(found, key=itemgetter("StackName"))}
        endpoint = _endpoint(sagemaker, known.get("EndpointName", ""))
        hosting = stack_name(stage, "Hosting")
        return Status(
            stage=stage,
            stacks=stacks,
            releases=_releases(client, known),
            executions=_executions(sagemaker, known.get("PipelineName", "")),
            endpoint=endpoint.get("EndpointStatus", ""),
            diverged=stacks.get(hosting, "").endswith("_COMPLETE") and _differs(client, hosting, endpoint),
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


def _endpoint(sagemaker: Any, name: str) -> Mapping[str, Any]:
    """Return the endpoint's description, an empty one where no model is released yet."""
    found: Mapping[str, Any] = {}
    with suppressed("ValidationException"):
        found = sagemaker.describe_endpoint(EndpointName=name) if name else {}
    return found


def _differs(client: Client, stack: str, endpoint: Mapping[str, Any]) -> bool:
    """Return whether the endpoint serves another configuration than the stack's; ARNs have names in lower case."""
    if not endpoint:
        return False
    found = client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
    ids = [one["PhysicalResourceId"] for one in found if one["ResourceType"] == "AWS::SageMaker::EndpointConfig"]
    return endpoint["EndpointConfigName"].lower() not in [str(one).rpartition("/")[2].lower() for one in ids]


def _releases(client: Client, known: Mapping[str, str]) -> list[Release]:
    group, bucket = known.get("ModelPackageGroupName"), known.get("DataBucketName")
    return releases.gather(client, group, bucket) if group and bucket else []


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
    if status.releases:
        console.print(_grid("Releases", []))
        releases.show(console, status.releases[:_RELEASES])
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
