"""The questions to a first account, put to the embedded AWS."""

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import first_account
from benchmarks.first_account import QUESTIONS, Account, ask, main, price, release_a_failing_model, start_time
from kennel.rehearsal.cloud.deployment import deploy
from kennel.rehearsal.cloud.quotas import Quotas
from tests.rehearsal.cloud.test_release_records import Recorded
from tests.rehearsal.cloud.world import World, eventually


@pytest.fixture(scope="module")
def stage(assembly: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    endpoint = ("ml.m5.xlarge for endpoint usage", "Number of instances across active endpoints")
    raised = {"Concurrent executions": 1000, **dict.fromkeys(endpoint, 8)}  # what Prod needs
    made = World(tmp_path_factory.mktemp("cloud"), quotas=Quotas(new_account=True, raised=raised))
    with made.cloud:
        yield Recorded(made, deploy(made.cloud, assembly, "Prod"))


@pytest.fixture
def world(stage: Recorded) -> World:
    return stage.world


@pytest.fixture
def account(world: World, monkeypatch: pytest.MonkeyPatch) -> Account:
    for name, value in world.cloud.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it holds the credentials of an earlier test
    return Account("Prod", world.cloud.client)


def test_before_the_first_model_what_cannot_be_seen_is_open_and_the_rest_is_answered(account: Account) -> None:
    found = ask(account)
    assert set(found) == set(QUESTIONS)
    assert found["Every stack is complete"].verdict == "good"
    assert found["Lambda's concurrent executions"].text.startswith("1,000, of which ")
    quotas = found["Quotas of the pipeline's instance type"]
    assert (quotas.verdict, quotas.text.split(", ")[1]) == ("bad", "spot training job 4")
    still = ("Jobs run with the stage's key", "The endpoint's configuration is the stack's", "The rollback alarms")
    assert {found[question].verdict for question in still} == {"open"}


@pytest.mark.usefixtures("account")
def test_where_no_alarm_would_take_it_back_no_failing_model_is_released() -> None:
    with pytest.raises(SystemExit, match="Prod has no rollback alarms"):
        main(["--stage", "Prod", "--failing-model"])


@pytest.fixture(scope="module")
def released(stage: Recorded) -> str:
    """The ARN of the package that the endpoint serves."""
    formats = {"SupportedContentTypes": ["image/*"], "SupportedResponseMIMETypes": ["application/json"]}
    bucket = stage.of("Data", "DataBucketName")
    container = {"Image": "local/x", "ModelDataUrl": f"s3://{bucket}/runs/kennel-prod/train/a.tar.gz"}
    evaluation = {"ContentType": "application/json", "S3Uri": f"s3://{bucket}/runs/kennel-prod/evaluation.json"}
    package = stage.sagemaker.create_model_package(
        ModelPackageGroupName="kennel-prod",
        InferenceSpecification={"Containers": [container], **formats},
        ModelMetrics={"ModelQuality": {"Statistics": evaluation}},
        ModelApprovalStatus="Approved",
    )["ModelPackageArn"]
    stage.become(1, "live")
    return str(package)


@pytest.mark.usefixtures("released")
def test_the_endpoint_is_compared_with_the_stack(account: Account, world: World) -> None:
    found = ask(account)
    assert found["The endpoint's configuration is the stack's"].verdict == "good"
    sagemaker, name = world.cloud.client("sagemaker"), account.endpoint["EndpointName"]
    other = {**account.variant, "VariantName": account.variant["VariantName"]}
    sagemaker.create_endpoint_config(EndpointConfigName="foreign", ProductionVariants=[other])
    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName="foreign")
    eventually(lambda: sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService")
    diverged = first_account.served(Account("Prod", world.cloud.client))
    assert (diverged.verdict, "the endpoint has foreign" in diverged.text) == ("bad", True)
    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=account.endpoint["EndpointConfigName"])
    eventually(lambda: sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService")


def test_the_endpoint_s_last_change_is_timed_by_the_stack_s_events() -> None:
    def event(status: str, minute: int, kind: str = "AWS::SageMaker::Endpoint") -> dict[str, Any]:
        return {"ResourceType": kind, "ResourceStatus": status, "Timestamp": datetime(2026, 12, 1, 9, minute)}

    events = [
        event("UPDATE_COMPLETE", 40, "AWS::CloudFormation::Stack"),
        event("UPDATE_COMPLETE", 39),
        event("UPDATE_IN_PROGRESS", 12),
        event("CREATE_COMPLETE", 2),
    ]
    cloudformation = SimpleNamespace(
        get_paginator=lambda _operation: SimpleNamespace(paginate=lambda **_: Pages(events))
    )
    assert start_time(Account("Prod", lambda _service: cloudformation)).text == "UPDATE_COMPLETE after 27.0 min"


class Pages:
    def __init__(self, events: list[dict[str, Any]]) -> None:
        self.events = events

    def search(self, _expression: str) -> list[dict[str, Any]]:
        return self.events


def test_the_failing_release_is_priced_and_what_became_of_it_is_said(
    account: Account, stage: Recorded, released: str
) -> None:
    assert price(account).startswith("A second fleet of 2 x ml.m5.xlarge for up to 30 minutes: $0.")
    cloudwatch = stage.world.cloud.client("cloudwatch")

    def ring() -> None:
        """Let the alarm on errors ring while the endpoint is updated: no photo is sent in these tests."""
        if stage.sagemaker.describe_endpoint(EndpointName="kennel-prod")["EndpointStatus"] == "Updating":
            found = cloudwatch.describe_alarms(AlarmNamePrefix="Kennel-Prod-Hosting-RollbackErrors")["MetricAlarms"]
            cloudwatch.set_alarm_state(AlarmName=found[0]["AlarmName"], StateValue="ALARM", StateReason="it fails")

    stage.world.cloud.time.at_end.append(ring)
    found = release_a_failing_model(account, lambda _seconds: time.sleep(0.2))
    assert {question: answer.verdict for question, answer in found.items()} == {
        "The old fleet goes on": "good",
        "An alarm takes the failing model back": "good",
        "CloudFormation notices that SageMaker rolled back": "known",
        "CloudFormation's own rollback succeeds": "good",
    }
    assert "RollbackErrors" in found["An alarm takes the failing model back"].text
    assert "yes: " in found["CloudFormation notices that SageMaker rolled back"].text
    failed = stage.releases()[2]
    assert (failed.state, failed.approval) == ("rolled_back", "Rejected")
    of_both = [stage.sagemaker.describe_model_package(ModelPackageName=arn) for arn in (released, failed.arn)]
    assert of_both[0]["ModelMetrics"] == of_both[1]["ModelMetrics"]  # by which the probes are found


@pytest.mark.usefixtures("account", "released")
def test_nothing_is_released_without_a_yes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("builtins.input", lambda _question: "n")
    monkeypatch.setattr(first_account, "release_a_failing_model", lambda _account: pytest.fail("it was released"))
    with pytest.raises(SystemExit, match=r"Nothing was released\."):
        main(["--stage", "Prod", "--failing-model"])
    assert "A second fleet of" in capsys.readouterr().out
    assert main(["--stage", "Prod", "--json", str(tmp_path / "found.json")]) == 1  # the quotas of a new account
    assert set(json.loads((tmp_path / "found.json").read_text())) == set(QUESTIONS)
