"""The newest approval becomes two parameters of the hosting stack, once, and nothing else ever does."""

import json
from collections.abc import Iterator
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.stub import Stubber  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from promote import aws
from promote.aws import StackBroken, StackBusy
from promote.handler import handler
from tests.functions.fakes import Context, unhurried

GROUP, STACK = "kennel-test", "Test-Hosting"
GROUP_ARN = f"arn:aws:sagemaker:eu-central-1:123456789012:model-package/{GROUP}"
ARN = f"{GROUP_ARN}/7"
AT = "2026-11-30T16:30:00.000Z"
ALARMS = [
    f"arn:aws:cloudwatch:eu-central-1:123456789012:alarm:{STACK}-Rollback{name}" for name in ("Errors", "Latency")
]


def message(version: int = 7, at: Any = "2026-11-30T16:30:00Z") -> str:
    return json.dumps({"model_package": f"{GROUP_ARN}/{version}", "approved_at": at})


def batch(*bodies: Any) -> dict[str, Any]:
    return {"Records": [{"messageId": str(number), "body": body} for number, body in enumerate(bodies)]}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name, value in {
        "HOSTING_STACK": STACK,
        "MODEL_PACKAGE_GROUP": GROUP,
        "MONITORING_MINUTES": "10",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "example",
    }.items():
        monkeypatch.setenv(name, value)
    remembered = aws._client
    remembered.cache_clear()
    yield monkeypatch
    remembered.cache_clear()


class Account:
    """AWS in states that a real one is seldom in; a call that is not foreseen fails the test."""

    def __init__(self) -> None:
        services = ("cloudformation", "cloudwatch", "sagemaker")
        self.clients = {name: boto3.client(name) for name in services}
        self.stubs = {name: Stubber(client) for name, client in self.clients.items()}
        self.cloudformation, self.cloudwatch, self.sagemaker = (self.stubs[name] for name in services)

    def package(self, version: int = 7, approval: str = "Approved", status: str = "Completed") -> None:
        found = {
            "ModelPackageName": GROUP,
            "ModelPackageArn": f"{GROUP_ARN}/{version}",
            "CreationTime": 0,
            "ModelPackageStatus": status,
            "ModelPackageStatusDetails": {"ValidationStatuses": []},
            "ModelApprovalStatus": approval,
        }
        self.sagemaker.add_response("describe_model_package", found, {"ModelPackageName": f"{GROUP_ARN}/{version}"})

    def stack(self, status: str, package: str = "", approved_at: str = "", *, alarms: bool = False) -> None:
        given = {"ModelPackageArn": package, "ApprovedAt": approved_at, "Other": "kept"}
        found: dict[str, Any] = {"StackName": STACK, "StackStatus": status, "CreationTime": 0}
        found["Parameters"] = [{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()]
        found["StackStatusReason"] = "alarm rang"
        if alarms:
            found["Outputs"] = [{"OutputKey": "RollbackAlarmArns", "OutputValue": ",".join(ALARMS)}]
        self.cloudformation.add_response("describe_stacks", {"Stacks": [found]}, {"StackName": STACK})

    def alarm_states(self, *states: str) -> None:
        names = [arn.rpartition(":")[2] for arn in ALARMS]
        found = [{"AlarmArn": arn, "StateValue": state} for arn, state in zip(ALARMS, states, strict=False)]
        self.cloudwatch.add_response("describe_alarms", {"MetricAlarms": found}, {"AlarmNames": names})

    def update(self, version: int = 7, at: str = AT, watched: list[str] | None = None) -> None:
        """Expect the update, with these and no other members: no DeploymentConfig, so no express mode."""
        digits = at.translate(str.maketrans("", "", "-:.TZ"))
        triggers = [{"Arn": arn, "Type": "AWS::CloudWatch::Alarm"} for arn in watched or []]
        expected = {
            "StackName": STACK,
            "UsePreviousTemplate": True,
            "Parameters": [
                {"ParameterKey": "ModelPackageArn", "ParameterValue": f"{GROUP_ARN}/{version}"},
                {"ParameterKey": "ApprovedAt", "ParameterValue": at},
                {"ParameterKey": "Other", "UsePreviousValue": True},
            ],
            "Capabilities": ["CAPABILITY_IAM"],
            "ClientRequestToken": f"release-{version}-{digits}",
            "RollbackConfiguration": {
                "RollbackTriggers": triggers,
                "MonitoringTimeInMinutes": 10 if triggers else 0,
            },
        }
        self.cloudformation.add_response("update_stack", {}, expected)


@pytest.fixture
def account(environment: pytest.MonkeyPatch) -> Iterator[Account]:
    account = Account()
    environment.setattr(aws, "_client", account.clients.__getitem__)
    for stub in account.stubs.values():
        stub.activate()
    yield account
    for stub in account.stubs.values():
        stub.assert_no_pending_responses()


@pytest.mark.parametrize("status", ["CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"])
def test_a_stack_at_rest_gets_the_two_parameters_and_keeps_the_others(account: Account, status: str) -> None:
    account.package()
    account.stack(status)
    account.update()
    done = handler(batch(message()), Context())
    assert done == {
        "action": "released",
        "stack": STACK,
        "model_package": ARN,
        "approved_at": AT,
        "status_before": status,
        "alarms_left_out": [],
        "superseded": [],
    }


def test_of_all_that_wait_the_newest_approval_is_released(account: Account) -> None:
    account.package(9)
    account.stack("UPDATE_COMPLETE")
    account.update(9, "2026-11-30T17:00:00.000Z")
    waiting = [message(7), message(9, "2026-11-30T17:00:00Z"), message(8, "2026-11-30T16:45:00Z")]
    done = handler(batch(*waiting), Context())
    assert (done["model_package"], done["superseded"]) == (f"{GROUP_ARN}/9", [ARN, f"{GROUP_ARN}/8"])


def test_of_two_approvals_in_one_second_the_one_that_came_later_is_newer(account: Account) -> None:
    account.package(8)
    account.stack("UPDATE_COMPLETE")
    account.update(8)
    assert handler(batch(message(7), message(8)), Context())["action"] == "released"


def test_an_approval_that_was_taken_back_gives_way_to_the_one_before(account: Account) -> None:
    account.package(8, "Rejected")
    account.package(7)
    account.stack("UPDATE_COMPLETE")
    account.update()
    done = handler(batch(message(7), message(8, "2026-11-30T17:00:00Z")), Context())
    assert done["model_package"] == ARN


@pytest.mark.parametrize(
    ("approval", "status"),
    [("Rejected", "Completed"), ("PendingManualApproval", "Completed"), ("Approved", "InProgress")],
)
def test_a_package_that_cannot_be_served_now_is_ignored(account: Account, approval: str, status: str) -> None:
    account.package(7, approval, status)
    assert handler(batch(message()), Context())["action"] == "ignored"


def test_a_package_that_was_deleted_is_ignored(account: Account) -> None:
    text = f"ModelPackage {ARN} does not exist."
    account.sagemaker.add_client_error("describe_model_package", "ValidationException", text)
    assert handler(batch(message()), Context())["action"] == "ignored"


def test_an_older_version_that_is_approved_again_is_released(account: Account) -> None:
    account.package()
    account.stack("UPDATE_COMPLETE", f"{GROUP_ARN}/8", "2026-11-30T16:29:59.000Z")
    account.update()
    assert handler(batch(message()), Context())["action"] == "released"


@pytest.mark.parametrize("status", ["UPDATE_IN_PROGRESS", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"])
def test_an_approval_older_than_the_released_one_came_late_and_is_ignored(account: Account, status: str) -> None:
    account.package()
    account.stack(status, f"{GROUP_ARN}/8", "2026-11-30T16:30:01.000Z")
    assert handler(batch(message()), Context())["action"] == "ignored"


def test_times_in_milliseconds_since_1970_are_read_as_well(account: Account) -> None:
    account.package()
    account.stack("UPDATE_COMPLETE")
    account.update(7, "2026-11-30T16:30:00.250Z")
    assert handler(batch(message(7, 1796056200250)), Context())["action"] == "released"


def test_the_rollback_alarms_are_handed_to_cloudformation(account: Account) -> None:
    account.package()
    account.stack("UPDATE_COMPLETE", alarms=True)
    account.alarm_states("OK", "INSUFFICIENT_DATA")
    account.update(watched=ALARMS)
    assert handler(batch(message()), Context())["alarms_left_out"] == []


@pytest.mark.parametrize("states", [("OK", "ALARM"), ("OK",)])
def test_an_alarm_that_rings_already_or_is_gone_cannot_stop_the_release(
    account: Account, states: tuple[str, ...]
) -> None:
    account.package()
    account.stack("UPDATE_COMPLETE", alarms=True)
    account.alarm_states(*states)
    account.update(watched=ALARMS[:1])
    assert handler(batch(message()), Context())["alarms_left_out"] == ALARMS[1:]


def test_a_stack_that_is_not_there_is_said(account: Account) -> None:
    account.package()
    account.cloudformation.add_client_error("describe_stacks", "ValidationError", f"Stack {STACK} does not exist")
    with pytest.raises(StackBroken, match=f"no stack {STACK}"):
        handler(batch(message()), Context())


@pytest.mark.parametrize("status", ["UPDATE_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "UPDATE_COMPLETE"])
def test_a_release_that_is_under_way_or_done_is_not_begun_again(account: Account, status: str) -> None:
    account.package()
    account.stack(status, ARN, AT)
    assert handler(batch(message()), Context())["action"] == "unchanged"


@pytest.mark.parametrize("status", ["UPDATE_IN_PROGRESS", "CREATE_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"])
def test_a_busy_stack_fails_the_batch_so_that_it_comes_again(account: Account, status: str) -> None:
    account.package()
    account.stack(status)
    with pytest.raises(StackBusy, match=status):
        handler(batch(message()), Context())


@pytest.mark.parametrize("package", [ARN, f"{GROUP_ARN}/8"])
def test_a_rollback_is_waited_for_since_it_takes_the_parameters_back(account: Account, package: str) -> None:
    account.package()
    account.stack("UPDATE_ROLLBACK_IN_PROGRESS", package, "2026-11-30T17:00:00.000Z")
    with pytest.raises(StackBusy, match="UPDATE_ROLLBACK_IN_PROGRESS"):
        handler(batch(message()), Context())


@pytest.mark.parametrize(
    ("status", "cure"),
    [
        ("UPDATE_ROLLBACK_FAILED", "continue-update-rollback"),
        ("ROLLBACK_COMPLETE", "delete it"),
        ("CREATE_FAILED", "delete it"),
        ("DELETE_FAILED", "repair it"),
    ],
)
def test_a_broken_stack_is_said_with_its_reason_and_the_cure(account: Account, status: str, cure: str) -> None:
    account.package()
    account.stack(status)
    with pytest.raises(StackBroken, match=rf"{status} \(alarm rang\).*{cure}"):
        handler(batch(message()), Context())


def test_a_stack_without_the_parameters_is_said(account: Account) -> None:
    account.package()
    found = {"StackName": STACK, "StackStatus": "CREATE_COMPLETE", "CreationTime": 0}
    account.cloudformation.add_response("describe_stacks", {"Stacks": [found]}, {"StackName": STACK})
    with pytest.raises(StackBroken, match="no parameter ApprovedAt"):
        handler(batch(message()), Context())


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("ValidationError", "No updates are to be performed."),
        ("TokenAlreadyExistsException", "A client request token already exists"),
    ],
)
def test_an_update_that_changes_nothing_or_was_asked_for_before_is_a_success(
    account: Account, code: str, text: str
) -> None:
    account.package()
    account.stack("UPDATE_ROLLBACK_COMPLETE", ARN)
    account.cloudformation.add_client_error("update_stack", code, text)
    assert handler(batch(message()), Context())["action"] == "unchanged"


def test_an_update_that_somebody_else_began_meanwhile_is_waited_for(account: Account) -> None:
    account.package()
    account.stack("UPDATE_COMPLETE")
    text = f"Stack:{STACK} is in UPDATE_IN_PROGRESS state and can not be updated."
    account.cloudformation.add_client_error("update_stack", "ValidationError", text)
    with pytest.raises(StackBusy):
        handler(batch(message()), Context())


def test_any_other_refusal_is_passed_on_and_logged(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    account.package()
    account.stack("UPDATE_COMPLETE")
    account.cloudformation.add_client_error("update_stack", "AccessDenied", "not authorized")
    with pytest.raises(Exception, match="not authorized"):
        handler(batch(message()), Context())
    line = json.loads(capsys.readouterr().out)
    assert (line["level"], line["request_id"]) == ("ERROR", Context().aws_request_id)
    assert "not authorized" in line["error"]


def test_what_was_done_is_one_line_of_the_log(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    account.package(7, "Rejected")
    done = handler(batch(message()), Context())
    assert json.loads(capsys.readouterr().out) == {"level": "INFO", "request_id": Context().aws_request_id} | done


@pytest.mark.parametrize(
    "body",
    [
        None,
        "",
        "[]",
        "{}",
        message(at=None),
        message(at="yesterday"),
        message(at=1e30),
        json.dumps({"model_package": None, "approved_at": AT}),
        json.dumps({"model_package": "latest", "approved_at": AT}),
        json.dumps({"model_package": GROUP_ARN, "approved_at": AT}),
        json.dumps({"model_package": f"{ARN}\n", "approved_at": AT}),
        json.dumps({"model_package": ARN.replace(GROUP, "another-group"), "approved_at": AT}),
        json.dumps({"model_package": f"{ARN}/8", "approved_at": AT}),
        json.dumps({"model_package": f"x{ARN}", "approved_at": AT}),
    ],
)
def test_a_message_that_is_no_approval_is_logged_and_holds_up_none_behind_it(
    account: Account, body: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    account.package()
    account.stack("UPDATE_COMPLETE")
    account.update()
    assert handler(batch(body, message()), Context())["action"] == "released"
    complaint = json.loads(capsys.readouterr().out.splitlines()[0])
    assert complaint["level"] == "ERROR"
    assert "no approval" in complaint["error"]


fields = st.sampled_from(["Records", "body", "model_package", "approved_at"])
values = st.none() | st.integers() | st.text() | st.sampled_from([message(), AT]) | st.lists(st.text())


@unhurried
@given(st.dictionaries(fields, values | st.lists(st.dictionaries(fields, values))) | values)
def test_whatever_else_comes_is_ignored(environment: pytest.MonkeyPatch, event: Any) -> None:
    environment.setattr(aws, "is_approved", lambda model_package: False)
    assert handler(event, Context())["action"] == "ignored"
