"""Approvals and releases that work: written down once, told, and shown in the registry."""

import json
from typing import Any

import pytest

from tests.functions.observe.account import GROUP, Account
from tests.rehearsal.cloud.test_stacks import package


def test_an_approval_is_recorded_with_who_gave_it_and_why(account: Account) -> None:
    version = int(package(account.world, "good.tar.gz").rpartition("/")[2])
    account.sagemaker.update_model_package(
        ModelPackageArn=f"{GROUP}/{version}", ModelApprovalStatus="Rejected", ApprovalDescription="too slow"
    )
    assert account.hear(account.changed(version, "ModelApprovalStatus", "ApprovalDescription")) == "recorded"
    (record,) = account.records()
    assert (record["state"], record["why"]) == ("rejected", "too slow")
    assert record["by"] == "arn:aws:iam::123456789012:user/rehearsal"


def test_a_version_that_is_registered_as_approved_is_recorded_too(account: Account) -> None:
    version = account.version()
    assert account.states() == [(version, "approved")]


def test_an_edit_of_an_approved_package_is_no_approval(account: Account) -> None:
    version = int(package(account.world, "good.tar.gz").rpartition("/")[2])
    assert account.hear(account.changed(version, "ModelLifeCycle")) == "ignored"
    assert account.hear(account.changed(version, "CustomerMetadataProperties")) == "ignored"
    assert account.records() == []


def test_an_approval_that_is_told_twice_is_recorded_once(account: Account) -> None:
    version = account.version()
    assert account.hear(account.changed(version)) == "doubled"
    assert account.states() == [(version, "approved")]


def test_who_approved_is_not_guessed_once_the_package_has_changed_again(account: Account) -> None:
    version = int(package(account.world, "good.tar.gz").rpartition("/")[2])
    event = account.changed(version, "ModelApprovalStatus")
    event["detail"]["LastModifiedTime"] = "2026-11-30T16:30:05Z"
    account.hear(event)
    assert account.records()[0]["by"] == ""
    assert account.keys() == [f"releases/{version:06}/20261130T163005.000Z-approved.json"]


def test_a_release_that_works_is_recorded_shown_in_the_registry_and_told(account: Account) -> None:
    version = account.version()
    token = f"release-{version}-20261130163005000"
    assert account.hear(account.status(token, "UPDATE_IN_PROGRESS")) == "recorded"
    account.release(version, token)
    assert account.hear(account.status(token)) == "recorded"
    assert account.states()[1:] == [(version, "releasing"), (version, "live")]
    assert {one["token"] for one in account.records()[1:]} == {token}
    assert account.about(version) == ("Approved", "Released")
    assert account.told == [f"kennel-dev: version {version} is live"]


def test_the_next_one_supersedes_it(account: Account) -> None:
    first, second = account.live(), account.live()
    assert account.about(first) == ("Approved", "Superseded")
    assert account.about(second) == ("Approved", "Released")


def test_an_end_that_is_told_twice_is_dealt_with_once(account: Account) -> None:
    token = account.release(account.version())
    event = account.status(token)
    assert [account.hear(event), account.hear(event)] == ["recorded", "doubled"]
    assert len(account.told) == 1


def test_what_failed_half_way_is_done_whole_by_lambdas_next_attempt(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    event = account.status(account.release(account.version("broken.tar.gz")))
    with monkeypatch.context() as patched:
        patched.setenv("ALARM_TOPIC", f"{account.topic}-that-is-not-there")
        with pytest.raises(Exception, match="NotFound"):
            account.hear(event)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["level"] == "ERROR"
    assert account.hear(event) == "recorded"
    assert account.hear(event) == "doubled"


def bakes(account: Account, config: str, began: int = 1_796_056_205_000) -> dict[str, Any]:
    status = {"Status": "Baking", "StatusMessage": "Baking for 600 seconds.", "StartTime": began}
    pending = {"EndpointConfigName": config, "ProductionVariants": [{"VariantName": "A", "VariantStatus": [status]}]}
    detail = {"EndpointName": "kennel-dev", "EndpointStatus": "UPDATING", "PendingDeploymentSummary": pending}
    return account.event("SageMaker Endpoint Deployment State Change", detail)


def test_baking_is_recorded_once_however_often_it_is_told(account: Account) -> None:
    version = account.version()
    account.release(version)
    config = account.sagemaker.describe_endpoint(EndpointName="kennel-dev")["EndpointConfigName"]
    assert [account.hear(bakes(account, config)) for _ in range(2)] == ["recorded", "doubled"]
    record = next(one for one in account.records() if one["state"] == "baking")
    assert (record["version"], record["at"]) == (version, "2026-11-30T16:30:05.000Z")
    assert record["why"] == "Baking for 600 seconds."


def test_baking_of_a_deployment_or_of_an_update_before_is_not_recorded(account: Account) -> None:
    version = account.version()
    account.release(version)
    assert account.hear(bakes(account, "an-older-one")) == "ignored"
    account.release(account.version(), "cdk-deploy")
    config = account.sagemaker.describe_endpoint(EndpointName="kennel-dev")["EndpointConfigName"]
    assert account.hear(bakes(account, config)) == "ignored"
    launching = bakes(account, config)
    launching["detail"]["PendingDeploymentSummary"]["ProductionVariants"][0]["VariantStatus"][0]["Status"] = "Creating"
    assert account.hear(launching) == "ignored"


def test_a_rollback_alarm_is_told(account: Account) -> None:
    detail = {"alarmName": "Hosting-RollbackErrors-1", "state": {"value": "ALARM", "reason": "12 of 20 failed"}}
    assert account.hear(account.event("CloudWatch Alarm State Change", detail)) == "told"
    assert account.told == ["kennel-dev: Hosting-RollbackErrors-1 rings"]


@pytest.mark.parametrize("event", [None, {}, {"detail-type": "EC2 Instance State-change Notification"}, []])
def test_other_events_are_ignored(account: Account, event: Any) -> None:
    assert account.hear(event) == "ignored"
