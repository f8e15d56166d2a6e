"""The questions to a first account, put to the embedded AWS."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import first_account
from benchmarks.first_account import QUESTIONS, Account, ask, main, price, release_a_failing_model, start_time
from kennel.aws import stack_name
from kennel.rehearsal.cloud.deployment import deploy
from kennel.rehearsal.cloud.quotas import Quotas
from tests.rehearsal.cloud.world import World, eventually


@pytest.fixture(scope="module")
def world(assembly: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    quotas = Quotas(new_account=True, raised={"ml.m5.large for endpoint usage": 4})
    made = World(tmp_path_factory.mktemp("cloud"), quotas=quotas)
    with made.cloud:
        deploy(made.cloud, assembly, "Dev")
        yield made


@pytest.fixture
def account(world: World, monkeypatch: pytest.MonkeyPatch) -> Account:
    for name, value in world.cloud.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it holds the credentials of an earlier test
    return Account("Dev", world.cloud.client)


def test_before_the_first_model_what_cannot_be_seen_is_open_and_the_rest_is_answered(account: Account) -> None:
    found = ask(account)
    assert set(found) == set(QUESTIONS)
    assert found["Every stack is complete"].verdict == "good"
    assert found["Lambda's concurrent executions"].text == "10, of which 10 unreserved"
    quotas = found["Quotas of the pipeline's instance type"]
    assert (quotas.verdict, quotas.text.split(", ")[1]) == ("bad", "spot training job 4")
    still = ("Jobs run with the stage's key", "The endpoint's configuration is the stack's", "The rollback alarms")
    assert {found[question].verdict for question in still} == {"open"}


@pytest.fixture(scope="module")
def released(world: World) -> str:
    """The ARN of the package that the endpoint serves."""
    formats = {"SupportedContentTypes": ["image/*"], "SupportedResponseMIMETypes": ["application/json"]}
    data = {one["OutputKey"]: one["OutputValue"] for one in world.stack(stack_name("Dev", "Data"))["Outputs"]}
    container = {"Image": "local/x", "ModelDataUrl": f"s3://{data['DataBucketName']}/runs/kennel-dev/train/a.tar.gz"}
    package = world.cloud.client("sagemaker").create_model_package(
        ModelPackageGroupName="kennel-dev",
        InferenceSpecification={"Containers": [container], **formats},
        ModelApprovalStatus="Approved",
    )["ModelPackageArn"]
    stack = stack_name("Dev", "Hosting")
    eventually(lambda: world.stack(stack)["StackStatus"].endswith("_COMPLETE"))
    world.update(stack, ModelPackageArn=package)
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
    diverged = first_account.served(Account("Dev", world.cloud.client))
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
    assert start_time(Account("Dev", lambda _service: cloudformation)).text == "UPDATE_COMPLETE after 27.0 min"


class Pages:
    def __init__(self, events: list[dict[str, Any]]) -> None:
        self.events = events

    def search(self, _expression: str) -> list[dict[str, Any]]:
        return self.events


def test_the_failing_release_is_priced_and_what_became_of_it_is_said(
    account: Account, world: World, released: str
) -> None:
    assert price(account).startswith("A second fleet of 1 x ml.m5.large for up to 30 minutes: $0.")
    world.refuse_models = "empty/model.tar.gz"
    seen: list[str] = []

    def promote(_seconds: float) -> None:
        """Do what the promote function does, which the data plane of these tests only records."""
        if not seen:
            listed = world.cloud.client("sagemaker").list_model_packages(ModelPackageGroupName="kennel-dev")
            seen.append(listed["ModelPackageSummaryList"][0]["ModelPackageArn"])
            world.update(stack_name("Dev", "Hosting"), ModelPackageArn=seen[0])

    found = release_a_failing_model(account, promote)
    assert {question: answer.verdict for question, answer in found.items()} == {
        "The old fleet goes on": "good",
        "CloudFormation notices that SageMaker rolled back": "good",
        "CloudFormation's own rollback succeeds": "good",
    }
    assert seen[0] != released
    about = world.cloud.client("sagemaker").describe_model_package(ModelPackageName=seen[0])
    assert about["ModelApprovalStatus"] == "Rejected"


@pytest.mark.usefixtures("account", "released")
def test_nothing_is_released_without_a_yes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("builtins.input", lambda _question: "n")
    monkeypatch.setattr(first_account, "release_a_failing_model", lambda _account: pytest.fail("it was released"))
    with pytest.raises(SystemExit, match=r"Nothing was released\."):
        main(["--failing-model"])
    assert "A second fleet of" in capsys.readouterr().out
    assert main(["--json", str(tmp_path / "found.json")]) == 1  # the quotas of a new account
    assert set(json.loads((tmp_path / "found.json").read_text())) == set(QUESTIONS)
