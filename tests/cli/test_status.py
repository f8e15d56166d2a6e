"""What `kennel status` gathers, from real clients with stubbed answers, and what it tells the operator to do next."""

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.stub import Stubber  # type: ignore[import-untyped]

from kennel.releases import Release
from kennel.status import Status, gather

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ARN = "arn:aws:sagemaker:us-east-1:123456789012:model-package/kennel-dev/{}"
RUN = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/kennel-dev/execution/abcdefghijkl"


def stack(name: str, **outputs: str) -> dict[str, Any]:
    listed = [{"OutputKey": key, "OutputValue": value} for key, value in outputs.items()]
    live = {"ParameterKey": "ModelPackageArn", "ParameterValue": ARN.format(1)}
    more = {"Parameters": [live]} if name.endswith("Hosting") else {}
    tags = [{"Key": "kennel:stage", "Value": name.split("-")[1]}]
    about = {"StackName": name, "StackStatus": "CREATE_COMPLETE", "CreationTime": NOW, "Tags": tags}
    return {**about, "Outputs": listed, **more}


@pytest.fixture
def clients(aws: str) -> Callable[[str], Any]:
    made = {service: boto3.client(service) for service in ("cloudformation", "sagemaker")}
    return made.__getitem__


def test_everything_of_the_stage_and_nothing_of_another_is_gathered(clients: Callable[[str], Any]) -> None:
    with ExitStack() as stack_:
        cloudformation, sagemaker = (
            stack_.enter_context(Stubber(clients(name))) for name in ("cloudformation", "sagemaker")
        )
        deployed = [
            stack("Kennel-Dev-Pipeline", PipelineName="kennel-dev"),
            stack("Kennel-Dev-Data", ModelPackageGroupName="kennel-dev"),
            stack("Kennel-Dev-Hosting", EndpointName="kennel-dev"),
            stack("Kennel-Development-Data", ModelPackageGroupName="other"),
            stack("Kennel-Prod-Data", ModelPackageGroupName="kennel-prod"),
            stack("Other-Dev-Data", ModelPackageGroupName="other"),
            {**stack("Kennel-Dev-Web", EndpointName="another-teams"), "Tags": []},
        ]
        cloudformation.add_response("describe_stacks", {"Stacks": deployed})
        sagemaker.add_client_error("describe_endpoint", "ValidationException", 'Could not find endpoint "kennel-dev".')
        summary = {"PipelineExecutionArn": RUN, "StartTime": NOW, "PipelineExecutionStatus": "Succeeded"}
        sagemaker.add_response("list_pipeline_executions", {"PipelineExecutionSummaries": [summary]})
        listed = [{"StepName": "Prepare", "StepStatus": "Failed", "FailureReason": "no images"}]
        sagemaker.add_response("list_pipeline_execution_steps", {"PipelineExecutionSteps": listed})
        status = gather("Dev", clients)
        sagemaker.assert_no_pending_responses()
    assert list(status.stacks) == ["Kennel-Dev-Data", "Kennel-Dev-Hosting", "Kennel-Dev-Pipeline"]
    steps = [("Prepare", "Failed", "no images")]
    assert status.executions == [
        {"name": "abcdefghijkl", "status": "Succeeded", "started": NOW, "reason": "", "steps": steps, "arn": RUN}
    ]
    assert (status.endpoint, status.diverged) == ("", False)


def test_an_empty_account_is_no_error(clients: Callable[[str], Any]) -> None:
    with Stubber(clients("cloudformation")) as cloudformation:
        cloudformation.add_response("describe_stacks", {"Stacks": []})
        assert gather("Dev", clients) == Status("Dev")


STACKS = {"Kennel-Dev-Data": "CREATE_COMPLETE"}


def release(version: int, state: str, since: str = "", **more: Any) -> Release:
    about: dict[str, Any] = {"arn": ARN.format(version), "approval": "", "registered": None, "accuracy": {}}
    return Release(version=version, state=state, since=since, **about, **more)


LIVE = release(2, "live", "2026-11-30T16:30")
WAITING, APPROVED, BAKING = (release(3, state) for state in ("waiting", "approved", "baking"))
BACK = release(3, "rolled_back", "2026-11-30T17:30", alarm="RollbackErrors", why="12 of 20 failed")
OVER = release(3, "failed", "2026-11-30T15:30", why="no capacity")
ROLLED_BACK = {"Kennel-Dev-Hosting": "UPDATE_ROLLBACK_COMPLETE"}


def run(status: str) -> list[dict[str, Any]]:
    return [{"status": status, "arn": RUN}]


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (Status("Dev"), "make deploy STAGE=Dev"),
        (Status("Dev", {"Kennel-Dev-Data": "ROLLBACK_COMPLETE"}), "Kennel-Dev-Data needs attention"),
        (Status("Dev", STACKS), "kennel upload FOLDER --stage Dev"),
        (Status("Dev", STACKS, run("Executing")), f"`kennel train --follow {RUN}` shows it"),
        (Status("Dev", STACKS, run("Failed")), "`kennel train --stage Dev` starts another"),
        (Status("Dev", STACKS, run("Succeeded"), "InService", (WAITING, LIVE)), "`kennel approve 3 --stage Dev`"),
        (Status("Dev", STACKS, run("Succeeded"), "InService", (LIVE, WAITING)), "kennel invoke photo.jpg --stage Dev"),
        (Status("Dev", STACKS, run("Succeeded"), "InService", (APPROVED, LIVE)), "approved and not served yet"),
        (Status("Dev", STACKS, run("Succeeded"), "InService", (BAKING, LIVE)), "Version 3 is being released and bakes"),
        (Status("Dev", ROLLED_BACK, (), "InService", (BACK, LIVE)), "rolled back by RollbackErrors: 12 of 20 failed."),
        (Status("Dev", STACKS, (), "InService", (OVER, LIVE)), "kennel invoke photo.jpg --stage Dev"),
        (Status("Dev", STACKS, (), "InService", (LIVE,), diverged=True), "serves another configuration than its stack"),
        (Status("Dev", STACKS, run("Succeeded"), "Creating", (LIVE,)), "The endpoint is Creating"),
    ],
)
def test_the_next_thing_to_do_is_said(status: Status, says: str) -> None:
    assert says in status.next
