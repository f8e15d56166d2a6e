"""Releases that went wrong: named, told, rejected, and cured where the endpoint serves something else."""

import json

import pytest
from moto.cloudformation.models import cloudformation_backends
from moto.sns.models import sns_backends

from observe import aws
from tests.functions.observe.account import GROUP, Account


def fail(account: Account, rings: bool) -> int:
    """A release that the stack rolls back, with the alarm ringing meanwhile or not."""
    account.world.refuse_models = "broken"
    version = account.version("broken.tar.gz")
    token = account.release(version)
    if rings:
        ring(account, "ALARM")
    event = account.status(token)
    assert event["detail"]["status-details"]["status"] == "UPDATE_ROLLBACK_COMPLETE"
    assert account.hear(event) == "recorded"
    return version


def ring(account: Account, state: str) -> str:
    cloudwatch = account.world.cloud.client("cloudwatch")
    name = str(cloudwatch.describe_alarms()["MetricAlarms"][0]["AlarmName"])
    cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="3.2 s")
    return name


def test_a_release_that_an_alarm_rolled_back_names_it_and_is_rejected(account: Account) -> None:
    good = account.live()
    version = fail(account, rings=True)
    record = account.records()[-1]
    assert (record["version"], record["state"]) == (version, "rolled_back")
    assert record["alarm"].startswith("Hosting-Rollback-")
    assert account.about(version) == ("Rejected", "RolledBack")
    assert account.about(good) == ("Approved", "Released")
    assert account.told[-1] == f"kennel-dev: version {version} was rolled back by {record['alarm']}"


def test_an_alarm_that_rang_before_the_update_is_not_blamed(account: Account) -> None:
    account.live()
    ring(account, "ALARM")
    ring(account, "OK")
    version = fail(account, rings=False)
    assert account.states()[-1] == (version, "failed")


def test_a_release_that_failed_without_an_alarm_says_what_failed(account: Account) -> None:
    account.live()
    version = fail(account, rings=False)
    record = account.records()[-1]
    assert (record["state"], record["alarm"]) == ("failed", "")
    assert "UPDATE_ROLLBACK_COMPLETE: Endpoint: " in record["why"]
    assert "broken.tar.gz does not load" in record["why"]
    assert account.about(version) == ("Rejected", "Failed")
    described = account.sagemaker.describe_model_package(ModelPackageName=f"{GROUP}/{version}")
    assert described["ApprovalDescription"].startswith("failed: Hosting is UPDATE_ROLLBACK_COMPLETE")


def test_a_rollback_that_failed_says_how_to_go_on(account: Account) -> None:
    account.world.refuse_models = "broken"
    token = account.release(account.version("broken.tar.gz"))
    assert account.hear(account.status(token, "UPDATE_ROLLBACK_FAILED")) == "recorded"
    record = account.records()[-1]
    assert record["state"] == "failed"
    assert "aws cloudformation continue-update-rollback --stack-name Hosting" in record["why"]


def test_a_failure_that_is_heard_after_a_new_approval_rejects_nothing(account: Account) -> None:
    account.world.refuse_models = "broken"
    version = account.version("broken.tar.gz")
    token = account.release(version, f"release-{version}-20261130163005000")
    assert account.hear(account.status(token)) == "recorded"
    assert account.about(version)[0] == "Approved"  # it was, long after 2026-11-30 16:30:05


def diverge(account: Account, token: str = "", rings: bool = False) -> int:
    version = account.version()
    token = account.release(version, token)
    if rings:
        ring(account, "ALARM")
    account.roll_back_unseen()
    account.hear(account.status(token))
    return version


def test_an_endpoint_that_serves_another_configuration_is_told_and_cured(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    good = account.live()
    capsys.readouterr()
    version = diverge(account, rings=True)
    assert account.states()[-1] == (version, "diverged")
    assert account.records()[-1]["alarm"].startswith("Hosting-Rollback-")
    assert account.about(version) == ("Rejected", "Diverged")
    assert account.told[-1] == f"kennel-dev: DIVERGED, after version {version} the endpoint serves something else"
    logged = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["endpoint"] for one in logged if one.get("state") == "diverged"] == ["kennel-dev"]
    about = account.sagemaker.describe_model_package(ModelPackageName=f"{GROUP}/{good}")
    assert about["ModelApprovalStatus"] == "Approved"
    assert about["ApprovalDescription"] == f"Released again in place of version {version}, which diverged."


def test_the_cure_is_an_approval_that_is_heard_as_one(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    set_approval = aws.Stage.set_approval

    def remember(stage: aws.Stage, version: int, status: str, why: str) -> None:
        seen.append((version, status))
        set_approval(stage, version, status, why)

    monkeypatch.setattr(aws.Stage, "set_approval", remember)
    good = account.live()
    bad = diverge(account)
    assert seen == [(bad, "Rejected"), (good, "PendingManualApproval"), (good, "Approved")]


def test_the_cure_is_no_version_that_was_rejected_since(account: Account) -> None:
    first, second = account.live(), account.live()
    account.sagemaker.update_model_package(ModelPackageArn=f"{GROUP}/{second}", ModelApprovalStatus="Rejected")
    rejected = account.changed(second, "ModelApprovalStatus")
    rejected["detail"]["LastModifiedTime"] = rejected["time"]
    account.hear(rejected)
    diverge(account)
    about = account.sagemaker.describe_model_package(ModelPackageName=f"{GROUP}/{first}")
    assert about["ApprovalDescription"].startswith("Released again")
    assert account.about(second)[0] == "Rejected"


def test_without_a_version_to_go_back_to_the_message_says_so(account: Account) -> None:
    diverge(account)
    (message,) = [
        text for _, text, *_ in sns_backends["123456789012"]["us-east-1"].topics[account.topic].sent_notifications
    ]
    assert "No version is released again by itself" in message


@pytest.mark.parametrize(("status", "is_cured"), [("", True), ("UPDATE_ROLLBACK_FAILED", False)])
def test_a_rollback_that_leaves_the_endpoint_elsewhere_diverged_too(
    account: Account, status: str, is_cured: bool
) -> None:
    good = account.live()
    account.world.refuse_models = "broken"
    version = account.version("broken.tar.gz")
    token = account.release(version)
    account.world.refuse_models = None
    account.roll_back_unseen()
    if status:
        cloudformation_backends["123456789012"]["us-east-1"].get_stack("Hosting").status = status
    account.hear(account.status(token))
    assert account.states()[-1][1] == "diverged"
    assert ("continue-update-rollback" in account.records()[-1]["why"]) is not is_cured
    about = account.sagemaker.describe_model_package(ModelPackageName=f"{GROUP}/{good}")
    cure = f"Released again in place of version {version}, which diverged." if is_cured else None
    assert about.get("ApprovalDescription") == cure  # a stack whose rollback has failed takes no release


def test_a_deployment_that_works_is_no_release(account: Account) -> None:
    version = account.version()
    account.release(version, "cdk-deploy")
    for status in ("UPDATE_IN_PROGRESS", "UPDATE_COMPLETE"):
        assert account.hear(account.status("cdk-deploy", status)) == "ignored"
    assert (account.states(), account.told) == ([(version, "approved")], [])


def test_a_deployment_that_fails_is_told_and_blames_no_version(account: Account) -> None:
    account.world.refuse_models = "broken"
    version = account.version("broken.tar.gz")
    account.release(version, "cdk-deploy")
    assert account.hear(account.status("cdk-deploy")) == "told"
    assert account.told == ["kennel-dev: a deployment of Hosting failed"]
    assert (account.states(), account.about(version)[0]) == ([(version, "approved")], "Approved")


def test_a_deployment_after_which_the_endpoint_differs_is_told_as_the_gravest(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    diverge(account, "cdk-deploy")
    assert account.told == ["kennel-dev: a deployment of Hosting diverged"]
    assert '"state": "diverged"' in capsys.readouterr().out


def test_an_end_that_is_heard_after_the_next_update_began_accuses_nobody(account: Account) -> None:
    first = account.version()
    token = account.release(first)
    event = account.status(token)
    account.release(account.version())
    account.roll_back_unseen()
    assert account.hear(event) == "recorded"
    record = account.records()[-1]
    assert (record["version"], record["state"]) == (first, "live")
    assert record["why"].startswith("Another update began")
