"""An approval becomes one parameter of the hosting stack, once, and nothing else ever does."""

import json
from collections.abc import Iterator
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.stub import Stubber  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from promote import stack
from promote.handler import InvalidEvent, handler
from promote.stack import StackBroken, StackBusy

from tests.functions.fakes import Context, unhurried

GROUP, STACK = "kennel-test", "Test-Hosting"
ARN = f"arn:aws:sagemaker:eu-central-1:123456789012:model-package/{GROUP}/7"


def approval(arn: Any = ARN, **more: Any) -> dict[str, Any]:
    detail = {"ModelPackageGroupName": GROUP, "ModelPackageArn": arn, "ModelApprovalStatus": "Approved"} | more
    return {"source": "aws.sagemaker", "detail-type": "SageMaker Model Package State Change", "detail": detail}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name, value in {
        "HOSTING_STACK": STACK,
        "MODEL_PACKAGE_GROUP": GROUP,
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "example",
    }.items():
        monkeypatch.setenv(name, value)
    remembered = stack._client
    remembered.cache_clear()
    yield monkeypatch
    remembered.cache_clear()


@pytest.fixture
def stubbed(environment: pytest.MonkeyPatch) -> Iterator[Stubber]:
    """CloudFormation in states that a real one is seldom in; a call that is not foreseen fails the test."""
    client = boto3.client("cloudformation")
    environment.setattr(stack, "_client", lambda: client)
    with Stubber(client) as stub:
        yield stub
        stub.assert_no_pending_responses()


def in_state(stub: Stubber, status: str, package: str | None = "") -> None:
    parameters = [{"ParameterKey": "Other", "ParameterValue": "kept"}]
    if package is not None:
        parameters.append({"ParameterKey": "ModelPackageArn", "ParameterValue": package})
    found = {"StackName": STACK, "StackStatus": status, "CreationTime": 0, "Parameters": parameters}
    found["StackStatusReason"] = "alarm rang"
    stub.add_response("describe_stacks", {"Stacks": [found]}, {"StackName": STACK})


UPDATE = {
    "StackName": STACK,
    "UsePreviousTemplate": True,
    "Parameters": [
        {"ParameterKey": "ModelPackageArn", "ParameterValue": ARN},
        {"ParameterKey": "Other", "UsePreviousValue": True},
    ],
    "Capabilities": ["CAPABILITY_IAM"],
}


@pytest.mark.parametrize("status", ["CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"])
def test_a_stack_at_rest_gets_the_parameter_and_keeps_the_others(stubbed: Stubber, status: str) -> None:
    in_state(stubbed, status)
    stubbed.add_response("update_stack", {}, UPDATE)
    done = handler(approval(), Context())
    assert done == {"action": "released", "stack": STACK, "model_package": ARN, "status_before": status}


def test_an_older_version_that_is_approved_again_is_released(stubbed: Stubber) -> None:
    in_state(stubbed, "UPDATE_COMPLETE", f"{ARN[:-1]}8")
    stubbed.add_response("update_stack", {}, UPDATE)
    assert handler(approval(), Context())["action"] == "released"


def test_a_stack_that_is_not_there_is_said(stubbed: Stubber) -> None:
    stubbed.add_client_error("describe_stacks", "ValidationError", f"Stack with id {STACK} does not exist")
    with pytest.raises(StackBroken, match=f"no stack {STACK}"):
        handler(approval(), Context())


@pytest.mark.parametrize("status", ["UPDATE_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "UPDATE_COMPLETE"])
def test_a_release_that_is_under_way_or_done_is_not_begun_again(stubbed: Stubber, status: str) -> None:
    in_state(stubbed, status, ARN)
    assert handler(approval(), Context())["action"] == "unchanged"


@pytest.mark.parametrize("status", ["UPDATE_IN_PROGRESS", "CREATE_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"])
def test_a_busy_stack_fails_so_that_the_event_comes_again(stubbed: Stubber, status: str) -> None:
    in_state(stubbed, status)
    with pytest.raises(StackBusy, match=status):
        handler(approval(), Context())


def test_a_rollback_of_this_very_package_is_waited_for(stubbed: Stubber) -> None:
    in_state(stubbed, "UPDATE_ROLLBACK_IN_PROGRESS", ARN)
    with pytest.raises(StackBusy, match="UPDATE_ROLLBACK_IN_PROGRESS"):
        handler(approval(), Context())


@pytest.mark.parametrize(
    ("status", "cure"),
    [
        ("UPDATE_ROLLBACK_FAILED", "continue-update-rollback"),
        ("ROLLBACK_COMPLETE", "delete it"),
        ("CREATE_FAILED", "delete it"),
        ("DELETE_FAILED", "repair it"),
    ],
)
def test_a_broken_stack_is_said_with_its_reason_and_the_cure(stubbed: Stubber, status: str, cure: str) -> None:
    in_state(stubbed, status)
    with pytest.raises(StackBroken, match=rf"{status} \(alarm rang\).*{cure}"):
        handler(approval(), Context())


def test_a_stack_without_the_parameter_is_said(stubbed: Stubber) -> None:
    in_state(stubbed, "CREATE_COMPLETE", None)
    with pytest.raises(StackBroken, match="no parameter ModelPackageArn"):
        handler(approval(), Context())


def test_an_update_that_changes_nothing_is_a_success(stubbed: Stubber) -> None:
    in_state(stubbed, "UPDATE_ROLLBACK_COMPLETE", ARN)
    stubbed.add_client_error("update_stack", "ValidationError", "No updates are to be performed.")
    assert handler(approval(), Context())["action"] == "unchanged"


def test_an_update_that_somebody_else_began_meanwhile_is_waited_for(stubbed: Stubber) -> None:
    in_state(stubbed, "UPDATE_COMPLETE")
    text = f"Stack:{STACK} is in UPDATE_IN_PROGRESS state and can not be updated."
    stubbed.add_client_error("update_stack", "ValidationError", text)
    with pytest.raises(StackBusy):
        handler(approval(), Context())


def test_any_other_refusal_is_passed_on_and_logged(stubbed: Stubber, capsys: pytest.CaptureFixture[str]) -> None:
    in_state(stubbed, "UPDATE_COMPLETE")
    stubbed.add_client_error("update_stack", "AccessDenied", "not authorized")
    with pytest.raises(Exception, match="not authorized"):
        handler(approval(), Context())
    line = json.loads(capsys.readouterr().out)
    assert (line["level"], line["request_id"]) == ("ERROR", Context().aws_request_id)
    assert "not authorized" in line["error"]


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        {"detail": None},
        approval(ModelPackageGroupName="another-group"),
        approval(ModelApprovalStatus="PendingManualApproval"),
        approval(ModelApprovalStatus="Rejected"),
        approval() | {"source": "somebody.else"},
        approval() | {"detail-type": "SageMaker Endpoint State Change"},
    ],
)
def test_other_events_are_ignored_without_a_call(
    stubbed: Stubber, event: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    done = handler(event, Context())
    assert done["action"] == "ignored"
    assert done["reason"]
    assert json.loads(capsys.readouterr().out) == {"level": "INFO", "request_id": Context().aws_request_id} | done


@pytest.mark.parametrize(
    "arn",
    [
        None,
        7,
        "",
        "latest",
        ARN[:-2],
        f"{ARN}\n",
        ARN.replace(GROUP, "another-group"),
        ARN.replace("/7", "/7/8"),
        f"x{ARN}",
    ],
)
def test_an_approval_of_nothing_that_can_be_served_is_invalid(stubbed: Stubber, arn: Any) -> None:
    with pytest.raises(InvalidEvent, match="no versioned model package of kennel-test"):
        handler(approval(arn), Context())


fields = st.sampled_from(["source", "detail-type", "detail", "ModelApprovalStatus", "ModelPackageGroupName"])
values = (
    st.none() | st.integers() | st.text() | st.sampled_from(["aws.sagemaker", "Approved", GROUP]) | st.lists(st.text())
)


@unhurried
@given(st.dictionaries(fields, values | st.dictionaries(fields, values)) | values)
def test_whatever_else_comes_is_ignored(stubbed: Stubber, event: Any) -> None:
    assert handler(event, Context())["action"] == "ignored"
